"""The kinds of cells there are: what makes their geometry, draws their organelles and stains their structures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from protloc_jax.simulate.geometry import Cells, make_cells
from protloc_jax.simulate.organelles import BUILDERS, Builder
from protloc_jax.simulate.structures import SHARED, Scene, inside_envelope
from protloc_jax.simulate.yeast import make_yeast
from protloc_jax.simulate.yeast_organelles import YEAST_BUILDERS, YEAST_SHARED, yeast_pool


@dataclass(frozen=True)
class Specimen:
    """One kind of cells: `make` draws the cells of a field, `builders` the classes, `shared` common structures,
    `pool` gives where unbound protein is.
    """

    make: Callable[..., Cells]
    builders: Mapping[str, Builder]
    shared: Mapping[str, Callable[[Scene, np.random.Generator], np.ndarray]]
    pool: Callable[[Cells], np.ndarray]


def _pool(cells: Cells) -> np.ndarray:
    return cells.thickness * (1 + 0.15 * inside_envelope(cells))


SPECIMENS: dict[str, Specimen] = {
    "culture": Specimen(make_cells, BUILDERS, SHARED, _pool),
    "yeast": Specimen(make_yeast, YEAST_BUILDERS, YEAST_SHARED, yeast_pool),
}
