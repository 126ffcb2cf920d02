"""Handing whole groups to parts so that every part holds its share of the rows and of every class.

A group (protein, field, plate) never lies in two parts. Groups are first handed out greedily, the rarest label first,
each to the part that lacks that label most: iterative stratification (Sechidis, Tsoumakas & Vlahavas, ECML PKDD
2011), applied to groups instead of rows, so that it serves several labels a row as well as one. Then groups are moved,
and pairs of groups exchanged, while that brings the parts nearer to their shares.

Rule for rare classes: a class in fewer groups than there are parts is missing from some of them. Of equal needs the
part named first in `priority` is served, so that training comes before testing and testing before validation; what is
missing where is in `Assignment.missing` and in the report, and never an error by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from protloc_jax.data.grouping import group_counts, group_numbers

_ROUNDS = 4
_MOST_COMPARED = 10**8  # numbers looked at in one round of exchanging pairs, which is quadratic in the groups


class Assignment(NamedTuple):
    """The part of every row, with what is needed to report on it.

    part [N] int32 number of the part, names of the parts, labels [N, L] bool, groups [N] int64 group numbers.
    """

    part: np.ndarray
    names: tuple[str, ...]
    labels: np.ndarray
    groups: np.ndarray

    def rows(self, name: str) -> np.ndarray:
        """Row numbers of the part called `name`."""
        return np.flatnonzero(self.part == self.names.index(name))

    @property
    def missing(self) -> dict[str, list[int]]:
        """Part name -> class numbers that occur in the data but not in that part (parts that miss none left out)."""
        occurs = self.labels.any(axis=0)
        absent = {n: np.flatnonzero(occurs & ~self.labels[self.rows(n)].any(axis=0)).tolist() for n in self.names}
        return {name: classes for name, classes in absent.items() if classes}

    def report(self, label_names: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
        """For every part: rows, groups, rows and groups of every class, and the classes it misses, by name."""
        names = list(label_names) or [str(i) for i in range(self.labels.shape[1])]
        result = {}
        for part in self.names:
            rows = self.rows(part)
            in_groups = group_counts(self.labels[rows], self.groups[rows])[0] > 0
            result[part] = {
                "rows": len(rows),
                "groups": len(np.unique(self.groups[rows])),
                "class_rows": dict(zip(names, self.labels[rows].sum(axis=0).tolist(), strict=True)),
                "class_groups": dict(zip(names, in_groups.sum(axis=0).tolist(), strict=True)),
                "missing": [names[i] for i in self.missing.get(part, [])],
            }
        return result


def assign(
    labels: Any,
    groups: Any,
    *,
    shares: Sequence[float],
    names: Sequence[str],
    seed: int,
    priority: Sequence[int] = (),
    refine: bool = True,
) -> Assignment:
    """Hand whole groups to parts so that rows, and rows of every class, lie near the wanted shares.

    labels: [N, L] multi-hot, or [N] class numbers; groups: [N] ids of any type; shares: one positive number a part
    (only ratios matter); priority: part numbers in the order in which equal needs are served (default: by share);
    refine: improve the greedy result by moves and exchanges.
    Deterministic in `seed`, which breaks the ties among groups; the order of the rows does not matter. Raises
    ValueError when a part would stay empty.
    """
    hot, number = multi_hot(labels), group_numbers(groups, len(np.asarray(labels)))
    wanted = np.asarray(shares, np.float64)
    if len(wanted) != len(names) or len(wanted) < 1 or not (wanted > 0).all() or not np.isfinite(wanted).all():
        raise ValueError(f"shares must be one positive number for each of {list(names)}, got {list(shares)}.")
    n_groups = int(number.max(initial=-1)) + 1
    if n_groups < len(names):
        raise ValueError(f"{n_groups} groups cannot fill {len(names)} parts ({', '.join(names)}).")
    wanted = wanted / wanted.sum()
    order = np.asarray(priority if len(priority) else np.argsort(-wanted, kind="stable"))
    counts, sizes = group_counts(hot, number)
    part_of_group = _hand_out(counts, sizes, wanted, order, np.random.default_rng(seed))
    if refine and len(names) > 1:
        part_of_group = _Refined(counts, sizes, wanted, part_of_group).place
    return Assignment(part_of_group[number].astype(np.int32), tuple(names), hot, number)


def multi_hot(labels: Any) -> np.ndarray:
    """Labels as bool [N, L], from multi-hot rows or class numbers [N]; ValueError for anything else."""
    array = np.asarray(labels)
    if array.ndim == 1 and np.issubdtype(array.dtype, np.integer) and not (array < 0).any():
        return array[:, None] == np.arange(array.max(initial=-1) + 1)
    if array.ndim != 2 or not (array.dtype == bool or np.isin(array, (0, 1)).all()):
        raise ValueError(
            f"labels must be multi-hot [N, L] or class numbers [N], got {array.dtype} {list(array.shape)}."
        )
    return array.astype(bool)


def _hand_out(
    counts: np.ndarray, sizes: np.ndarray, wanted: np.ndarray, priority: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The greedy loop: counts [G, L] rows of each label in each group, sizes [G] rows -> part of each group [G]."""
    n_groups, n_labels = counts.shape
    part = np.full(n_groups, -1)
    lack = np.outer(wanted, counts.sum(axis=0)).astype(np.float64)
    lack_rows = wanted * sizes.sum()
    rank = np.empty(len(wanted))
    rank[priority] = np.arange(len(wanted))
    shuffled = rng.permutation(n_groups)
    left = counts.sum(axis=0).astype(np.float64)
    empty = np.ones(len(wanted), bool)
    waiting = n_groups

    def give(group: int, needs: tuple[np.ndarray, ...]) -> None:
        nonlocal waiting
        # Empty parts come first when only as many groups are left as there are empty parts.
        later = ~empty if empty.sum() >= waiting else np.zeros(len(wanted), bool)
        chosen = np.lexsort((rank, *[-np.round(need, 9) for need in reversed(needs)], later))[0]
        part[group], empty[chosen] = chosen, False
        waiting -= 1
        lack[chosen] -= counts[group]
        lack_rows[chosen] -= sizes[group]
        left[:] -= counts[group]

    for _ in range(n_labels):
        if not (left > 0).any():
            break
        label = int(np.argmin(np.where(left > 0, left, np.inf)))
        members = shuffled[(part[shuffled] < 0) & (counts[shuffled, label] > 0)]
        for group in members[np.argsort(-counts[members, label], kind="stable")]:
            give(int(group), (lack[:, label], lack_rows))
    for group in sorted(shuffled[part[shuffled] < 0], key=lambda g: -sizes[g]):
        give(int(group), (lack_rows,))
    return part


class _Refined:
    """Local search from a first placing of groups; `place` [G] is the part of each group afterwards.

    The cost is the squared distance of each part's class counts and size from its share, every class and the size
    counted alike. It falls with every step, so ties stay as they were and rare classes where priority put them.
    """

    def __init__(self, counts: np.ndarray, sizes: np.ndarray, wanted: np.ndarray, place: np.ndarray):
        self.counts = np.concatenate([counts, sizes[:, None]], axis=1).astype(np.float64)
        total = self.counts.sum(axis=0)
        self.target = wanted[:, None] * total
        self.weight = 1.0 / np.maximum(total, 1.0) ** 2
        self.place = place.copy()
        self.have = np.zeros_like(self.target)
        np.add.at(self.have, place, self.counts)
        self.filled = np.bincount(place, minlength=len(wanted))
        swaps = len(place) ** 2 * self.counts.shape[1] <= _MOST_COMPARED
        for _ in range(_ROUNDS):
            if not (self._move() | (swaps and self._exchange())):
                break

    def _cost(self, totals: np.ndarray, part: slice | int | np.ndarray = slice(None)) -> np.ndarray:
        """Cost of totals [..., L + 1] in a part (or in each part)."""
        return ((totals - self.target[part]) ** 2 * self.weight).sum(-1)

    def _put(self, group: int, part: int) -> None:
        old = self.place[group]
        self.have[old] -= self.counts[group]
        self.have[part] += self.counts[group]
        self.filled[old] -= 1
        self.filled[part] += 1
        self.place[group] = part

    def _move(self) -> bool:
        """Move single groups while the cost falls; a part never loses its last group this way."""
        changed = False
        for group in range(len(self.place)):
            here = int(self.place[group])
            if self.filled[here] > 1:
                growth = self._cost(self.have + self.counts[group]) - self._cost(self.have)
                growth[here] = self._cost(self.have[here], here) - self._cost(
                    self.have[here] - self.counts[group], here
                )
                best = int(np.argmin(growth))
                if growth[best] < growth[here] - 1e-12:
                    self._put(group, best)
                    changed = True
        return changed

    def _exchange(self) -> bool:
        """Exchange groups of different parts while the cost falls."""
        changed = False
        for group in range(len(self.place)):
            here = int(self.place[group])
            others = np.flatnonzero(self.place != here)
            there = self.place[others]
            step = self.counts[others] - self.counts[group]
            change = (
                self._cost(self.have[here] + step, here)
                + self._cost(self.have[there] - step, there)
                - self._cost(self.have[here], here)
                - self._cost(self.have)[there]
            )
            best = int(np.argmin(change))
            if change[best] < -1e-12:
                other = int(others[best])
                self._put(group, int(there[best]))
                self._put(other, here)
                changed = True
        return changed
