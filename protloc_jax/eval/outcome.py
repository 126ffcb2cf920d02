"""From the scores of an evaluator on the pooled test rows to everything that is reported about them.

An evaluator (k-NN, probe, a rule that only knows the class shares) yields an `Outcome`; `scored` turns it into a plain
dict: macro-F1 with an interval over groups, per-class values with support, the same by whole group, and by split.
Predictions may be probabilities instead of decisions (chance): counts are then expected counts, and F1 that of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from protloc_jax.data.splits import Split, overlaps
from protloc_jax.eval import scores
from protloc_jax.eval.statistics import group_sums

Interval = Callable[[np.ndarray], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Task:
    """The question put to every table: labels of the N rows and the groups that keep the answer honest.

    labels [N, L] multi-hot; kind "single" (one label a row) or "multi"; unit [N]: ids of the groups over which
    intervals are made and aggregated scores are given; exclude: name -> ids [N] of groups (field, well, protein) whose
    rows may not vote for each other in k-NN ("" or None is no group); split: how the splits were made, for the record.
    """

    labels: np.ndarray
    label_names: tuple[str, ...]
    kind: scores.Kind
    unit: np.ndarray
    unit_name: str
    split: Mapping[str, Any]
    exclude: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def hot(self) -> np.ndarray:
        """The labels as bool [N, L]."""
        return np.asarray(self.labels).astype(bool)

    def excluded(self) -> np.ndarray | None:
        """Integer group ids [N, G] for k-NN, -1 where a row has no group; None without any such group."""
        columns = []
        for ids in self.exclude.values():
            column = np.asarray(ids).astype(object)
            absent = np.array([g is None or g == "" or g != g for g in column], bool)
            number = np.unique(column.astype(str), return_inverse=True)[1]
            columns.append(np.where(absent, -1, number))
        return np.stack(columns, axis=1) if columns else None


class Outcome(NamedTuple):
    """One evaluator on the test rows of all splits, one after another (T rows).

    row [T], split [T]: numbers; scores [T, L]; predictions [T, L] decisions or probabilities; cut [S, L] what a score
    has to exceed ("multi"), None where scores are the predictions; facts: what the evaluator reports beside the scores.
    """

    row: np.ndarray
    split: np.ndarray
    scores: np.ndarray
    predictions: np.ndarray
    cut: np.ndarray | None
    facts: dict[str, Any]


def pooled(
    values: Sequence[np.ndarray],
    task: Task,
    splits: Sequence[Split],
    *,
    cut: np.ndarray | None,
    facts: dict | None = None,
) -> Outcome:
    """The outcome of scores given per split ([test rows, L] each) and cuts [S, L] (None: scores are predictions)."""
    number = np.repeat(np.arange(len(splits)), [len(s.test) for s in splits])
    joined = np.concatenate(list(values))
    predictions = joined
    if cut is not None:
        predictions = scores.decide(joined, kind=task.kind, threshold=cut[number])
    return Outcome(np.concatenate([s.test for s in splits]), number, joined, predictions, cut, facts or {})


def chance(task: Task, splits: Sequence[Split]) -> dict[str, Outcome]:
    """What the class shares of the training and validation rows alone predict.

    "prior" draws each label with its share, "majority" takes the commonest class (several labels: those that more than
    half of the rows carry), "all positive" (several labels) takes every label.
    """
    shares = [task.hot[np.concatenate([s.train, s.val])].mean(axis=0) for s in splits]
    rules = {"prior": shares}
    if task.kind == "single":
        rules["majority"] = [np.arange(len(p)) == p.argmax() for p in shares]
    else:
        rules["majority"] = [p > 0.5 for p in shares]
        rules["all positive"] = [np.ones_like(p) for p in shares]
    made = {}
    for name, rule in rules.items():
        values = [np.tile(np.asarray(p, np.float64), (len(s.test), 1)) for p, s in zip(rule, splits, strict=True)]
        made[name] = pooled(values, task, splits, cut=None)
    return made


def row_counts(outcome: Outcome, task: Task) -> np.ndarray:
    """True positives, false positives and false negatives of every test row [T, 3, L] (probabilities: expected)."""
    return _counts(task.hot[outcome.row], outcome.predictions)


def scored(outcome: Outcome, task: Task, splits: Sequence[Split], interval: Interval) -> dict[str, Any]:
    """All scores of an outcome as a plain dict; `interval` makes a macro-F1 interval's dict from counts [G, 3, L]."""
    truth, units = task.hot[outcome.row], np.asarray(task.unit)[outcome.row]
    rows = row_counts(outcome, task)
    counts = _by_group(rows, units)
    total = counts.sum(axis=0)
    entry: dict[str, Any] = {
        "macro_f1": interval(counts),
        "accuracy": _accuracy(truth, outcome.predictions, task.kind),
        "balanced_accuracy": float(scores.balanced_accuracy_of(total)),
        "by_unit": _by_unit(outcome, task, interval),
        "by_split": [
            {
                "name": split.name or str(i),
                "test_rows": len(split.test),
                "macro_f1": float(scores.macro_f1_of(rows[outcome.split == i].sum(axis=0))),
                "accuracy": _accuracy(truth[outcome.split == i], outcome.predictions[outcome.split == i], task.kind),
            }
            for i, split in enumerate(splits)
        ],
    }
    if outcome.cut is None:
        return entry
    classes: dict[str, dict[str, Any]] = dict(scores.per_class(total, task.label_names))
    # Over one class alone macro-F1 is that class's F1, undefined in a resample in which it does not occur.
    for i, name in enumerate(task.label_names):
        one = interval(counts[:, :, i : i + 1])
        units_with = int((counts[:, 0, i] + counts[:, 2, i] > 0).sum())
        classes[name] |= {"low": one["low"], "high": one["high"], "units": units_with}
    entry["per_class"] = classes
    entry["mean_average_precision"] = scores.mean_average_precision(truth, outcome.scores)
    if task.kind == "single":
        predicted = outcome.predictions.any(axis=1)
        confusion = np.zeros((truth.shape[1],) * 2, int)
        np.add.at(confusion, (truth[predicted].argmax(axis=1), outcome.predictions[predicted].argmax(axis=1)), 1)
        entry["confusion"] = confusion.tolist()
        entry["rows_without_prediction"] = int((~predicted).sum())
    return entry


def describe(task: Task, splits: Sequence[Split]) -> dict[str, Any]:
    """What was asked: sizes, classes missing or untrained in each split, groups that lie in several of its parts."""
    hot, unit = task.hot, np.asarray(task.unit)
    tested = np.concatenate([s.test for s in splits])
    made = []
    for i, split in enumerate(splits):
        asked, trained = (_named(hot[rows], task) for rows in (split.test, np.concatenate([split.train, split.val])))
        made.append(
            {
                "name": split.name or str(i),
                "rows": {"train": len(split.train), "val": len(split.val), "test": len(split.test)},
                "classes_not_tested": [name for name in task.label_names if name not in asked],
                "classes_never_trained": [name for name in asked if name not in trained],
                "units_in_several_parts": len(overlaps(split, unit)),
            }
        )
    return {
        "kind": task.kind,
        "label_names": list(task.label_names),
        "rows": len(hot),
        "test_rows": len(tested),
        "unit": task.unit_name,
        "test_units": len(np.unique(unit[tested])),
        "support": dict(zip(task.label_names, hot[tested].sum(axis=0).tolist(), strict=True)),
        "excluded_neighbours": list(task.exclude),
        "split": dict(task.split),
        "splits": made,
    }


def _named(hot: np.ndarray, task: Task) -> list[str]:
    """Names of the labels that occur in rows [N, L]."""
    return [task.label_names[i] for i in np.flatnonzero(hot.any(axis=0))]


def _by_unit(outcome: Outcome, task: Task, interval: Interval) -> dict[str, Any]:
    """Scores of the mean over each unit's test rows; units whose rows differ in labels are counted and left out."""
    number = np.unique(np.asarray(task.unit)[outcome.row], return_inverse=True)[1]
    size = np.bincount(number)[:, None]
    truth = _by_group(task.hot[outcome.row], number)
    mean = _by_group(outcome.scores, number) / size
    alike = ((truth == 0) | (truth == size)).all(axis=1)
    predictions = mean
    if outcome.cut is not None:
        cut = _by_group(outcome.cut[outcome.split], number) / size
        predictions = scores.decide(mean, kind=task.kind, threshold=cut)
    truth, predictions = truth[alike] > 0, predictions[alike]
    return {
        "macro_f1": interval(_counts(truth, predictions)),
        "accuracy": _accuracy(truth, predictions, task.kind),
        "units": int(alike.sum()),
        "units_of_mixed_labels_left_out": int((~alike).sum()),
    }


def _by_group(rows: np.ndarray, groups: np.ndarray) -> np.ndarray:
    return group_sums(rows, groups)[0]


def _counts(truth: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    y, p = truth.astype(np.float64), predictions.astype(np.float64)
    return np.stack([y * p, (1 - y) * p, y * (1 - p)], axis=1)


def _accuracy(truth: np.ndarray, predictions: np.ndarray, kind: scores.Kind) -> float:
    """Share of rows whose label set is right; for probabilities its expectation (one draw a row, or one a label)."""
    if not len(truth):
        return float("nan")
    y, p = truth.astype(np.float64), predictions.astype(np.float64)
    right = (y * p).sum(axis=1) if kind == "single" else (y * p + (1 - y) * (1 - p)).prod(axis=1)
    return float(right.mean())
