"""Rendering: any field of view of a simulated data set made alone from its key."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd

from protloc_jax.config import nearest
from protloc_jax.simulate.config import SimConfig
from protloc_jax.simulate.contents import densities, draw_expression, pooled_densities
from protloc_jax.simulate.field import Field
from protloc_jax.simulate.layout import cached_catalogue, proteins_by_name
from protloc_jax.simulate.pooled import cell_proteins
from protloc_jax.simulate.presets_screens import Screen
from protloc_jax.simulate.proteins import Protein
from protloc_jax.simulate.screens import render_screen
from protloc_jax.simulate.shot import Light, Shot, arrive, develop, sent, take

GROUP = 4  # fields a worker renders before it answers


def _row(config: SimConfig, row_or_index: int | Mapping[str, Any] | pd.Series) -> Mapping[str, Any]:
    if not isinstance(row_or_index, (int, np.integer)):
        return dict(row_or_index)
    table = cached_catalogue(config)
    if not 0 <= int(row_or_index) < len(table):
        raise ValueError(f"field {int(row_or_index)} does not exist: the catalogue has {len(table)} rows")
    return table.iloc[int(row_or_index)].to_dict()


def own_protein(config: SimConfig, row: Mapping[str, Any]) -> Protein:
    """The protein of a catalogue row; raises ValueError for a row of another configuration."""
    known = proteins_by_name(config)
    name = row["protein"]
    if name not in known:
        hint = nearest(str(name), known)
        raise ValueError(f"row {row['id']!r}: protein {name!r} is not among this data set's {len(known)}.{hint}")
    if row["cell_line"] not in config.domain.cell_lines:
        raise ValueError(f"row {row['id']!r}: preset {config.preset} has no cell line {row['cell_line']!r}")
    if json.loads(row["weights"]).keys() != known[name].weights.keys():
        raise ValueError(f"row {row['id']!r}: protein {name!r} has other classes here; is it from another config?")
    return known[name]


def render(config: SimConfig, row_or_index: int | Mapping[str, Any] | pd.Series) -> Field:
    """Render one field of view from its catalogue row (or the row's position), independent of all others.

    Every draw comes from a key of (seed, preset, plate, well, site, purpose). Raises ValueError for a position outside
    the catalogue or a row that does not belong to this configuration.
    """
    row = _row(config, row_or_index)
    if isinstance(config.domain, Screen):
        return render_screen(config, row)
    protein, shot = own_protein(config, row), take(config, row)
    owners = cell_proteins(config, row, len(shot.cells.shapes))
    if config.pooled:
        density, pool, expression = pooled_densities(shot.specimen, shot.preset.classes, owners, shot.scene)
        light = sent(shot, density, pool, expression, by_cell=True)
    else:
        light, expression = alone(shot, protein)
    return finish(row, protein, shot, owners, light, expression)


def alone(shot: Shot, protein: Protein, *, address: str = "protein") -> tuple[Light, np.ndarray]:
    """What the cells of a field send out if all of them carry one protein, and its amount in each [K].

    `address` names the draws, so that several proteins can be put into one field.
    """
    expression = draw_expression(shot.stream(address), protein, shot.cells)
    contents = densities(shot.specimen, shot.preset.classes, protein, shot.scene, expression, address=address)
    return sent(shot, *contents, expression, by_cell=shot.preset.contrast_of == "cell"), expression


def finish(
    row: Mapping[str, Any],
    protein: Protein,
    shot: Shot,
    owners: Sequence[Protein],
    light: Light,
    expression: np.ndarray,
    *,
    only: np.ndarray | None = None,
) -> Field:
    """The field of a catalogue row with its image and truth; `only` [H, W] bool: the pixels whose cells are there."""
    cells = shot.cells
    truth = {
        "id": row["id"],
        "protein": protein.name,
        "weights": dict(protein.weights),
        "texture": protein.texture,
        "complex": protein.complex,
        "cell_proteins": tuple(owner.name for owner in owners),
        "cell_line": row["cell_line"],
        "quality": shot.quality,
        "defocus": shot.defocus,
        "contrast": shot.contrast,
        "expression": expression,
        "phase": cells.shapes.phase,
        "stage": cells.shapes.stage,
        "mtoc": cells.mtoc,
    }
    image, labels = develop(shot, arrive(shot, light), only=only), (cells.nucleus_labels, cells.cell_labels)
    nuclei, whole = labels if only is None else (np.where(only, part, 0) for part in labels)
    return Field(image, nuclei, whole, light.density, truth)


def _render_some(config: SimConfig, indices: Sequence[int]) -> list[Field]:
    return [render(config, index) for index in indices]


def render_many(
    config: SimConfig, indices: Sequence[int] | None = None, *, workers: int | None = None
) -> Iterator[Field]:
    """Render many fields in order; the result does not depend on `workers` (as in `in_order`)."""
    positions = [int(index) for index in (range(len(cached_catalogue(config))) if indices is None else indices)]
    groups = [positions[start : start + GROUP] for start in range(0, len(positions), GROUP)]
    return in_order(partial(_render_some, config), groups, workers if len(positions) > 1 else 0)


def in_order(
    job: Callable[[Sequence[Any]], list[Field]], groups: Sequence[Sequence[Any]], workers: int | None
) -> Iterator[Field]:
    """What a picklable job makes of each group, one after the other.

    `workers` processes (None: one per core; 0 or 1: this process alone) stay a few dozen fields ahead of the consumer.
    As with every pool of fresh processes, a script must guard its entry with ``if __name__ == "__main__"``.
    """
    workers = (os.cpu_count() or 1) if workers is None else workers
    if workers <= 1:
        for group in groups:
            for item in group:
                yield from job([item])
        return
    waiting = iter(groups)
    # Forking a process that runs threads (as JAX does) can hang the child, so workers start afresh.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["protloc_jax.simulate.fields"])
    pool = ProcessPoolExecutor(min(workers, max(len(groups), 1)), mp_context=context)
    try:
        ahead = deque(pool.submit(job, group) for group in islice(waiting, 3 * workers))
        while ahead:
            fields = ahead.popleft().result()
            ahead.extend(pool.submit(job, group) for group in islice(waiting, 1))
            yield from fields
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
