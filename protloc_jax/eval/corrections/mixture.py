"""Harmony: rows in soft clusters that every batch shares, and each cluster's batches brought together.

Source: Korsunsky et al., Nat. Methods 16 (2019) 1289 (clustering with a penalty for clusters of one batch, then a
linear mixture model in every cluster), with the counts smoothed by one as in its software. Harmony corrects the rows
that it is fitted on, and is transductive where these are all rows. Here the centroids, penalties and shifts of every
round are kept, and any row of a known batch goes through the same rounds; a new batch has no shifts, and is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from protloc_jax.config import opt
from protloc_jax.eval.corrections.fitted import Fitted, On, by_group, check_counts

_ROUND_STEPS = 20  # assignments a round at most
_WINDOW = 3


class Round(NamedTuple):
    """One round: centroids [K, D] of unit length, penalty [K, B] of each batch in each cluster, shifts [K, B, D]."""

    centroids: np.ndarray
    penalty: np.ndarray
    shifts: np.ndarray


class Mixed(NamedTuple):
    """Corrected rows [N, D] as the algorithm leaves them, and its rounds."""

    x: np.ndarray
    rounds: tuple[Round, ...]


class _SameForAll:
    per_group: tuple[str, ...] = ()
    renames: bool = False


@dataclass(frozen=True)
class Harmony(_SameForAll):
    """Harmony on the rows as they are: reduce the features first, for example by whiten:components=50.

    A fitted row is corrected like a new one, by the saved rounds. The algorithm itself ends its rounds with assignments
    made block by block, while counts still moved; the two differ by little, and `harmonise` returns the latter.
    """

    by: str = opt("", "column of the batches")
    on: On = opt("all", "rows fitted on: all (transductive), or controls")  # noqa: RUF009
    clusters: int = opt(0, "soft clusters; 0: one for 30 rows, at most 100")
    theta: float = opt(2.0, "weight of the penalty for clusters of one batch")
    sigma: float = opt(0.1, "width of the soft assignment")
    ridge: float = opt(1.0, "lambda, of the shifts")
    rounds: int = opt(10, "rounds at most")
    seed: int = opt(0, "of the first centroids and of the order of assignment")

    def fit(self, x: np.ndarray, groups: np.ndarray) -> Fitted:
        """Fit on rows x [n, D] of batches [n]; ValueError for fewer than two batches."""
        if self.sigma == 0 or self.ridge == 0:
            raise ValueError("harmony: sigma and lambda must be above 0.")
        found = by_group(groups)
        if len(found) < 2:
            raise ValueError(f"harmony needs two batches or more; column {self.by} has {len(found)}.")
        check_counts(found, least=2, why=f"harmony by {self.by}")
        clusters = self.clusters or max(1, min(100, round(len(x) / 30)))
        start = first_centroids(_unit(x), clusters, seed=self.seed)
        done = harmonise(
            x, groups, start, theta=self.theta, sigma=self.sigma, ridge=self.ridge, rounds=self.rounds, seed=self.seed
        ).rounds
        arrays = {name: np.stack([getattr(r, name) for r in done]) for name in Round._fields}
        note = f"harmony: {len(done)} rounds, {clusters} clusters, fitted on {self.on} rows"
        return Fitted(arrays, tuple(n for n, _ in found), tuple(len(rows) for _, rows in found), (note,))

    def fit_groups(self, fitted: Fitted, x: np.ndarray, groups: np.ndarray) -> Fitted:
        """A new batch cannot be added without moving all others."""
        raise NotImplementedError

    def apply(self, fitted: Fitted, x: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Correct rows x [N, D] of known batches, each by itself."""
        place, moved = fitted.places(groups), x
        for centroids, penalty, shifts in zip(*(fitted.arrays[name] for name in Round._fields), strict=True):
            weights = _likeness(centroids, _unit(moved), self.sigma) * penalty[:, place]
            weights /= weights.sum(axis=0)
            moved = x - _shift(weights, shifts, place)
        return moved


def first_centroids(unit: np.ndarray, clusters: int, *, seed: int) -> np.ndarray:
    """Centroids [K, D] of unit rows by k-means."""
    from sklearn.cluster import KMeans

    means = KMeans(clusters, n_init=10, max_iter=25, random_state=seed)  # pyright: ignore[reportArgumentType]
    found = means.fit(unit)
    return np.asarray(found.cluster_centers_)


def harmonise(
    x: np.ndarray,
    groups: np.ndarray,
    centroids: np.ndarray,
    *,
    theta: float = 2.0,
    sigma: float = 0.1,
    ridge: float = 1.0,
    rounds: int = 10,
    seed: int = 0,
    block: float = 0.05,
    still: float = 1e-5,
    done: float = 1e-4,
) -> Mixed:
    """Run the algorithm on rows x [N, D] of batches [N], from centroids [K, D].

    block        share of the rows whose assignments are renewed at a time, the others held
    still, done  relative change of the objective at which a round, and the whole, has converged
    """
    draw = np.random.RandomState(seed)
    names, place = np.unique(groups, return_inverse=True)
    member = (place[:, None] == np.arange(len(names))).astype(np.float64)  # [N, B]
    share = member.mean(axis=0)
    unit = _unit(x)
    centroids = _unit(centroids)
    weights = _likeness(centroids, unit, sigma)
    weights /= weights.sum(axis=0)  # [K, N]
    expected, observed = np.outer(weights.sum(axis=1), share), weights @ member
    outer = [_objective(weights, centroids, unit, expected, observed, member, theta, sigma)]
    kept: list[Round] = []
    moved = x
    # Windows of the objective run on over rounds.
    inner = list(outer)
    for _ in range(rounds):
        for step in range(_ROUND_STEPS):
            centroids = _unit(weights @ unit)
            likeness = _likeness(centroids, unit, sigma)
            order = np.arange(len(x))
            draw.shuffle(order)
            for rows in np.array_split(order, int(np.ceil(1 / block))):
                expected -= np.outer(weights[:, rows].sum(axis=1), share)
                observed -= weights[:, rows] @ member[rows]
                renewed = likeness[:, rows] * _penalty(expected, observed, theta)[:, place[rows]]
                weights[:, rows] = renewed / renewed.sum(axis=0)
                expected += np.outer(weights[:, rows].sum(axis=1), share)
                observed += weights[:, rows] @ member[rows]
            inner.append(_objective(weights, centroids, unit, expected, observed, member, theta, sigma))
            if step > _WINDOW:
                before, now = sum(inner[-1 - _WINDOW : -1]), sum(inner[-_WINDOW:])
                if abs(before - now) < still * abs(before):
                    break
        outer.append(inner[-1])
        shifts = _shifts(x, weights, place, len(names), ridge)
        kept.append(Round(centroids, _penalty(expected, observed, theta), shifts))
        moved = x - _shift(weights, shifts, place)
        unit = _unit(moved)
        if outer[-2] - outer[-1] < done * abs(outer[-2]):
            break
    return Mixed(moved, tuple(kept))


def _unit(x: np.ndarray) -> np.ndarray:
    """Rows at unit length; a row of zeros stays."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)


def _likeness(centroids: np.ndarray, unit: np.ndarray, sigma: float) -> np.ndarray:
    """exp(-squared distance / sigma) [K, N], over the largest of each row."""
    close = -2 * (1 - centroids @ unit.T) / sigma
    return np.exp(close - close.max(axis=0))


def _penalty(expected: np.ndarray, observed: np.ndarray, theta: float) -> np.ndarray:
    return ((expected + 1) / (observed + 1)) ** theta


def _objective(weights, centroids, unit, expected, observed, member, theta, sigma) -> float:
    """Distances, entropy of the assignment, and how far batches are from an equal share of every cluster."""
    distance = (weights * 2 * (1 - centroids @ unit.T)).sum()
    logs = np.log(weights, out=np.zeros_like(weights), where=weights > 0)
    spread = sigma * (weights * logs).sum()
    uneven = sigma * theta * ((weights @ member) * np.log((observed + 1) / (expected + 1))).sum()
    return float(distance + spread + uneven)


def _shifts(x: np.ndarray, weights: np.ndarray, place: np.ndarray, batches: int, ridge: float) -> np.ndarray:
    """Of every cluster the batches' offsets [K, B, D] from its mean: a weighted ridge regression on batch and 1."""
    found = np.empty((len(weights), batches, x.shape[1]))
    for k, own in enumerate(weights):
        mass = np.bincount(place, own, batches)
        sums = np.stack([own[place == b] @ x[place == b] for b in range(batches)])
        # Offsets given the intercept are (sums - mass * intercept) / (mass + ridge); the intercept is not penalised.
        free = mass * ridge / (mass + ridge)
        intercept = (sums * (ridge / (mass + ridge))[:, None]).sum(axis=0) / max(free.sum(), np.finfo(float).tiny)
        found[k] = (sums - mass[:, None] * intercept) / (mass + ridge)[:, None]
    return found


def _shift(weights: np.ndarray, shifts: np.ndarray, place: np.ndarray) -> np.ndarray:
    """What is taken from each row: its clusters' offsets of its batch, weighted; [N, D]."""
    out = np.empty((weights.shape[1], shifts.shape[2]))
    for b in np.unique(place):
        rows = place == b
        out[rows] = weights[:, rows].T @ shifts[:, b]
    return out
