"""Vectors of cell lines out of the files that other tools write: CSV, .npz, and .h5ad of single-cell models."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from protloc_jax.config import nearest
from protloc_jax.data.h5ad_guard import check_h5ad
from protloc_jax.knowledge.cell_lines import COLUMN, LineVectors, by_name
from protloc_jax.knowledge.graph import sources
from protloc_jax.knowledge.tables import column_of, numbers_of, read_table
from protloc_jax.knowledge.text_files import KnowledgeError, checked

# What an .npz of vectors can hold at most, unpacked. 1,000 lines of 4,096 values are 16 MB.
_LARGEST = 2**30
_CELLS = 4096


def read_vectors(
    path: str | Path, *, line_column: str = COLUMN, embedding: str = "X", lines_key: str = "names"
) -> LineVectors:
    """Vectors of cell lines of a file, by its ending.

    .csv, .tsv, .parquet  one row a line: a column of names (`line_column`), every other column a value
    .npz   one array a line under its name; or an array of names (`lines_key`) beside one of vectors. Never pickled
    .h5ad  one row a cell (scVI, scGPT, any model): the mean of `embedding` ("X", or a key of obsm such as "X_scVI")
           over the cells of each line, which `line_column` of obs names

    Raises FileNotFoundError, or KnowledgeError naming the file, the column or the key.
    """
    path = checked(path)
    if path.suffix == ".npz":
        names, vectors, about = _of_npz(path, lines_key)
    elif path.suffix == ".h5ad":
        names, vectors, about = _of_cells(path, line_column, embedding)
    else:
        names, vectors, about = _of_table(path, line_column)
    try:
        return LineVectors(names, vectors, {"sources": sources(vectors=path), **about})
    except KnowledgeError as error:
        raise KnowledgeError(f"{path}: {error}") from error


_Read = tuple[tuple[str, ...], np.ndarray, dict[str, Any]]


def _of_table(path: Path, line_column: str) -> _Read:
    frame = read_table(path)
    names = tuple(column_of(frame, line_column, path))
    values = frame.drop(columns=line_column)
    return names, numbers_of(values, path).to_numpy(), {"kind": "table"}


def _of_npz(path: Path, lines_key: str) -> _Read:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > _LARGEST:
            raise KnowledgeError(f"{path} claims {size:,} bytes, more than vectors of cell lines have.")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        raise KnowledgeError(
            f"{path}: not a usable .npz of arrays: {error} A dictionary that was pickled is one array of objects; "
            "write it again as np.savez(path, **{line: vector})."
        ) from error
    if lines_key in arrays:
        names, rest = arrays.pop(lines_key), list(arrays)
        if names.dtype.kind not in "US" or names.ndim != 1 or len(rest) != 1:
            raise KnowledgeError(f"{path}: '{lines_key}' must be names, beside one array of vectors; there are {rest}.")
        return tuple(_text(n) for n in names), arrays[rest[0]], {"kind": "npz"}
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) != 1 or len(next(iter(shapes.values()), ())) != 1:
        said = ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:8])
        raise KnowledgeError(
            f"{path}: one vector of the same length a line is wanted, or names under '{lines_key}'; it holds {said}."
        )
    return tuple(arrays), np.stack(list(arrays.values())), {"kind": "npz"}


def _of_cells(path: Path, line_column: str, embedding: str) -> _Read:
    import anndata

    try:
        check_h5ad(path)
    except ValueError as error:
        raise KnowledgeError(f"{path}: {error}") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's notes on string types of coming pandas versions
        data = anndata.read_h5ad(path, backed="r")
    try:
        if line_column not in data.obs:
            have = list(map(str, data.obs.columns))
            raise KnowledgeError(
                f"{path}: obs has no column '{line_column}'.{nearest(line_column, have)} It has {', '.join(have[:12])}."
            )
        have = list(map(str, data.obsm.keys()))
        if embedding != "X" and embedding not in have:
            raise KnowledgeError(
                f"{path}: no embedding '{embedding}'.{nearest(embedding, have)} There are {', '.join(['X', *have])}."
            )
        lines = pd.Series(data.obs[line_column]).astype(object).where(data.obs[line_column].notna(), "").astype(str)
        lines = lines.str.strip().to_numpy()
        names = tuple(sorted(set(lines) - {""}))
        by_name(names)
        total, counts = _sums(data, lines, names, embedding)
    finally:
        data.file.close()
    cells = {name: int(n) for name, n in zip(names, counts, strict=True)}
    about = {
        "kind": "cells",
        "embedding": embedding,
        "cells": cells,
        "cells_without_a_line": int((lines == "").sum()),
    }
    return names, total / counts[:, None], about


def _sums(data: Any, lines: np.ndarray, names: tuple[str, ...], embedding: str) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of cells of each line, a few thousand cells at a time."""
    place = {name: i for i, name in enumerate(names)}
    values = data.X if embedding == "X" else data.obsm[embedding]
    total, counts = np.zeros((len(names), values.shape[1])), np.zeros(len(names), np.int64)
    for start in range(0, len(lines), _CELLS):
        own = lines[start : start + _CELLS]
        part = values[start : start + _CELLS]
        part = np.asarray(part.toarray() if hasattr(part, "toarray") else part, np.float64)
        rows = np.flatnonzero(own != "")
        at = np.array([place[name] for name in own[rows]], np.int64)
        np.add.at(total, at, part[rows])
        counts += np.bincount(at, minlength=len(names))
    return total, counts


def _text(value: Any) -> str:
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip()
