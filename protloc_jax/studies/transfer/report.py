"""Table, maps and page of the transfer study, written to its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from protloc_jax.channels import ChannelSet
from protloc_jax.config import to_json
from protloc_jax.data import read as read_records
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.features import read as read_features
from protloc_jax.eval.load import load, untrained
from protloc_jax.eval.planned import planned
from protloc_jax.model.encoder import Encoder
from protloc_jax.studies.csv_table import csv_text
from protloc_jax.studies.transfer.cells import Cell, Features
from protloc_jax.studies.transfer.config import TransferStudy
from protloc_jax.studies.transfer.page import build, table_rows
from protloc_jax.studies.transfer.run import Outcome

PAGE, TABLE = "report.html", "transfer.csv"
Shown = tuple[str, Encoder, np.ndarray, list[str]]


def write_report(study: TransferStudy, found: Outcome) -> tuple[Path, ...]:
    """Write OUT/transfer.csv and OUT/report.html; returns their paths."""
    out = Path(study.out)
    table = out / TABLE
    table.write_text(csv_text(table_rows(found.results)))
    page = build(
        found.results,
        maps=_maps(study, found) if study.umap else None,
        attention=_attention(study, found) if study.attention else (),
        config=to_json(study),
        epochs=study.umap_epochs,
    )
    return table, page.write(out / PAGE)


def _maps(study: TransferStudy, found: Outcome) -> dict[str, FeatureTable]:
    """At each level the frozen features of every backbone by its plan with the best validation score, and fine-tuned.

    First seeds; at most `study.umap` images, the same ones of a level everywhere.
    """
    maps: dict[str, FeatureTable] = {}
    for level in study.levels:
        for name in study.backbones:
            for cell, words in _best(study, found, level, name):
                table = read_features(found.features[cell].tables[0].path)
                n = len(table.obs)
                rows = np.sort(np.random.default_rng(0).permutation(n)[: study.umap])
                title = f"{level}: {study.backbones[name].title or name}, {cell.plan}{words}"
                maps[title] = FeatureTable(table.x[rows], table.obs.iloc[rows].reset_index(drop=True), table.uns)
    return maps


def _best(study: TransferStudy, found: Outcome, level: str, backbone: str) -> list[tuple[Cell, str]]:
    """The frozen cell with the best validation macro-F1, and the fine-tuned one, at the largest fraction."""
    rows = [
        row
        for row in found.results["rows"]
        if row["level"] == level and row["backbone"] == backbone and row["fraction"] == max(study.fractions)
    ]
    chosen = []
    for mode, words in (("frozen", ", frozen"), ("finetuned", ", fine-tuned")):
        mine = [row for row in rows if row["mode"] == mode]
        if mine:
            best: Mapping[str, Any] = max(mine, key=lambda row: row["validation_macro_f1"])
            fraction = None if mode == "frozen" else best["fraction"]
            chosen.append((Cell(level, backbone, best["plan"], fraction), words))
    return chosen


def _attention(study: TransferStudy, found: Outcome) -> list[Shown]:
    """Encoders of every backbone, by its best plan, with the same test images of the first level, a class each."""
    level = next(iter(study.levels))
    with read_records.open(found.inputs.records[study.levels[level].images].path) as records:
        channels, table = records.info.channel_set, records.manifest.table
        names: dict[str, int] = {}
        for row in np.random.default_rng(0).permutation(records.n).tolist():
            own = list(table["labels"].iloc[row])
            if len(own) == 1 and own[0] not in names and len(names) < study.attention:
                names[own[0]] = row
        if not names:
            return []
        images = np.stack([np.asarray(records[row]) for row in names.values()])
    shown: list[Shown] = []
    for name in study.backbones:
        for cell, words in _best(study, found, level, name):
            encoder = _encoder(study, found, cell, channels)
            if encoder.config.class_token:
                title = f"{study.backbones[name].title or name}{words}"
                shown.append((title, encoder, images, list(names)))
    return shown


def _encoder(study: TransferStudy, found: Outcome, cell: Cell, channels: ChannelSet) -> Encoder:
    own: Features = found.features[cell]
    if own.runs:
        return load(own.runs[0].path).for_channels(channels)
    backbone = study.backbones[cell.backbone]
    of = backbone.untrained_of or cell.backbone
    path = found.inputs.weights[of, study.seeds[0]].path
    size = "native" if study.size == "native" else int(study.size)
    encoder = untrained(path, size=size) if backbone.untrained_of else load(path, size=size)
    return planned(encoder, channels, cell.plan)
