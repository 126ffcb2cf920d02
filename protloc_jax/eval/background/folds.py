"""Folds for background experiments: no cell, protein or donor crop may help to predict itself.

Rows are linked in two ways. Rows that share a value of a column in `group_by` (directly or through other rows) go to
the same fold. Where donors are drawn at random, joining by them soon ties all rows into one group; then `purge_by`
serves: folds ignore that column, and training rows that share a value of it with a fold's test rows are left out of
that fold's training, and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from protloc_jax.config import nearest
from protloc_jax.data.grouping import joined_groups
from protloc_jax.data.manifest import listed
from protloc_jax.data.splits import k_fold
from protloc_jax.eval.background.rows import ConditionRows

# "crop" is cell and donor under one name: a crop must not give its cell to one side and its background to the other.
# "group" is the group of proteins that cells and donors were dealt into before anything was drawn.
Link = Literal["cell", "donor", "protein", "crop", "group"]


class Fold(NamedTuple):
    """Row numbers that train and that are tested, and how many rows were purged from training."""

    train: np.ndarray
    test: np.ndarray
    purged: int


def check_links(**columns: Sequence[str]) -> None:
    """ValueError listing all names in `columns` that are no link, each with the nearest that is."""
    known = get_args(Link)
    bad = [
        f"{option} has '{name}': not one of {', '.join(known)}.{nearest(name, known)}"
        for option, names in columns.items()
        for name in names
        if name not in known
    ]
    if bad:
        raise ValueError(listed(bad))


def joined(rows: ConditionRows, group_by: Sequence[Link]) -> np.ndarray:
    """Group number of every row [N] int64: rows that share a value of any column of `group_by`, transitively."""
    check_links(group_by=group_by)
    n = len(rows)
    none = [None] * n
    # Every row stands twice, tied by its number, so that cells and donors can be compared in one column.
    columns: dict[str, list] = {"row": [*range(n), *range(n)]}
    for name in group_by:
        pair = (rows.cell, rows.donor) if name == "crop" else (getattr(rows, name), none)
        columns[name] = [*pair[0], *pair[1]]
    return joined_groups(columns, missing="alone")[:n]


def grouped_folds(
    rows: ConditionRows,
    *,
    folds: int,
    seed: int,
    group_by: Sequence[Link],
    purge_by: Sequence[Link] = (),
) -> tuple[list[Fold], int]:
    """Stratified folds of whole groups, every row tested once: (the folds, number of groups).

    Raises ValueError where a class has one group only, there are fewer groups than folds, or purging leaves a fold
    without a training row of some class; it says how many groups each column makes alone.
    """
    check_links(purge_by=purge_by)
    groups = joined(rows, group_by)
    names, label = np.unique(rows.label.astype(str), return_inverse=True)
    number = len(set(groups))
    single = [str(c) for i, c in enumerate(names) if len(set(groups[label == i])) < 2]
    if single or number < folds:
        alone = ", ".join(f"{name} {len(set(joined(rows, [name])))}" for name in group_by)
        which = f" classes with a single group: {', '.join(single)};" if single else ""
        raise ValueError(
            f"{number} joined groups for {folds} folds;{which} groups of each column alone: {alone}. "
            "Join by fewer columns and purge by the others, or keep donors apart."
        )
    part = k_fold(label, groups, folds=folds, seed=seed).part
    made, problems = [], []
    for fold in range(folds):
        test = np.flatnonzero(part == fold)
        train = np.flatnonzero(part != fold)
        kept = train[~shared(rows, train, test, purge_by)]
        lost = [str(c) for i, c in enumerate(names) if not (label[kept] == i).any()]
        if lost:
            problems.append(
                f"fold {fold} trains on no row of {', '.join(lost)} ({len(train) - len(kept)} of {len(train)} purged)."
            )
        made.append(Fold(kept, test, len(train) - len(kept)))
    if problems:
        raise ValueError(listed(problems))
    return made, number


def shared(rows: ConditionRows, train: np.ndarray, test: np.ndarray, purge_by: Sequence[Link]) -> np.ndarray:
    """Which of the row numbers `train` share a value of a column in `purge_by` with the row numbers `test`: bool."""
    found = np.zeros(len(train), bool)
    for name in purge_by:
        columns = (rows.cell, rows.donor) if name == "crop" else (getattr(rows, name),)
        tested = {value for column in columns for value in column[test]} - {"", None}
        for column in columns:
            found |= np.fromiter((value in tested for value in column[train]), bool, len(train))
    return found
