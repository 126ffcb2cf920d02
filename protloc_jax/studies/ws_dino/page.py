"""The WS-DINO study's page: weak labels, normalisations and channel models beside the published numbers.

Everything is drawn from the runner's plain dict; nothing is scored here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from protloc_jax.channels import ChannelSet
from protloc_jax.model.encoder import Encoder
from protloc_jax.report.html import Report
from protloc_jax.studies.attention_panel import panel
from protloc_jax.studies.feature_map import settings_text
from protloc_jax.studies.number_texts import interval_text
from protloc_jax.studies.ws_dino import figures, sections
from protloc_jax.studies.ws_dino.table import TRAININGS, called, table_rows


class Map(NamedTuple):
    """A map of fields: points [N, 2] of each title, and a value of every field by column ("" = a control)."""

    points: Mapping[str, np.ndarray]
    values: Mapping[str, Mapping[str, Sequence[str]]]
    epochs: int


class Panels(NamedTuple):
    """Fields [B, H, W, C] with their channels and a name each, and the encoders that look at each channel, by arm."""

    arms: Mapping[str, Mapping[str, Encoder]]
    images: np.ndarray
    channels: ChannelSet
    names: Sequence[str]


def build(
    results: Mapping[str, Any],
    *,
    maps: Mapping[str, Map] | None = None,
    attention: Mapping[str, Panels] | None = None,
    config: str = "",
) -> Report:
    """The page of a WS-DINO study.

    results    the runner's dict; parts that did not run may be empty
    maps       by screen; attention by screen
    config     resolved configuration, folded away at the end; "" takes results["config"]
    """
    synthetic = results.get("synthetic") or None
    note = "synthetic images" if synthetic else ""
    screens = " and ".join(screen["title"] for screen in results["screens"].values())
    arms = len(results["config"]["arms"])
    page = Report(
        results["study"],
        f"{arms} arms on {screens}: which weak label teaches a backbone to tell mechanisms of action apart?",
        synthetic=f"All images were simulated ({synthetic})." if synthetic else None,
    )
    sections.lead(page, results, note)
    sections.controls(page, results)
    sections.differences(page, results, note)
    sections.curves(page, results, note)
    sections.corrections(page, results)
    sections.channels(page, results)
    sections.retrieval(page, results)
    sections.labels(page, results)
    sections.mechanisms(page, results, note)
    _maps(page, results, maps or {}, note)
    _attention(page, results, attention or {}, note)
    sections.published_numbers(page, results)
    _limits(page, results)
    _settings(page, results)
    page.details("Resolved configuration", config or json.dumps(results["config"], indent=1))
    return page


def _maps(page: Report, results: Mapping[str, Any], maps: Mapping[str, Map], note: str) -> None:
    if not maps:
        return
    page.section("Maps of the features", "Distances between far groups mean nothing, nor do the groups' sizes.")
    for name, made in maps.items():
        smallest = min(len(points) for points in made.points.values())
        for column in next(iter(made.values.values())):
            drawn = {title: (points, made.values[title][column]) for title, points in made.points.items()}
            page.figure(
                figures.map_figure(drawn, what=column, note=note),
                caption=f"{results['screens'][name]['title']}: fields by {column}, corrected and at unit length. "
                f"{settings_text(smallest, epochs=made.epochs)}.",
            )


def _attention(page: Report, results: Mapping[str, Any], attention: Mapping[str, Panels], note: str) -> None:
    titled = False
    for name, panels in attention.items():
        for channel, arms in panels.arms.items():
            able = {title: encoder for title, encoder in arms.items() if encoder.config.class_token}
            if not able:
                continue
            if not titled:
                page.section("Where the class tokens look")
                titled = True
            page.figure(
                panel(able, panels.images, panels.names, channels=panels.channels, channel=channel, note=note),
                caption=f"{results['screens'][name]['title']}: {channel}, and over it the attention of the class token "
                "of the model that reads it, last block, mean over heads, each map scaled to its own range.",
            )


def _limits(page: Report, results: Mapping[str, Any]) -> None:
    page.section("What this is not")
    page.paragraph(
        "A replication by the paper's own text: only its abstract could be read, and what is known of the method comes "
        "from released code and logs."
    )
    for text in results["notes"]:
        page.paragraph(text)
    if results.get("synthetic"):
        page.paragraph(
            "A statement about real images. All images here were simulated, with compounds and mechanisms that are "
            "invented; only the machinery, and how it behaves under known truth, is shown."
        )


def _settings(page: Report, results: Mapping[str, Any]) -> None:
    page.section("Every score with its settings")
    rows = [_printed(row) for row in results["rows"]]
    page.table(rows, caption="ws_dino.csv has the same rows.", fold=f"All {len(rows)} rows")
    folds = [
        {"screen": screen["title"], **fold, "held_out": ", ".join(fold["held_out"])}
        for screen in results["screens"].values()
        for fold in screen["folds"]
    ]
    if folds:
        page.table(folds, caption="The folds: images that train, and compounds held out.", fold="The folds")
    if results["steps"]:
        page.table(
            results["steps"], columns=["name", "command", "seconds"], decimals=1, caption="The steps of the run.",
            fold=f"All {len(results['steps'])} steps as commands",
        )  # fmt: skip


def _printed(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "screen": row["screen"],
        "arm": called(row),
        "channels": row["model_title"],
        "training": TRAININGS[row["training"]],
        "correction": row["correction"],
        "channel": row["channel"] or "all",
        "metric": row["metric"],
        "correct": ", ".join(map(str, row["correct"])),
        "of": row["of"],
        "accuracy": interval_text(row),
        "sd, seeds": row["sd_seeds"],
        "chance": row["chance"],
        "epoch": None if row["epoch"] is None else f"{row['epoch']:.3g}",
    }


__all__ = ["Map", "Panels", "build", "table_rows"]
