"""Printed tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from protloc_jax.eval.knn_curve import curve_rows
from protloc_jax.studies.page import EVALUATORS, summary_rows


def print_scores(results: Mapping[str, Any]) -> None:
    """Print the summary of an evaluation: one row a system, its differences below."""
    console = Console(soft_wrap=True)
    task = results["task"]
    split = ", ".join(f"{k} {v}" for k, v in task["split"].items())
    tag = "SYNTHETIC IMAGES. " if results.get("synthetic") else ""
    title = (
        f"{tag}Macro-F1, {len(task['label_names'])} classes, {task['test_rows']} test images of {task['test_units']}"
    )
    console.print(_table(f"{title} held-out groups ({task['unit']}; {split})", summary_rows(results)))
    curves = curve_rows(results)
    if len({row["k"] for row in curves}) > 1:
        console.print(_table("k-NN over k, on test groups (chosen: on validation groups)", curves))
    for name, system in results["systems"].items():
        for key in (k for k in EVALUATORS if "chosen" in system.get(k, {})):
            taken = ", ".join(dict.fromkeys(system[key]["chosen"]))
            console.print(f"{EVALUATORS[key]:>12}: {name} = {taken}, on validation groups", highlight=False)
    for d in results["differences"]:
        f1 = d["macro_f1"]
        if f1["low"] is not None:
            console.print(
                f"{EVALUATORS[d['evaluator']]:>12}: {d['first']} - {d['second']} = {f1['estimate']:+.3f} "
                f"[{f1['low']:+.3f}, {f1['high']:+.3f}], p (Holm) {d['p_value_holm']:.3f}",
                highlight=False,
            )


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Rows with the columns of the last one."""
    table = Table(title=title, title_justify="left")
    for column in rows[-1]:
        table.add_column(column, justify="left" if column == "features" else "right")
    for row in rows:
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in (row.get(c, "") for c in rows[-1])))
    return table


def print_heads(results: Mapping[str, Any]) -> None:
    """Print trained heads' scores: one row a table, chance first; "+-" under the name of what varies."""
    console = Console(soft_wrap=True)
    task, head = results["task"], results["settings"]["head"]
    tag = "SYNTHETIC IMAGES. " if results.get("synthetic") else ""
    tag += f"CONTROL: {results['control']}. " if results["control"] else ""
    title = (
        f"{tag}Macro-F1 of trained heads ({head['arch']}, {head['epochs']} epochs, decision {head['decision']}), "
        f"{len(task['label_names'])} classes, {task['test_rows']} test images of {task['test_units']} held-out groups "
        f"({task['unit']}; {', '.join(f'{k} {v}' for k, v in task['split'].items())})"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("features")
    columns = ("by image", "interval", f"by {task['unit']}", "interval", "sd over seeds", "sd over splits")
    for column in columns:
        table.add_column(column, justify="right")
    for name, entry in results["chance"].items():
        table.add_row(
            f"chance ({name})", *_with_interval(entry["macro_f1"]), *_with_interval(entry["by_unit"]["macro_f1"])
        )
    for name, system in results["systems"].items():
        entry = system["head"]
        scores = (*_with_interval(entry["macro_f1"]), *_with_interval(entry["by_unit"]["macro_f1"]))
        spreads = (entry[over]["image_macro_f1"]["sd"] for over in ("over_seeds", "over_splits"))
        table.add_row(name, *scores, *("-" if sd is None else f"{sd:.3f}" for sd in spreads))
    console.print(table)
    for name, system in results["systems"].items():
        console.print(f"{name}: {_calibrated(system['head']['calibration'])}", highlight=False)
        flagged = system["head"]["out_of_distribution"]
        if flagged["kind"] != "none" and flagged["test_share"] is not None:
            console.print(
                f"{name}: {flagged['test_share']:.1%} of test images lie beyond the distance of "
                f"{flagged['quantile']:.0%} of validation images",
                highlight=False,
            )
    for d in results["differences"]:
        f1 = d["macro_f1"]
        if f1["low"] is not None:
            console.print(
                f"{d['first']} - {d['second']} = {f1['estimate']:+.3f} [{f1['low']:+.3f}, {f1['high']:+.3f}], "
                f"p (Holm) {d['p_value_holm']:.3f}",
                highlight=False,
            )


def _calibrated(entry: Mapping[str, Any]) -> str:
    """Calibration error, Brier score and log loss on test rows, before and after."""
    keys = {"expected_calibration_error": "calibration error", "brier": "Brier", "log_loss": "log loss"}
    moves = []
    for key, words in keys.items():
        values = [entry[when][key] for when in ("before", "after") if when in entry]
        moves.append(f"{words} {' -> '.join('-' if v is None else f'{v:.3f}' for v in values)}")
    how = f"not calibrated ({entry['why']})" if entry["kind"] == "none" else f"calibrated by {entry['kind']}"
    return f"{how}; on test images {', '.join(moves)}"


def _with_interval(score: Mapping[str, Any]) -> tuple[str, str]:
    low, high = score["low"], score["high"]
    estimate = "-" if score["estimate"] is None else f"{score['estimate']:.3f}"
    return estimate, "-" if low is None else f"{low:.3f}-{high:.3f}"
