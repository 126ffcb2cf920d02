"""Splitting rows into training, validation and test parts, or folds, by whole groups and alike in their labels.

A group (protein, field, plate) never lies in two parts. Groups are handed out greedily, the rarest label first, each
to the part that lacks that label most: iterative stratification (Sechidis, Tsoumakas & Vlahavas, ECML PKDD 2011),
applied to groups instead of rows, so that it serves several labels a row as well as one.

Rule for rare classes: a class in fewer groups than there are parts is missing from some of them. Of equal needs the
part named first in `priority` is served, so that training comes before testing and testing before validation; what is
missing where is in `Assignment.missing` and in the report, and never an error by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

Rare = Literal["report", "keep"]


class Split(NamedTuple):
    """Row numbers of one split. An empty `val` means that nothing can be chosen (k, L2), so it has to be fixed."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    name: str = ""


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
            in_groups = _group_counts(self.labels[rows], self.groups[rows])[0] > 0
            result[part] = {
                "rows": len(rows),
                "groups": len(np.unique(self.groups[rows])),
                "class_rows": dict(zip(names, self.labels[rows].sum(axis=0).tolist(), strict=True)),
                "class_groups": dict(zip(names, in_groups.sum(axis=0).tolist(), strict=True)),
                "missing": [names[i] for i in self.missing.get(part, [])],
            }
        return result


def assign(
    labels: Any, groups: Any, *, shares: Sequence[float], names: Sequence[str], seed: int, priority: Sequence[int] = ()
) -> Assignment:
    """Hand whole groups to parts so that rows, and rows of every class, lie near the wanted shares.

    labels: [N, L] multi-hot, or [N] class numbers; groups: [N] ids of any type; shares: one positive number a part
    (only ratios matter); priority: part numbers in the order in which equal needs are served (default: by share).
    Deterministic in `seed`, which breaks the ties among groups. Raises ValueError when a part would stay empty.
    """
    hot, number = _labels(labels), _groups(groups, len(np.asarray(labels)))
    wanted = np.asarray(shares, np.float64)
    if len(wanted) != len(names) or len(wanted) < 1 or not (wanted > 0).all() or not np.isfinite(wanted).all():
        raise ValueError(f"shares must be one positive number for each of {list(names)}, got {list(shares)}.")
    n_groups = int(number.max(initial=-1)) + 1
    if n_groups < len(names):
        raise ValueError(f"{n_groups} groups cannot fill {len(names)} parts ({', '.join(names)}).")
    wanted = wanted / wanted.sum()
    order = np.asarray(priority if len(priority) else np.argsort(-wanted, kind="stable"))
    part_of_group = _hand_out(*_group_counts(hot, number), wanted, order, np.random.default_rng(seed))
    return Assignment(part_of_group[number].astype(np.int32), tuple(names), hot, number)


def k_fold(labels: Any, groups: Any, *, folds: int, seed: int) -> Assignment:
    """Group-safe stratified folds of equal size, named "0", "1", ... (see `assign`)."""
    if folds < 2:
        raise ValueError(f"folds={folds}: at least 2 are needed.")
    return assign(labels, groups, shares=[1.0] * folds, names=[str(i) for i in range(folds)], seed=seed)


def k_fold_splits(folds: Assignment) -> list[Split]:
    """One split a fold: it is tested, the next one validates, the others train; every row is tested exactly once."""
    n = len(folds.names)
    if n < 3:
        raise ValueError(f"{n} folds leave nothing to train on beside a validation and a test fold; use at least 3.")
    rows = [folds.rows(name) for name in folds.names]
    splits = []
    for i in range(n):
        train = np.sort(np.concatenate([rows[j] for j in range(n) if j not in (i, (i + 1) % n)]))
        splits.append(Split(train, rows[(i + 1) % n], rows[i], f"fold {folds.names[i]}"))
    return splits


def train_val_test(
    labels: Any, groups: Any, *, shares: tuple[float, float, float] = (0.6, 0.2, 0.2), seed: int
) -> Assignment:
    """Parts "train", "val" and "test"; of equal needs train is served before test, and test before val."""
    return assign(labels, groups, shares=shares, names=("train", "val", "test"), seed=seed, priority=(0, 2, 1))


def split_of(assignment: Assignment, name: str = "") -> Split:
    """The `Split` of an assignment with parts "train", "val" and "test"."""
    return Split(*(assignment.rows(part) for part in ("train", "val", "test")), name=name)


def nested_fractions(
    labels: Any, groups: Any, *, fractions: Sequence[float], seed: int, rare: Rare = "report"
) -> dict[float, np.ndarray]:
    """Row numbers for each fraction of the groups, smaller fractions inside larger ones, each stratified.

    rare="keep" puts the smallest group of every class into all fractions (which can make small ones larger than asked);
    "report" lets rare classes be missing from small fractions. Fractions lie in (0, 1].
    """
    wanted = sorted(set(fractions), reverse=True)
    if not wanted or not all(0 < f <= 1 for f in wanted):
        raise ValueError(f"fractions must lie in (0, 1], got {list(fractions)}.")
    if rare not in ("report", "keep"):
        raise ValueError(f"rare={rare!r}: not one of 'report', 'keep'.")
    hot, number = _labels(labels), _groups(groups, len(np.asarray(labels)))
    kept = _smallest_group_of_each_class(hot, number) if rare == "keep" else np.empty(0, np.int64)
    always = np.isin(number, kept)
    inside, size = np.flatnonzero(~always), 1.0
    result = {}
    for step, fraction in enumerate(wanted):
        share = fraction / size
        if share < 1 and len(np.unique(number[inside])) > 1:
            parts = assign(
                hot[inside], number[inside], shares=(share, 1 - share), names=("in", "out"), seed=seed + step
            )
            inside = inside[parts.rows("in")]
        size = fraction
        result[fraction] = np.sort(np.concatenate([np.flatnonzero(always), inside]))
    return result


def leave_one_group_out(
    labels: Any, groups: Any, *, inner_groups: Any = None, inner_share: float = 0.25, seed: int = 0
) -> list[Split]:
    """One split for every group: it is tested, all others train.

    inner_groups: [N] ids of finer groups (fields) by which a share of the training rows is set aside to choose
    k and L2; None leaves `val` empty. Classes that occur in one group only cannot be learned when it is left out.
    """
    hot, number = _labels(labels), _groups(groups, len(np.asarray(labels)))
    names = np.unique(np.asarray(groups))
    if len(names) < 2:
        raise ValueError("leaving one group out needs at least 2 groups.")
    splits = []
    for i, name in enumerate(names):
        train, val, test = np.flatnonzero(number != i), np.empty(0, np.int64), np.flatnonzero(number == i)
        if inner_groups is not None:
            inner = np.asarray(inner_groups)[train]
            shares = (1 - inner_share, inner_share)
            parts = assign(hot[train], inner, shares=shares, names=("train", "val"), seed=seed)
            train, val = train[parts.rows("train")], train[parts.rows("val")]
        splits.append(Split(train, val, test, f"without {name}"))
    return splits


def overlaps(split: Split, groups: Any) -> list[str]:
    """The groups that lie in more than one part of a split (an empty list for a group-safe split)."""
    ids = np.asarray(groups)
    train, val, test = (set(ids[rows].tolist()) for rows in (split.train, split.val, split.test))
    return sorted(map(str, (train & val) | (train & test) | (val & test)))


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


def _group_counts(hot: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of each label in each group [G, L], and rows in each group [G]."""
    n_groups = int(number.max(initial=-1)) + 1
    columns = [np.bincount(number[hot[:, i]], minlength=n_groups) for i in range(hot.shape[1])]
    counts = np.stack(columns, axis=1) if columns else np.zeros((n_groups, 0), np.int64)
    return counts, np.bincount(number, minlength=n_groups)


def _smallest_group_of_each_class(hot: np.ndarray, number: np.ndarray) -> np.ndarray:
    counts, sizes = _group_counts(hot, number)
    size = np.where(counts > 0, sizes[:, None], math.inf)
    return np.unique(size.argmin(axis=0)[counts.any(axis=0)]) if len(sizes) else np.empty(0, np.int64)


def _labels(labels: Any) -> np.ndarray:
    array = np.asarray(labels)
    if array.ndim == 1 and np.issubdtype(array.dtype, np.integer) and not (array < 0).any():
        return array[:, None] == np.arange(array.max(initial=-1) + 1)
    if array.ndim != 2 or not (array.dtype == bool or np.isin(array, (0, 1)).all()):
        raise ValueError(
            f"labels must be multi-hot [N, L] or class numbers [N], got {array.dtype} {list(array.shape)}."
        )
    return array.astype(bool)


def _groups(groups: Any, n: int) -> np.ndarray:
    ids = np.asarray(groups)
    if ids.shape != (n,):
        raise ValueError(f"{n} rows need {n} group ids, got shape {list(ids.shape)}.")
    missing = np.flatnonzero([g is None or g == "" or g != g for g in ids.tolist()])
    if missing.size:
        more = f" and {missing.size - 10} more" if missing.size > 10 else ""
        raise ValueError(f"rows without a group id: {', '.join(map(str, missing[:10]))}{more}.")
    return np.unique(ids, return_inverse=True)[1].astype(np.int64)
