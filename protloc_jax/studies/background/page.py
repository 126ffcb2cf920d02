"""The background study's page, drawn from the runner's plain dict; nothing is scored here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from protloc_jax.report import curve_plots, plots
from protloc_jax.report.heat_maps import heat_map
from protloc_jax.report.html import Report
from protloc_jax.studies.background import table
from protloc_jax.studies.background.panel import Panel
from protloc_jax.studies.number_texts import bounds_text, triple

ALPHA = 0.05
PROTOCOLS = {
    "transfer": "fitted on untouched crops, applied to each condition",
    "retrained": "fitted anew within each condition",
}


def build(
    results: Mapping[str, Any], *, panels: Mapping[str, Sequence[Panel]] | None = None, config: str = ""
) -> Report:
    """The page of a background study.

    results   the runner's dict; parts that did not run may be empty
    panels    by data section, pictures of cells under every condition
    config    resolved configuration, folded away at the end; "" takes results["config"]
    """
    synthetic = results.get("synthetic") or None
    note = "synthetic images" if synthetic else ""
    titles = " and ".join(own["title"] for own in results["data"].values())
    page = Report(
        results["study"],
        f"{titles}: what is left of single-cell features when the neighbours are swapped, and what helps?",
        synthetic=f"All images were simulated ({synthetic})." if synthetic else None,
    )
    for data in results["data"]:
        _mitigation(page, results, data, note)
    for data in results["data"]:
        _accuracies(page, results, data)
    _pairwise(page, results)
    _parts(page, results, note)
    _classes(page, results, note)
    _free(page, results)
    _crops(page, panels or {}, note)
    _controls(page, results)
    _settings(page, results)
    page.details("Resolved configuration", config or json.dumps(results["config"], indent=1))
    return page


def _called(results: Mapping[str, Any], data: str) -> str:
    return results["data"][data]["title"]


def _headline(results: Mapping[str, Any]) -> str:
    return results["config"]["protocol"]


def _mitigation(page: Report, results: Mapping[str, Any], data: str, note: str) -> None:
    own, protocol = results["data"][data], _headline(results)
    page.section(
        f"{own['title']}: what removes the drop",
        f"Drop: balanced accuracy over {len(own['classes'])} classes with neighbours of the same class minus that with "
        f"neighbours of another class. Linear probe, {PROTOCOLS[protocol]}. Difference, share removed and costs are "
        "against the plain encoder; costs are differences of accuracy. Brackets: 95 % bootstrap intervals over "
        f"{own['evaluated_proteins']} evaluated proteins, means over seeds; p-values are Holm-corrected over the rows.",
    )
    for quantity in ("drop", "native_drop"):
        rows = table.mitigation_rows(results, data, protocol, quantity)
        if not rows:
            continue
        strong = [i for i, row in enumerate(rows) if row["features"].endswith("(plain)")]
        what = "pasted backgrounds" if quantity == "drop" else "neighbours rendered natively, nothing pasted"
        page.table(rows, caption=f"{own['title']}, {what}: {table.TERMS[quantity]}.", strong=strong)
        entries = [c for c in results["comparisons"] if (c["data"], c["protocol"], c["quantity"]) ==
                   (data, protocol, quantity)]  # fmt: skip
        lines = [(c["title"], *triple(c), c["p_value_holm"] < ALPHA) for c in entries]
        if lines:
            page.figure(
                curve_plots.forest(lines, label="drop minus the plain encoder's drop", note=note),
                caption=f"{own['title']}, {what}: left of zero, less is lost. Filled: p (Holm) < {ALPHA}.",
            )


def _accuracies(page: Report, results: Mapping[str, Any], data: str) -> None:
    title = _called(results, data)
    page.section(
        f"{title}: every condition",
        "Untouched: crops as they are. Same, different: the cell on the crop of another protein of its class, of "
        "another class. Masked: everything outside of the cell is 0. Background alone: the cell is replaced by free "
        "pixels. Others removed: neighbours are replaced, the cell's own surroundings stay.",
    )
    for protocol, words in PROTOCOLS.items():
        rows = table.accuracy_rows(results, data, protocol)
        if rows and len(rows[0]) > 1:
            page.table(rows, caption=f"{title}, {protocol} ({words}): balanced accuracy, mean over seeds.")
        drops = table.drop_rows(results, data, protocol)
        if drops:
            page.table(drops, caption=f"{title}, {protocol}: drops with 95 % intervals over proteins.")
    rows = table.bin_rows(results, data)
    if rows:
        page.table(
            rows,
            caption=f"{title}: balanced accuracy of the condition `different`, transferred, by the share of pixels "
            "that other cells have.",
        )
    lost = {f"{row['title']}: {what}": why for row in table.of_data(results, data)
            for what, why in row["not_scored"].items()}  # fmt: skip
    if lost:
        page.details(f"{title}: not scored, with the reason", "\n".join(f"{k}: {v}" for k, v in lost.items()))


def _pairwise(page: Report, results: Mapping[str, Any]) -> None:
    page.section(
        "Beside the published numbers",
        "Support vector machines of every pair of classes, retrained within each condition, chance 0.5; ± three "
        "standard errors over classes. The rule is that of the paper's text (every class over all its pairs, all third "
        "backgrounds). Published rows are of other encoders on real yeast: a reader may compare gaps, not levels.",
    )
    for data in results["data"]:
        rows = table.pairwise_rows(results, data)
        page.table(rows, caption=f"{_called(results, data)}, pairwise accuracy; published rows are real images.")
    printed = [
        {"model": e["model"], "condition": table.TITLES[e["condition"]], "mean": e["mean"], "± 3 SE": e["spread"]}
        for e in results["published"] if e["rule"] == "paper_table1"
    ]  # fmt: skip
    page.table(
        printed, real=True, fold="The paper's table 1 as printed",
        caption="Table 1 averages otherwise than the text says (14 first classes, one background a pair).",
    )  # fmt: skip


def _parts(page: Report, results: Mapping[str, Any], note: str) -> None:
    protocol = "retrained"
    page.section(
        "Where the drop comes from",
        "Artefact: pasting itself. Cue lost: what neighbours of the same class contribute. Interference: what "
        "neighbours of another class destroy beyond that. The three add up to untouched − different. Retrained, as the "
        "paper does.",
    )
    for data in results["data"]:
        page.table(table.part_rows(results, data, protocol), caption=f"{_called(results, data)}: differences.")
        rows = []
        for row in table.of_data(results, data):
            values = {table.TERMS[t]: triple(row["drops"][protocol][t]) for t in table.PARTS
                      if t in row["drops"].get(protocol, {})}  # fmt: skip
            if values:
                rows.append((row["title"], values, {}))
        if rows:
            page.figure(
                curve_plots.paired_dots(rows, label="difference in balanced accuracy", note=note),
                caption=f"{_called(results, data)}: the parts of the drop with 95 % intervals over proteins.",
            )


def _classes(page: Report, results: Mapping[str, Any], note: str) -> None:
    protocol = _headline(results)
    shown = False
    for own in results["classes"]:
        title = _called(results, own["data"])
        grid = own["backgrounds"].get(protocol)
        if not grid:
            continue
        if not shown:
            page.section("Class by class, plain encoder")
            shown = True
        page.figure(
            heat_map(_matrix(grid), own["classes"], row_label="class of the cell",
                     column_label="class of the background", label="share right", note=note),
            caption=f"{title}: `different`, {protocol}: right answers by class of the cell and of the background.",
        )  # fmt: skip
        if own["pairs"].get("different"):
            page.figure(
                heat_map(_matrix(own["pairs"]["different"]), own["classes"], row_label="first class",
                         column_label="second class", label="pairwise accuracy", note=note),
                caption=f"{title}: pairwise accuracy of `different`, mean over third backgrounds.",
            )  # fmt: skip
        rows = [
            {"class": name, **{table.TITLES.get(c, c): values[i] for c, values in own["recall"].items()}}
            for i, name in enumerate(own["classes"])
        ]
        page.table(rows, caption=f"{title}: recall of each class, {protocol}.", fold=f"{title}: every class")


def _free(page: Report, results: Mapping[str, Any]) -> None:
    made = {data: rows for data in results["data"] if (rows := table.free_rows(results, data))}
    if not made:
        return
    page.section(
        "Without labels",
        "The same cells on the same backgrounds, every combination. Cosines of standardised features; variance: shares "
        "of the sum of squares; found again: the nearest among all cells on another background is the same cell; "
        "answers changed: the transferred classifier says something else than on the cell's own background.",
    )
    for data, rows in made.items():
        page.table(rows, caption=f"{_called(results, data)}: mean over seeds.")


def _crops(page: Report, panels: Mapping[str, Sequence[Panel]], note: str) -> None:
    if any(panels.values()):
        page.section("What the encoders were shown", "Yellow: the outline of the cell that was classified.")
    for own in panels.values():
        for panel in own:
            page.figure(
                plots.image_grid(panel.images, row_names=panel.rows, column_names=panel.columns, note=note),
                caption=panel.caption,
            )


def _controls(page: Report, results: Mapping[str, Any]) -> None:
    if not results["controls"] and not results["seams"]:
        return
    page.section("Controls")
    if results["controls"]:
        rows = [
            {"data": c["data"], "control": c["control"], "found": c["value"], "95 %": bounds_text(c),
             "expected": c["expected"], "as expected": c["passed"]}
            for c in results["controls"]
        ]  # fmt: skip
        page.table(
            rows, caption="Can the harness see backgrounds, and is it quiet where there is nothing? Plain encoder."
        )
    pulled = [
        {"features": row["title"], "data": row["data_title"], "protocol": p, "wrong answers": own["wrong"],
         "name the background's class": own["share"], "by chance": own["chance"]}
        for row in results["rows"] for p, own in row["pulled"].items() if own
    ]  # fmt: skip
    if pulled:
        page.table(pulled, caption="Which wrong answers are given on `different` backgrounds.", fold="Wrong answers")
    if results["seams"]:
        rows = [
            {"data": s["data"], "crops": s["crops"], "balanced accuracy": s["balanced_accuracy"],
             "rows": " + ".join(map(str, s["rows"]))}
            for s in results["seams"]
        ]  # fmt: skip
        page.table(
            rows,
            caption="A detector of seams: logistic regression on gradients and steps along the cell's edge, tested on "
            "other proteins; 0.5 is chance. Above it, pasting left a trace, and a classifier of natural crops meets "
            "something new.",
        )


def _settings(page: Report, results: Mapping[str, Any]) -> None:
    page.section("How to read and repeat this")
    for text in results["notes"]:
        page.paragraph(text)
    if results.get("synthetic"):
        page.paragraph("All images were simulated: nothing here says how much real encoders are confounded.")
    facts = [
        {"data": own["title"], "crops": own["crops"],
         "training": f"{own['train_crops']} crops of {own['train_proteins']} proteins",
         "evaluated": f"{own['evaluated_crops']} crops of {own['evaluated_proteins']} proteins",
         "classes": len(own["classes"]), "donor groups": own["groups"], "made images": own["images"]}
        for own in results["data"].values()
    ]  # fmt: skip
    page.table(facts, caption="Crops, proteins and made images. background.csv has every accuracy.")
    if results["steps"]:
        page.table(
            results["steps"], columns=["name", "command", "seconds"], decimals=1, caption="The steps of the run.",
            fold=f"All {len(results['steps'])} steps as commands",
        )  # fmt: skip


def _matrix(values: Sequence[Sequence[float | None]]) -> np.ndarray:
    return np.array([[np.nan if v is None else v for v in line] for line in values], float)
