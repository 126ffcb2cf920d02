"""Cells of records: crops with masks, a class and a protein each, after the paper's filters; every row is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from protloc_jax.config import nearest
from protloc_jax.data.grouping import is_missing
from protloc_jax.data.manifest import capped, listed
from protloc_jax.data.read import Records
from protloc_jax.eval.background.conditions import Cells, Patches
from protloc_jax.eval.background.crop_filters import filter_crops
from protloc_jax.eval.background.spec import BackgroundError

LABELS = "labels"
_MASKS = (
    "masks of single cells (1 = the cell, 2 = others) are needed: pack crops with `protloc data crops`, which takes "
    "label images or finds cells itself (--segment)."
)


@dataclass(frozen=True)
class CellsConfig:
    """Which crops are taken.

    class_column    the class of a crop: its single label, or a group column
    protein_column  what a crop shows; backgrounds come from other proteins
    classes         only these; each then must have two proteins. Without, classes with fewer are left out and listed
    channel         whose mean `floor` is compared with; '' is the protein's, or the first
    floor           crops that are dimmer are dropped (see `crop_filters.intensity_floor`)
    """

    class_column: str = LABELS
    protein_column: str = "protein"
    classes: tuple[str, ...] = ()
    channel: str = ""
    floor: float = 0.0
    min_coverage: float = 0.05
    max_coverage: float = 0.95

    def __post_init__(self) -> None:
        if not 0 <= self.min_coverage <= self.max_coverage <= 1:
            raise BackgroundError(
                f"min_coverage={self.min_coverage}, max_coverage={self.max_coverage}: shares from 0 to 1, in order."
            )


class Taken(NamedTuple):
    """Cells, the classes in the order of the records' class list, and how many rows were left out for which reason.

    lonely   classes with fewer than two proteins, with their number of crops; they are among those left out
    """

    cells: Cells
    classes: tuple[str, ...]
    left_out: dict[str, int]
    lonely: dict[str, int]


def read_cells(records: Records, config: CellsConfig, rows: np.ndarray | None = None) -> Taken:
    """The crops of records (all, or `rows`) with their masks, held in memory in the records' integer type.

    Left out and counted: rows of classes that were not asked for, without a class or with several, without a protein;
    crops that the filters drop; crops whose mask shows no cell; classes with fewer than two proteins. Raises
    BackgroundError for records without masks, unknown columns and classes (with the nearest), classes asked for that
    have fewer than two proteins, and where nothing is left.
    """
    if not records.info.has_mask:
        raise BackgroundError(f"{records.directory}: these records have no masks; {_MASKS}")
    rows = np.arange(records.n) if rows is None else np.asarray(rows, np.int64)
    columns = _columns(records, rows, config)
    known = sorted({c for c in columns.classes if c})
    wrong = [f"no crop of class '{c}'.{nearest(c, known)}" for c in config.classes if c not in known]
    if wrong:
        raise BackgroundError(listed(wrong))
    left_out = dict(columns.left_out)
    kept = columns.kept
    if config.classes:
        asked = kept & np.isin(columns.classes, config.classes)
        left_out["of other classes"] = int((kept & ~asked).sum())
        kept = asked
    at = np.flatnonzero(kept)
    if not len(at):
        raise BackgroundError(f"{records.directory}: no crop with a class and a protein. {counted(left_out)}")
    images, masks = _pixels(records, rows[at])
    channel = channel_of(records, config.channel)
    filtered = filter_crops(
        images,
        masks,
        floor=config.floor,
        channel=channel,
        min_coverage=config.min_coverage,
        max_coverage=config.max_coverage,
    )
    seen = (masks == 1).any((1, 2))
    names = {"dim": "dimmer than the floor", "small": "cell covers too little", "large": "cell covers too much"}
    left_out |= {words: filtered.dropped[name] for name, words in names.items()}
    left_out["dropped by both filters (counted in both)"] = filtered.dropped["both"]
    left_out["mask shows no cell"] = int((filtered.kept & ~seen).sum())
    good = filtered.kept & seen
    proteins: dict[str, set[str]] = {}
    for name, protein in zip(columns.classes[at[good]], columns.proteins[at[good]], strict=True):
        proteins.setdefault(name, set()).add(protein)
    sizes = Counter(columns.classes[at[good]])
    asked_for = config.classes or tuple(proteins)
    lonely = {c: sizes[c] for c in sorted(asked_for) if len(proteins.get(c, ())) < 2}
    if lonely and config.classes:
        shown = [f"'{c}' ({len(proteins.get(c, ()))} proteins, {n} crops)" for c, n in lonely.items()]
        raise BackgroundError(f"classes with fewer than two proteins after the filters: {capped(shown)}.")
    good &= ~np.isin(columns.classes[at], list(lonely))
    left_out["of classes with fewer than two proteins"] = sum(lonely.values())
    left_out = {words: n for words, n in left_out.items() if n}
    classes = _ordered(set(columns.classes[at[good]]), records)
    if len(classes) < 2:
        raise BackgroundError(
            f"{records.directory}: {len(classes)} class(es) with two proteins; two are needed. {counted(left_out)}"
        )
    ids = np.array(records.manifest.ids, object)[rows[at[good]]].astype(str)
    cells = Cells(images[good], masks[good], columns.classes[at[good]], columns.proteins[at[good]], ids)
    return Taken(cells, classes, left_out, lonely)


def read_patches(records: Records, config: CellsConfig, cells: Cells) -> tuple[Patches, dict[str, int]]:
    """Patches without cells, by the same columns, of the cells' proteins, and how many rows were left out for what.

    Where the records have masks, patches that hold a cell's pixels are left out. Raises BackgroundError for another
    shape, type or other channels than the cells', unknown columns, and where nothing is left.
    """
    shape, info = cells.images.shape[1:], records.info
    if (info.height, info.width, len(info.channels)) != shape or info.dtype != str(cells.images.dtype):
        raise BackgroundError(
            f"{records.directory}: {info.height} x {info.width} x {len(info.channels)} {info.dtype}; the cells are "
            f"{' x '.join(map(str, shape))} {cells.images.dtype}. Cut patches of the cells' size and channels."
        )
    rows = np.arange(records.n)
    columns = _columns(records, rows, config)
    of = {(c, p) for c, p in zip(cells.classes, cells.proteins, strict=True)}
    ours = np.array([(c, p) in of for c, p in zip(columns.classes, columns.proteins, strict=True)], bool)
    left_out = dict(columns.left_out)
    left_out["of no protein of the cells"] = int((columns.kept & ~ours).sum())
    at = np.flatnonzero(columns.kept & ours)
    if info.has_mask and len(at):
        empty = np.array([not records.mask(int(row)).any() for row in at])
        left_out["hold pixels of a cell"] = int((~empty).sum())
        at = at[empty]
    left_out = {words: n for words, n in left_out.items() if n}
    if not len(at):
        raise BackgroundError(f"{records.directory}: no patch of a protein of the cells. {counted(left_out)}")
    images = np.stack([records.read(int(row)) for row in at])
    ids = np.array(records.manifest.ids, object)[at].astype(str)
    return Patches(images, columns.classes[at], columns.proteins[at], ids), left_out


def channel_of(records: Records, name: str) -> int:
    """The number of a channel; of the protein's, or the first, for ''. ValueError with the nearest name."""
    channels = records.info.channel_set
    if name:
        return channels.select([name])[0]
    return channels.protein or 0


def counted(left_out: dict[str, int]) -> str:
    """'Left out: 12 cell covers too little; 3 without a protein.', or an empty text."""
    return f"Left out: {'; '.join(f'{n:,} {words}' for words, n in left_out.items())}." if left_out else ""


class _Columns(NamedTuple):
    classes: np.ndarray
    proteins: np.ndarray
    kept: np.ndarray
    left_out: dict[str, int]


def _columns(records: Records, rows: np.ndarray, config: CellsConfig) -> _Columns:
    """Class and protein of rows ('' where there is none), and which rows have both."""
    manifest = records.manifest
    have = (*manifest.group_columns, LABELS)
    wanted = {"class": config.class_column, "protein": config.protein_column}
    wrong = [
        f"no column '{name}' for the {what}.{nearest(name, have)} Columns: {capped(have, 30)}."
        for what, name in wanted.items()
        if name not in have
    ]
    if wrong:
        raise BackgroundError(f"{records.directory}: {listed(wrong)}")
    table = manifest.table.iloc[rows]

    def texts(column: str) -> tuple[np.ndarray, int]:
        values: list[Any] = table[column].to_list()
        if column != LABELS:
            return np.array(["" if is_missing(v) else str(v) for v in values], str), 0
        return np.array([v[0] if len(v) == 1 else "" for v in values], str), sum(len(v) > 1 for v in values)

    (classes, several), (proteins, _) = texts(config.class_column), texts(config.protein_column)
    kept = (classes != "") & (proteins != "")
    left_out = {
        "with several labels": several,
        "without a class": int((classes == "").sum()) - several,
        "without a protein": int(((classes != "") & (proteins == "")).sum()),
    }
    return _Columns(classes, proteins, kept, {words: n for words, n in left_out.items() if n})


def _pixels(records: Records, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    info = records.info
    images = np.empty((len(rows), info.height, info.width, len(info.channels)), info.dtype)
    masks = np.empty(images.shape[:3], np.uint8)
    for place, row in enumerate(rows):
        images[place], masks[place] = records.read(int(row)), records.mask(int(row))
    return images, masks


def _ordered(found: set[str], records: Records) -> tuple[str, ...]:
    """Classes in the order of the records' class list, others behind them by name."""
    names: Sequence[str] = records.info.label_names
    return tuple(n for n in names if n in found) + tuple(sorted(found - set(names)))
