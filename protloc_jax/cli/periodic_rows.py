"""Images of records through a network in the middle of a run: what the periodic evaluations share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from protloc_jax.data.cell_vectors import CellsOfRecords, of_split
from protloc_jax.data.read import Records
from protloc_jax.data.sequential import sequential
from protloc_jax.devices import host_to_global
from protloc_jax.train.experiment import Experiment

IMAGES_A_STEP = 64


def images_a_step(mesh: Mesh) -> int:
    """About 64 images a step, as many on each device."""
    return mesh.size * max(1, IMAGES_A_STEP // mesh.size)


def some_rows(rows: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the rows, the same ones every time, in order."""
    return np.sort(np.random.default_rng(0).permutation(rows)[:most])


def cells_of(experiment: Experiment, records: Records, rows: np.ndarray) -> CellsOfRecords | None:
    """The cell-line vectors of the rows, None for a model that does not look at any."""
    return of_split(experiment.data, records.manifest, rows) if experiment.model.cell_tokens else None


def over_rows(
    records: Records,
    rows: np.ndarray,
    encode: Callable[[Any, Any, Any], tuple[Any, Any]],
    *,
    channels: tuple[str, ...],
    mesh: Mesh,
    tolerant: bool,
    cells: CellsOfRecords | None = None,
    give_up: Callable[[], bool],
) -> tuple[np.ndarray, np.ndarray] | None:
    """(what `encode` makes of each row [rows, ...], whether its image could be read [rows]); None: given up.

    encode    (images, good, cell-line vectors or None) -> (vectors, good), of global arrays; each process reads its
              slice of a batch
    tolerant  damaged records are marked in the second array; otherwise they raise
    """
    batch, processes, process = images_a_step(mesh), jax.process_count(), jax.process_index()
    own = batch // processes
    padded = np.resize(rows, -(-len(rows) // batch) * batch)
    mine = padded.reshape(-1, processes, own)[:, process].reshape(-1)
    found = []
    on_bad = (lambda record, reason: None) if tolerant else None
    reader = sequential(records, mine, own, channels=channels, cells=cells, on_bad=on_bad)
    try:
        for part, good in reader:
            if give_up():
                return None
            vectors, good = encode(*host_to_global((part.image, good, part.cell_line), mesh))
            found.append((np.asarray(vectors), np.asarray(good)))
    finally:
        reader.close()  # type: ignore[attr-defined]
    vectors, read = (np.concatenate(part)[: len(rows)] for part in zip(*found, strict=True))
    return vectors, read
