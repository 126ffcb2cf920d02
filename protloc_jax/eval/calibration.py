"""Probabilities that mean what they say: Platt scaling or one temperature, fitted on validation rows.

What is scaled are margins m: the logit of the probability of a sigmoid head (of the product, with two stages), the log
softmax of a softmax head. Calibrated is sigmoid(slope m + offset), or softmax(slope m). Two ways to fit:

    platt        a slope and an offset for each class
    temperature  one slope (1 / temperature) for all classes, no offset: the order of the classes in a row stays

Both minimise   sum over rows of the log loss + 1/2 (slope - 1)^2 + 1/2 offset^2   by Newton's method, in float64: the
penalty weighs about as much as one row, so that few rows move little. Slopes are at least 0.05, so that the order of
images, and with it every decision by a cut, stays. A class without a positive or without a negative validation row is
left as it is (slope 1, offset 0): its rows cannot tell how sure the head may be.

Sources: Platt, Advances in Large Margin Classifiers (1999) 61, there with smoothed targets in place of the penalty;
Guo et al., ICML 2017 (temperature).
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
from scipy.special import expit, log_softmax, logit

from protloc_jax.eval.head_config import HeadConfig

Kind = Literal["none", "platt", "temperature"]
MIN_SLOPE = 0.05
_STEPS, _TOLERANCE = 100, 1e-10


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Slopes and offsets of S seeds, F splits and C classes, float64 [S, F, C]; fitted [S, F, C]: not left as it is."""

    slope: np.ndarray
    offset: np.ndarray
    fitted: np.ndarray

    def probabilities(self, margins: Any, *, seed: int, fold: int, softmax: bool) -> np.ndarray:
        """Calibrated probabilities float64 [N, C] of margins [N, C] under one head."""
        return scaled(margins, self.slope[seed, fold], self.offset[seed, fold], softmax=softmax)

    def cuts(self, cuts: Any, *, seed: int, fold: int) -> np.ndarray:
        """Cuts [C] of a head's own probabilities as cuts of its calibrated ones, so that a row lies on the same side.

        Only where classes are decided one by one, each by its sigmoid; cuts outside (0, 1) stay outside.
        """
        cuts = np.asarray(cuts, np.float64)
        inside = (cuts > 0) & (cuts < 1)
        moved = expit(self.slope[seed, fold] * logit(np.where(inside, cuts, 0.5)) + self.offset[seed, fold])
        return np.where(inside, moved, cuts)


def kind_of(config: HeadConfig) -> tuple[Kind, str]:
    """How heads of a config are calibrated, and why they are not (empty where they are)."""
    if config.calibration == "none":
        return "none", "head.calibration=none"
    if config.fit_rows != "train":
        return "none", "the heads were fitted on the validation rows too (head.fit_rows=train_and_validation)"
    if config.calibration == "auto":
        return ("temperature" if config.decision == "argmax" else "platt"), ""
    return config.calibration, ""


def identity(seeds: int, folds: int, classes: int) -> Calibration:
    """Heads left as they are."""
    shape = (seeds, folds, classes)
    return Calibration(np.ones(shape), np.zeros(shape), np.zeros(shape, bool))


def fit(margins: Any, targets: Any, *, kind: Kind, softmax: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slope, offset and whether they were fitted, each [C], of margins [N, C] and multi-hot targets [N, C].

    Raises ValueError for margins that are not finite, and for "platt" of a softmax.
    """
    m, y = np.asarray(margins, np.float64), np.asarray(targets).astype(bool)
    classes = m.shape[1]
    if not np.isfinite(m).all():
        raise ValueError(f"margins of {int((~np.isfinite(m).all(axis=1)).sum())} rows are not finite.")
    slope, offset = np.ones(classes), np.zeros(classes)
    known: np.ndarray = np.asarray(y.any(axis=0) & ~y.all(axis=0))
    if kind == "none" or not known.any():
        return slope, offset, np.zeros(classes, bool)
    if kind == "temperature":
        known = np.ones(classes, bool) if softmax else known
        slope[known] = temperature(m, y, softmax=True) if softmax else temperature(m[:, known], y[:, known])
        return slope, offset, known
    if softmax:
        raise ValueError("platt scales classes one by one, which a softmax does not permit; use temperature.")
    for label in np.flatnonzero(known):
        slope[label], offset[label] = platt(m[:, label], y[:, label])
    return slope, offset, known


def platt(margins: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Slope (at least MIN_SLOPE) and offset of one class: margins and targets [N]."""
    m, y = np.asarray(margins, np.float64), np.asarray(targets, np.float64)
    terms = np.stack([m, np.ones_like(m)])
    start = np.array([1.0, 0.0])

    def of(theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        z = theta @ terms
        p = expit(z)
        value = np.sum(np.logaddexp(0, z) - y * z) + np.sum((theta - start) ** 2) / 2
        return value, terms @ (p - y) + theta - start, (terms * (p * (1 - p))) @ terms.T + np.eye(2)

    slope, offset = _newton(of, start)
    if slope >= MIN_SLOPE:
        return float(slope), float(offset)
    # The problem is convex, so with the slope bounded the best lies on the bound: the offset alone is left to fit.

    def on_bound(theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        value, gradient, curvature = of(np.array([MIN_SLOPE, theta[0]]))
        return value, gradient[1:], curvature[1:, 1:]

    return MIN_SLOPE, float(_newton(on_bound, start[1:])[0])


def temperature(margins: np.ndarray, targets: np.ndarray, *, softmax: bool = False) -> float:
    """The one slope (at least MIN_SLOPE; the temperature is its inverse) of margins and targets [N, C].

    Log losses of a sigmoid head are summed over rows and classes.
    """
    m, y = np.asarray(margins, np.float64), np.asarray(targets, np.float64)

    def of(theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        z = theta[0] * m
        if softmax:
            logs = log_softmax(z, axis=1)
            p = np.exp(logs)
            mean = (p * m).sum(axis=1, keepdims=True)
            value, spread = -(y * logs).sum(), (p * (m - mean) ** 2).sum()
        else:
            p = expit(z)
            value, spread = np.sum(np.logaddexp(0, z) - y * z), (p * (1 - p) * m * m).sum()
        slope = ((p - y) * m).sum() + theta[0] - 1
        return value + (theta[0] - 1) ** 2 / 2, np.array([slope]), np.array([[spread + 1]])

    return max(MIN_SLOPE, float(_newton(of, np.ones(1))[0]))


def scaled(margins: Any, slope: Any, offset: Any, *, softmax: bool) -> np.ndarray:
    """sigmoid(slope m + offset) or softmax(slope m + offset) of margins m [N, C], in float64."""
    z = np.asarray(margins, np.float64) * np.asarray(slope) + np.asarray(offset)
    return np.exp(log_softmax(z, axis=1)) if softmax else expit(z)


def left_as_they_are(calibration: Calibration, label_names: Any, split_names: Any) -> dict[str, list[str]]:
    """Of each split the classes that no seed's head had anything fitted for; splits without any are not named."""
    left = {
        split: [name for i, name in enumerate(label_names) if not calibration.fitted[:, f, i].any()]
        for f, split in enumerate(split_names)
    }
    return {split: names for split, names in left.items() if names}


def _newton(of: Any, start: np.ndarray) -> np.ndarray:
    """The minimum of a strictly convex function: of(theta) gives value, gradient and curvature; steps are halved."""
    theta = np.array(start, np.float64)
    value, gradient, curvature = of(theta)
    for _ in range(_STEPS):
        if np.abs(gradient).max() <= _TOLERANCE:
            break
        step, share = np.linalg.solve(curvature, gradient), 1.0
        while share > 1e-12:
            ahead = of(theta - share * step)
            if ahead[0] <= value - 1e-4 * share * (gradient @ step):
                break
            share /= 2
        else:
            break  # no value below this one can be told apart from it in float64
        theta = theta - share * step
        value, gradient, curvature = ahead
    return theta
