"""Train, validation and test: whole groups to each split, classes spread as the fractions ask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from protloc_jax.data.manifest import SPLITS

_ROUNDS = 4
_MOST_SWAPPED = 1000  # groups; exchanging pairs takes quadratic time


def check_fractions(fractions: Sequence[float]) -> None:
    """Raise ValueError unless three non-negative fractions (train, val, test) add up to 1 with some train."""
    good = len(fractions) == 3 and all(0 <= f <= 1 for f in fractions) and abs(sum(fractions) - 1) < 1e-6
    if not good or fractions[0] <= 0:
        raise ValueError(
            f"split_fractions={','.join(f'{f:g}' for f in fractions)}: give train,val,test as three fractions that add "
            "up to 1, with some train, for example .7,.1,.2."
        )


def split_groups(groups: Sequence[str], hot: np.ndarray, fractions: Sequence[float], *, seed: int = 0) -> np.ndarray:
    """Assign each row the split of its group: [N] text, "train", "val" or "test".

    groups     [N] the value that must not be torn apart (a field of view, a protein, a plate)
    hot        [N, L] labels as zeros and ones (L may be 0)
    fractions  wanted shares of train, val, test; a share of 0 leaves that split empty

    Greedy: groups in order of size, largest first (ties by `seed`), each to the split where the squared distance of
    the label counts and of the row count to what is wanted grows least; then groups are moved, and pairs
    of groups exchanged (where there are at most 1000), while that helps. Raises ValueError when there are fewer groups
    than splits.
    """
    check_fractions(fractions)
    names, at = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    wanted = [s for s in range(3) if fractions[s] > 0]
    if len(names) < len(wanted):
        raise ValueError(
            f"{len(names)} group(s) cannot fill {len(wanted)} splits without being torn apart; split by a finer column "
            "or set fractions to 0."
        )
    plan = _Assignment(_counts(at, hot, len(names)), np.asarray([fractions[s] for s in wanted]))
    plan.fill(np.random.default_rng(seed).permutation(len(names)))
    plan.move()
    if len(names) <= _MOST_SWAPPED:
        plan.swap()
    return np.asarray([SPLITS[s] for s in wanted], dtype=object)[plan.place][at]


def _counts(at: np.ndarray, hot: np.ndarray, n: int) -> np.ndarray:
    """[groups, L + 1]: label counts of each group and, last, its rows."""
    whole = np.concatenate([hot, np.ones((len(at), 1), hot.dtype)], 1).astype(np.float64)
    counts = np.zeros((n, whole.shape[1]))
    np.add.at(counts, at, whole)
    return counts


class _Assignment:
    """Groups to splits. `counts` [G, L + 1] of each group, `have` and `target` [S, L + 1] of each split."""

    def __init__(self, counts: np.ndarray, fractions: np.ndarray):
        self.counts = counts
        self.target = fractions[:, None] * counts.sum(0)
        self.weight = 1.0 / np.maximum(counts.sum(0), 1.0) ** 2  # every class, and the size, counts alike
        self.have = np.zeros_like(self.target)
        self.place = np.full(len(counts), -1)
        self.filled = np.zeros(len(fractions), int)  # groups in each split

    def cost(self, totals: np.ndarray, split: slice | int = slice(None)) -> np.ndarray:
        """Weighted squared distance of totals [..., L + 1] from what a split (or each split) should hold."""
        return ((totals - self.target[split]) ** 2 * self.weight).sum(-1)

    def put(self, group: int, split: int) -> None:
        old = self.place[group]
        if old >= 0:
            self.have[old] -= self.counts[group]
            self.filled[old] -= 1
        self.have[split] += self.counts[group]
        self.filled[split] += 1
        self.place[group] = split

    def growth(self, group: int) -> np.ndarray:
        """[S] by how much the cost of each split grows when the group comes to it."""
        return self.cost(self.have + self.counts[group]) - self.cost(self.have)

    def fill(self, shuffled: np.ndarray) -> None:
        order = shuffled[np.argsort(-self.counts[shuffled, -1], kind="stable")]
        for position, group in enumerate(order):
            growth = self.growth(group)
            if len(order) - position <= (self.filled == 0).sum():  # one group for each split that is still empty
                growth[self.filled > 0] = np.inf
            self.put(group, int(np.argmin(growth)))

    def move(self) -> None:
        """Move single groups while the cost falls; a split never loses its last group this way."""
        for _ in range(_ROUNDS):
            before = self.place.copy()
            for group, here in enumerate(before):
                if self.filled[here] > 1:
                    growth = self.growth(group)
                    growth[here] = self.cost(self.have[here], here) - self.cost(
                        self.have[here] - self.counts[group], here
                    )
                    best = int(np.argmin(growth))
                    if growth[best] < growth[here] - 1e-12:
                        self.put(group, best)
            if (before == self.place).all():
                return

    def swap(self) -> None:
        """Exchange groups of different splits while the cost falls."""
        for _ in range(_ROUNDS):
            before = self.place.copy()
            for group in range(len(self.place)):
                here = int(self.place[group])
                change = np.full(len(self.place), np.inf)
                for there in set(range(len(self.have))) - {here}:
                    others = np.flatnonzero(self.place == there)
                    step = self.counts[others] - self.counts[group]
                    change[others] = (
                        self.cost(self.have[here] + step, here)
                        + self.cost(self.have[there] - step, there)
                        - self.cost(self.have[here], here)
                        - self.cost(self.have[there], there)
                    )
                best = int(np.argmin(change))
                if change[best] < -1e-12:
                    there = int(self.place[best])
                    self.put(group, there)
                    self.put(best, here)
            if (before == self.place).all():
                return
