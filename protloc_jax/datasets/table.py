"""Reading a CSV, TSV or Parquet table as text, with the line number of every row."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from protloc_jax.config import nearest
from protloc_jax.data.manifest import capped
from protloc_jax.datasets.problems import DatasetError

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".parquet")
_MOST_TEXT = 2**31  # bytes of a table after decompression


class Table(NamedTuple):
    """A table with `rows[i]` naming where row i stands ('cells.csv line 12'); CSV cells are text, '' where empty."""

    frame: pd.DataFrame
    rows: list[str]


def read_table(path: Path, *, index: str = "") -> Table:
    """Read a table by its suffix. Raises DatasetError naming the file and line of what cannot be read.

    index  what a first column without a name is called, as data frames write their index; "" refuses it
    """
    if not is_table(path.name):
        raise DatasetError(f"{path}: not a folder and not a table ({', '.join(TABLE_SUFFIXES)}).")
    table = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path, index)
    if not len(table.frame):
        raise DatasetError(f"{path}: the data set is empty: the table has no rows.")
    return table


def is_table(name: str) -> bool:
    return name.lower().endswith(TABLE_SUFFIXES)


def cell_text(value: Any) -> str:
    """The text of a table cell; '' where it is missing."""
    return "" if value is None or (isinstance(value, float) and value != value) else str(value).strip()


def need_columns(frame: pd.DataFrame, wanted: Sequence[tuple[str, str]]) -> list[str]:
    """A message for each (column, what it is for) that the table lacks, with the nearest column."""
    have = [str(c) for c in frame.columns]
    return [
        f"no column '{name}' ({purpose}).{nearest(name, have)} Columns: {capped(have, 30)}."
        for name, purpose in dict.fromkeys(wanted)
        if name not in have
    ]


def _read_csv(path: Path, index: str = "") -> Table:
    data = _bytes_of(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DatasetError(
            f"{path} line {line}: not UTF-8 text (byte 0x{data[error.start]:02x}). Save the table as 'CSV UTF-8', or "
            "convert it, for example with iconv -f latin1 -t utf-8."
        ) from error
    if "\0" in text:
        raise DatasetError(f"{path}: not a text table (it holds zero bytes; UTF-16? Save it as 'CSV UTF-8').")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(path, text), strict=True)
    header: list[str] = []
    cells: list[list[str]] = []
    rows: list[str] = []
    ragged: list[str] = []
    try:
        for values in reader:
            if not any(v.strip() for v in values):
                continue
            if not header:
                header = [v.strip() for v in values]
                header[0] = header[0] or index
                continue
            where = f"{path.name} line {reader.line_num}"
            if len(values) != len(header):
                ragged.append(f"{where}: {len(values)} cells where the header has {len(header)}")
                continue
            cells.append(values)
            rows.append(where)
    except csv.Error as error:
        raise DatasetError(f"{path} line {reader.line_num}: {error}.") from error
    if ragged:
        raise DatasetError(f"{path}: {len(ragged)} broken rows: {capped(ragged)}.")
    _check_header(path, header)
    columns = zip(*cells, strict=True) if cells else ([] for _ in header)
    return Table(
        pd.DataFrame({n: pd.Series(list(v), dtype=object) for n, v in zip(header, columns, strict=True)}), rows
    )


def _bytes_of(path: Path) -> bytes:
    """The table's text; a compressed one is unpacked up to a limit."""
    if path.suffix.lower() != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path) as file:
            data = file.read(_MOST_TEXT + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path}: truncated or damaged gzip file ({error}).") from error
    if len(data) > _MOST_TEXT:
        raise DatasetError(f"{path}: more than {_MOST_TEXT:,} bytes of text in the compressed table.")
    return data


def _delimiter(path: Path, text: str) -> str:
    """Tab for .tsv; else a comma, or a semicolon or tab where the first line has no comma."""
    first = text.lstrip().split("\n", 1)[0]
    if ".tsv" in path.suffixes[-2:] or ("," not in first and "\t" in first):
        return "\t"
    return ";" if "," not in first and ";" in first else ","


def _read_parquet(path: Path) -> Table:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DatasetError(f"{path}: not a readable Parquet file ({error}).") from error
    _check_header(path, table.column_names)
    columns = {}
    for name in table.column_names:
        column = table.column(name)
        plain = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        columns[name] = pd.Series(
            column.to_numpy() if plain and not column.null_count else column.to_pylist(),
            dtype=None if plain and not column.null_count else object,
        )
    return Table(pd.DataFrame(columns), [f"{path.name} row {i}" for i in range(table.num_rows)])


def _check_header(path: Path, header: Sequence[str]) -> None:
    if not header:
        raise DatasetError(f"{path}: the data set is empty: the table has no header line.")
    twice = [f"'{name}'" for name, count in Counter(header).items() if count > 1]
    if twice or "" in header:
        raise DatasetError(f"{path}: repeated or unnamed columns: {capped(twice) or 'an empty name'}.")
