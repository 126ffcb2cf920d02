"""Splits of rows into training, validation and test parts by whole groups: folds, one group out, few shots, fractions.

Every function takes labels ([N, L] multi-hot, or [N] class numbers) and group ids ([N]; several columns become one by
`grouping.joined_groups`) and gives row numbers. How groups are dealt out, and the rule for rare classes, is in
`stratified`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from protloc_jax.data.grouping import group_counts, group_numbers
from protloc_jax.data.stratified import Assignment, assign, multi_hot

Rare = Literal["report", "keep"]
Shots = Literal["groups", "examples"]


class Split(NamedTuple):
    """Row numbers of one split. An empty `val` means that nothing can be chosen (k, L2), so it has to be fixed."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    name: str = ""


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
    """Parts "train", "val" and "test"; of equal needs train is served before test, and test before val.

    A share of 0 leaves that part out. Raises ValueError where there are fewer groups than parts.
    """
    wanted = [i for i in range(3) if shares[i] > 0]
    names = ("train", "val", "test")
    made = assign(
        labels,
        groups,
        shares=[shares[i] for i in wanted],
        names=[names[i] for i in wanted],
        seed=seed,
        priority=sorted(range(len(wanted)), key=lambda i: (0, 2, 1)[wanted[i]]),
    )
    return made._replace(part=np.asarray(wanted, np.int32)[made.part], names=names)


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
    hot, number = multi_hot(labels), group_numbers(groups, len(np.asarray(labels)))
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
    hot, number = multi_hot(labels), group_numbers(groups, len(np.asarray(labels)))
    names = np.unique(np.asarray(groups))
    if len(names) < 2:
        raise ValueError("leaving one group out needs at least 2 groups.")
    splits = []
    for i, name in enumerate(names):
        train, val, test = np.flatnonzero(number != i), np.empty(0, np.int64), np.flatnonzero(number == i)
        if inner_groups is not None:
            inner = np.asarray(inner_groups)[train]
            shares = (1 - inner_share, inner_share)
            # One assignment a group left out: the greedy one is good enough to choose k on, and quick.
            parts = assign(hot[train], inner, shares=shares, names=("train", "val"), seed=seed, refine=False)
            train, val = train[parts.rows("train")], train[parts.rows("val")]
        splits.append(Split(train, val, test, f"without {name}"))
    return splits


def few_shot(
    labels: Any, groups: Any, *, shots: Sequence[int], of: Shots = "groups", val_shots: int = 0, seed: int = 0
) -> dict[int, Split]:
    """For every k of `shots`: k groups (or k examples) of each class train; the test rows are the same for every k.

    Groups are drawn class by class, the rarest first; a class that groups drawn for rarer ones already fill gets no
    more, so with several labels a row common classes can end above k. Smaller k lie inside larger ones. Then
    `val_shots` more a class are set aside for validation, and the rows of all other groups are the test.

    of="examples" takes one row of each drawn group; its other rows stay unused, for they are no fair test.
    Rule for rare classes: a class in g groups gives training at most g - 1 of them (validation after that at most
    what still leaves one), so that it can be tested; a class in a single group trains and is not tested.
    Raises ValueError where k is beyond every class, or nothing is left to test.
    """
    if not shots or min(shots) < 1 or val_shots < 0:
        raise ValueError(f"shots={list(shots)}, val_shots={val_shots}: at least one k, each 1 or more; val_shots >= 0.")
    if of not in ("groups", "examples"):
        raise ValueError(f"of={of!r}: not one of 'groups', 'examples'.")
    hot, number = multi_hot(labels), group_numbers(groups, len(np.asarray(labels)))
    has = group_counts(hot, number)[0] > 0
    held = has.sum(axis=0)
    if not held.any():
        raise ValueError("few-shot splits need labels; no row has one.")
    if max(shots) + val_shots >= held.max():
        raise ValueError(
            f"{max(shots)} training and {val_shots} validation groups of a class leave none to test: "
            f"no class has more than {held.max()} groups."
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(has))
    pick = np.full(len(number), False)
    if of == "examples":
        shuffled = rng.permutation(len(number))
        pick[shuffled[np.unique(number[shuffled], return_index=True)[1]]] = True
    else:
        pick[:] = True
    taken = np.zeros(len(has), bool)
    trained = {k: (_draw(has, held, order, taken, k), taken.copy())[1] for k in sorted(set(shots))}
    fitted = taken.copy()
    if val_shots:
        _draw(has, held, order, taken, val_shots, beside=fitted)
    test = np.flatnonzero(~taken[number])
    if not len(test):
        raise ValueError("few-shot splits: every group is drawn, so nothing is left to test; use fewer shots.")
    val = np.flatnonzero(pick & (taken & ~fitted)[number])
    return {k: Split(np.flatnonzero(pick & own[number]), val, test, f"{k} shots") for k, own in trained.items()}


def _draw(
    has: np.ndarray, held: np.ndarray, order: np.ndarray, taken: np.ndarray, k: int, beside: np.ndarray | None = None
) -> None:
    """Take groups until every class has k taken ones (those in `beside` not counted), one staying where there are two.

    has [G, L], held [L] groups of each class, order [G] the order of drawing; `taken` [G] is changed.
    """
    counted = taken if beside is None else taken & ~beside
    own = has[counted].sum(axis=0)
    left = has[~taken].sum(axis=0)
    for label in np.argsort(held, kind="stable"):
        for group in order[has[order, label] & ~taken[order]]:
            # A class in one group gives it to training; any other keeps one group for the test.
            last = has[group] & (left <= 1) & ~((held == 1) & (beside is None))
            if own[label] >= k:
                break
            if last.any():
                continue
            taken[group] = True
            own += has[group]
            left -= has[group]


def overlaps(split: Split, groups: Any) -> list[str]:
    """The groups that lie in more than one part of a split (an empty list for a group-safe split)."""
    ids = np.asarray(groups)
    train, val, test = (set(ids[rows].tolist()) for rows in (split.train, split.val, split.test))
    return sorted(map(str, (train & val) | (train & test) | (val & test)))


def _smallest_group_of_each_class(hot: np.ndarray, number: np.ndarray) -> np.ndarray:
    counts, sizes = group_counts(hot, number)
    size = np.where(counts > 0, sizes[:, None], math.inf)
    return np.unique(size.argmin(axis=0)[counts.any(axis=0)]) if len(sizes) else np.empty(0, np.int64)
