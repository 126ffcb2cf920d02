"""Comparing features of unequal width fairly: only within a width, or after a projection to one width.

A plan of two passes has twice the features of a plan of one, which alone can move a k-NN or a probe. Plans are either
compared within their width (`pairs_of_equal_width`), or brought to the narrowest width: by a random projection, which
looks at no data, or by principal components of training rows. Either is stated beside the scores ("projection").
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from protloc_jax.data.splits import Split
from protloc_jax.eval.evaluate import System

Kind = Literal["random", "pca"]


def by_width(tables: Mapping[str, System]) -> dict[int, list[str]]:
    """Names of the tables of each width, narrow first."""
    widths = {name: np.shape(table.x)[1] for name, table in tables.items()}
    return {width: [n for n, w in widths.items() if w == width] for width in sorted(set(widths.values()))}


def pairs_of_equal_width(tables: Mapping[str, System]) -> list[tuple[str, str]]:
    """All pairs (later, earlier) of tables that have the same number of features, for `evaluate_table(pairs=...)`."""
    return [(b, a) for names in by_width(tables).values() for a, b in itertools.combinations(names, 2)]


def at_equal_width(
    tables: Mapping[str, System],
    *,
    kind: Kind,
    splits: Sequence[Split] = (),
    width: int = 0,
    seed: int = 0,
) -> dict[str, System]:
    """The tables brought to one width (0: that of the narrowest), with "projection" in their `about`.

    kind    "random": wider tables by a Gaussian matrix drawn from `seed` (cosines hold up to noise of order
            1 / sqrt(width)); tables of that width stay as they are. "pca": every table, centred and rotated alike, by
            the leading principal components of the training rows of `splits`
    splits  for "pca": no training row of one may be a validation or test row of another (a k-fold does not serve)
    Raises ValueError naming every table that is narrower than the width, and splits that do not serve.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind='{kind}': not one of {', '.join(get_args(Kind))}.")
    widths = {name: np.shape(table.x)[1] for name, table in tables.items()}
    width = width or min(widths.values())
    narrow = [f"{name} ({w})" for name, w in widths.items() if w < width]
    if narrow or width < 1:
        raise ValueError(f"width {width} asked for; narrower are {', '.join(narrow) or 'none'}.")
    mixed = [n for n, t in tables.items() if t.scale != "none" and (kind == "pca" or widths[n] > width)]
    if mixed:
        raise ValueError(f"features of unequal units cannot be mixed by a projection: leave out {', '.join(mixed)}.")
    rows = _training_rows(splits) if kind == "pca" else None
    made = {}
    for name, table in tables.items():
        x, words = np.asarray(table.x, np.float32), "none"
        if rows is not None:
            x = principal(x, rows, width)
            words = f"{widths[name]} -> {width} principal components of {len(rows)} training rows"
        elif widths[name] > width:
            x = randomly_projected(x, width, seed=seed)
            words = f"{widths[name]} -> {width} at random, seed {seed}"
        made[name] = table._replace(x=x, about={**table.about, "projection": words})
    return made


def randomly_projected(x: np.ndarray, width: int, *, seed: int) -> np.ndarray:
    """x [N, D] times a Gaussian matrix [D, width] of variance 1 / width, float32: expected squared lengths are kept."""
    matrix = np.random.default_rng(seed).standard_normal((x.shape[1], width)) / np.sqrt(width)
    return (x.astype(np.float64) @ matrix).astype(np.float32)


def principal(x: np.ndarray, rows: np.ndarray, width: int) -> np.ndarray:
    """The first `width` principal components [N, width] of x [N, D], mean and axes from `rows` alone; float32.

    Each axis points so that its largest coefficient is positive. Raises ValueError where the rows span fewer axes.
    """
    fitted = x[rows].astype(np.float64)
    if width > min(len(rows) - 1, x.shape[1]):
        raise ValueError(f"{len(rows)} training rows of {x.shape[1]} features span no {width} principal components.")
    mean = fitted.mean(axis=0)
    axes = np.linalg.svd(fitted - mean, full_matrices=False)[2][:width]
    strongest = np.abs(axes).argmax(axis=1)
    axes *= np.sign(axes[np.arange(width), strongest])[:, None]
    return ((x.astype(np.float64) - mean) @ axes.T).astype(np.float32)


def _training_rows(splits: Sequence[Split]) -> np.ndarray:
    """Rows that every evaluation may learn from; ValueError where some split holds one of them out."""
    if not splits:
        raise ValueError("principal components are fitted on training rows: give the splits.")
    train = np.unique(np.concatenate([s.train for s in splits]))
    held_out = np.concatenate([rows for s in splits for rows in (s.val, s.test)])
    both = np.intersect1d(train, held_out)
    if both.size:
        raise ValueError(
            f"{both.size} training rows are held out by another split, so one set of principal components would have "
            "seen them: use one split, or a random projection."
        )
    return train
