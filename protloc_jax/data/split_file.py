"""A split as a file: which image trains, validates and tests, for which manifest, made how; checked when read.

One Parquet table: `id`, the classes and the columns it was made by, then one column a split whose cells are "train",
"val", "test" or "" (unused). The configuration, the manifest's digest and the digest of the assignment stand in the
file's metadata.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from protloc_jax.config import from_mapping, nearest, to_dict
from protloc_jax.data.durable import write_whole
from protloc_jax.data.grouping import is_missing
from protloc_jax.data.manifest import SPLITS, Manifest, capped, listed
from protloc_jax.data.split_config import SplitConfig
from protloc_jax.data.splits import Split

PARTS = ("", *SPLITS)  # a cell's code is its place here
FORMAT_VERSION = 1
_KEY = b"protloc_split"
_SHOWN = 5


class SplitError(ValueError):
    """A split file was refused, or does not belong to the data it is used with."""


@dataclass(frozen=True)
class SplitFile:
    """Splits of N images.

    ids       N unique names
    columns   what the splits rest on: the classes (several joined by ';') and the columns they were made by, as text
    names     S names of splits
    parts     [S, N] int8: 0 unused, 1 train, 2 val, 3 test
    config    how they were made
    about     notes for people: data set, joined tables
    """

    ids: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]]
    names: tuple[str, ...]
    parts: np.ndarray
    config: SplitConfig
    about: Mapping[str, Any]

    @cached_property
    def manifest_digest(self) -> str:
        """SHA-256 of the ids and of what the splits rest on, whatever the order of the rows."""
        return basis_digest(self.ids, self.columns)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the assignment, its names, its configuration and the manifest's digest."""
        head = [self.manifest_digest, list(self.names), to_dict(self.config)]
        order = np.argsort(np.asarray(self.ids, dtype=str))
        return hashlib.sha256(json.dumps(head).encode() + self.parts[:, order].astype(np.int8).tobytes()).hexdigest()

    def pooled(self, name: str = "") -> bool:
        """Whether test scores of all splits (or of those that `name` matches) may be pooled: one split, or folds."""
        chosen = self.numbers(name)
        once = ((self.parts[chosen] == PARTS.index("test")).sum(axis=0) <= 1).all()
        return len(chosen) == 1 or bool(once and self.config.kind in ("k_fold", "leave_one_group_out"))

    def numbers(self, name: str = "") -> list[int]:
        """Numbers of the splits called `name`, or matching it as a pattern ("* seed=1"); of all for ''."""
        found = [i for i, own in enumerate(self.names) if not name or own == name or fnmatchcase(own, name)]
        if not found:
            self.number(name)
        return found

    def number(self, name: str = "") -> int:
        """The number of the split called `name`, or of the only one; SplitError names those there are."""
        if not name and len(self.names) == 1:
            return 0
        if name not in self.names:
            what = f"no split '{name}'.{nearest(name, self.names)}" if name else "name one of its splits."
            raise SplitError(f"{what} It holds {len(self.names)}: {capped(self.names)}.")
        return self.names.index(name)

    def splits(self, ids: Sequence[str] | None = None, name: str = "") -> list[Split]:
        """Splits as row numbers of a table with these ids (default: this file's); all, or those that `name` matches."""
        at = self.positions(ids) if ids is not None else np.arange(len(self.ids))
        found = []
        for i in self.numbers(name):
            part = self.parts[i, at]
            train, val, test = (np.flatnonzero(part == code) for code in (1, 2, 3))
            found.append(Split(train, val, test, self.names[i]))
        return found

    def positions(self, ids: Sequence[str]) -> np.ndarray:
        """Places [M] in this file of ids; SplitError names those it lacks."""
        at = {name: i for i, name in enumerate(self.ids)}
        lacking = [str(name) for name in ids if str(name) not in at]
        if lacking:
            raise SplitError(f"the split does not know {len(lacking)} ids: {capped(lacking, _SHOWN)}.")
        return np.asarray([at[str(name)] for name in ids], np.int64)

    def applied(self, manifest: Manifest, name: str = "") -> Manifest:
        """The manifest with the parts of one split in its column `split` ("" where a row is unused), after `check`."""
        self.check(manifest.ids, basis_columns(manifest.table, tuple(self.columns)))
        part = self.parts[self.number(name), self.positions(manifest.ids)]
        table = manifest.table.assign(split=pd.Series([PARTS[p] for p in part], dtype=object))
        return Manifest(table, manifest.channels, manifest.label_names, manifest.label_kind, manifest.um_per_pixel)

    def used(self, manifest: Manifest) -> np.ndarray:
        """Numbers [n] int64 of the manifest's rows that have a part in any of the splits, in order, after `check`."""
        self.check(manifest.ids, basis_columns(manifest.table, tuple(self.columns)))
        return np.flatnonzero((self.parts[:, self.positions(manifest.ids)] > 0).any(axis=0))

    def check(self, ids: Sequence[str], columns: Mapping[str, Sequence[str]], *, unused: bool = True) -> None:
        """Raise SplitError unless ids and columns are those that the split was made for.

        Columns the data do not have (a table joined for the split) are not compared; with unused=False, ids that no
        split uses may be absent from the data. The message gives both digests and the first ids that differ.
        """
        problems = []
        needed = np.flatnonzero((self.parts > 0).any(axis=0)) if not unused else range(len(self.ids))
        own, every, other = {self.ids[i] for i in needed}, set(self.ids), set(ids)
        for what, names in (("are not in the data", own - other), ("are not in the split", other - every)):
            if names:
                problems.append(f"{len(names)} ids {what}: {capped(sorted(names), _SHOWN)}.")
        shared = [name for name in self.columns if name in columns]
        at = {name: i for i, name in enumerate(self.ids)}
        for name in shared:
            mine = self.columns[name]
            unlike = [
                f"{i} ('{mine[at[i]]}' in the split, '{value}' in the data)"
                for i, value in zip(ids, columns[name], strict=True)
                if i in at and mine[at[i]] != value
            ]
            if unlike:
                problems.append(f"column '{name}' differs in {len(unlike)} rows: {capped(unlike, _SHOWN)}.")
        if problems:
            mine, theirs = (
                basis_digest(i, {name: c[name] for name in shared})
                for i, c in ((self.ids, self.columns), (ids, columns))
            )
            raise SplitError(
                f"made for another manifest (digest {mine[:16]}, this one's is {theirs[:16]}): {listed(problems)}"
            )

    def report(self) -> list[dict[str, Any]]:
        """For every split: rows of each part, unused rows, classes that a part misses, and those tested untrained."""
        hot, names = self._classes()
        used = hot[(self.parts > 0).any(axis=0)].any(axis=0)
        # A single group that is left out misses classes by nature.
        complete = SPLITS[:2] if self.config.kind == "leave_one_group_out" else SPLITS
        rows = []
        for name, part in zip(self.names, self.parts, strict=True):
            inside = {p: part == code for code, p in enumerate(PARTS)}
            held = {p: hot[mask].any(axis=0) for p, mask in inside.items()}

            def shown(mask: Any) -> list[str]:
                return [names[i] for i in np.flatnonzero(mask)]

            rows.append(
                {
                    "split": name,
                    **{p: int(inside[p].sum()) for p in SPLITS},
                    "unused": int(inside[""].sum()),
                    "classes_missing": {p: shown(used & ~held[p]) for p in complete if inside[p].any()},
                    "classes_tested_never_trained": shown(held["test"] & ~held["train"]),
                }
            )
        return rows

    def _classes(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """The class column as bool [N, L], with its names."""
        each = [set(t.split(";")) - {""} for t in self.columns.get(self.config.label, ("",) * len(self.ids))]
        names = tuple(sorted(set().union(*each)))
        at = {name: i for i, name in enumerate(names)}
        hot = np.zeros((len(each), len(names)), bool)
        for row, own in enumerate(each):
            hot[row, [at[name] for name in own]] = True
        return hot, names

    def write(self, path: str | Path) -> Path:
        """Write one Parquet file, whole or not at all. Raises SplitError unless it ends in .parquet."""
        path = Path(path)
        if path.suffix != ".parquet":
            raise SplitError(f"{path}: a split file ends in .parquet.")
        path.parent.mkdir(parents=True, exist_ok=True)
        words = pa.array(PARTS)
        arrays = {"id": pa.array(self.ids)}
        arrays |= {f"by:{name}": pa.array(values) for name, values in self.columns.items()}
        for name, part in zip(self.names, self.parts, strict=True):
            arrays[f"split:{name}"] = pa.DictionaryArray.from_arrays(pa.array(part.astype(np.int8)), words)
        head = {
            "format_version": FORMAT_VERSION,
            "config": to_dict(self.config),
            "about": dict(self.about),
            "manifest_sha256": self.manifest_digest,
            "sha256": self.digest,
        }
        table = pa.table(arrays).replace_schema_metadata({_KEY: json.dumps(head).encode()})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        write_whole(path, sink.getvalue().to_pybytes())
        return path


def read(path: str | Path) -> SplitFile:
    """Read a split file and compare its content with its digests.

    Raises FileNotFoundError, or SplitError for a file of another kind and for one that was changed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"split file {path} does not exist; make one with `protloc data split`.")
    try:
        table = pq.read_table(path)
        text = (table.schema.metadata or {}).get(_KEY)
        if text is None:
            raise SplitError("a Parquet table, but not a split file written by this package.")
        head = json.loads(text)
        if head["format_version"] != FORMAT_VERSION:
            raise SplitError(f"split format {head['format_version']}; this version reads {FORMAT_VERSION}.")
        columns = {
            name.removeprefix("by:"): tuple(table.column(name).to_pylist())
            for name in table.column_names
            if name.startswith("by:")
        }
        names = [name for name in table.column_names if name.startswith("split:")]
        cells = [_codes(table.column(name)) for name in names]
        found = SplitFile(
            tuple(table.column("id").to_pylist()),
            columns,
            tuple(name.removeprefix("split:") for name in names),
            np.asarray(cells, np.int8).reshape(len(names), table.num_rows),
            from_mapping(SplitConfig, head["config"]),
            head["about"],
        )
        for what, expected, got in (
            ("list of ids and columns", head["manifest_sha256"], found.manifest_digest),
            ("assignment", head["sha256"], found.digest),
        ):
            if expected != got:
                raise SplitError(f"its {what} was changed after writing (SHA-256 {got[:16]}, not {expected[:16]}).")
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise SplitError(f"{path}: {error}") from error
    return found


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """A column of parts as its codes [N] int8; KeyError for another word."""
    encoded = (
        column.combine_chunks() if pa.types.is_dictionary(column.type) else column.combine_chunks().dictionary_encode()
    )
    code = {word: i for i, word in enumerate(PARTS)}
    words = np.asarray([code[word] for word in encoded.dictionary.to_pylist()], np.int8)
    return words[encoded.indices.to_numpy(zero_copy_only=False)]


def basis_columns(table: pd.DataFrame, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Columns of a table as text: several values joined by ';', a missing one empty; names it lacks are left out."""

    def text(value: Any) -> str:
        if isinstance(value, list | tuple):
            return ";".join(sorted(map(str, value)))
        return "" if is_missing(value) else str(value)

    return {name: tuple(map(text, table[name])) for name in names if name in table.columns}


def basis_digest(ids: Sequence[str], columns: Mapping[str, Sequence[str]]) -> str:
    """SHA-256 of ids and columns, the same for any order of rows and columns."""
    names = sorted(columns)
    rows = sorted(zip(map(str, ids), *(columns[name] for name in names), strict=True))
    return hashlib.sha256(json.dumps([names, rows]).encode()).hexdigest()
