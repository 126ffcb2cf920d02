"""Groups that must stay whole: rows that share a value of any of several columns, directly or through other rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from protloc_jax.data.manifest import capped


def joined_groups(columns: Mapping[str, Sequence[Any]], *, missing: str = "refuse") -> np.ndarray:
    """Number the connected components of rows over columns: [N] int64, counted in order of first appearance.

    Two rows belong together when they share a value of any column; so no value of any column lies in two groups.

    columns  name -> N values; None, "" and NaN are missing
    missing  "refuse" raises ValueError naming the rows; "alone" leaves such a row unlinked by that column
    """
    length = {name: len(values) for name, values in columns.items()}
    if len(set(length.values())) != 1:
        raise ValueError(f"columns to group by must be one or more of equal length, got {length}.")
    n = next(iter(length.values()))
    parent = list(range(n))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    problems = []
    for name, values in columns.items():
        first: dict[Any, int] = {}
        absent = []
        for row, value in enumerate(values):
            if is_missing(value):
                absent.append(row)
                continue
            a, b = root(first.setdefault(value, row)), root(row)
            # The smaller row becomes the root, so that numbers follow the first appearance.
            parent[max(a, b)] = min(a, b)
        if absent and missing == "refuse":
            problems.append(f"rows without a group id in '{name}': {capped([str(r) for r in absent])}.")
    if problems:
        raise ValueError(" ".join(problems))
    roots = np.asarray([root(row) for row in range(n)], np.int64)
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)


def is_missing(value: Any) -> bool:
    """True for None, an empty text and NaN."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value)) or value != value


def group_numbers(groups: Any, n: int) -> np.ndarray:
    """One group column as [N] int64 numbers of its sorted values. ValueError for another length or missing ids."""
    ids = np.asarray(groups)
    if ids.shape != (n,):
        raise ValueError(f"{n} rows need {n} group ids, got shape {list(ids.shape)}.")
    absent = [str(row) for row, value in enumerate(ids.tolist()) if is_missing(value)]
    if absent:
        raise ValueError(f"rows without a group id: {capped(absent)}.")
    return np.unique(ids, return_inverse=True)[1].astype(np.int64)


def group_counts(hot: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of each label in each group [G, L], and rows in each group [G], of labels [N, L] and group numbers [N]."""
    n_groups = int(number.max(initial=-1)) + 1
    columns = [np.bincount(number[hot[:, i]], minlength=n_groups) for i in range(hot.shape[1])]
    counts = np.stack(columns, axis=1) if columns else np.zeros((n_groups, 0), np.int64)
    return counts, np.bincount(number, minlength=n_groups)
