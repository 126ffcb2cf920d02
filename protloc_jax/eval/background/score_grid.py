"""Measures without labels on the grid of cells and backgrounds, and how often predictions flip on it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from protloc_jax.eval.background import label_free
from protloc_jax.eval.background.protocols import ProtocolOptions, transfer
from protloc_jax.eval.background.rows import ConditionRows


class GridScores(NamedTuple):
    """Measures on N cells x K backgrounds.

    left_out     cells of the grid that lack an image in the table
    raw          cosines of the features; standardised: of features brought to the baseline's mean and deviation, as
                 are `variance` and both retrievals (all backgrounds at once, and from one background to another)
    flips        of a transferred classifier, whose reference is the cell's own crop; None without one. The grid's
                 donors may have been training crops
    """

    cells: int
    backgrounds: int
    left_out: tuple[str, ...]
    raw: label_free.Cosines
    standardised: label_free.Cosines
    variance: label_free.VarianceShares
    retrieval: label_free.Retrieval
    retrieval_elsewhere: label_free.Retrieval
    flips: label_free.Flips | None


class Grid(NamedTuple):
    """Row numbers [N, K] of the grid's rows, the N cells, the K donors, and cells that lack a row."""

    rows: np.ndarray
    cells: tuple[str, ...]
    donors: tuple[str, ...]
    left_out: tuple[str, ...]


def grid_of(rows: ConditionRows) -> Grid:
    """Where each cell on each background stands. ValueError where fewer than two cells are complete."""
    cells, donors = (tuple(dict.fromkeys(column)) for column in (rows.cell, rows.donor))
    at = np.full((len(cells), len(donors)), -1)
    of_cell, of_donor = ({name: i for i, name in enumerate(names)} for names in (cells, donors))
    for row, (cell, donor) in enumerate(zip(rows.cell, rows.donor, strict=True)):
        at[of_cell[cell], of_donor[donor]] = row
    whole = np.asarray((at >= 0).all(axis=1))
    if whole.sum() < 2:
        raise ValueError(f"the grid has {int(whole.sum())} cells with an image on each of {len(donors)} backgrounds.")
    left = tuple(str(c) for c, there in zip(cells, whole.tolist(), strict=True) if not there)
    return Grid(at[whole], tuple(c for c, there in zip(cells, whole.tolist(), strict=True) if there), donors, left)


def grid_scores(
    rows: ConditionRows, baseline: ConditionRows, options: ProtocolOptions | None
) -> tuple[GridScores, str]:
    """All measures on the grid's rows, and why there are no flips ('' where there are).

    options   of the classifier whose predictions may flip, fitted on the baseline's folds; None: no flips
    """
    grid = grid_of(rows)
    x = rows.features[grid.rows].astype(np.float64)
    mean, spread = baseline.features.mean(0, dtype=np.float64), baseline.features.std(0, dtype=np.float64)
    scaled = (x - mean) / np.where(spread > 0, spread, 1.0)
    flips, why = None, "no classifier was asked for"
    if options is not None:
        try:
            scored = transfer({"baseline": baseline, "grid": rows}, options)
            first = {cell: i for i, cell in reversed(list(enumerate(baseline.cell)))}
            own = np.array([first[cell] for cell in grid.cells])
            base = scored["baseline"]
            flips = label_free.flip_rate(
                scored["grid"].predicted[grid.rows], base.predicted[own], targets=base.target[own]
            )
            why = ""
        except ValueError as error:
            why = str(error)
    found = GridScores(
        len(grid.cells),
        len(grid.donors),
        grid.left_out,
        label_free.cosines(x),
        label_free.cosines(scaled),
        label_free.variance_shares(scaled),
        label_free.retrieval(scaled),
        label_free.retrieval(scaled, candidates="other_backgrounds"),
        flips,
    )
    return found, why
