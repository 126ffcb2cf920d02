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


def print_moa(results: Mapping[str, Any]) -> None:
    """Print mechanism-of-action scores: one row a system, what was left out, notes, and differences below."""
    console = Console(soft_wrap=True)
    # A line holds a row, also in a narrow terminal or a file.
    console.width = max(console.width, 150)
    first = next(iter(results["systems"].values()))
    tag = "SYNTHETIC IMAGES. " if results["synthetic"] else ""
    level = 100 * first["metrics"]["nsc"]["interval"]["level"]
    title = (
        f"{tag}Mechanism of action of {first['treatments']} treatments, {first['compounds']} compounds, "
        f"{first['mechanisms']} mechanisms (convention {first['convention']}; {first['aggregation']}; "
        f"{level:g} % intervals over compounds)"
    )
    rows = results["summary"]
    table = Table(title=title, title_justify="left")
    shown = ["system", "features", "NSC", "NSCB", *(c for c in rows[0] if c.startswith("mAP"))]
    for column in shown:
        table.add_column(column, justify="left" if column == "system" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in (row.get(c, "") for c in shown)))
    console.print(table)

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    metrics = first["metrics"]
    say(f"  chance: NSC {metrics['nsc']['chance']:.3f}, NSCB {metrics['nscb']['chance']:.3f}")
    for row in rows:
        others = {k: v for k, v in row.items() if k not in shown and k[:7] not in ("chance ", "convent")}
        say(f"{row['system']}: {', '.join(f'{k} {v}' for k, v in others.items())}")
    dropped = first["metrics"]["nscb"]["dropped"]
    if dropped:
        say(f"   NSCB: without {', '.join(dropped)}, which stand in one batch only")
    for key, score in first["metrics"].items():
        if score["unanswerable"]:
            bare = score["without_candidate"]
            say(f"{key:>7}: {score['unanswerable']} queries have no right answer ({bare} of them no candidate at all)")
    left_out = {k: v if isinstance(v, int) else len(v) for k, v in first["left_out"].items()}
    say(f"left out: {', '.join(f'{v} rows: {k}' for k, v in left_out.items() if v) or 'no row'}")
    for name, found in first["map"].items():
        for note in found.get("notes") or [n for n in [found.get("not_scored")] if n]:
            say(f"    mAP: {name}: {note}")
    for d in results["differences"]:
        for key in (k for k in ("nsc", "nscb") if k in d):
            one = d[key]
            between = "" if one["low"] is None else f" [{one['low']:+.3f}, {one['high']:+.3f}]"
            words = f"{d['first']} - {d['second']} = {one['estimate']:+.3f}{between}, p {one['p_value']:.3f}"
            say(f"{key.upper():>7}: {words}")
