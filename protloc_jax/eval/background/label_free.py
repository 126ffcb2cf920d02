"""Does one cell keep its embedding when its background changes? Measures that need no labels.

All take a grid of embeddings [N, K, D]: N cells, each on the same K backgrounds. "The same" may mean the same donor
crop (then `variance_shares` speaks of that crop) or K donors drawn alike (then of the kind of background).

Sources: the aim is that of Gupta, Moses & Lu, PMLR 311 (2025) 162, section 5; the worst of K follows the adversarial
accuracy of Xiao et al., Noise or Signal (arXiv 2006.09994); the measures are ours.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from protloc_jax.config import nearest as nearest_word
from protloc_jax.data.manifest import capped
from protloc_jax.eval.knn import nearest

Candidates = Literal["other_backgrounds", "all"]


class Cosines(NamedTuple):
    """Mean cosine of two embeddings of: one cell on two backgrounds; two cells on one background; two cells on two.

    gap: same_cell - other_cell_same_background; positive where the cell outweighs the background.
    """

    same_cell: float
    other_cell_same_background: float
    other_cell: float

    @property
    def gap(self) -> float:
        return self.same_cell - self.other_cell_same_background


class VarianceShares(NamedTuple):
    """Shares of the total sum of squares on the grid; cell + background + interaction = 1.

    by_chance: the shares (cell, background, interaction) expected of pure noise: degrees of freedom over their total.
    """

    cell: float
    background: float
    interaction: float
    by_chance: tuple[float, float, float]


class Retrieval(NamedTuple):
    """Share of queries whose nearest candidate is the same cell, the share by chance, and each query's hit [N, K].

    With "other_backgrounds" a query's hit is its share of right answers over the K - 1 other backgrounds.
    """

    accuracy: float
    chance: float
    hit: np.ndarray


class Flips(NamedTuple):
    """How predictions change with the background.

    worst_of_k   share of cells whose prediction changes on at least one background
    mean         share of (cell, background) whose prediction differs from the reference
    worst_case_accuracy, reference_accuracy   with targets: share of cells right on the reference and on all K
                 backgrounds, and right on the reference; NaN without targets
    """

    worst_of_k: float
    mean: float
    worst_case_accuracy: float
    reference_accuracy: float


def cosines(grid: Any) -> Cosines:
    """Mean cosines on the grid [N, K, D], over all pairs of embeddings of each kind.

    Computed from sums of unit vectors, so memory does not grow with pairs. Raises ValueError naming cells with a zero
    or not finite embedding.
    """
    unit = _unit(_grid(grid))
    n, k, _ = unit.shape
    # |sum of unit vectors|^2 = number of them + twice the sum of the cosines of all pairs.
    cell = np.sum(unit.sum(axis=1) ** 2) - n * k
    background = np.sum(unit.sum(axis=0) ** 2) - n * k
    everything = np.sum(unit.sum(axis=(0, 1)) ** 2) - n * k
    other = everything - cell - background
    pairs = (n * k * (k - 1), n * k * (n - 1), n * k * (n - 1) * (k - 1))
    return Cosines(*(float(s / p) for s, p in zip((cell, background, other), pairs, strict=True)))


def variance_shares(grid: Any) -> VarianceShares:
    """Two-way analysis of variance without replicates on the grid [N, K, D], squares summed over the D features.

    Features count by their variance: standardise them first where their scales mean nothing. Raises ValueError where
    the grid is constant, and naming cells that are not finite.
    """
    x = _grid(grid)
    n, k, _ = x.shape
    x = x - x.mean(axis=(0, 1))
    total = np.sum(x**2)
    if not total > 0:
        raise ValueError("all embeddings of the grid are equal: there is no variance to explain.")
    cell = k * np.sum(x.mean(axis=1) ** 2)
    background = n * np.sum(x.mean(axis=0) ** 2)
    by_chance = tuple(f / (n * k - 1) for f in (n - 1, k - 1, (n - 1) * (k - 1)))
    left = total - cell - background
    return VarianceShares(float(cell / total), float(background / total), float(left / total), by_chance)


def retrieval(grid: Any, *, candidates: Candidates = "all") -> Retrieval:
    """Is the nearest embedding by cosine the same cell on another background?

    grid        [N, K, D] (searched in float32, on the device)
    candidates  "other_backgrounds": all cells on one other background at a time (can the cell be found again?);
                "all": every other embedding, so that other cells on the query's own background compete (does the cell
                or the background make embeddings alike?)
    Of equal cosines the lower cell number wins. Raises ValueError naming cells with zero or not finite embeddings.
    """
    if candidates not in get_args(Candidates):
        known = get_args(Candidates)
        raise ValueError(f"candidates={candidates!r}: not one of {', '.join(known)}.{nearest_word(candidates, known)}")
    unit = _unit(_grid(grid)).astype(np.float32)
    n, k, d = unit.shape
    if candidates == "all":
        flat, own = unit.reshape(n * k, d), np.arange(n * k)
        found = nearest(flat, flat, k=1, bank_groups=own, query_groups=own).row[:, 0]
        hit = (found // k == own // k).reshape(n, k).astype(np.float64)
        return Retrieval(float(hit.mean()), (k - 1) / (n * k - 1), hit)
    hit = np.zeros((n, k))
    for query in range(k):
        for bank in range(k):
            if bank != query:
                found = nearest(unit[:, bank], unit[:, query], k=1).row[:, 0]
                hit[:, query] += (found == np.arange(n)) / (k - 1)
    return Retrieval(float(hit.mean()), 1 / n, hit)


def flip_rate(predictions: Any, reference: Any, *, targets: Any = None) -> Flips:
    """How often a cell's predicted class [N, K] differs from its prediction on its own background, reference [N].

    targets: true classes [N], for the worst-case accuracy. Raises ValueError for shapes that do not fit.
    """
    predicted, before = np.asarray(predictions), np.asarray(reference)
    if predicted.ndim != 2 or not predicted.size or before.shape != predicted.shape[:1]:
        raise ValueError(
            f"predictions must be [N, K] and reference [N], got {list(predicted.shape)} and {list(before.shape)}."
        )
    changed = predicted != before[:, None]
    worst = clean = float("nan")
    if targets is not None:
        truth = np.asarray(targets)
        if truth.shape != before.shape:
            raise ValueError(f"targets must be [{len(before)}], got {list(truth.shape)}.")
        right = before == truth
        clean = float(right.mean())
        worst = float((right & (predicted == truth[:, None]).all(axis=1)).mean())
    return Flips(float(changed.any(axis=1).mean()), float(changed.mean()), worst, clean)


def _grid(grid: Any) -> np.ndarray:
    x = np.asarray(grid)
    if x.ndim != 3 or min(x.shape[:2], default=0) < 2 or not x.shape[2] or not np.issubdtype(x.dtype, np.floating):
        raise ValueError(f"a grid must be floats [N >= 2 cells, K >= 2 backgrounds, D], got {x.dtype} {list(x.shape)}.")
    x = x.astype(np.float64)
    _refuse(~np.isfinite(x).all(axis=(1, 2)), "embeddings that are not finite")
    return x


def _unit(x: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(x, axis=2, keepdims=True)
    _refuse((length == 0).any(axis=(1, 2)), "embeddings of length zero, which have no cosine")
    return x / length


def _refuse(wrong: Any, what: str) -> None:
    cells = np.flatnonzero(wrong)
    if cells.size:
        raise ValueError(f"cells with {what}: {capped([str(c) for c in cells])}.")
