"""Uncertainty of a score: bootstrap over groups, paired comparison of two systems, correction for many comparisons.

Rows of one protein (or plate, or field) are not independent, so whole groups are drawn, never rows. What is resampled
is a table of additive statistics per group, stats [G, ...] (for macro-F1 the counts [G, 3, L] of `scores`); a metric is
a function of their sum, [..., 3, L] -> [...]. A resample is then one row of a matrix product, and 2,000 of them
take milliseconds. Scores that are no function of sums go through `bootstrap_rows`, slower.

Sources: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 and 14 (percentile and BCa intervals);
Holm, Scand. J. Statist. 6 (1979) 65.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from scipy import stats as distributions

Metric = Callable[[np.ndarray], np.ndarray]
Method = Literal["percentile", "bca"]
_CELLS = 2**22  # numbers in one block of resampling weights: 32 MB


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate with a bootstrap interval over groups; low and high are NaN where fewer than two groups exist.

    `undefined` counts the resamples in which the metric had no value (they are left out of the interval).
    """

    estimate: float
    low: float
    high: float
    level: float
    method: Method
    resamples: int
    groups: int
    undefined: int
    seed: int

    def as_dict(self) -> dict[str, Any]:
        """The fields as a plain dict, NaN as None, ready for JSON."""
        return {k: None if v != v else v for k, v in dataclasses.asdict(self).items()}


class Difference(NamedTuple):
    """First system minus second on the same groups: the interval, and the p-value of a paired randomisation test."""

    interval: Interval
    p_value: float


def group_sums(rows: Any, groups: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sum rows [N, ...] within groups [N]: (float64 [G, ...], the G group names in sorted order)."""
    rows, groups = np.asarray(rows), np.asarray(groups)
    if len(rows) != len(groups) or groups.ndim != 1:
        raise ValueError(f"{len(rows)} rows but group names of shape {list(groups.shape)}.")
    names, number = np.unique(groups, return_inverse=True)
    sums = np.zeros((len(names), *rows.shape[1:]))
    order = np.argsort(number, kind="stable")
    if len(rows):
        starts = np.searchsorted(number[order], np.arange(len(names)))
        sums[:] = np.add.reduceat(rows[order].astype(np.float64), starts, axis=0)
    return sums, names


def resamples_of(groups: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each group is drawn in each resample, in blocks [r, groups] that make `resamples` rows together."""
    rng = np.random.default_rng(seed)
    block = max(1, _CELLS // max(groups, 1))
    for start in range(0, resamples, block):
        r = min(block, resamples - start)
        drawn = rng.integers(0, groups, size=(r, groups)) + groups * np.arange(r)[:, None]
        yield np.bincount(drawn.ravel(), minlength=r * groups).reshape(r, groups).astype(np.float64)


def bootstrap(
    stats: Any,
    metric: Metric,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    method: Method = "bca",
    seed: int = 0,
) -> Interval:
    """Interval of metric(sum of stats over groups), groups drawn with replacement.

    stats: [G, ...] additive statistics per group. Deterministic in `seed`.
    """
    stats = np.asarray(stats, np.float64)
    drawn = _drawn((stats,), lambda total: metric(total), resamples, seed)
    total = stats.sum(axis=0)
    return _interval(
        float(metric(total)), drawn, lambda: metric(total - stats), len(stats), resamples, level, method, seed
    )


def paired_difference(
    first: Any,
    second: Any,
    metric: Metric,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    method: Method = "bca",
    seed: int = 0,
) -> Difference:
    """metric(first) - metric(second) for two systems scored on the same groups.

    first, second: stats [G, ...], row g the same group in both. The interval draws the same groups for both systems.
    The two-sided p-value swaps the systems' results of whole groups at random (under the null hypothesis their names
    carry no information), or in all 2^G ways where these are no more than `resamples`.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape:
        raise ValueError(
            f"paired systems need the same groups: statistics {list(first.shape)} and {list(second.shape)}."
        )
    one, two = first.sum(axis=0), second.sum(axis=0)
    drawn = _drawn((first, second), lambda a, b: metric(a) - metric(b), resamples, seed)
    estimate = float(metric(one) - metric(two))
    interval = _interval(
        estimate,
        drawn,
        lambda: metric(one - first) - metric(two - second),
        len(first),
        resamples,
        level,
        method,
        seed,
    )
    swaps = _swaps(len(first), resamples, seed)
    moved = np.tensordot(swaps, second - first, axes=1)
    null = np.abs(metric(one + moved) - metric(two - moved))
    as_large = np.sum(null >= abs(estimate) - 1e-12)
    exact = 2 ** len(first) <= resamples
    p_value = as_large / len(null) if exact else (as_large + 1) / (len(null) + 1)
    return Difference(interval, float(p_value))


def bootstrap_rows(
    groups: Any,
    metric: Callable[[np.ndarray], float],
    *,
    resamples: int = 500,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of any metric of rows: `metric` gets row numbers, a drawn group's as often as it is drawn.

    groups: [N] group of every row. For scores that are no function of per-group sums (average precision).
    """
    names, number = np.unique(np.asarray(groups), return_inverse=True)
    members = np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1])
    values = []
    if len(names) > 1:
        for block in resamples_of(len(names), resamples, seed):
            for weights in block.astype(int):
                drawn = np.repeat(np.arange(len(names)), weights)
                values.append(metric(np.concatenate([members[g] for g in drawn])))
    estimate = float(metric(np.arange(len(number))))
    return _interval(
        estimate, np.asarray(values), lambda: np.empty(0), len(names), resamples, level, "percentile", seed
    )


def holm(p_values: Any) -> np.ndarray:
    """Holm's step-down adjusted p-values, in the order given: each comparison holds at level a where its value <= a."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    result = np.empty_like(p)
    result[order] = np.minimum(adjusted, 1.0)
    return result


def _drawn(systems: tuple[np.ndarray, ...], value: Callable[..., np.ndarray], resamples: int, seed: int) -> np.ndarray:
    """The metric in every resample, the same groups drawn for all systems."""
    groups = len(systems[0])
    if groups < 2:
        return np.empty(0)
    blocks = resamples_of(groups, resamples, seed)
    return np.concatenate([value(*(np.tensordot(w, s, axes=1) for s in systems)) for w in blocks])


def _swaps(groups: int, resamples: int, seed: int) -> np.ndarray:
    if 2**groups <= resamples:
        return ((np.arange(2**groups)[:, None] >> np.arange(groups)) & 1).astype(np.float64)
    return np.random.default_rng([seed, 1]).integers(0, 2, size=(resamples, groups)).astype(np.float64)


def _interval(
    estimate: float,
    drawn: np.ndarray,
    leave_one_out: Callable[[], np.ndarray],
    groups: int,
    resamples: int,
    level: float,
    method: Method,
    seed: int,
) -> Interval:
    if method not in get_args(Method):
        raise ValueError(f"method={method!r}: not one of {', '.join(get_args(Method))}.")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level={level} must lie between 0 and 1 and resamples={resamples} be at least 1.")
    values = drawn[np.isfinite(drawn)]
    low = high = float("nan")
    if values.size and np.isfinite(estimate):
        tails = np.array([(1 - level) / 2, (1 + level) / 2])
        if method == "bca":
            tails = _bca_tails(tails, estimate, values, leave_one_out())
        low, high = map(float, np.quantile(values, tails))
    return Interval(estimate, low, high, level, method, resamples, groups, len(drawn) - len(values), seed)


def _bca_tails(tails: np.ndarray, estimate: float, values: np.ndarray, jackknife: np.ndarray) -> np.ndarray:
    """The quantiles of the bootstrap distribution that correct for bias and acceleration (Efron & Tibshirani 14.3)."""
    below = np.mean(values < estimate) + np.mean(values == estimate) / 2
    edge = 1 / (len(values) + 1)
    bias = distributions.norm.ppf(np.clip(below, edge, 1 - edge))
    pulls = np.nanmean(jackknife) - jackknife[np.isfinite(jackknife)]
    spread = np.sum(pulls**2) ** 1.5
    acceleration = np.sum(pulls**3) / (6 * spread) if spread > 1e-12 else 0.0
    z = bias + distributions.norm.ppf(tails)
    return distributions.norm.cdf(bias + z / (1 - acceleration * z))
