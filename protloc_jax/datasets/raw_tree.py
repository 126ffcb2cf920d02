"""What lies below the folder of a raw data set: images and tables, by name and by header, before anything is opened."""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from protloc_jax.config import nearest
from protloc_jax.data.manifest import capped
from protloc_jax.datasets import addresses
from protloc_jax.datasets.naming import IMAGE_SUFFIXES
from protloc_jax.datasets.problems import DatasetError
from protloc_jax.datasets.table import TABLE_SUFFIXES, is_table

_MOST_HEADER = 1 << 16


@dataclass(frozen=True)
class RawTree:
    """Files below `root`, as sorted paths with '/'; hidden files and links to folders are not followed."""

    root: Path
    images: tuple[str, ...]
    tables: tuple[str, ...]
    links: tuple[str, ...] = ()

    def tables_like(self, fits: Callable[[Sequence[str]], bool]) -> list[Path]:
        """The tables whose header `fits`, judged by the first line alone."""
        return [self.root / name for name in self.tables if fits(header_of(self.root / name))]


def raw_tree(raw: str | Path) -> RawTree:
    """Look below a local folder. Raises FileNotFoundError where there is none and DatasetError for an address."""
    if addresses.scheme_of(str(raw)):
        raise DatasetError(f"{raw}: an address; fetch the raw files into a local folder first.")
    root = Path(raw)
    if not root.is_dir():
        siblings = [p.name for p in root.parent.iterdir()] if root.parent.is_dir() else []
        raise FileNotFoundError(f"{root}: no such folder.{nearest(root.name, siblings)}")
    images, tables, links = [], [], []
    for folder, folders, files in os.walk(root):
        links += [os.path.join(folder, f) for f in folders if os.path.islink(os.path.join(folder, f))]
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(files):
            path = os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")
            if name.startswith("."):
                continue
            if name.lower().endswith(IMAGE_SUFFIXES):
                images.append(path)
            elif is_table(name):
                tables.append(path)
    return RawTree(root, tuple(sorted(images)), tuple(sorted(tables)), tuple(sorted(links)))


def header_of(path: Path) -> tuple[str, ...]:
    """The column names of a CSV or TSV, () where the first line cannot be read as such (or the file is Parquet)."""
    if path.name.lower().endswith(".parquet"):
        return ()
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            line = file.readline(_MOST_HEADER).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError):
        return ()
    separator = "\t" if "\t" in line and "," not in line else ","
    try:
        return tuple(cell.strip() for cell in next(csv.reader([line], delimiter=separator), []))
    except csv.Error:
        return ()


def one_table(found: Sequence[Path], what: str, *, option: str) -> Path | None:
    """The only table of a kind, or None. Raises DatasetError listing several, which `option` chooses among."""
    if len(found) > 1:
        raise DatasetError(f"{len(found)} tables look like {what}: {capped([str(p) for p in found])}; give {option}.")
    return found[0] if found else None


def given_table(text: str, tree: RawTree) -> Path:
    """A table named by the user: as it stands, or relative to the raw folder. FileNotFoundError with the nearest."""
    for path in (Path(text), tree.root / text):
        if path.is_file():
            if not is_table(path.name):
                raise DatasetError(f"{path}: not a table ({', '.join(TABLE_SUFFIXES)}).")
            return path
    raise FileNotFoundError(f"{text}: no such table, and none of that name in {tree.root}.{nearest(text, tree.tables)}")
