"""The de novo study's page: knowledge against none, with its controls, beside the published numbers.

Everything is drawn from the runner's plain dict; nothing is scored here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from protloc_jax.report import curve_plots
from protloc_jax.report.html import Report
from protloc_jax.studies.de_novo import table
from protloc_jax.studies.de_novo.results import HOWS
from protloc_jax.studies.number_texts import triple

ALPHA = 0.05


def build(results: Mapping[str, Any], *, config: str = "") -> Report:
    """The page of a de novo study; `config`: resolved configuration, folded away at the end."""
    synthetic = results.get("synthetic") or None
    note = "synthetic images" if synthetic else ""
    lines = " and ".join(dict.fromkeys(task["line"] for task in results["tasks"].values() if task["line"]))
    page = Report(
        results["study"],
        f"Does prior knowledge help to recognise perturbations in {lines or 'a new cell line'}, of which pretraining "
        "saw nothing, from a few images of each?",
        synthetic=f"All images were simulated ({synthetic})." if synthetic else None,
    )
    _lead(page, results, note)
    _controls(page, results)
    _differences(page, results, note)
    _relations(page, results)
    _graphs(page, results)
    _published(page, results)
    _limits(page, results)
    _settings(page, results)
    page.details("Resolved configuration", config or json.dumps(results["config"], indent=1))
    return page


def _lead(page: Report, results: Mapping[str, Any], note: str) -> None:
    for name, task in results["tasks"].items():
        images = "; ".join(f"{d['draw']}: {d['train']:,} / {d['val']:,} / {d['test']:,}" for d in task["draws"])
        page.section(
            f"{task['title']}: top-1 and top-5",
            f"Images that train, validate and test: {images}. Split: {task['split']}.",
            "Accuracy over the test images of all seeds and draws, with a 95 % bootstrap interval over wells. Last "
            "epoch.",
        )
        for how in table.hows_of(results, name):
            rows = table.find(results, task=name, how=how)
            if not rows:
                continue
            chance = ", ".join(f"top-{k} {rows[0][f'top{k}']['chance']:.4f}" for k in (1, 5))
            beside = any(row["top1"]["published"] is not None for row in rows)
            source = (
                f" Published: {results['published_source']}; another split, so not like for like." if beside else ""
            )
            page.table(
                table.lead_rows(results, name, how),
                caption=f"{rows[0]['how_title']}: {rows[0]['classes']:,} perturbations. Chance: {chance}.{source}",
            )
        tuned = [how for how in table.hows_of(results, name) if how not in HOWS]
        for hows, words in ((tuned, "fine-tuned"), (list(HOWS), "frozen")):
            png = _dots(results, name, hows, note)
            if png is not None:
                page.figure(png, caption=f"{task['title']}, {words}: top-1 of every method and variant.")


def _dots(results: Mapping[str, Any], task: str, hows: Sequence[str], note: str) -> bytes | None:
    rows = []
    for method, variant in dict.fromkeys((r["method"], r["variant"]) for r in results["rows"] if r["task"] == task):
        own = [r for r in table.find(results, task=task, method=method, variant=variant) if r["how"] in hows]
        if own:
            values = {r["how_title"]: triple(r["top1"]) for r in own}
            known = {r["how_title"]: r["top1"]["published"] for r in own if r["top1"]["published"] is not None}
            rows.append((f"{own[0]['method_title']}, {table.called(own[0])}", values, known))
    return curve_plots.paired_dots(rows, label="top-1", note=note, wrap=44) if rows else None


def _controls(page: Report, results: Mapping[str, Any]) -> None:
    rows = table.control_rows(results)
    if not rows:
        return
    failed = [row["control"] for row in rows if row["outcome"] == "FAILED"]
    page.section(
        "Controls",
        f"FAILED: {'; '.join(failed)}. What the study says of small effects is not to be trusted." if failed
        else "Where nothing can be known the scores are at chance, and what must help does.",
    )  # fmt: skip
    page.table(rows, caption="Controls, with what was expected of them before the run.")


def _differences(page: Report, results: Mapping[str, Any], note: str) -> None:
    families = {f: [d for d in results["differences"] if d["family"] == f] for f in table.FAMILIES}
    if not any(families.values()):
        return
    page.section(
        "Paired differences",
        "Both variants answered the same images; intervals and p-values are over wells, Holm-corrected within a table "
        "and k.",
    )
    for family, entries in families.items():
        if not entries:
            continue
        page.table(table.difference_rows(entries), caption=f"{table.FAMILIES[family]}.")
        first = [d for d in entries if d["k"] == 1]
        page.figure(_forest(first, note), caption=f"{table.FAMILIES[family]}, top-1.")


def _forest(entries: Sequence[Mapping[str, Any]], note: str) -> bytes:
    rows = [
        (
            f"{d['method_title']}, {d['how_title']}: {d['variant_title']} − {d['second_title']}",
            *triple(d),
            d["p_value_holm"] < ALPHA,
        )
        for d in entries
    ]
    return curve_plots.forest(rows, label="difference in top-1", note=note)


def _relations(page: Report, results: Mapping[str, Any]) -> None:
    tables = {name: table.within_rows(results, name) for name in results["tasks"]}
    if not any(tables.values()):
        return
    page.section(
        "Pathways and replicates",
        "Of the wrong answers, the share that names a perturbation of the right one's pathway. Of frozen features "
        "also: whether wells of one perturbation find each other on other plates (mean average precision), and which "
        "share of the known pairs is among the most and least similar tenth of all.",
    )
    for name, rows in tables.items():
        if rows:
            page.table(rows, caption=f"{results['tasks'][name]['title']}: what errors and neighbours have in common.")


def _graphs(page: Report, results: Mapping[str, Any]) -> None:
    rows = table.graph_rows(results)
    if rows:
        page.section("Graphs", "What the graph term was given.")
        page.table(rows, caption="Graphs of perturbations.")


def _published(page: Report, results: Mapping[str, Any]) -> None:
    page.section(
        "What is published",
        "Top-1 / top-5 in percent (Chen et al. 2025). The numbers are second-hand: they come from a note on the paper "
        "and not from its text, and no standard deviations are known. In the one-shot split that the authors released, "
        "most images that train share a well with an image that tests.",
    )
    page.table(results["published"], caption=results["published_source"] + ".", real=True)


def _limits(page: Report, results: Mapping[str, Any]) -> None:
    page.section("What this is not")
    for text in results["notes"]:
        page.paragraph(text)
    if results.get("synthetic"):
        page.paragraph(
            "A statement about real cells. All images here were simulated, with pathways and a network that are "
            "invented; only the machinery, and how it behaves under known truth, is shown."
        )


def _settings(page: Report, results: Mapping[str, Any]) -> None:
    page.section("Every score with its settings")
    rows = table.table_rows(results)
    page.table(rows, caption="de_novo.csv has the same rows.", fold=f"All {len(rows)} rows", decimals=4)
    notes = sorted({(r["task_title"], note) for r in results["rows"] for note in r["notes"]})
    if notes:
        page.table(
            [{"task": task, "note": note} for task, note in notes], caption="Images that were not asked about.",
            fold="Left out",
        )  # fmt: skip
    if results["steps"]:
        page.table(
            results["steps"], columns=["name", "command", "seconds"], decimals=1, caption="The steps of the run.",
            fold=f"All {len(results['steps'])} steps as commands",
        )  # fmt: skip
