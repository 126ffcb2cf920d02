"""The transfer study's page: frozen and fine-tuned backbones beside the published numbers, and all that went into them.

Everything is drawn from the runner's plain dict; nothing is evaluated here, apart from the maps and attention panels of
the tables and encoders that are handed over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from protloc_jax.eval.features import FeatureTable
from protloc_jax.report.html import Report
from protloc_jax.studies.feature_map import EPOCHS, hpa_umap, settings_text
from protloc_jax.studies.number_texts import DASH, interval_text, percent
from protloc_jax.studies.transfer import figures, sections
from protloc_jax.studies.transfer.figures import Attention
from protloc_jax.studies.transfer.published import PUBLISHED, published_rows
from protloc_jax.studies.transfer.sections import add_figure, capital
from protloc_jax.studies.transfer.table import EVALUATOR_WORDS, check, table_rows

__all__ = ["build", "hpa_umap", "table_rows"]


def build(
    results: Mapping[str, Any],
    *,
    maps: Mapping[str, FeatureTable] | None = None,
    attention: Sequence[Attention] = (),
    config: str = "",
    epochs: int = EPOCHS,
) -> Report:
    """The page of a transfer study.

    results    the runner's dict; parts that did not run may be missing or empty
    maps       feature tables to draw as UMAPs, by title
    attention  (name, encoder, raw images [B, H, W, C], a name an image), all of the same images
    config     resolved configuration, folded away at the end; "" takes results["config"]
    epochs     of the UMAPs; fewer than published only for tests
    Raises ValueError naming every part of `results` that refers to an unknown level or backbone.
    """
    check(results)
    synthetic = results.get("synthetic") or None
    note = "synthetic images" if synthetic else ""
    levels = " and ".join(level["label"] for level in results["levels"].values())
    page = Report(
        results["study"],
        f"{len(results['backbones'])} backbones on {levels}: frozen and fine-tuned, with published numbers beside.",
        synthetic=f"All images were simulated ({synthetic})." if synthetic else None,
    )
    sections.lead(page, results, note)
    sections.controls(page, results)
    sections.plans(page, results)
    sections.differences(page, results, note)
    sections.fractions(page, results, note)
    sections.neighbours(page, results, note)
    _classes(page, results, note)
    if maps:
        _maps(page, maps, epochs, note)
    if attention:
        _attention(page, attention, note)
    _limits(page, results)
    _settings(page, results)
    page.details("Resolved configuration", config or json.dumps(results.get("config", {}), indent=1))
    return page


def _classes(page: Report, results: Mapping[str, Any], note: str) -> None:
    titled = False
    for level, about in results["levels"].items():
        systems = figures.class_systems(results, level)
        if not systems:
            continue
        if not titled:
            page.section(
                "Class by class",
                "The frozen backbone with the highest macro-F1 of the first table and the same one fine-tuned. It "
                "is picked by its test score for display, so its lead over the others is flattered.",
            )
            titled = True
        names = about["classes"]
        page.figure(
            figures.class_figure(systems, names, note=note),
            caption=f"{capital(about['label'])}: F1 of every class; in brackets the number of test images.",
        )
        table = []
        for name in names:
            row: dict[str, Any] = {"class": name}
            for title, system in systems.items():
                one = system["per_class"].get(name)
                row[title] = interval_text({**one, "estimate": one["f1"]} if one else None)
                row |= {"images": one["support"], "proteins": one["units"]} if one else {}
            table.append(row)
        columns = ["class", *systems, *(c for c in ("images", "proteins") if any(c in row for row in table))]
        page.table(
            table,
            columns=columns,
            caption="F1 with 95 % intervals over proteins, and the test images and proteins.",
            fold=f"The classes of {about['label']} in numbers",
        )
        for title, system in systems.items():
            add_figure(
                page,
                figures.confusion_figure(system, names, note=note),
                f"{capital(about['label'])}, {title}: share of each true class, in percent from 5\u00a0% on.",
            )


def _maps(page: Report, maps: Mapping[str, FeatureTable], epochs: int, note: str) -> None:
    page.section("Maps of the features", "Distances between far groups mean nothing, nor do the groups' sizes.")
    smallest = min(len(table.x) for table in maps.values())
    page.figure(
        figures.map_figure(maps, epochs=epochs, note=note),
        caption=f"{settings_text(smallest, epochs=epochs)}. Colour only where an image has exactly one label.",
    )


def _attention(page: Report, attention: Sequence[Attention], note: str) -> None:
    page.section("Where the class tokens look")
    blind = [name for name, encoder, *_ in attention if not encoder.config.class_token]
    if blind:
        page.paragraph(f"Without a class token there is nothing to show: {', '.join(blind)}.")
    able = [one for one in attention if one[0] not in blind]
    if able:
        page.figure(
            figures.attention_figure(able, note=note),
            caption="The channels, then for each backbone the attention of the class token in the last block, mean "
            "over heads, over the protein channel (of several passes the one that reads it). Each map is scaled to "
            "its own range.",
        )


def _limits(page: Report, results: Mapping[str, Any]) -> None:
    seeds = sorted({len(about["seeds"]) for about in results["backbones"].values()})
    page.section("What this is not")
    page.paragraph(
        "A replication. Of both papers only the abstracts and summaries by others could be read: the OpenCell "
        "subset, the split, preprocessing, the wiring of the channel strategies, the head and fine-tuning "
        "settings, the fractions, k and the vote are ours. Published numbers are landmarks, not tolerances."
    )
    page.paragraph(
        "A statement about all cells. Intervals are over the proteins of these images; "
        f"{seeds[0] if len(seeds) == 1 else f'{seeds[0]} to {seeds[-1]}'} pretraining seed(s) a backbone are no "
        "sample of the world, and backbones of external weights have one each."
    )
    page.paragraph(
        "A fair race of methods. Backbones differ in data, length of training and channels at once; a transductive "
        "backbone has seen the test images, though not their labels."
    )
    if results.get("synthetic"):
        page.paragraph(
            "A statement about real images. All images here were simulated; only the machinery is shown to work."
        )
    for text in results.get("notes", ()):
        page.paragraph(f"Note: {text}")


def _settings(page: Report, results: Mapping[str, Any]) -> None:
    page.section("Every score with its settings")
    texts = list(dict.fromkeys(row.get("settings", "") for row in results["rows"]))
    number = {text: f"S{i}" for i, text in enumerate(filter(None, texts), start=1)}
    for level, about in results["levels"].items():
        rows = [_printed(line, number) for line in table_rows(results) if line["level"] == level]
        if rows:
            page.table(
                rows,
                caption=f"{capital(about['label'])}. Split: {about['split']}. transfer.csv has the same rows.",
                fold=f"All {len(rows)} rows of {about['label']}",
            )
    if number:
        page.table([{"": tag, "settings": text} for text, tag in number.items()], caption="The settings named above.")
    page.table(
        [
            {
                "backbone": about["title"],
                "name": name,
                "pretraining": about["pretraining"],
                "model": about["model"],
                "width": about["dim"],
                "channels": about["channels"],
                "seeds": ", ".join(map(str, about["seeds"])) or DASH,
            }
            for name, about in results["backbones"].items()
        ],
        caption="The backbones.",
    )
    page.table(
        published_rows(results.get("published", PUBLISHED)),
        caption="Published numbers, all of real images, and what could not be found. Second-hand: from a summary.",
        real=True,
    )
    if results.get("steps"):
        page.table(
            results["steps"], columns=["name", "command", "seconds"], decimals=1, caption="The steps of the run."
        )


def _printed(line: Mapping[str, Any], number: Mapping[str, str]) -> dict[str, Any]:
    """A line of the full table, intervals joined and settings by number."""
    bounds = {"estimate": line["macro-F1"], "low": line["low"], "high": line["high"]}
    unit = {"estimate": line["protein macro-F1"], "low": line["protein low"], "high": line["protein high"]}
    return {
        "backbone": line["title"],
        "plan": line["plan"],
        "passes": line["passes"],
        "width": line["width"],
        "mode": line["mode"],
        "data": percent(line["fraction"]),
        "evaluator": EVALUATOR_WORDS.get(line["evaluator"], line["evaluator"]),
        "macro-F1": interval_text(bounds),
        "by protein": interval_text(unit),
        "accuracy": line["accuracy"],
        "mAP": line["mean average precision"],
        "sd, pretraining seeds": line["sd over pretraining seeds"],
        "sd, head seeds": line["sd over head seeds"],
        "seeds": line["seeds"],
        "published": line["published"],
        "chosen": line["chosen"] or DASH,
        "settings": number.get(line["settings"], DASH),
    }
