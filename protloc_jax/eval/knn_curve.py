"""k-NN scores over the neighbourhood size: every k that was tried, with intervals, the chosen ones marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from protloc_jax.data.splits import Split
from protloc_jax.eval import outcome, scores
from protloc_jax.eval.outcome import Interval, Task
from protloc_jax.eval.statistics import group_sums


def curve_of(
    ks: Sequence[int],
    tested: Sequence[np.ndarray],
    cuts: np.ndarray,
    validation: np.ndarray,
    chosen: Sequence[int],
    task: Task,
    splits: Sequence[Split],
    interval: Interval,
) -> list[dict[str, Any]]:
    """One row a k: "k", "macro_f1" (a dict with its interval over units), "accuracy", "validation_macro_f1", "chosen".

    tested      per split the scores [len(ks), test rows, L]
    cuts        [len(ks), S, L] what a score has to exceed in each split
    validation  [len(ks), S] macro-F1 on the validation rows, NaN without any; the row holds the mean over splits
    chosen      the k taken in each split; the row counts the splits that took it
    Every k is scored on the same test rows, so only the chosen one is free of a choice made by looking at this curve.
    """
    rows = []
    for i, k in enumerate(ks):
        one = outcome.pooled([values[i] for values in tested], task, splits, cut=cuts[i])
        counts = group_sums(outcome.row_counts(one, task), np.asarray(task.unit)[one.row])[0]
        known = validation[i][np.isfinite(validation[i])]
        rows.append(
            {
                "k": int(k),
                "macro_f1": interval(counts),
                "accuracy": float(scores.accuracy(task.hot[one.row], one.predictions)),
                "validation_macro_f1": float(known.mean()) if known.size else None,
                "chosen": sum(c == k for c in chosen),
            }
        )
    return rows


def curve_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Table rows of the k-NN curves of an evaluation: one row a system and k; empty where k-NN did not run."""
    rows = []
    splits = len(results["task"]["splits"])
    for name, system in results["systems"].items():
        for entry in system.get("knn", {}).get("by_k", ()):
            f1 = entry["macro_f1"]
            interval = "–" if f1["low"] is None else f"[{f1['low']:.3f}, {f1['high']:.3f}]"
            validated = entry["validation_macro_f1"]
            share = (
                "" if not entry["chosen"] else "chosen" if splits == 1 else f"chosen in {entry['chosen']} of {splits}"
            )
            rows.append(
                {
                    "features": name,
                    "k": entry["k"],
                    "macro-F1": f1["estimate"],
                    f"{100 * f1['level']:g} %": interval,
                    "accuracy": entry["accuracy"],
                    "validation": "–" if validated is None else validated,
                    "choice": share,
                }
            )
    return rows


def curve_lines(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The curves as `report.plots.over_k` draws them: by system k, value, low, high, and the k chosen anywhere."""
    lines = {}
    for name, system in results["systems"].items():
        entries = system.get("knn", {}).get("by_k", ())
        if entries:
            bounds = {
                key: [np.nan if e["macro_f1"][key] is None else e["macro_f1"][key] for e in entries]
                for key in ("estimate", "low", "high")
            }
            chosen = [e["k"] for e in entries if e["chosen"]]
            lines[name] = {"k": [e["k"] for e in entries], **bounds, "chosen": chosen}
    return lines
