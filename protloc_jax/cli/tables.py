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
