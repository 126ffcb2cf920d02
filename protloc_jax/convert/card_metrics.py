"""Scores of `protloc evaluate` as a section of a model card: never a number without split, k and interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EVALUATORS = {"knn": "k-NN", "probe": "linear probe"}


def metrics_section(results: Mapping[str, Any] | None) -> str:
    """Markdown of the scores; says so where there are none."""
    if not results:
        return "None given."
    task = results["task"]
    split = ", ".join(f"{key} {value}" for key, value in task.get("split", {}).items())
    lines = []
    if results.get("synthetic"):
        lines.append(f"**Synthetic images** ({results['synthetic']}); these numbers say nothing about real ones.\n")
    lines.append(
        f"Macro-F1 over {len(task['label_names'])} classes ({task['kind']} label) on {task['test_rows']} test images "
        f"of {task['test_units']} held-out groups ({task['unit']}); split: {split or 'not stated'}. Intervals are "
        "bootstraps over these groups.\n"
    )
    header = ["features", "evaluator", "macro-F1", "interval", "accuracy", "chosen", "layer", "pooling", "channel plan"]
    lines += ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    for name, entry in results.get("chance", {}).items():
        lines.append(_row(f"chance ({name})", "", entry, "", {}))
    for name, system in results["systems"].items():
        for key, title in EVALUATORS.items():
            if key in system:
                lines.append(_row(name, title, system[key], _chosen(system[key]), system.get("about", {})))
    return "\n".join(lines)


def _row(name: str, evaluator: str, entry: Mapping[str, Any], chosen: str, about: Mapping[str, Any]) -> str:
    f1 = entry["macro_f1"]
    interval = "none (fewer than two groups)"
    if f1.get("low") is not None:
        interval = f"{100 * f1['level']:g} %: {f1['low']:.3f} to {f1['high']:.3f}"
    accuracy = "" if entry.get("accuracy") is None else f"{entry['accuracy']:.3f}"
    estimate = "undefined" if f1["estimate"] is None else f"{f1['estimate']:.3f}"
    cells = [name, evaluator, estimate, interval, accuracy, chosen]
    cells += [str(about.get(key, "")) for key in ("layer", "pooling", "channel_plan")]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _chosen(entry: Mapping[str, Any]) -> str:
    """k or L2 of every split, and by which rows it was chosen."""
    for key, title in (("k", "k"), ("l2", "L2")):
        if key in entry:
            values = list(dict.fromkeys(entry[key]))
            by = entry.get("chosen_by", "")
            by = ", ".join(dict.fromkeys(by)) if isinstance(by, list) else str(by)
            return f"{title} = {', '.join(f'{v:g}' for v in values)}" + (f" ({by})" if by else "")
    return ""
