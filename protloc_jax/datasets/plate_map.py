"""Plate maps: what was in which well, from tables of their own, joined to the images by plate and well."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from protloc_jax.config import nearest
from protloc_jax.data.manifest import capped
from protloc_jax.datasets.problems import DatasetError, Problems
from protloc_jax.datasets.table import TABLE_SUFFIXES, cell_text, is_table, read_table
from protloc_jax.datasets.wells import well_name

_WELL = ("well", "wellposition", "wellid", "wellname")
_PLATE = ("plate", "assayplatebarcode", "platebarcode", "barcode", "plateid", "platename")
_MAP = ("platemapname", "platemap")
_ENTRY = "#entry"


@dataclass(frozen=True)
class PlateMap:
    """Entries by key.

    key      "well", "plate and well" or "map and well": what tells entries apart
    entries  key parts -> row of `columns`
    columns  the columns to join
    where    where each entry stands, for messages
    maps     plate -> map, where a barcode table says so
    """

    key: str
    entries: Mapping[tuple[str, ...], int]
    columns: pd.DataFrame
    where: Sequence[str]
    maps: Mapping[str, str]
    maps_where: Mapping[str, str]

    def join(self, frame: pd.DataFrame, rows: Sequence[str], *, plate: str, well: str) -> pd.DataFrame:
        """`frame` with the map's columns, wells written as A01, and the number of each row's entry (-1: none).

        plate, well  the names of these columns in `frame`

        Raises DatasetError for absent columns, wells that do not parse, and columns that both sides have but with other
        values.
        """
        need = [name for name in ((plate, well) if self.key != "well" else (well,)) if name not in frame.columns]
        if need:
            have = [str(c) for c in frame.columns]
            raise DatasetError(
                "\n  ".join(f"plate_map: the images have no column '{n}'.{nearest(n, have)}" for n in need)
                + f" Columns: {capped(have, 30)} (plate_column, well_column name them)."
            )
        problems = Problems()
        wells = _wells([cell_text(v) for v in frame[well]], rows, problems)
        problems.check("plate_map: wells of the images")
        keys: list[tuple[str, ...]] = [(w,) for w in wells]
        if self.key != "well":
            plates = [cell_text(v) for v in frame[plate]]
            firsts = [self.maps.get(p, "") for p in plates] if self.maps else plates
            keys = list(zip(firsts, wells, strict=True))
        entry = np.asarray([self.entries.get(k, -1) for k in keys], int)
        joined = frame.assign(**{well: pd.Series(wells, dtype=object), _ENTRY: entry})
        if self.maps:
            joined["plate_map"] = pd.Series([key[0] for key in keys], dtype=object)
        for name in self.columns.columns:
            cells = self.columns[name].to_list()
            values = pd.Series([cells[e] if e >= 0 else None for e in entry], dtype=object)
            if name in frame.columns:
                both = zip(map(cell_text, frame[name]), map(cell_text, values), entry, rows, strict=True)
                problems.extend(
                    f"column '{name}' of images and plate map differ",
                    [f"{row}: '{a}' and '{b}'" for a, b, e, row in both if e >= 0 and a != b],
                )
            else:
                joined[str(name)] = values
        problems.check("plate_map")
        return joined

    def settle(
        self, frame: pd.DataFrame, rows: Sequence[str], problems: Problems, notes: list[str], *, plate: str, well: str
    ) -> pd.DataFrame:
        """Report rows without an entry (problems) and entries without a row (notes); called when rows are chosen."""
        entry = frame[_ENTRY].to_numpy()
        frame = frame.drop(columns=_ENTRY)
        absent: dict[tuple[str, str], list[str]] = {}
        plates = frame[plate] if self.key != "well" else [""] * len(frame)
        for number, p, w, row in zip(entry, plates, frame[well], rows, strict=True):
            if number < 0:
                absent.setdefault((cell_text(p), w), []).append(row)
        for (p, w), at in absent.items():
            if self.maps and p not in self.maps:
                problems.add("plates without a barcode entry", f"plate '{p}' ({at[0]}).{nearest(p, self.maps)}")
                continue
            which = f"plate '{p}' " if p else ""
            which += f"(map '{self.maps[p]}') " if self.maps else ""
            problems.add("wells without an entry in the plate map", f"{which}well {w} ({at[0]}, {len(at)} row(s))")
        unused = [self.where[i] for i in sorted(set(self.entries.values()) - set(entry.tolist()))]
        if unused:
            notes.append(
                f"{len(unused)} of {len(self.where)} plate map entries belong to no image: {capped(unused, 4)}."
            )
        spare = [self.maps_where[p] for p in self.maps if p not in set(map(cell_text, plates))]
        if spare:
            notes.append(f"{len(spare)} of {len(self.maps)} barcode entries belong to no image: {capped(spare, 4)}.")
        types = {n: t for n, t in self.columns.dtypes.items() if n in frame.columns and t.kind != "O"}
        return frame if absent else frame.astype(types)


def read_plate_map(path: Path, barcode: Path | None) -> PlateMap:
    """Read one table, or a folder with one table a map, and the table plate -> map if there is one.

    Columns are known by their usual names: well or well_position; plate, barcode or Assay_Plate_Barcode; plate_map_name
    (else a file's own name). Raises DatasetError for absent columns, wells that do not parse, and all entries given
    twice.
    """
    tables, names = _tables(path, barcode)
    maps, maps_where = _barcodes(barcode) if barcode is not None else ({}, {})
    problems = Problems()
    frames, where, keys = [], [], []
    by_plate = False
    for table, name in zip(tables, names, strict=True):
        frame, rows = read_table(table)
        found = {kind: _column(frame, words) for kind, words in (("well", _WELL), ("plate", _PLATE), ("map", _MAP))}
        if not found["well"]:
            raise DatasetError(
                f"{table}: a plate map needs a column 'well'. Columns: {capped(list(map(str, frame)), 30)}."
            )
        wells = _wells([cell_text(v) for v in frame[found["well"]]], rows, problems)
        if maps:
            firsts = [cell_text(v) for v in frame[found["map"]]] if found["map"] else [name] * len(frame)
        elif found["plate"]:
            firsts = [cell_text(v) for v in frame[found["plate"]]]
        else:
            firsts = [name if len(tables) > 1 else ""] * len(frame)
        by_plate = by_plate or any(firsts)
        keys += list(zip(firsts, wells, strict=True))
        where += rows
        kept = frame.drop(columns=[c for c in found.values() if c])
        frames.append(kept.rename(columns={c: re.sub(r"^(Image_)?Metadata_", "", str(c)) for c in kept.columns}))
    entries: dict[tuple[str, ...], int] = {}
    for number, (first, well) in enumerate(keys):
        key = (first, well) if by_plate else (well,)
        if key in entries and well:
            problems.add(
                "plate map entries given twice", f"{where[number]}: {' '.join(key)} was in {where[entries[key]]}"
            )
        entries.setdefault(key, number)
    problems.check(str(path))
    columns = pd.concat(frames, ignore_index=True)
    if bad := [c for c in ("id", "source") if c in columns.columns]:
        raise DatasetError(f"{path}: a plate map cannot have the column {', '.join(bad)}; give it another name.")
    unmapped = sorted({m for m in maps.values() if by_plate and (m not in {k[0] for k in entries})})
    if unmapped:
        raise DatasetError(
            f"{barcode}: no plate map is named {capped(unmapped)}; there are {capped(sorted({k[0] for k in entries}))}."
        )
    kind = "map and well" if maps else "plate and well" if by_plate else "well"
    return PlateMap(kind, entries, columns, where, maps, maps_where)


def _tables(path: Path, barcode: Path | None) -> tuple[list[Path], list[str]]:
    """The tables of maps and their names; a barcode table among them is none."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such plate map.")
    if path.is_file():
        return [path], [path.name.split(".")[0]]
    found = sorted(p for p in path.iterdir() if is_table(p.name) and not p.name.startswith("."))
    found = [p for p in found if barcode is None or p.resolve() != barcode.resolve()]
    if not found:
        raise DatasetError(f"{path}: no table ({', '.join(TABLE_SUFFIXES)}) in the folder of plate maps.")
    return found, [p.name.split(".")[0] for p in found]


def _barcodes(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Plate -> map, and plate -> where it stands."""
    frame, rows = read_table(path)
    plate, name = _column(frame, _PLATE), _column(frame, _MAP)
    if not plate or not name:
        raise DatasetError(
            f"{path}: a barcode table needs Assay_Plate_Barcode (or plate) and Plate_Map_Name. "
            f"Columns: {capped(list(map(str, frame)), 30)}."
        )
    problems = Problems()
    maps: dict[str, str] = {}
    where: dict[str, str] = {}
    for p, m, row in zip(map(cell_text, frame[plate]), map(cell_text, frame[name]), rows, strict=True):
        if not p or not m:
            problems.add("empty cells", row)
        elif p in maps:
            problems.add("plates given twice", f"{row}: '{p}' was in {where[p]}")
        maps.setdefault(p, m)
        where.setdefault(p, row)
    problems.check(str(path))
    return maps, where


def _column(frame: pd.DataFrame, words: Sequence[str]) -> str:
    """The column of one of these names, whatever its case, underscores and Metadata_ prefix; '' if there is none."""
    short = {
        re.sub(r"^(image_)?metadata_", "", str(c).lower()).replace("_", "").replace(" ", ""): str(c) for c in frame
    }
    return next((short[word] for word in words if word in short), "")


def _wells(texts: Sequence[str], rows: Sequence[str], problems: Problems) -> list[str]:
    names: dict[str, str] = {}
    found = []
    for text, row in zip(texts, rows, strict=True):
        if text not in names:
            try:
                names[text] = well_name(text)
            except ValueError as error:
                problems.add("wells that do not parse", f"{row}: {error}")
                found.append("")
                continue
        found.append(names[text])
    return found
