"""Which vectors of cell lines an encoder with cell tokens is given for the images of records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from protloc_jax.data.cell_vectors import NAME, CellsOfRecords, CellVectors, CellVectorsError, of_records, read
from protloc_jax.data.read import Records
from protloc_jax.model.encoder import Encoder


class LinesOfRecords(NamedTuple):
    """The vectors of some records, and what a feature table says about them."""

    cells: CellsOfRecords
    facts: dict[str, Any]


def lines_of_records(
    encoder: Encoder, records: Records, rows: np.ndarray | Sequence[int], *, path: str | Path = "", column: str = ""
) -> LinesOfRecords | None:
    """The cell-line vectors of `rows`; None for an encoder without cell tokens, whatever is given.

    path    table of vectors; "" = the one that the weights were trained with, where it is still there and unchanged
    column  group column that names the lines; "" = the one of training
    Raises ValueError where the table is to be given, or its vectors have another width than the model's, and listing
    what rows lack a line and which lines a vector.
    """
    if not encoder.config.cell_tokens:
        return None
    path = str(path) or _of_training(encoder)
    vectors = read(path)
    if vectors.dim != encoder.config.cell_dim:
        raise ValueError(
            f"{path} has vectors of width {vectors.dim}; the weights were trained on vectors of width "
            f"{encoder.config.cell_dim}."
        )
    column = column or str(encoder.provenance.get("trained_cell_line") or NAME)
    try:
        cells = of_records(vectors, records.manifest, rows, column=column, where=path)
    except CellVectorsError as error:
        raise CellVectorsError(f"{records.directory}: {error}") from error
    return LinesOfRecords(cells, _facts(path, vectors, column))


def _facts(path: str, vectors: CellVectors, column: str) -> dict[str, Any]:
    return {"cell_vectors": path, "cell_vectors_sha256": vectors.digest, "cell_line_column": column}


def _of_training(encoder: Encoder) -> str:
    """The table of training. ValueError, asking for one, where it is not known, gone, or has other content."""
    told = encoder.provenance
    path, digest = told.get("trained_cell_vectors") or "", told.get("trained_cell_vectors_sha256") or ""
    if not path or not digest:
        why = "they do not say what table they were trained with"
    elif not Path(path).is_file():
        why = f"{path}, which they were trained with, is not there"
    else:
        found = read(path).digest
        if found == digest:
            return str(path)
        why = f"{path} is not what they were trained with (SHA-256 {digest[:12]} then, {found[:12]} now)"
    raise ValueError(
        f"these weights have {encoder.config.cell_tokens} cell token(s) and need the vectors of the cell lines: {why}. "
        "Give the table (--cell-vectors FILE)."
    )
