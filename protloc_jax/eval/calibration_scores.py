"""How well probabilities agree with what was seen: expected calibration error, Brier score, log loss.

calibration error  of a class: sum over 15 bins of equal width of (rows in the bin / rows) x
                   |share of positives in the bin - mean probability in the bin|; a bin holds its upper end, the
                   first one also 0. Its mean runs over the classes that occur (Naeini et al., AAAI 2015; by class
                   as in Kull et al., NeurIPS 2019)
top label          the same of a row's highest probability and whether that class is right (Guo et al., ICML 2017)
Brier score        sigmoid heads: mean over rows and classes of (p - y)^2; softmax: its sum over classes, mean over
                   rows (Brier, Monthly Weather Review 78 (1950) 1)
log loss           sigmoid heads: mean over rows and classes of -y log p - (1 - y) log(1 - p); softmax: mean over
                   rows of -log p of the class
"""

from __future__ import annotations

from typing import Any

import numpy as np

BINS = 15
_LEAST = 1e-12  # what a probability counts with in a logarithm, and its complement


def calibration_error(targets: Any, probabilities: Any, *, bins: int = BINS) -> float:
    """Expected calibration error of targets [N] (zeros and ones) and probabilities [N]; NaN without rows."""
    y, p = np.asarray(targets, np.float64), np.asarray(probabilities, np.float64)
    if y.shape != p.shape or y.ndim != 1:
        raise ValueError(f"targets and probabilities must both be [N], got {list(y.shape)} and {list(p.shape)}.")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"{int((~((p >= 0) & (p <= 1))).sum())} probabilities do not lie in [0, 1].")
    if not len(p):
        return float("nan")
    edges = np.arange(1, bins) / bins
    number = np.searchsorted(edges, p, side="left")
    gaps = np.bincount(number, y, bins) - np.bincount(number, p, bins)
    return float(np.abs(gaps).sum() / len(p))


def calibration_errors(targets: Any, probabilities: Any, *, bins: int = BINS) -> np.ndarray:
    """The calibration error of every class [C] of targets and probabilities [N, C]."""
    y, p = np.asarray(targets), np.asarray(probabilities)
    return np.array([calibration_error(y[:, c], p[:, c], bins=bins) for c in range(y.shape[1])])


def top_label_error(targets: Any, probabilities: Any, *, bins: int = BINS) -> float:
    """The calibration error of the likeliest class of each row, of targets and probabilities [N, C]."""
    y, p = np.asarray(targets), np.asarray(probabilities)
    top = p.argmax(axis=1)[:, None]
    right = np.take_along_axis(y, top, axis=1)[:, 0]
    return calibration_error(right, np.take_along_axis(p, top, axis=1)[:, 0], bins=bins)


def brier(targets: Any, probabilities: Any, *, softmax: bool) -> float:
    """The Brier score (see the module) of targets and probabilities [N, C]."""
    squares = (np.asarray(probabilities, np.float64) - np.asarray(targets, np.float64)) ** 2
    return float(squares.sum(axis=1).mean() if softmax else squares.mean())


def log_loss(targets: Any, probabilities: Any, *, softmax: bool) -> float:
    """The log loss (see the module) of targets and probabilities [N, C]."""
    y, p = np.asarray(targets, np.float64), np.asarray(probabilities, np.float64)
    told = -y * np.log(np.maximum(p, _LEAST))
    if softmax:
        return float(told.sum(axis=1).mean())
    return float((told - (1 - y) * np.log(np.maximum(1 - p, _LEAST))).mean())


def agreement(targets: Any, probabilities: Any, *, softmax: bool) -> dict[str, Any]:
    """All of them as plain data: the calibration error (mean over the classes that occur, and `by_class` [C])."""
    y = np.asarray(targets).astype(bool)
    each, occurs = calibration_errors(y, probabilities), y.any(axis=0)
    found: dict[str, Any] = {
        "expected_calibration_error": float(each[occurs].mean()) if occurs.any() else float("nan"),
        "brier": brier(y, probabilities, softmax=softmax),
        "log_loss": log_loss(y, probabilities, softmax=softmax),
    }
    if softmax:
        found["top_label_calibration_error"] = top_label_error(y, probabilities)
    return {**found, "by_class": each}
