"""The user's own tables: text in named columns, and blocks of numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from protloc_jax.config import nearest
from protloc_jax.data.h5ad_guard import check_not_pickled
from protloc_jax.data.manifest import capped
from protloc_jax.knowledge.text_files import KnowledgeError, checked


def read_table(path: str | Path) -> pd.DataFrame:
    """A CSV, TSV (.gz as well) or Parquet table; every value of a text table is text. Raises KnowledgeError."""
    path = checked(path)
    try:
        check_not_pickled(path)
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        separator = "\t" if ".tsv" in path.suffixes or ".txt" in path.suffixes else ","
        return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
    except (ValueError, OSError, EOFError) as error:
        raise KnowledgeError(f"{path}: not a usable table: {error}") from error


def column_of(frame: pd.DataFrame, name: str, path: str | Path) -> list[str]:
    """A column as stripped text. Raises KnowledgeError with the nearest name where it is not there."""
    if name not in frame:
        have = ", ".join(map(str, frame.columns[:12]))
        raise KnowledgeError(f"{path} has no column '{name}'.{nearest(name, map(str, frame.columns))} It has {have}.")
    return [str(value).strip() for value in frame[name].fillna("")]


def numbers_of(frame: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """A block of columns as float64. Raises KnowledgeError listing columns with values that are no numbers."""
    found: dict[Any, Any] = {c: pd.to_numeric(frame[c], errors="coerce") for c in frame}
    bad = [str(c) for c, values in found.items() if values.isna().any()]
    if bad:
        raise KnowledgeError(f"{path}: columns with values that are no numbers: {capped(bad)}.")
    return pd.DataFrame(found, index=frame.index).astype("float64")
