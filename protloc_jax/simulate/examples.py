"""The images of a simulated data set, whatever one image shows: a field of view or a single cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from protloc_jax.simulate import crops, fields, layout
from protloc_jax.simulate.config import SimConfig
from protloc_jax.simulate.fields import Field


def catalogue(config: SimConfig) -> pd.DataFrame:
    """Return one row an image, a field of view or a single cell.

    Columns of fields: id, protein, classes (joined by ';', primary first), primary, plate, well, site, cell_line, split
    (by protein, stratified by primary class), weights (JSON, class → weight), complex (proteins of one complex share
    their texture). Of a pooled field, protein to complex say what its cells carry unless they drew another protein.

    Columns of cells: the same, of the cell's own protein, and field (id), cell (label in the field), row and column
    (centre of its box, pixels of the field), phase (of the cell cycle, 0–1), coverage and others (shares of the image
    that the cell and other cells cover), neighbours (number of other cells in the image), neighbour_proteins (theirs,
    joined by ';', those of most area first); where `neighbours` is not plain also neighbour_kind (its value) and
    neighbour_class (primary class of the neighbours, empty where there are none). Making it draws the geometry of every
    field, some 50 ms each.
    """
    return crops.cached_cells(config).copy() if config.of_cells else layout.catalogue(config)


def render(config: SimConfig, row_or_index: int | str | Mapping[str, Any] | pd.Series) -> Field:
    """Render one image from its catalogue row, its position or (cells) its key, independent of all others.

    Raises ValueError for what is not in the catalogue or does not belong to this configuration.
    """
    if config.of_cells:
        return crops.render(config, row_or_index)
    if isinstance(row_or_index, str):
        raise ValueError(f"{row_or_index!r}: fields are rendered by catalogue row or position, only cells by key")
    return fields.render(config, row_or_index)


def render_many(
    config: SimConfig, indices: Sequence[int] | None = None, *, workers: int | None = None
) -> Iterator[Field]:
    """Render many images in order; the result does not depend on `workers` (None: one a core; 0 or 1: this process).

    As with every pool of fresh processes, a script must guard its entry with ``if __name__ == "__main__"``.
    """
    if config.of_cells:
        return crops.render_many(config, indices, workers=workers)
    return fields.render_many(config, indices, workers=workers)
