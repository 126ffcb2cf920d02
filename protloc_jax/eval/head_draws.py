"""Which rows a step of head training sees: a pure function of (seed, fold, step).

Folds have unequal numbers of training rows. Their row numbers stand in one padded table, so that the members of a
run differ in integers only and share one compiled program. An epoch of a fold with n rows is ceil(n / batch) steps and
n draws: its last step counts only the rows that are left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class DrawTables(NamedTuple):
    """Row numbers of F folds, int32.

    rows [F, R] training rows and size [F] how many there are; positives [F, P] the rows of each class, class after
    class; start and count [F, C]: where in them the k-th class that occurs begins and how many rows it has; classes
    [F]: how many classes occur.
    """

    rows: Any
    size: Any
    positives: Any
    start: Any
    count: Any
    classes: Any


def draw_tables(hot: np.ndarray, folds: Sequence[np.ndarray]) -> DrawTables:
    """The tables of folds (arrays of training rows) with labels hot bool [N, C].

    A class without a training row is never drawn. ValueError for folds without any row or any label.
    """
    empty = [str(f) for f, rows in enumerate(folds) if not len(rows) or not hot[rows].any()]
    if empty:
        raise ValueError(f"folds without a labelled training row: {', '.join(empty)}.")
    positives, starts, counts = [], [], []
    for rows in folds:
        each = [np.asarray(rows)[hot[rows, c]] for c in range(hot.shape[1])]
        each = [own for own in each if len(own)]
        sizes = np.asarray([len(own) for own in each])
        positives.append(np.concatenate(each))
        starts.append(np.cumsum(sizes) - sizes)
        counts.append(sizes)
    return DrawTables(
        _padded(folds),
        np.asarray([len(rows) for rows in folds], np.int32),
        _padded(positives),
        _padded(starts),
        _padded(counts, fill=1),
        np.asarray([len(own) for own in counts], np.int32),
    )


def draws(
    tables: DrawTables, key: jax.Array, fold: Any, step: Any, *, batch: int, kind: Literal["class_balanced", "shuffled"]
) -> tuple[jax.Array, jax.Array]:
    """Rows [batch] int32 of one step, and which of them count [batch] bool. `key` is the member's own."""
    size = tables.size[fold]
    steps = -(-size // batch)
    epoch, place = step // steps, step % steps * batch + jnp.arange(batch)
    if kind == "class_balanced":
        one, two = jax.random.uniform(jax.random.fold_in(key, step), (2, batch), jnp.float32)
        drawn = _below(one, tables.classes[fold])
        within = _below(two, tables.count[fold][drawn])
        return tables.positives[fold][tables.start[fold][drawn] + within], place < size
    # A permutation of the first `size` places: the padding sorts last.
    order = jax.random.uniform(jax.random.fold_in(key, epoch), tables.rows.shape[1:], jnp.float32)
    order = jnp.argsort(jnp.where(jnp.arange(len(order)) < size, order, jnp.inf))
    return tables.rows[fold][order[jnp.minimum(place, size - 1)]], place < size


def _below(uniform: jax.Array, limit: jax.Array) -> jax.Array:
    """Whole numbers in [0, limit) from uniform numbers in [0, 1): rounding must not reach the limit."""
    return jnp.minimum((uniform * limit).astype(jnp.int32), limit - 1)


def _padded(lists: Sequence[Any], fill: int = 0) -> np.ndarray:
    table = np.full((len(lists), max(map(len, lists))), fill, np.int32)
    for own, values in zip(table, lists, strict=True):
        own[: len(values)] = values
    return table
