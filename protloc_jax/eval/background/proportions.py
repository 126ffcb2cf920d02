"""Shares of a protein's cells per class: three estimators, how far two models disagree, and errors on known mixes.

hard          the share of cells whose highest score is the class
mean_softmax  the mean over cells of the softmax probabilities
mean_profile  the softmax of the mean score; for a linear classifier that is the softmax of the cells' mean profile

The paper's text describes `hard`; its code puts one row a protein through a softmax, which may be a mean profile.
KL divergences use the natural logarithm; both distributions are normalised, then clipped below at 1e-10 (and not
normalised again), as published.

Source: Gupta, Moses & Lu, PMLR 311 (2025) 162, section 4.5, and its code (train_lr.py, analyze_lr notebook). Errors on
known mixes are ours.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from scipy.special import softmax

from protloc_jax.config import nearest
from protloc_jax.data.grouping import group_numbers
from protloc_jax.data.manifest import capped

Estimator = Literal["hard", "mean_softmax", "mean_profile"]
CLIP = 1e-10


class Disagreement(NamedTuple):
    """How far a second model's shares lie from the first's, for each protein.

    kl [G] KL(first, second); to_uniform [G] KL(first, uniform); substantial [G]: kl > to_uniform; share: of proteins.
    """

    kl: np.ndarray
    to_uniform: np.ndarray
    substantial: np.ndarray
    share: float


class MixErrors(NamedTuple):
    """Errors of estimated shares on mixes of known shares.

    groups [G] names; truth, estimate [G, L]; l1 [G] sums of absolute differences (0 to 2); kl [G] KL(truth, estimate).
    """

    groups: np.ndarray
    truth: np.ndarray
    estimate: np.ndarray
    l1: np.ndarray
    kl: np.ndarray


def shares(logits: Any, *, estimator: Estimator) -> np.ndarray:
    """Estimated shares float64 [L] of cells with class scores `logits` [N, L] (before the softmax).

    Equal scores go to the first class. Raises ValueError naming rows that are not finite.
    """
    if estimator not in get_args(Estimator):
        known = get_args(Estimator)
        raise ValueError(f"estimator={estimator!r}: not one of {', '.join(known)}.{nearest(str(estimator), known)}")
    scores = _logits(logits)
    if estimator == "hard":
        return np.bincount(scores.argmax(axis=1), minlength=scores.shape[1]) / len(scores)
    if estimator == "mean_softmax":
        return softmax(scores, axis=1).mean(axis=0)
    return softmax(scores.mean(axis=0))


def shares_by_group(logits: Any, groups: Any, *, estimator: Estimator) -> tuple[np.ndarray, np.ndarray]:
    """Shares [G, L] of every group (protein or mixed field) of cells [N, L], and the G sorted group names."""
    scores = _logits(logits)
    number = group_numbers(groups, len(scores))
    names = np.unique(np.asarray(groups))
    return np.stack([shares(scores[number == g], estimator=estimator) for g in range(len(names))]), names


def kl_divergence(p: Any, q: Any) -> np.ndarray:
    """KL(p, q) [...] over the last axis of shares [..., L], by the published rule (module).

    Negative values as small as L * 1e-10 can come from clipping. Raises ValueError naming what is no distribution.
    """
    p, q = (np.clip(_distributions(x, name), CLIP, None) for x, name in ((p, "first"), (q, "second")))
    if p.shape[-1] != q.shape[-1]:
        raise ValueError(f"distributions over {p.shape[-1]} and {q.shape[-1]} classes.")
    return np.sum(p * np.log(p / q), axis=-1)


def disagreement(first: Any, second: Any) -> Disagreement:
    """Compare two models' shares [G, L] of the same proteins.

    "Substantial": the models are farther apart than the first is from knowing nothing (uniform shares).
    """
    one, two = (np.asarray(x, np.float64) for x in (first, second))
    if one.ndim != 2 or one.shape != two.shape or not len(one):
        raise ValueError(f"shares of two models must both be [G, L], got {list(one.shape)} and {list(two.shape)}.")
    kl = kl_divergence(one, two)
    to_uniform = kl_divergence(one, np.full(one.shape[1], 1 / one.shape[1]))
    substantial = kl > to_uniform
    return Disagreement(kl, to_uniform, substantial, float(substantial.mean()))


def mix_errors(logits: Any, classes: Any, groups: Any, *, estimator: Estimator) -> MixErrors:
    """Errors of an estimator where every cell's class is known, as in fields mixed from cells of several classes.

    logits [N, L]; classes [N] true class numbers; groups [N] the mix that a cell belongs to. The truth of a mix is the
    share of its cells in each class. Raises ValueError naming rows whose class number is not in 0 ... L - 1.
    """
    scores = _logits(logits)
    true = np.asarray(classes)
    if true.shape != (len(scores),) or not np.issubdtype(true.dtype, np.integer):
        raise ValueError(f"classes must be integers [{len(scores)}], got {true.dtype} {list(true.shape)}.")
    wrong = np.flatnonzero((true < 0) | (true >= scores.shape[1]))
    if wrong.size:
        shown = [f"row {r}: {true[r]}" for r in wrong]
        raise ValueError(f"class numbers outside 0..{scores.shape[1] - 1}: {capped(shown)}.")
    estimate, names = shares_by_group(scores, groups, estimator=estimator)
    number = group_numbers(groups, len(scores))
    counts = np.zeros_like(estimate)
    np.add.at(counts, (number, true), 1)
    truth = counts / counts.sum(axis=1, keepdims=True)
    return MixErrors(names, truth, estimate, np.abs(truth - estimate).sum(axis=1), kl_divergence(truth, estimate))


def _logits(logits: Any) -> np.ndarray:
    scores = np.asarray(logits, np.float64)
    if scores.ndim != 2 or not scores.size:
        raise ValueError(f"class scores must be [N, L] with a row or more, got {list(scores.shape)}.")
    wrong = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if wrong.size:
        raise ValueError(f"class scores that are not finite in rows {capped([str(r) for r in wrong])}.")
    return scores


def _distributions(x: Any, name: str) -> np.ndarray:
    x = np.asarray(x, np.float64)
    if not x.ndim or not x.size:
        raise ValueError(f"{name} distribution must be [..., L], got {list(x.shape)}.")
    total = x.sum(axis=-1, keepdims=True)
    wrong = np.flatnonzero(~(np.isfinite(x).all(axis=-1) & (x >= 0).all(axis=-1) & (total[..., 0] > 0)).ravel())
    if wrong.size:
        shown = capped([str(r) for r in wrong])
        raise ValueError(f"{name} shares must be finite, not negative, and not all zero: rows {shown}.")
    return x / total
