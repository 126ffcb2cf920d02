"""Label tables of the Human Protein Atlas as others publish them: the 2018 challenge's, and DINO4Cells'.

train.csv          Id, Target: class numbers of the challenge, separated by spaces
whole_images.csv   file, ID, cell_type, and 28 columns of True and False (or protein_location, a list written out)
single cells       file, ID, cell_type, 19 such columns of merged classes, and one a cell line

Class lists: data_utils/label_dict.py of broadinstitute/DINO4Cells_code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from protloc_jax.config import nearest
from protloc_jax.data.manifest import capped
from protloc_jax.datasets.problems import DatasetError, Problems
from protloc_jax.datasets.table import cell_text, need_columns, read_table
from protloc_jax.simulate.raw_proteins import HPA_CELL_CLASSES, HPA_CLASSES

CLASSES = HPA_CLASSES  # in the challenge's order: a number in Target is a place in this list
CELL_CLASSES = HPA_CELL_CLASSES
NEGATIVE = "negative"
_TRUE, _FALSE = {"true", "1", "1.0"}, {"false", "0", "0.0", ""}
_OWN = {"file", "id", "cell_type", "protein_location", "unnamed: 0", "index", ""}
# <antibody>_<plate>_<well>_<site>; some sites carry the name of a cut-out region as a fifth part.
_ATLAS = re.compile(r"(?P<antibody>[0-9]+)_(?P<plate>[0-9]+)_(?P<well>[A-Z]+[0-9]+)_(?P<site>[0-9]+(?:_[A-Za-z0-9]+)?)")
_ITEM = re.compile(r"\s*(?:'([^']*)'|\"([^\"]*)\")\s*")


class HpaRow(NamedTuple):
    """One row of a label table: the image's ID, the file it names ('' = as the ID), classes, cell line ('' unknown)."""

    id: str
    file: str
    labels: tuple[str, ...]
    cell_line: str
    where: str


def is_kaggle(header: Sequence[str]) -> bool:
    return {"Id", "Target"} <= set(header)


def is_dino4cells(header: Sequence[str]) -> bool:
    """A table of whole images: file, ID, and columns of the 28 classes or protein_location."""
    names = [_plain(name) for name in header]
    classes = set(names) & set(CLASSES)
    whole = "protein_location" in header or bool(classes - set(CELL_CLASSES))
    return {"file", "ID"} <= set(header) and whole


def is_single_cells(header: Sequence[str]) -> bool:
    """A table of single cells: file, ID, and columns of merged classes that the 28 do not have."""
    names = {_plain(name) for name in header}
    return {"file", "ID"} <= set(header) and {NEGATIVE, "vesicles"} <= names


def place_of(name: str) -> dict[str, str]:
    """Antibody, plate, well and site of an atlas ID; {} for others, such as the challenge's random ones."""
    found = _ATLAS.fullmatch(name)
    return found.groupdict() if found else {}


def read_kaggle(path: Path) -> list[HpaRow]:
    """Rows of Id and Target. Raises DatasetError listing repeated ids and targets that are no class numbers."""
    frame, where = read_table(path, index="index")
    _need(frame, path, ("Id", "Target"))
    problems, found = Problems(), []
    for row, name, text in zip(where, map(cell_text, frame["Id"]), map(cell_text, frame["Target"]), strict=True):
        numbers = text.split()
        wrong = [n for n in numbers if not n.isdecimal() or int(n) >= len(CLASSES)]
        if wrong:
            problems.add("targets", f"{row}: {', '.join(map(repr, wrong))}: not a class number from 0 to 27")
        elif len(set(numbers)) < len(numbers):
            problems.add("targets", f"{row}: '{text}' repeats a class")
        else:
            found.append(HpaRow(name, "", tuple(CLASSES[int(n)] for n in numbers), "", row))
    _unique([(row.id, row.where) for row in found], "ids", problems)
    problems.check(str(path))
    return found


def read_dino4cells(path: Path) -> list[HpaRow]:
    """Rows of a DINO4Cells table of whole images. Raises DatasetError listing everything that cannot be."""
    frame, where = read_table(path, index="index")
    _need(frame, path, ("file", "ID", "cell_type"))
    problems = Problems()
    if "protein_location" in frame.columns:
        labels = _written(list(frame["protein_location"]), where, problems)
    else:
        labels = _booleans(frame, where, CLASSES, path, problems)
    return _rows(frame, where, labels, path, problems)


def read_single_cells(path: Path) -> tuple[list[HpaRow], list[str]]:
    """(rows, columns that are left out) of a DINO4Cells table of single cells.

    Left out are columns that are no class and named like no cell_type, such as those of cell lines without a cell here.

    Raises DatasetError listing everything that cannot be: missing class columns, files that are not ID_<cell number>,
    cell lines that differ from cell_type.
    """
    frame, where = read_table(path, index="index")
    _need(frame, path, ("file", "ID", "cell_type"))
    problems = Problems()
    labels = _booleans(frame, where, CELL_CLASSES, path, problems)
    rows = _rows(frame, where, labels, path, problems)
    types = {_bare(row.cell_line) for row in rows if row.cell_line}
    other = [str(c) for c in frame.columns if _plain(str(c)) not in {*CELL_CLASSES, *_OWN}]
    flags = {name: [_truth(v) for v in frame[name]] for name in other if _bare(name) in types}
    for i, row in enumerate(rows):
        own = [name for name, values in flags.items() if values[i]]
        if flags and [_bare(name) for name in own] != [_bare(row.cell_line)]:
            problems.add("cell lines", f"{row.where}: cell_type is {row.cell_line}, the columns say {own or 'none'}")
        if not _stem(row.file).startswith(row.id + "_"):
            problems.add("files", f"{row.where}: '{row.file}' is not {row.id}_<cell number>")
    problems.check(str(path))
    return rows, [name for name in other if name not in flags]


def _rows(
    frame: pd.DataFrame, where: list[str], labels: list[tuple[str, ...]], path: Path, problems: Problems
) -> list[HpaRow]:
    ids, files = map(cell_text, frame["ID"]), map(cell_text, frame["file"])
    lines = map(cell_text, frame["cell_type"])
    rows = [HpaRow(*own) for own in zip(ids, files, labels, lines, where, strict=True)]
    for row in rows:
        if not row.id or not row.file:
            problems.add("empty cells", f"{row.where}: no {'ID' if not row.id else 'file'}")
    _unique([(row.file, row.where) for row in rows], "files", problems)
    problems.check(str(path))
    return rows


def _unique(names: Sequence[tuple[str, str]], what: str, problems: Problems) -> None:
    first: dict[str, str] = {}
    for name, where in names:
        if name in first:
            problems.add(f"repeated {what}", f"{where}: '{name}' stands in {first[name]}")
        first.setdefault(name, where)


def _need(frame: pd.DataFrame, path: Path, names: Sequence[str]) -> None:
    missing = need_columns(frame, [(name, "labels") for name in names])
    if missing:
        raise DatasetError("\n  ".join([f"{path}: {len(missing)} column(s) are missing.", *missing]))


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split()) if name.lower() not in _OWN else name.lower()


def _bare(line: str) -> str:
    """A cell line's name as people write it differently: 'U-2 OS' and 'U2OS' are one."""
    return re.sub(r"[^a-z0-9]", "", line.lower())


def _truth(value: Any) -> bool | None:
    text = cell_text(value).lower()
    return True if text in _TRUE else False if text in _FALSE else None


def _booleans(
    frame: pd.DataFrame, where: list[str], classes: Sequence[str], path: Path, problems: Problems
) -> list[tuple[str, ...]]:
    """Labels from one column a class; names may differ in case and '_' for a space."""
    by_name: dict[str, list[str]] = {}
    for column in map(str, frame.columns):
        by_name.setdefault(_plain(column), []).append(column)
    missing = [f"no column '{c}'.{nearest(c, by_name)}" for c in classes if c not in by_name]
    twice = [" and ".join(by_name[c]) for c in classes if len(by_name.get(c, ())) > 1]
    if missing or twice:
        first = f"{path}: {len(missing)} of {len(classes)} class columns are missing, {len(twice)} repeated."
        raise DatasetError("\n  ".join([first, *missing[:12], *(f"repeated: {text}" for text in twice)]))
    hot = {}
    for name in classes:
        column = by_name[name][0]
        hot[name] = [_truth(v) for v in frame[column]]
        for row, value, flag in zip(where, frame[column], hot[name], strict=True):
            if flag is None:
                problems.add("flags", f"{row}: {column} is '{value}', not True or False")
    return [tuple(c for c in sorted(classes) if hot[c][i]) for i in range(len(frame))]


def _written(cells: Sequence[Any], where: list[str], problems: Problems) -> list[tuple[str, ...]]:
    """Labels from lists written out, "['cytosol', 'nucleoli']"; nothing is evaluated."""
    found = []
    for row, cell in zip(where, cells, strict=True):
        text = cell_text(cell)
        inner = text[1:-1].strip() if text[:1] == "[" and text[-1:] == "]" else None
        names, at, good = [], 0, inner is not None
        while good and inner and at < len(inner):
            match = _ITEM.match(inner, at)
            good = match is not None and inner[match.end() : match.end() + 1] in ("", ",")
            if match is not None:
                names.append(_plain(match[1] if match[1] is not None else match[2]))
                at = match.end() + 1
        unknown = [f"'{n}'{nearest(n, CLASSES)}" for n in names if n not in CLASSES]
        if not good:
            problems.add("protein_location", f"{row}: '{text[:80]}' is not a written-out list of class names")
        elif unknown or len(set(names)) < len(names):
            problems.add("protein_location", f"{row}: {', '.join(unknown) or 'repeated classes'}")
        found.append(tuple(sorted(set(names) & set(CLASSES))))
    return found


def disagreements(one: Sequence[HpaRow], two: Sequence[HpaRow]) -> list[str]:
    """Images whose labels are not the same in two tables, of those in both."""
    other = {row.id: row for row in two}
    found = []
    for row in one:
        match = other.get(row.id)
        if match is not None and set(match.labels) != set(row.labels):
            found.append(
                f"{row.id}: {capped(list(row.labels)) or 'nothing'} in {row.where}, "
                f"{capped(list(match.labels)) or 'nothing'} in {match.where}"
            )
    return found


def _stem(name: str) -> str:
    return re.sub(r"\.[A-Za-z]+$", "", name.rpartition("/")[2])
