"""The grid: cells of the baseline, each on the same backgrounds, for the measures that need no labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from protloc_jax.data.keyed import choose, keyed_hash
from protloc_jax.eval.background.donors import Drawn, Pool, draw
from protloc_jax.eval.background.spec import BackgroundError, ImageSet, SetConfig

_GRID_CLASS, _GRID_PROTEIN, _GRID_ROW = range(13, 16)
_TRIES = 64


def draw_grid(config: SetConfig, crops: Pool, *, cells: int, backgrounds: int) -> Drawn:
    """Rows of the grid, [cells * backgrounds]: image n * backgrounds + k is cell n on background k.

    Cells are those of the baseline's images in turn: of image 0 of every class, of image 1, ..., each crop once, so
    that a classifier's answer on the cell's own background is there. Backgrounds: a class at random, a protein of it, a
    crop of it; each crop once, and none that gives a cell. Groups play no part: all cells share the backgrounds.
    Raises BackgroundError where there are fewer crops than are asked for.
    """
    if cells < 2 or backgrounds < 2:
        raise BackgroundError(f"a grid of {cells} x {backgrounds}: two cells and two backgrounds at least.")
    config_of_cells = replace(config, images=max(config.images, 1))
    columns = [draw(ImageSet("baseline", name), config_of_cells, crops).centre for name in crops.of_class]
    in_turn = np.stack(columns, 1).ravel()
    _, first = np.unique(in_turn, return_index=True)
    chosen = in_turn[np.sort(first)][:cells]
    if len(chosen) < cells:
        raise BackgroundError(
            f"grid: {len(chosen)} different cells in the baseline's images; {cells} are asked for. More images, or a "
            "smaller grid."
        )
    donors = _donors(config, crops, backgrounds * _TRIES)
    donors = donors[~np.isin(donors, chosen)]
    _, first = np.unique(donors, return_index=True)
    donors = donors[np.sort(first)][:backgrounds]
    if len(donors) < backgrounds:
        raise BackgroundError(
            f"grid: {len(donors)} crops for backgrounds beside the {cells} cells; {backgrounds} are asked for. Fewer "
            "cells, or fewer backgrounds."
        )
    none = np.full(cells * backgrounds, -1)
    return Drawn(np.repeat(chosen, backgrounds), np.tile(donors, cells), none, False)


def _donors(config: SetConfig, crops: Pool, count: int) -> np.ndarray:
    numbers = np.arange(count)
    members = list(crops.of_class.values())
    label = choose(keyed_hash(config.seed, _GRID_CLASS, numbers), len(members))
    sizes = np.array([len(group) for group in members])
    place = choose(keyed_hash(config.seed, _GRID_PROTEIN, numbers), sizes[label])
    protein = np.concatenate(members)[(np.cumsum(sizes) - sizes)[label] + place]
    return crops.row(protein, keyed_hash(config.seed, _GRID_ROW, numbers))
