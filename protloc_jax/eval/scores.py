"""Classification scores from targets and predictions: macro-F1 and its parts, accuracies, average precision.

Targets and predictions are multi-hot [N, L] arrays of zeros and ones; single-label data are the case of one 1 a row.
Two rules hold everywhere. A ratio whose denominator is zero counts as 0. A macro average runs over the classes that
occur in the targets: a class absent from the evaluated rows (a fold without it) neither helps nor hurts, while a
class that occurs but was never predicted, or never trained, counts with 0.

Macro-F1 is computed from counts [..., 3, L] of true positives, false positives and false negatives. Counts add over
rows and over groups, which is what makes the bootstrap in `statistics` fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

Kind = Literal["single", "multi"]


def one_hot(classes: Any, n_classes: int) -> np.ndarray:
    """Class numbers [N] as multi-hot bool [N, n_classes]; raises ValueError listing numbers out of range."""
    classes = np.asarray(classes)
    if classes.ndim != 1 or not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(f"class numbers must be integers [N], got {classes.dtype} {list(classes.shape)}.")
    bad = np.flatnonzero((classes < 0) | (classes >= n_classes))
    if bad.size:
        more = f" and {bad.size - 10} more" if bad.size > 10 else ""
        rows = ", ".join(f"row {i}: {classes[i]}" for i in bad[:10])
        raise ValueError(f"class numbers outside 0..{n_classes - 1}: {rows}{more}.")
    return classes[:, None] == np.arange(n_classes)


def decide(scores: Any, *, kind: Kind, threshold: Any = 0.5) -> np.ndarray:
    """Predictions bool [N, L] from scores [N, L].

    "single": the class with the highest score, the first of equals; a row without any positive score (nothing could
    be said about it) predicts no class. "multi": every class scoring above `threshold` (a number or one per class).
    """
    scores = np.asarray(scores)
    if kind == "multi":
        return scores > np.asarray(threshold)
    best = scores.argmax(axis=1)[:, None] == np.arange(scores.shape[1])
    return best & (scores > 0).any(axis=1, keepdims=True)


def row_counts(targets: Any, predictions: Any) -> np.ndarray:
    """True positives, false positives and false negatives of every row and class, bool [N, 3, L]."""
    targets, predictions = _pair(targets, predictions)
    return np.stack([targets & predictions, ~targets & predictions, targets & ~predictions], axis=1)


def counts(targets: Any, predictions: Any) -> np.ndarray:
    """Counts [3, L] (true positives, false positives, false negatives) summed over rows."""
    return row_counts(targets, predictions).sum(axis=0)


def f1_of(counts: np.ndarray) -> np.ndarray:
    """F1 per class [..., L] of counts [..., 3, L]; 0 where a class neither occurs nor is predicted."""
    tp, fp, fn = np.moveaxis(np.asarray(counts, np.float64), -2, 0)
    return _ratio(2 * tp, 2 * tp + fp + fn)


def recall_of(counts: np.ndarray) -> np.ndarray:
    """Recall per class [..., L] of counts [..., 3, L]; 0 for a class that does not occur."""
    tp, _, fn = np.moveaxis(np.asarray(counts, np.float64), -2, 0)
    return _ratio(tp, tp + fn)


def precision_of(counts: np.ndarray) -> np.ndarray:
    """Precision per class [..., L] of counts [..., 3, L]; 0 for a class that is never predicted."""
    tp, fp, _ = np.moveaxis(np.asarray(counts, np.float64), -2, 0)
    return _ratio(tp, tp + fp)


def macro_f1_of(counts: np.ndarray) -> np.ndarray:
    """Macro-F1 [...] of counts [..., 3, L], over the classes that occur; NaN where none does."""
    return _macro(f1_of(counts), counts)


def balanced_accuracy_of(counts: np.ndarray) -> np.ndarray:
    """Mean recall [...] of counts [..., 3, L], over the classes that occur; NaN where none does."""
    return _macro(recall_of(counts), counts)


def macro_precision_of(counts: np.ndarray) -> np.ndarray:
    """Macro precision [...] of counts [..., 3, L], over the classes that occur; NaN where none does."""
    return _macro(precision_of(counts), counts)


def macro_f1(targets: Any, predictions: Any) -> float:
    """Macro-F1 of multi-hot predictions, over the classes that occur in the targets (see the module's rules)."""
    return float(macro_f1_of(counts(targets, predictions)))


def balanced_accuracy(targets: Any, predictions: Any) -> float:
    """Mean recall over the classes that occur in the targets."""
    return float(balanced_accuracy_of(counts(targets, predictions)))


def accuracy(targets: Any, predictions: Any) -> float:
    """Share of rows whose whole label set is right (for several labels a row: subset accuracy)."""
    targets, predictions = _pair(targets, predictions)
    return float((targets == predictions).all(axis=1).mean()) if len(targets) else float("nan")


def average_precision(targets: Any, scores: Any) -> np.ndarray:
    """Average precision per class, float64 [L]: sum over score levels of (recall gained) x (precision there).

    Rows with equal scores form one level. NaN for a class without a positive row.
    """
    scores = np.asarray(scores, np.float64)
    targets, _ = _pair(targets, scores, binary=False)
    result = np.full(targets.shape[1], np.nan)
    for label in np.flatnonzero(targets.any(axis=0)):
        order = np.argsort(-scores[:, label], kind="stable")
        ordered = scores[order, label]
        last_of_level = np.append(ordered[1:] != ordered[:-1], True)
        hits = np.cumsum(targets[order, label])[last_of_level]
        rank = np.flatnonzero(last_of_level) + 1
        result[label] = np.sum(np.diff(hits, prepend=0) * (hits / rank)) / hits[-1]
    return result


def mean_average_precision(targets: Any, scores: Any) -> float:
    """Macro average precision over the classes that occur; NaN where none does."""
    values = average_precision(targets, scores)
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def best_thresholds(targets: Any, scores: Any) -> np.ndarray:
    """For every class the cut [L] that maximises its F1 on these rows (validation rows, never test rows).

    A class predicts where score > cut. Cuts lie midway between neighbouring score levels; of equal F1 the highest
    cut wins (fewest predictions). A class without a positive row keeps 0.5.
    """
    scores = np.asarray(scores, np.float64)
    targets, _ = _pair(targets, scores, binary=False)
    cuts = np.full(targets.shape[1], 0.5)
    for label in np.flatnonzero(targets.any(axis=0)):
        order = np.argsort(-scores[:, label], kind="stable")
        ordered = scores[order, label]
        last_of_level = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
        hits = np.cumsum(targets[order, label])
        f1 = 2 * hits[last_of_level] / (last_of_level + 1 + hits[-1])
        best = last_of_level[np.argmax(f1)]
        end = 0.0 if ordered[best] > 0 else ordered[best] - 1
        cuts[label] = (ordered[best] + (ordered[best + 1] if best + 1 < len(ordered) else end)) / 2
    return cuts


def per_class(counts: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """F1, precision, recall, support and number predicted of every class, by name, from counts [3, L]."""
    tp, fp, fn = np.asarray(counts)
    columns = {
        "f1": f1_of(counts),
        "precision": precision_of(counts),
        "recall": recall_of(counts),
        "support": tp + fn,
        "predicted": tp + fp,
    }
    whole = ("support", "predicted")
    return {
        name: {key: int(column[i]) if key in whole else float(column[i]) for key, column in columns.items()}
        for i, name in enumerate(names)
    }


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _macro(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts, np.float64)
    occurs = counts[..., 0, :] + counts[..., 2, :] > 0
    number = occurs.sum(axis=-1)
    total = np.where(occurs, values, 0.0).sum(axis=-1)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def _pair(targets: Any, others: Any, *, binary: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Targets (and, where binary, the predictions) as bool [N, L] of one shape; ValueError otherwise."""
    arrays = {"targets": np.asarray(targets), "predictions" if binary else "scores": np.asarray(others)}
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    if len(set(map(tuple, shapes.values()))) != 1 or any(array.ndim != 2 for array in arrays.values()):
        raise ValueError(f"targets and {list(arrays)[1]} must both be [N, L] of one shape, got {shapes}.")
    for name, array in arrays.items():
        if name == "scores" and not np.isfinite(array).all():
            rows = np.flatnonzero(~np.isfinite(array).all(axis=1))
            raise ValueError(f"scores of {len(rows)} rows are not finite; the first is row {rows[0]}.")
        if name != "scores" and array.dtype != bool and not np.isin(array, (0, 1)).all():
            raise ValueError(f"{name} must hold zeros and ones only (multi-hot rows), got {array.dtype} values.")
    first, second = arrays.values()
    return first.astype(bool), second.astype(bool) if binary else second
