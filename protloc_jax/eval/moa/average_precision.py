"""Average precision of finding one's own kind, with p-values from random rankings.

Every query ranks its positives and negatives by cosine; average precision is the mean, over the positives, of the share
of positives among all that rank as high. Its null distribution is that of random rankings with as many positives and
negatives. Groups (a treatment's wells, a mechanism's treatments) are judged by their mean and its null: the mean, draw
by draw, of the nulls of their queries.

As copairs 0.5 does, with two differences. A negative that ties with a positive ranks first, so that features that are
all alike score worst, not best. A null depends only on the seed and its two counts, not on what else is in the table.

Source: Kalinin et al., Nature Communications 16 (2025) 5181.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import stats as distributions

from protloc_jax.eval import statistics

DECIMALS = 12  # cosines that agree so far tie
NULL_SIZE = 10_000
_BIT = 1e-12


@dataclass(frozen=True)
class Retrieval:
    """Average precision of queries, and of groups of them.

    names, group, compound  [Q] text
    ap                      [Q] float64; n_pos, n_total [Q] the positives, and these with the negatives
    p_value                 [Q] share of random rankings at least as good
    groups                  [G] text in order; mean_ap, group_p, group_q [G] (q: Benjamini & Hochberg over the groups)
    chance                  mean over queries of the null's mean
    without_positives, without_negatives  names of queries that could not be asked
    notes                   what a reader must know of the negatives
    """

    what: str
    names: np.ndarray
    group: np.ndarray
    compound: np.ndarray
    ap: np.ndarray
    n_pos: np.ndarray
    n_total: np.ndarray
    p_value: np.ndarray
    groups: np.ndarray
    mean_ap: np.ndarray
    group_p: np.ndarray
    group_q: np.ndarray
    chance: float
    null_size: int
    seed: int
    without_positives: tuple[str, ...] = ()
    without_negatives: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def map(self) -> float:
        """Mean over groups of their mean average precision."""
        return float(self.mean_ap.mean())

    def interval(self, *, resamples: int = 500, level: float = 0.95, seed: int = 0) -> statistics.Interval:
        """Bootstrap interval of `map` over compounds; every query keeps its ranking."""
        at = {name: i for i, name in enumerate(self.groups)}
        number = np.array([at[name] for name in self.group])

        def mean_over_groups(rows: np.ndarray) -> float:
            count = np.bincount(number[rows], minlength=len(at))
            total = np.bincount(number[rows], weights=self.ap[rows], minlength=len(at))
            return float(np.mean(total[count > 0] / count[count > 0]))

        return statistics.bootstrap_rows(self.compound, mean_over_groups, resamples=resamples, level=level, seed=seed)

    def as_dict(self, *, fdr: float = 0.05, **interval: Any) -> dict[str, Any]:
        """Everything by group and by query, ready for JSON."""
        columns = {"group": self.groups, "map": self.mean_ap, "p": self.group_p, "q": self.group_q}
        single = {"query": self.names, "group": self.group, "ap": self.ap, "n_pos": self.n_pos}
        single |= {"n_total": self.n_total, "p": self.p_value}
        return {
            "what": self.what,
            "map": self.map,
            "interval": self.interval(**interval).as_dict() | {"over": "compounds, rankings fixed"},
            "chance": self.chance,
            "groups_retrieved": int((self.group_q <= fdr).sum()),
            "of_groups": len(self.groups),
            "retrieved_where": f"q <= {fdr:g}",
            "null_size": self.null_size,
            "seed": self.seed,
            "without_positives": list(self.without_positives),
            "without_negatives": list(self.without_negatives),
            "notes": list(self.notes),
            "groups": _rows(columns),
            "queries": _rows(single),
        }


def average_precision(positive: Any, negative: Any) -> float:
    """Average precision of one ranking from the similarities of its positives [P] and negatives [M].

    A negative ranks before a positive of equal similarity. ValueError without a positive.
    """
    positive = np.sort(np.round(np.asarray(positive, np.float64), DECIMALS))[::-1]
    negative = np.sort(np.round(np.asarray(negative, np.float64), DECIMALS))
    if not len(positive):
        raise ValueError("average precision of a ranking without positives is not defined.")
    before = np.arange(1, len(positive) + 1)
    ahead = len(negative) - np.searchsorted(negative, positive, side="left")
    return float(np.mean(before / (before + ahead)))


@lru_cache(maxsize=512)
def null_distribution(n_pos: int, n_total: int, size: int = NULL_SIZE, seed: int = 0) -> np.ndarray:
    """Average precision [size] of random rankings of `n_pos` positives among `n_total`; read-only."""
    if not 0 < n_pos <= n_total:
        raise ValueError(f"a ranking of {n_total} with {n_pos} positives does not exist.")
    rng = np.random.default_rng([seed, n_pos, n_total])
    if n_pos**2 > 4 * n_total:
        places = np.argpartition(rng.random((size, n_total)), n_pos - 1, axis=1)[:, :n_pos]
    else:
        places = _few_of_many(rng, n_pos, n_total, size)
    found = np.mean(np.arange(1, n_pos + 1) / (np.sort(places, axis=1) + 1), axis=1)
    found.flags.writeable = False
    return found


def _few_of_many(rng: np.random.Generator, n: int, total: int, size: int) -> np.ndarray:
    """`size` random subsets of `n` of range(total), by Floyd's algorithm (Bentley & Floyd, CACM 30 (1987) 754)."""
    chosen = np.full((size, n), -1)
    for i, last in enumerate(range(total - n, total)):
        drawn = rng.integers(0, last + 1, size)
        again = (chosen[:, :i] == drawn[:, None]).any(axis=1)
        chosen[:, i] = np.where(again, last, drawn)
    return chosen


def retrieval(
    profiles: Any,
    queries: Sequence[tuple[int, np.ndarray, np.ndarray]],
    *,
    names: Sequence[str],
    group: Sequence[str],
    compound: Sequence[str],
    what: str,
    null_size: int = NULL_SIZE,
    seed: int = 0,
    notes: tuple[str, ...] = (),
) -> Retrieval:
    """Average precision of each query (row, positive rows, negative rows) among the rows of profiles [N, D].

    names, group, compound  of all N rows
    Queries without positives or without negatives are listed and left out. ValueError where none is left.
    """
    x = np.asarray(profiles, np.float64)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    x = x / np.where(length > 0, length, 1)
    lone = tuple(names[q] for q, positive, _ in queries if not len(positive))
    bare = tuple(names[q] for q, positive, negative in queries if len(positive) and not len(negative))
    asked = [one for one in queries if len(one[1]) and len(one[2])]
    if not asked:
        raise ValueError(f"{what}: none of {len(queries)} queries has positives and negatives.")
    ap = np.array([average_precision(x[positive] @ x[q], x[negative] @ x[q]) for q, positive, negative in asked])
    n_pos = np.array([len(positive) for _, positive, _ in asked])
    n_total = n_pos + np.array([len(negative) for _, _, negative in asked])
    pairs, which = np.unique(np.stack([n_pos, n_total], axis=1), axis=0, return_inverse=True)
    nulls = np.stack([null_distribution(int(k), int(n), null_size, seed) for k, n in pairs])
    which = which.ravel()
    ranked = np.sort(nulls, axis=1)
    # Equal values of observed and random rankings may differ in the last bit.
    below = [np.searchsorted(ranked[i], value - _BIT, side="left") for i, value in zip(which, ap, strict=True)]
    own = np.array([group[q] for q, _, _ in asked], object)
    groups = np.array(list(dict.fromkeys(own)), object)
    mean_ap, group_p = np.empty(len(groups)), np.empty(len(groups))
    for i, name in enumerate(groups):
        rows = np.flatnonzero(own == name)
        mean_ap[i] = ap[rows].mean()
        weights = np.bincount(which[rows], minlength=len(nulls)) / len(rows)
        used = np.flatnonzero(weights)
        # Strictly above, as copairs counts groups (but not single queries).
        group_p[i] = ((weights[used] @ nulls[used] > mean_ap[i] + _BIT).sum() + 1) / (null_size + 1)
    return Retrieval(
        what,
        np.array([names[q] for q, _, _ in asked], object),
        own,
        np.array([compound[q] for q, _, _ in asked], object),
        ap,
        n_pos,
        n_total,
        (null_size - np.array(below) + 1) / (null_size + 1),
        groups,
        mean_ap,
        group_p,
        np.asarray(distributions.false_discovery_control(group_p)),
        float(nulls.mean(axis=1)[which].mean()),
        null_size,
        seed,
        lone,
        bare,
        notes,
    )


def _rows(columns: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    names = list(columns)
    return [dict(zip(names, line, strict=True)) for line in zip(*(c.tolist() for c in columns.values()), strict=True)]
