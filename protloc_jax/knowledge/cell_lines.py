"""Vectors of cell lines: one frozen vector a line, in the one file format that training reads."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from protloc_jax.config import nearest
from protloc_jax.data.durable import write_whole
from protloc_jax.data.manifest import capped
from protloc_jax.knowledge.text_files import KnowledgeError

COLUMN = "cell_line"


@dataclass(frozen=True)
class LineVectors:
    """Vectors of cell lines.

    names    lines as they are written; no two of them equal but for capitals and signs (HepG2, HEP-G2)
    vectors  [n, d] float32
    about    where they come from; not part of the CSV, printed and written beside it

    Raises KnowledgeError for clashing or empty names, and for vectors that are no finite numbers.
    """

    names: tuple[str, ...]
    vectors: np.ndarray
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        vectors = np.asarray(self.vectors, np.float32)
        object.__setattr__(self, "vectors", vectors)
        if vectors.ndim != 2 or len(vectors) != len(self.names) or not vectors.size:
            raise KnowledgeError(f"vectors {vectors.shape} do not go with {len(self.names)} cell lines.")
        bad = [name for name, own in zip(self.names, vectors, strict=True) if not np.isfinite(own).all()]
        if bad:
            raise KnowledgeError(f"NaN or infinite values in the vectors of {capped(bad)}.")
        by_name(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def of(self, lines: Sequence[str]) -> LineVectors:
        """The vectors of `lines`, under the names given there. Raises KnowledgeError listing every line without one."""
        place = by_name(self.names)
        absent = [f"'{line}'{nearest(line, self.names)}" for line in lines if normal(line) not in place]
        if absent:
            raise KnowledgeError(f"no vector of {', '.join(absent)}. There are {capped(self.names)}.")
        at = [place[normal(line)] for line in lines]
        return dataclasses.replace(self, names=tuple(lines), vectors=self.vectors[at])

    def write(self, path: str | Path) -> Path:
        """Write `cell_line,v1,v2,...`, one line a row, numbers so that reading gives the same float32."""
        path = Path(path)
        if path.suffix != ".csv":
            raise KnowledgeError(f"{path}: vectors of cell lines are written to a file that ends in .csv.")
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([COLUMN, *(f"v{i + 1}" for i in range(self.vectors.shape[1]))])
        for name, vector in zip(self.names, self.vectors, strict=True):
            writer.writerow([name, *(str(value) for value in vector)])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.getvalue().encode())
        return path


def normal(name: str) -> str:
    """A line's name without what is written one way here and another there: capitals, spaces, signs (U-2 OS, U2OS)."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def by_name(names: Sequence[str]) -> dict[str, int]:
    """Number of each line by its normal name. Raises KnowledgeError for names that are empty or that clash."""
    found: dict[str, int] = {}
    clashes = []
    for number, name in enumerate(names):
        if not normal(name):
            raise KnowledgeError(f"'{name}' is no name of a cell line.")
        if normal(name) in found:
            clashes.append(f"{names[found[normal(name)]]} and {name}")
        found[normal(name)] = number
    if clashes:
        raise KnowledgeError(f"names of one cell line: {', '.join(clashes)}. Which of them is meant cannot be told.")
    return found


def standardised(lines: LineVectors, fit_lines: Sequence[str]) -> LineVectors:
    """Each coordinate to mean 0 and standard deviation 1 over `fit_lines`, which should be those trained on.

    Coordinates that are the same in all of them are only centred. Raises KnowledgeError for fewer than two lines.
    """
    if len(fit_lines) < 2:
        raise KnowledgeError("standardising needs two lines or more to fit on.")
    fitted = lines.of(fit_lines).vectors.astype(np.float64)
    spread = fitted.std(axis=0)
    flat = spread <= 1e-12 * np.abs(fitted).max(initial=1e-300)
    vectors = (lines.vectors - fitted.mean(axis=0)) / np.where(flat, 1, spread)
    about = {**lines.about, "standardised_on": list(fit_lines), "coordinates_only_centred": int(flat.sum())}
    return LineVectors(lines.names, vectors, about)
