"""How far batches are mixed and labels kept: measures of rows and a grouping, by cosine distance.

Each takes rows of unit length (`unit_rows`) in float64, and is written so that chance is known.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_BLOCK = 512  # rows whose distances to all others are held at once


class Share(NamedTuple):
    """A share and what it would be by chance."""

    found: float
    chance: float


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Rows [N, D] at unit length, float64; a row of zeros stays."""
    x = np.asarray(x, np.float64)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)


def nearest_rows(unit: np.ndarray, k: int, *, apart: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest rows [N, k] by cosine, the row itself left out, and their Euclidean distances on the unit sphere.

    apart  [N]: rows of equal value (one well) are no neighbours. A place without a neighbour is -1, at distance inf.
    """
    n = len(unit)
    k = min(k, n - 1)
    names = np.arange(n) if apart is None else np.unique(apart, return_inverse=True)[1]
    found, far = np.empty((n, k), np.int64), np.empty((n, k))
    for start in range(0, n, _BLOCK):
        rows = slice(start, start + _BLOCK)
        squared = 2 - 2 * unit[rows] @ unit.T
        squared[names[rows][:, None] == names] = np.inf
        near = np.sort(np.argpartition(squared, k - 1, axis=1)[:, :k], axis=1)
        distance = np.take_along_axis(squared, near, axis=1)
        order = np.argsort(distance, axis=1, kind="stable")
        near, distance = np.take_along_axis(near, order, axis=1), np.take_along_axis(distance, order, axis=1)
        found[rows], far[rows] = np.where(np.isfinite(distance), near, -1), np.sqrt(np.maximum(distance, 0.0))
    return found, far


def other_share(near: np.ndarray, groups: np.ndarray, *, apart: np.ndarray | None = None) -> Share:
    """Mean share of neighbours [N, k] that are of another group, and by chance: of all rows that could be neighbours.

    The share over chance is 1 where groups are mixed, and 0 where they lie by themselves.
    """
    numbers = np.unique(groups, return_inverse=True)[1]
    valid = near >= 0
    other = (numbers[near] != numbers[:, None]) & valid
    names = np.arange(len(groups)) if apart is None else np.unique(apart, return_inverse=True)[1]
    own = np.bincount(names)[names]  # rows of the same well, itself among them
    size = np.bincount(numbers)
    # Rows of one well may be of several groups where these are labels of cells.
    both = np.unique(np.stack([names, numbers]), axis=1, return_inverse=True)[1].ravel()
    same = size[numbers] - np.bincount(both)[both]
    possible = len(groups) - own
    counted = valid.any(axis=1) & (possible > 0)
    if not counted.any():
        return Share(float("nan"), float("nan"))
    found = other[counted].sum(axis=1) / valid[counted].sum(axis=1)
    return Share(float(found.mean()), float((1 - same[counted] / possible[counted]).mean()))


def silhouette(unit: np.ndarray, groups: np.ndarray) -> float:
    """Mean silhouette by cosine distance, in [-1, 1]; a group of one row counts 0. Source: Rousseeuw 1987.

    NaN for fewer than two groups.
    """
    numbers = np.unique(groups, return_inverse=True)[1]
    size = np.bincount(numbers)
    if len(size) < 2:
        return float("nan")
    # The mean cosine distance to a group is 1 - x . (mean of its rows): no distance of two rows is needed.
    sums = np.stack([unit[numbers == g].sum(axis=0) for g in range(len(size))])
    mean = 1 - unit @ (sums / size[:, None]).T
    rows = np.arange(len(unit))
    own = size[numbers]
    # A row's distance to itself is 1 - |x|^2: 0, but for rows of zeros.
    within = (mean[rows, numbers] * own - (1 - (unit**2).sum(axis=1))) / np.maximum(own - 1, 1)
    mean[rows, numbers] = np.inf
    between = mean.min(axis=1)
    larger = np.maximum(within, between)
    value = np.divide(between - within, larger, out=np.zeros_like(larger), where=larger > 0)
    return float(np.where(own > 1, value, 0.0).mean())


def explained(x: np.ndarray, groups: np.ndarray) -> Share:
    """Share of the variance, all features together, that lies between groups; by chance it is (G - 1) / (N - 1)."""
    x = np.asarray(x, np.float64)
    centred = x - x.mean(axis=0)
    numbers = np.unique(groups, return_inverse=True)[1]
    size = np.bincount(numbers)
    sums = np.stack([centred[numbers == g].sum(axis=0) for g in range(len(size))])
    total = (centred**2).sum()
    between = ((sums**2).sum(axis=1) / size).sum()
    return Share(float(between / total) if total > 0 else float("nan"), (len(size) - 1) / (len(x) - 1))


def lisi(far: np.ndarray, near: np.ndarray, groups: np.ndarray, *, perplexity: float) -> np.ndarray:
    """Local inverse Simpson index: how many groups a row's neighbourhood holds, between 1 and their number.

    One value for every row that has a neighbour.
    far, near   distances and neighbours [N, k] of `nearest_rows`, about three times as many as the perplexity
    perplexity  how many neighbours count: their weights exp(-beta d) are as even as those of so many equal ones
    Source: Korsunsky et al., Nat. Methods 16 (2019) 1289. iLISI is that of batches, cLISI that of labels.
    """
    some = (near >= 0).any(axis=1)
    near = near[some]
    far = np.where(near >= 0, far[some], np.inf)
    shifted = np.where(np.isfinite(far), far - far.min(axis=1, keepdims=True), np.inf)
    low, high = np.full((2, len(far)), [[-40.0], [40.0]])  # log of beta
    for _ in range(60):
        middle = (low + high) / 2
        too_even = _entropy(_weights(shifted, middle), shifted) > np.log(perplexity)
        low, high = np.where(too_even, middle, low), np.where(too_even, high, middle)
    weights = _weights(shifted, (low + high) / 2)
    numbers = np.unique(groups, return_inverse=True)[1]
    shares = np.zeros((len(far), numbers.max() + 1))
    for g in range(shares.shape[1]):
        shares[:, g] = (weights * (numbers[near] == g)).sum(axis=1)
    return 1 / (shares**2).sum(axis=1)


def _weights(shifted: np.ndarray, log_beta: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        own = np.where(np.isfinite(shifted), np.exp(-shifted * np.exp(log_beta)[:, None]), 0.0)
    return own / own.sum(axis=1, keepdims=True)


def _entropy(weights: np.ndarray, shifted: np.ndarray) -> np.ndarray:
    logs = np.log(weights, out=np.zeros_like(weights), where=weights > 0)
    return -(weights * logs).sum(axis=1)


def batch_accuracy(x: np.ndarray, batch: np.ndarray, groups: np.ndarray, *, folds: int = 5) -> Share | None:
    """Balanced accuracy of a linear classifier of batches on held-out groups (plates, wells), and of guessing.

    Ridge regression on batch indicators over standardised features (lambda = their number), every batch alike in
    weight; groups are dealt to folds in order of name, batch by batch. None where some batch has fewer than two groups.
    """
    numbers = np.unique(batch, return_inverse=True)[1]
    own = {b: sorted(set(groups[numbers == b].tolist())) for b in range(numbers.max() + 1)}
    if len(own) < 2 or min(map(len, own.values())) < 2 or sum(map(len, own.values())) > len(set(groups.tolist())):
        return None
    folds = min(folds, *map(len, own.values()))
    fold_of = {name: i % folds for names in own.values() for i, name in enumerate(names)}
    fold = np.asarray([fold_of[g] for g in groups.tolist()])
    x = np.asarray(x, np.float64)
    predicted = np.empty(len(x), np.int64)
    for f in range(folds):
        train, test = fold != f, fold == f
        mean, sd = x[train].mean(axis=0), x[train].std(axis=0)
        scaled = np.divide(x - mean, sd, out=np.zeros_like(x), where=sd > 1e-9 * np.abs(mean))
        weight = 1 / np.bincount(numbers[train])[numbers[train]]
        weight /= weight.mean()
        target = np.where(numbers[train][:, None] == np.arange(len(own)), 1.0, -1.0)
        middle = weight @ scaled[train] / weight.sum(), weight @ target / weight.sum()
        a, b = scaled[train] - middle[0], target - middle[1]
        slope = np.linalg.solve((a.T * weight) @ a + x.shape[1] * np.eye(x.shape[1]), (a.T * weight) @ b)
        predicted[test] = ((scaled[test] - middle[0]) @ slope + middle[1]).argmax(axis=1)
    right = [(predicted[numbers == b] == b).mean() for b in own]
    return Share(float(np.mean(right)), 1 / len(own))
