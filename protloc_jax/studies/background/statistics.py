"""From counts a protein to the study's statistics: accuracies, drops, shares removed and costs, paired over proteins.

Everything is a function of sums over proteins of counts [G, ..., 3, L], so that one bootstrap over proteins serves
them all, the same proteins drawn for every encoder. Accuracies are means over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from protloc_jax.eval import statistics
from protloc_jax.eval.scores import balanced_accuracy_of

# Name -> (higher, lower): the paper's drop (background gap), the same against untouched crops, and the decomposition.
DROPS = {
    "drop": ("same", "different"),
    "clean_drop": ("baseline", "different"),
    "artifact": ("baseline", "same"),
    "cue_lost": ("same", "masked"),
    "interference": ("masked", "different"),
    "neighbour_effect": ("cell_free", "different"),
    "native_drop": ("native_same", "native_other"),
}
HEADLINE = ("drop", "clean_drop", "native_drop")
COSTS = ("baseline", "same", "others_masked", "different")


def accuracy(total: np.ndarray) -> np.ndarray:
    """Balanced accuracy, mean over seeds, of counts [..., S, 3, L]: [...]."""
    return balanced_accuracy_of(total).mean(axis=-1)


def drop(total: np.ndarray) -> np.ndarray:
    """Accuracy of the first condition minus that of the second, of counts [..., 2, S, 3, L]."""
    return accuracy(total[..., 0, :, :, :]) - accuracy(total[..., 1, :, :, :])


def removed(total: np.ndarray) -> np.ndarray:
    """1 - drop / plain drop, of counts [..., 2 (system, plain), 2, S, 3, L]; NaN where the plain one loses nothing."""
    own, plain = drop(total[..., 0, :, :, :, :]), drop(total[..., 1, :, :, :, :])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(plain > 0, 1 - own / plain, np.nan)


def stacked(seeds: Sequence[np.ndarray]) -> np.ndarray:
    """Counts of the seeds [G, 3, L] each as one [G, S, 3, L]."""
    return np.stack([np.asarray(one, np.float64) for one in seeds], axis=1)


def interval(counts: np.ndarray, *, resamples: int) -> dict[str, Any]:
    """Accuracy of counts [G, S, 3, L] with its interval over proteins, and of each seed."""
    found = statistics.bootstrap(counts, accuracy, resamples=resamples)
    each = balanced_accuracy_of(counts.sum(axis=0))
    return {**_bounds(found), "seeds": [None if v != v else float(v) for v in each]}


def drop_interval(high: np.ndarray, low: np.ndarray, *, resamples: int) -> dict[str, Any]:
    """Accuracy of `high` minus that of `low` (counts [G, S, 3, L] each), the same proteins drawn for both."""
    return _bounds(statistics.bootstrap(np.stack([high, low], 1), drop, resamples=resamples))


def compared(
    own: Mapping[str, np.ndarray], plain: Mapping[str, np.ndarray], *, resamples: int
) -> dict[str, dict[str, Any]]:
    """A system against the plain one, of counts [G, S, 3, L] by condition over the same proteins.

    Every drop of `HEADLINE`: the difference of drops, its p-value, and `removed`, the share of the plain drop that is
    gone; every condition of `COSTS`: the difference of accuracies.
    """
    found: dict[str, dict[str, Any]] = {}
    both = {name: _tiled(own[name], plain[name]) for name in own if name in plain}
    for name in HEADLINE:
        high, low = DROPS[name]
        if high in both and low in both:
            one, two = (np.stack([both[high][i], both[low][i]], 1) for i in (0, 1))
            entry = _difference(statistics.paired_difference(one, two, drop, resamples=resamples))
            share = statistics.bootstrap(np.stack([one, two], 1), removed, resamples=resamples, method="percentile")
            found[name] = {**entry, "removed": {**_bounds(share), "undefined": share.undefined}}
    for name in COSTS:
        if name in both:
            found[f"cost_{name}"] = _difference(
                statistics.paired_difference(*both[name], accuracy, resamples=resamples)
            )
    return found


def with_holm(entries: Sequence[dict[str, Any]], family: Sequence[str]) -> None:
    """Add `p_value_holm` to every entry, corrected within entries of equal values of the keys of `family`."""
    for key in dict.fromkeys(tuple(e[k] for k in family) for e in entries):
        own = [e for e in entries if tuple(e[k] for k in family) == key]
        for entry, p in zip(own, statistics.holm([e["p_value"] for e in own]), strict=True):
            entry["p_value_holm"] = float(p)


def _tiled(one: np.ndarray, two: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with equally many seeds: a mean over seeds does not change where all of them are repeated as often."""
    s = int(np.lcm(one.shape[1], two.shape[1]))
    first, second = (np.tile(x, (1, s // x.shape[1], 1, 1)) for x in (one, two))
    return first, second


def _bounds(found: statistics.Interval) -> dict[str, Any]:
    return {key: found.as_dict()[key] for key in ("estimate", "low", "high")}


def _difference(found: statistics.Difference) -> dict[str, Any]:
    return {**_bounds(found.interval), "p_value": found.p_value}
