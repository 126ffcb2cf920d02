"""The manifest: one table a data set, whose row order is the record order.

It says what every image is (id, labels, groups, split) and where it came from. It travels as one Parquet file that
also holds the channels, the class list and the pixel size, so that it can be read without anything beside it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from protloc_jax.channels import ChannelSet
from protloc_jax.config import nearest

LabelKind = Literal["single", "multi", "none"]
SPLITS = ("train", "val", "test")
CORE_COLUMNS = ("id", "split", "labels", "source")
FORMAT_VERSION = 1
_KEY = b"protloc_manifest"
_SHOWN = 10


class ManifestError(ValueError):
    """A manifest or the table it is made from was refused; the message lists every problem with its row."""


@dataclass(frozen=True)
class Manifest:
    """What every record of a data set is; row i of `table` describes record i.

    table         columns `id` (unique text), `split` (train, val or test), `labels` (tuple of class names, may be
                  empty), `source` (file or files), and any number of group columns (protein, plate, field, ...)
    channels      names and roles in the order of the image's last axis
    label_names   the class list; the order is the order of `multi_hot`'s columns
    label_kind    "single" (at most one label a row), "multi" or "none"
    um_per_pixel  physical pixel size, None where unknown

    Build one with `make`, which fills the defaults and validates.
    """

    table: pd.DataFrame
    channels: ChannelSet
    label_names: tuple[str, ...] = ()
    label_kind: LabelKind = "none"
    um_per_pixel: float | None = None

    def __len__(self) -> int:
        return len(self.table)

    @property
    def n(self) -> int:
        return len(self.table)

    @property
    def group_columns(self) -> tuple[str, ...]:
        """The columns that are not core ones, in table order."""
        return tuple(str(c) for c in self.table.columns if c not in CORE_COLUMNS)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self.table["id"])

    def rows(self, split: str | None = None) -> np.ndarray:
        """Row numbers [n] int64 of a split, in order; all rows for None. ValueError names an unknown or empty split."""
        if split is None:
            return np.arange(self.n)
        if split not in SPLITS:
            raise ManifestError(f"split '{split}' is not one of {', '.join(SPLITS)}.{nearest(split, SPLITS)}")
        found = np.flatnonzero((self.table["split"] == split).to_numpy())
        if not len(found):
            sizes = Counter(self.table["split"])
            raise ManifestError(
                f"the split '{split}' is empty; the data set has " + ", ".join(f"{s}: {sizes[s]}" for s in SPLITS) + "."
            )
        return found

    def multi_hot(self, rows: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Labels as [N, L] float32 zeros and ones over `label_names`; a row without labels is all zero."""
        at = {name: i for i, name in enumerate(self.label_names)}
        labels = self.table["labels"].to_list()
        chosen = range(self.n) if rows is None else [int(r) for r in rows]
        out = np.zeros((len(chosen), len(at)), np.float32)
        for i, row in enumerate(chosen):
            for name in labels[row]:
                out[i, at[name]] = 1.0
        return out

    def group_ids(self, column: str) -> tuple[np.ndarray, tuple[str, ...]]:
        """A column as ([N] int32 ids, names): ids count the sorted distinct values, -1 where the value is missing.

        `labels` may be asked for too: rows with the same set of labels share an id and rows without labels get -1.
        Raises ManifestError for an unknown column, with the nearest name.
        """
        if column == "labels":
            texts: list[str | None] = [";".join(sorted(v)) if len(v) else None for v in self.table["labels"]]
        elif column in self.table.columns:
            texts = [None if _missing(v) else str(v) for v in self.table[column]]
        else:
            raise ManifestError(_no_column(column, ("labels", *self.group_columns)))
        names = tuple(sorted({t for t in texts if t is not None}))
        at = {name: i for i, name in enumerate(names)}
        return np.asarray([-1 if t is None else at[t] for t in texts], np.int32), names

    def subset(self, rows: Sequence[int] | np.ndarray) -> Manifest:
        """The manifest of some rows, in the order given; the class list stays."""
        return replace(self, table=self.table.iloc[np.asarray(rows, int)].reset_index(drop=True))

    def validate(self) -> Manifest:
        """Return self, or raise ManifestError listing everything wrong with the rows it concerns."""
        problems = _problems(self)
        if problems:
            raise ManifestError(listed(problems))
        return self

    def warnings(self) -> list[str]:
        """Facts that spoil a score without breaking anything: classes with one example or absent from a split."""
        found: list[str] = []
        if not self.label_names:
            return found
        hot, split = self.multi_hot(), self.table["split"].to_numpy()
        total = hot.sum(0)
        lonely = [f"'{name}'" for name, count in zip(self.label_names, total, strict=True) if count == 1]
        if lonely:
            found.append(f"{len(lonely)} class(es) with one example (never both fitted and scored): {capped(lonely)}.")
        unused = [f"'{name}'" for name, count in zip(self.label_names, total, strict=True) if count == 0]
        if unused:
            found.append(f"{len(unused)} class(es) without any example: {capped(unused)}.")
        for name in SPLITS:
            if (split == name).any():
                absent = (hot[split == name].sum(0) == 0) & (total > 0)
                if absent.any():
                    names = [f"'{self.label_names[i]}'" for i in np.flatnonzero(absent)]
                    found.append(f"split '{name}' has no example of {capped(names)}.")
        bare = int((hot.sum(1) == 0).sum())
        if bare:
            found.append(f"{bare} of {self.n} rows have no label.")
        return found


def make(
    table: pd.DataFrame,
    channels: ChannelSet,
    *,
    label_names: Sequence[str] | None = None,
    label_kind: LabelKind | None = None,
    um_per_pixel: float | None = None,
) -> Manifest:
    """A validated manifest from a table with at least an `id` column.

    Absent `split`, `labels` and `source` get "train", no labels and "". Without `label_names` the classes found are
    sorted; without `label_kind` it is "multi" when any row has more than one label. Text columns become plain text with
    None for missing values. Raises ManifestError listing every problem.
    """
    table = table.reset_index(drop=True)
    twice = [name for name, count in Counter(map(str, table.columns)).items() if count > 1]
    if twice:
        raise ManifestError(f"repeated column names: {capped(twice)}.")
    if "id" not in table.columns:
        raise ManifestError(f"a manifest needs the column 'id'.{nearest('id', [str(c) for c in table.columns])}")
    labels = [_as_labels(v) for v in table["labels"]] if "labels" in table.columns else [()] * len(table)
    core = {
        "id": [str(v) for v in table["id"]],
        "split": [str(v) for v in table["split"]] if "split" in table.columns else ["train"] * len(table),
        "labels": labels,
        "source": [str(v) for v in table["source"]] if "source" in table.columns else [""] * len(table),
    }
    columns = {name: pd.Series(values, dtype=object) for name, values in core.items()}
    for name in table.columns:
        if name not in CORE_COLUMNS:
            columns[str(name)] = _plain(pd.Series(table[name]))
    found = tuple(sorted({name for row in labels for name in row}))
    names = found if label_names is None else tuple(str(n) for n in label_names)
    if label_kind is None:
        label_kind = "none" if not names else "multi" if any(len(row) > 1 for row in labels) else "single"
    return Manifest(pd.DataFrame(columns), ChannelSet(channels), names, label_kind, um_per_pixel).validate()


def write(manifest: Manifest, path: str | Path) -> None:
    """Write one Parquet file; equal manifests give equal bytes with the same pyarrow version."""
    manifest.validate()
    fields, arrays = [], []
    for name in manifest.table.columns:
        column = manifest.table[name]
        if name == "labels":
            array = pa.array([list(v) for v in column], pa.list_(pa.string()))
        elif column.dtype == object:
            array = pa.array(column.to_list(), pa.string())
        else:
            array = pa.array(column.to_numpy())
        fields.append(pa.field(str(name), array.type))
        arrays.append(array)
    about = {
        "format_version": FORMAT_VERSION,
        "channels": [list(c) for c in manifest.channels],
        "label_names": list(manifest.label_names),
        "label_kind": manifest.label_kind,
        "um_per_pixel": manifest.um_per_pixel,
    }
    schema = pa.schema(fields, metadata={_KEY: json.dumps(about).encode()})
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path, compression="zstd")


def read(path: str | Path) -> Manifest:
    """Read a manifest written by `write`. Raises FileNotFoundError, or ManifestError for a file of another kind."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"manifest {path} does not exist.")
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ManifestError(f"{path}: not a readable Parquet file ({error}).") from error
    text = (table.schema.metadata or {}).get(_KEY)
    if text is None:
        raise ManifestError(f"{path}: a Parquet table, but not a manifest written by this package.")
    about: dict[str, Any] = json.loads(text)
    if about["format_version"] != FORMAT_VERSION:
        raise ManifestError(f"{path}: manifest format {about['format_version']}; this version reads {FORMAT_VERSION}.")
    columns = {}
    for name in table.column_names:
        column = table.column(name)
        if name == "labels":
            columns[name] = pd.Series([tuple(v) for v in column.to_pylist()], dtype=object)
        elif pa.types.is_string(column.type):
            columns[name] = pd.Series(column.to_pylist(), dtype=object)
        else:
            columns[name] = pd.Series(column.to_numpy())
    return Manifest(
        pd.DataFrame(columns),
        ChannelSet(tuple(c) for c in about["channels"]),
        tuple(about["label_names"]),
        cast(LabelKind, about["label_kind"]),
        about["um_per_pixel"],
    ).validate()


def capped(items: Sequence[str], most: int = _SHOWN) -> str:
    """'a, b, ... and 7 more': a list for a message, cut after `most` items."""
    more = f", ... and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def listed(problems: Sequence[str], most: int = _SHOWN) -> str:
    """Problems as one message: a single one as it is, several one a line, cut after `most`."""
    if len(problems) == 1:
        return problems[0]
    shown = [f"{len(problems)} problems:", *problems[:most]]
    if len(problems) > most:
        shown.append(f"... and {len(problems) - most} more.")
    return "\n  ".join(shown)


def _problems(manifest: Manifest) -> list[str]:
    table = manifest.table
    absent = [c for c in CORE_COLUMNS if c not in table.columns]
    if absent:
        return [_no_column(c, [str(n) for n in table.columns]) for c in absent]
    problems = []
    if not len(table):
        problems.append("the data set is empty: no rows.")
    if not len(manifest.channels):
        problems.append("no channels are named.")
    problems += _id_problems(table["id"].to_list())
    for row, split in enumerate(table["split"]):
        if split not in SPLITS:
            hint = nearest(str(split), SPLITS)
            problems.append(f"row {row} ({table['id'][row]}): split '{split}' is not one of {', '.join(SPLITS)}.{hint}")
    problems += _label_problems(manifest)
    if manifest.um_per_pixel is not None and not (0 < manifest.um_per_pixel < np.inf):
        problems.append(f"um_per_pixel={manifest.um_per_pixel}: must be positive.")
    return problems


def _id_problems(ids: Sequence[str]) -> list[str]:
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(ids):
        rows.setdefault(name, []).append(row)
    problems = [f"row {row}: empty id." for row in rows.get("", [])]
    problems += [
        f"id '{name}' is used {len(at)} times (rows {capped([str(r) for r in at])})."
        for name, at in rows.items()
        if len(at) > 1 and name
    ]
    return problems


def _label_problems(manifest: Manifest) -> list[str]:
    names, kind, ids = manifest.label_names, manifest.label_kind, manifest.table["id"].to_list()
    problems = []
    if kind not in get_args(LabelKind):
        problems.append(f"label_kind='{kind}': not one of {', '.join(get_args(LabelKind))}.")
    if len(set(names)) != len(names):
        problems.append(f"repeated class names: {capped(sorted({n for n in names if names.count(n) > 1}))}.")
    if kind == "none" and names:
        problems.append("label_kind='none' but class names are given.")
    known = set(names)
    for row, labels in enumerate(manifest.table["labels"]):
        unknown = [f"'{v}'{nearest(v, names)}" for v in labels if v not in known]
        if unknown:
            problems.append(f"row {row} ({ids[row]}): label not in the class list: {', '.join(unknown)}")
        if len(set(labels)) != len(labels):
            problems.append(f"row {row} ({ids[row]}): repeated label in {list(labels)}.")
        if kind == "single" and len(labels) > 1:
            problems.append(f"row {row} ({ids[row]}): {len(labels)} labels where label_kind is 'single'.")
    return problems


def _no_column(name: str, have: Iterable[str]) -> str:
    have = list(have)
    return f"no column '{name}'.{nearest(name, have)} Columns: {capped(have, 30) or '(none)'}."


def _as_labels(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,) if value else ()
    return () if _missing(value) else tuple(str(v) for v in value)


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))


def _plain(column: pd.Series) -> pd.Series:
    """Numbers and booleans as they are; everything else as text with None for missing values."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
        return column
    return pd.Series([None if _missing(v) else str(v) for v in column], dtype=object)
