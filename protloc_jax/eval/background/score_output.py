"""Background scores as plain values for JSON, and as tables."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from protloc_jax.config import to_dict
from protloc_jax.eval.background.score import BackgroundScores
from protloc_jax.eval.background.score_classes import Drop
from protloc_jax.eval.scores import recall_of

TABLES = ("pairs", "classes", "proteins", "bins")


def as_dict(scores: BackgroundScores) -> dict[str, Any]:
    """Everything but single pairs and proteins, ready for JSON (numbers without a value are None)."""
    made = scores.made
    found: dict[str, Any] = {
        "synthetic": made.synthetic,
        "features": made.features,
        "made": made.about,
        "options": to_dict(scores.options),
        "classes": list(made.classes),
        "groups_of_donors": made.groups,
        "rows": {name: len(rows) for name, rows in made.conditions.items()},
        "missing": {"count": len(made.missing), "ids": list(made.missing[:1000])},
        "extra": {"count": len(made.extra), "ids": list(made.extra[:1000])},
        "summary": summary_rows(scores),
        "svc": {mode: {name: _svc(s) for name, s in by.items()} for mode, by in scores.svc.items()},
        "classifiers": [_classified(one) for one in scores.classified],
        "crossed": None,
        "label_free": None,
        "bins": [one._asdict() for one in scores.bins],
        "not_scored": scores.not_scored,
    }
    if scores.crossed is not None:
        crossed = scores.crossed
        found["crossed"] = {
            "what": "probes of two classes, fitted on the baseline and applied; recalls over classes of all pairs",
            "pairs": crossed.pairs,
            "balanced_accuracy": {name: i.as_dict() for name, i in crossed.intervals.items()},
            "left_out": crossed.left_out,
            "drops": [_drop(d) for d in crossed.drops],
        }
    if scores.grid is not None:
        grid = scores.grid
        found["label_free"] = {
            "cells": grid.cells,
            "backgrounds": grid.backgrounds,
            "left_out": list(grid.left_out),
            "cosines": {**grid.raw._asdict(), "gap": grid.raw.gap},
            "cosines_standardised": {**grid.standardised._asdict(), "gap": grid.standardised.gap},
            "variance": grid.variance._asdict(),
            "retrieval": {"accuracy": grid.retrieval.accuracy, "chance": grid.retrieval.chance},
            "retrieval_other_backgrounds": {
                "accuracy": grid.retrieval_elsewhere.accuracy,
                "chance": grid.retrieval_elsewhere.chance,
            },
            "flips": grid.flips._asdict() if grid.flips is not None else None,
        }
    return plain(found)


def summary_rows(scores: BackgroundScores) -> list[dict[str, Any]]:
    """One row a condition: images, then each score that it has."""
    rows = []
    for name in scores.made.conditions:
        if name == "grid":
            continue
        row: dict[str, Any] = {"condition": name, "images": len(scores.made.conditions[name])}
        for mode, by in scores.svc.items():
            row[f"svc {mode}"] = by[name].text.mean if name in by else None
        for one in scores.classified:
            there = one.intervals.get(name)
            row[f"{one.classifier} {one.protocol}"] = there.estimate if there is not None else None
        if scores.crossed is not None:
            there = scores.crossed.intervals.get(name)
            row["pairs transfer"] = there.estimate if there is not None else None
        rows.append(row)
    return rows


def table_rows(scores: BackgroundScores) -> dict[str, list[dict[str, Any]]]:
    """The rows of pairs.csv, classes.csv, proteins.csv and bins.csv; those that are empty are left out."""
    pairs = [
        {
            "svc": mode,
            "condition": name,
            "first": s.first,
            "second": s.second,
            "background": s.background,
            "accuracy": s.mean,
            "sd_over_folds": s.sd,
            "balanced_accuracy": s.balanced_accuracy,
            "rows_first": s.rows[0],
            "rows_second": s.rows[1],
            "groups": s.groups,
            "purged": s.purged,
            "one_sided_folds": s.one_sided,
            "unconverged_folds": s.unconverged,
        }
        for mode, by in scores.svc.items()
        for name, found in by.items()
        for s in found.scores
    ]
    tables = {"pairs": pairs, "classes": _classes(scores), "proteins": _proteins(scores)}
    tables["bins"] = [one._asdict() for one in scores.bins]
    return {name: plain(rows) for name, rows in tables.items() if rows}


def _classes(scores: BackgroundScores) -> list[dict[str, Any]]:
    rows = []

    def add(system: str, condition: str, names: Iterable[str], values: Any) -> None:
        for name, value in zip(names, values, strict=True):
            rows.append({"score": system, "condition": condition, "class": name, "value": float(value)})

    for mode, by in scores.svc.items():
        for name, found in by.items():
            add(f"svc {mode}, mean accuracy of its pairs", name, found.text.classes, found.text.accuracy)
    for one in scores.classified:
        for name, recall in one.recall.items():
            add(f"{one.classifier} {one.protocol}, recall", name, one.scores[name].classes, recall)
    if scores.crossed is not None:
        for name, counts in scores.crossed.counts.items():
            add("pairs transfer, recall", name, scores.crossed.classes, recall_of(counts.sum(axis=0)))
    return rows


def _proteins(scores: BackgroundScores) -> list[dict[str, Any]]:
    rows = []
    for one in scores.classified:
        for name, score in one.scores.items():
            counts, proteins = score.per_protein()
            right, all_rows = counts[:, 0].sum(axis=1), counts[:, [0, 2]].sum(axis=(1, 2))
            for protein, a, n in zip(proteins, right, all_rows, strict=True):
                system = f"{one.classifier} {one.protocol}"
                rows.append(
                    {"score": system, "condition": name, "protein": protein, "rows": int(n), "accuracy": float(a / n)}
                )
    return rows


def _svc(found: Any) -> dict[str, Any]:
    def means(which: Any) -> dict[str, Any] | None:
        if which is None:
            return None
        classes = dict(zip(which.classes, which.accuracy, strict=True))
        return {"mean": which.mean, "three_standard_errors_over_classes": which.spread, "classes": classes}

    return {
        "scored": len(found.scores),
        "of": found.of,
        "text_rule": means(found.text),
        "paper_table1": means(found.table1),
        "purged": sum(s.purged for s in found.scores),
        "unconverged_folds": sum(s.unconverged for s in found.scores),
    }


def _classified(one: Any) -> dict[str, Any]:
    parts = one.decomposition
    terms = None
    if parts is not None:
        terms = {
            name: {**d.interval.as_dict(), "p_value": d.p_value, "p_value_holm": parts.holm[name]}
            for name, d in parts.terms.items()
        }
    return {
        "classifier": one.classifier,
        "protocol": one.protocol,
        "folds": one.options.folds,
        "group_by": list(one.options.group_by),
        "donors": one.options.donors,
        "balanced_accuracy": {name: i.as_dict() for name, i in one.intervals.items()},
        "left_out": {name: s.left_out for name, s in one.scores.items()},
        "purged": {name: s.purged for name, s in one.scores.items()},
        "drops": [_drop(d) for d in one.drops],
        "decomposition": terms,
    }


def _drop(drop: Drop) -> dict[str, Any]:
    difference = drop.difference
    return {
        "higher": drop.higher,
        "lower": drop.lower,
        **difference.interval.as_dict(),
        "p_value": difference.p_value,
        "p_value_holm": drop.holm,
    }


def plain(value: Any) -> Any:
    """A value for JSON: NumPy numbers and arrays as Python's, what is not finite as None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
