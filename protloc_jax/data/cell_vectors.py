"""Vectors of cell lines: one strict table of numbers, and which of them each record has.

A model with cell tokens (`VitConfig.cell_tokens`) reads, beside an image, the vector of the cell line that it shows,
made once from the line's expression. A line that was never trained on is just another vector.
Source: Chen et al., arXiv:2507.10737 (cell-line tokens).
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from protloc_jax.config import nearest
from protloc_jax.data.config import DataConfig
from protloc_jax.data.durable import write_whole
from protloc_jax.data.manifest import Manifest, ManifestError, capped, listed

NAME = "cell_line"
_SHOWN = 40


class CellVectorsError(ValueError):
    """A table of cell-line vectors was refused, or lacks a line that is asked for."""


@dataclass(frozen=True)
class CellVectors:
    """One vector a cell line.

    names    n names, no two alike up to upper and lower case
    vectors  [n, d] float32, finite
    """

    names: tuple[str, ...]
    vectors: np.ndarray

    def __post_init__(self) -> None:
        vectors = np.asarray(self.vectors, np.float32)
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "vectors", vectors)
        problems = []
        if vectors.ndim != 2 or len(vectors) != len(self.names) or not vectors.size:
            problems.append(f"{len(self.names)} names and vectors of shape {list(vectors.shape)}; expected [n, d].")
        else:
            bad = [name for name, row in zip(self.names, vectors, strict=True) if not np.isfinite(row).all()]
            problems += [f"vectors that are not finite: {capped(bad)}."] if bad else []
        places: dict[str, str] = {}
        for name in self.names:
            if name != name.strip() or not name:
                problems.append(f"'{name}': a name is not empty and has no spaces around it.")
            if name.casefold() in places:
                problems.append(f"'{name}' is there as '{places[name.casefold()]}' already.")
            places.setdefault(name.casefold(), name)
        if problems:
            raise CellVectorsError(listed(problems, most=_SHOWN))

    @property
    def dim(self) -> int:
        """Width d of the vectors."""
        return self.vectors.shape[1]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of names and numbers, whatever the order of the lines and the spelling of the numbers in a file."""
        found = hashlib.sha256(str(self.dim).encode())
        for name, row in sorted(zip(self.names, self.vectors, strict=True), key=lambda line: line[0]):
            found.update(b"\0" + name.encode() + b"\0" + row.astype("<f4").tobytes())
        return found.hexdigest()

    def places(self, names: Iterable[str]) -> np.ndarray:
        """Rows of `vectors` [N] of cell lines; upper and lower case are one (Vero, VERO).

        CellVectorsError lists every line that has no vector, with the nearest name that has.
        """
        at = {name.casefold(): place for place, name in enumerate(self.names)}
        wanted = [str(name) for name in names]
        lacking = [name for name in dict.fromkeys(wanted) if name.casefold() not in at]
        if lacking:
            each = [f"'{name}'.{nearest(name, self.names)}" for name in lacking]
            raise CellVectorsError(f"cell lines without a vector: {listed(each, most=_SHOWN)}")
        return np.asarray([at[name.casefold()] for name in wanted], np.int32)

    def of(self, names: Iterable[str]) -> np.ndarray:
        """Vectors [N, d] float32 of cell lines, in their order. Raises as `places` does."""
        return self.vectors[self.places(names)]


@dataclass(frozen=True)
class CellsOfRecords:
    """Which vector each record has.

    line     [N] int32 rows of `vectors`; -1 for records that were not asked for
    vectors  [n, d] float32
    """

    line: np.ndarray
    vectors: np.ndarray

    @property
    def dim(self) -> int:
        """Width d of the vectors."""
        return self.vectors.shape[1]

    def at(self, records: np.ndarray | Sequence[int]) -> np.ndarray:
        """Vectors [B, d] of records. IndexError for those that were not asked for."""
        line = self.line[records]
        if (line < 0).any():
            raise IndexError(f"records {np.asarray(records)[line < 0].tolist()} were given no cell-line vector.")
        return self.vectors[line]


def of_records(
    cells: CellVectors, manifest: Manifest, rows: np.ndarray | Sequence[int], *, column: str = NAME, where: str = ""
) -> CellsOfRecords:
    """The vectors of some records of a manifest, found by their value in `column`.

    where    names the vectors in messages
    Raises CellVectorsError listing, of these rows alone, those without a value and the lines without a vector, each
    with its number of rows; and naming a column that is not there, with the nearest.
    """
    rows = np.asarray(rows, np.int64)
    if column not in manifest.group_columns:
        near = nearest(column, manifest.group_columns)
        raise CellVectorsError(
            f"cell lines: no column '{column}'.{near} Columns: {', '.join(manifest.group_columns) or '(none)'}."
        )
    try:
        codes, names = manifest.group_ids(column)
    except ManifestError as error:
        raise CellVectorsError(str(error)) from error
    mine, ids = codes[rows], manifest.ids
    problems = []
    absent = rows[mine < 0]
    if len(absent):
        named = capped([ids[row] for row in absent])
        problems.append(f"{len(absent)} of {len(rows)} images have no '{column}': {named}.")
    place = np.full(len(names) + 1, -1, np.int32)  # the last one is of records without a value
    for code, count in zip(*np.unique(mine[mine >= 0], return_counts=True), strict=True):
        try:
            place[code] = cells.places([names[code]])[0]
        except CellVectorsError:
            hint = nearest(names[code], cells.names)
            problems.append(
                f"cell line '{names[code]}' ({count} images) has no vector{f' in {where}' * bool(where)}.{hint}"
            )
    if problems:
        raise CellVectorsError(listed(problems, most=_SHOWN))
    line = np.full(len(codes), -1, np.int32)
    line[rows] = place[mine]
    return CellsOfRecords(line, cells.vectors)


def of_split(config: DataConfig, manifest: Manifest, rows: np.ndarray | Sequence[int]) -> CellsOfRecords | None:
    """`of_records` with the file and the column of a config; None where it names no file."""
    path = config.cell_vectors
    return of_records(read(path), manifest, rows, column=config.cell_line, where=path) if path else None


def read(path: str | Path) -> CellVectors:
    """Read a CSV `cell_line,v1,v2,...`, one line a row, numbers finite in float32.

    Raises FileNotFoundError, or CellVectorsError listing everything wrong with the line it is in.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; cell-line vectors are a CSV file '{NAME},v1,v2,...'.")
    try:
        text = path.read_bytes().decode("utf-8-sig")
        lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        table = [(lines.line_num, row) for row in lines]
    except (UnicodeDecodeError, csv.Error) as error:
        raise CellVectorsError(f"{path} is no CSV text in UTF-8 ({error}).") from error
    if not table:
        raise CellVectorsError(f"{path} is empty; expected the header '{NAME},v1,v2,...'.")
    problems = _header_problems(table[0][1])
    width = len(table[0][1]) - 1
    seen: dict[str, tuple[str, int]] = {}
    names, vectors = [], []
    for number, row in table[1:]:
        if len(row) != width + 1:
            problems.append(f"line {number}: {len(row)} fields, the header has {width + 1}.")
        name = row[0] if row else ""
        if name != name.strip() or not name:
            problems.append(f"line {number}: the name '{name}' is empty or has spaces around it.")
        elif name.casefold() in seen:
            first, where = seen[name.casefold()]
            problems.append(f"line {number}: '{name}' is in line {where} already{f' as {first}' * (first != name)}.")
        else:
            seen[name.casefold()] = (name, number)
        numbers = [_number(value) for value in row[1:]]
        bad = [f"v{k + 1}={row[k + 1]!r}" for k, value in enumerate(numbers) if value is None]
        if bad:
            problems.append(f"line {number}: no finite number in {capped(bad)}.")
        names.append(name)
        vectors.append(numbers)
    if not problems and not vectors:
        problems.append("no cell line below the header.")
    if problems:
        raise CellVectorsError(f"{path}: {listed(problems, most=_SHOWN)}")
    return CellVectors(tuple(names), np.asarray(vectors, np.float32))


def write(cells: CellVectors, path: str | Path) -> None:
    """Write what `read` gives back to the bit: the shortest decimal of every float32."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow((NAME, *(f"v{k + 1}" for k in range(cells.dim))))
    for name, row in zip(cells.names, cells.vectors, strict=True):
        table.writerow((name, *(str(value) for value in row)))
    write_whole(Path(path), text.getvalue().encode())


def _header_problems(header: Sequence[str]) -> list[str]:
    wanted = [NAME, *(f"v{k}" for k in range(1, max(2, len(header))))]
    if list(header) == wanted:
        return []
    off = next((k for k, (a, b) in enumerate(zip(header, wanted, strict=False)) if a != b), len(header))
    found = f"'{header[off]}'" if off < len(header) else "nothing"
    return [f"line 1: field {off + 1} of the header is {found}, expected '{wanted[off]}' (of {NAME},v1,v2,...)."]


def _number(text: str) -> float | None:
    """The number, or None for what is none or not finite in float32."""
    try:
        value = float(text)
    except ValueError:
        return None
    largest = float(np.finfo(np.float32).max)
    return value if "_" not in text and math.isfinite(value) and abs(value) <= largest else None
