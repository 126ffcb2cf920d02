"""Single-cell crops: fields of view and label images become records of one cell each, with a mask.

The mask of a record is 1 in the cell, 2 in other cells, and 0 where no cell is.
"""

from __future__ import annotations

import csv
import hashlib
import json
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from protloc_jax.config import to_dict
from protloc_jax.data import manifest as manifests
from protloc_jax.data import records
from protloc_jax.data.info import RecordsInfo
from protloc_jax.data.manifest import CORE_COLUMNS, Manifest
from protloc_jax.data.packing_progress import Progress
from protloc_jax.datasets.cell_labels import cell_id, read_cell_labels
from protloc_jax.datasets.cell_shapes import tidy
from protloc_jax.datasets.crop_box import Box, cut_mask, cut_pixels
from protloc_jax.datasets.crop_config import CropConfig
from protloc_jax.datasets.crop_fields import (
    Fields,
    Labels,
    digest,
    fields_of_folder,
    fields_of_records,
    labels_of,
    size_problem,
)
from protloc_jax.datasets.crop_plan import CellRow, FieldPlan, Sizes, plan_field, sizes_of
from protloc_jax.datasets.folder_config import FolderConfig
from protloc_jax.datasets.inspection import default_workers
from protloc_jax.datasets.problems import DatasetError, Problems
from protloc_jax.datasets.watershed import SegmentationUnavailable, SegmentConfig
from protloc_jax.images import MAX_PIXELS, ImageError

LEFT_OUT_FILE = "left_out.csv"
OWN_COLUMNS = (
    "field", "cell", "row", "column", "area", "border", "neighbours", "coverage", "others", "nuclei", "nucleus_area",
    "box", "manual", "inherited",
)  # fmt: skip
_AT_ONCE = 256


class _Opened(NamedTuple):
    """A field with its tidied label image and what masked-out pixels become."""

    pixels: np.ndarray
    labels: np.ndarray
    fill: np.ndarray


class _Held(NamedTuple):
    """A field in work: who reads it, what was read (at most one), and the rows that are still to be cut."""

    lock: threading.Lock
    opened: list[_Opened]
    rows: set[int]


class Cutter:
    """(crop [S, S, C], mask [S, S] uint8) of row i. Picklable; safe to call from several threads.

    Rows of one field follow each other, so each field is read (and segmented) once: it is held until all its rows are
    cut, up to `keep` fields at a time. A worker process holds its own. `reads` counts what was read.
    """

    def __init__(
        self, fields: Fields, labels: Labels, crop: CropConfig, sizes: Sizes, plans: list[FieldPlan], keep: int
    ):
        self.pixels, self.labels, self.crop, self.sizes, self.keep = fields.pixels, labels, crop, sizes, keep
        self.names = fields.manifest.ids
        self.digests = [plan.digest for plan in plans]
        rows = [row for plan in plans for row in plan.cells]
        self.cell = np.array([row.cell for row in rows], np.int64)
        self.box = np.array([row.box for row in rows], np.float64)
        self.ends = np.cumsum([len(plan.cells) for plan in plans])
        self._start()

    def _start(self) -> None:
        self.reads = 0
        self._lock = threading.Lock()
        self._held: OrderedDict[int, _Held] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def __call__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        number = int(np.searchsorted(self.ends, row, side="right"))
        cell, box = int(self.cell[row]), Box(*self.box[row].tolist())
        opened = self._field(number)
        pixels = cut_pixels(
            opened.pixels,
            opened.labels,
            cell,
            box,
            self.sizes.out,
            padding=self.crop.padding,
            masked=self.crop.masked,
            fill=opened.fill,
        )
        mask = cut_mask(opened.labels, cell, box, self.sizes.out, self.crop.padding)
        self._done(number, row)
        return pixels, mask

    def _field(self, number: int) -> _Opened:
        with self._lock:
            if number not in self._held:
                first = int(self.ends[number - 1]) if number else 0
                self._held[number] = _Held(threading.Lock(), [], set(range(first, int(self.ends[number]))))
            self._held.move_to_end(number)
            while len(self._held) > self.keep:
                self._held.popitem(last=False)
            held = self._held[number]
        with held.lock:  # threads that want one field wait for each other, and it is read once
            if not held.opened:
                held.opened.append(self._read(number))
            return held.opened[0]

    def _done(self, number: int, row: int) -> None:
        with self._lock:
            held = self._held.get(number)
            if held is not None:
                held.rows.discard(row)
                if not held.rows:
                    del self._held[number]

    def _read(self, number: int) -> _Opened:
        with self._lock:
            self.reads += 1
        pixels = self.pixels(number)
        labels, nuclei = self.labels(number, pixels)
        if digest(labels, nuclei) != self.digests[number]:
            raise ImageError(f"{self.names[number]}: its masks are not those that were checked; run the command again.")
        labels, _ = tidy(labels, self.crop.components)
        fill = np.zeros(pixels.shape[2], pixels.dtype)
        if self.crop.fill == "background" and self.crop.masked != "none":
            free = pixels[labels == 0]
            fill = (np.median(free, 0) if len(free) else pixels.min((0, 1))).astype(pixels.dtype)
        return _Opened(pixels, labels, fill)


@dataclass(frozen=True)
class Crops:
    """Checked crops, ready to be packed.

    notes     what a user should know although it is no error
    left_out  (field, cell, reason, detail) of every cell, field and file that does not become a record, and of labels
              in several pieces (reason "note": the cell is a record all the same)
    found     cells in all label images
    """

    manifest: Manifest
    cutter: Cutter
    notes: list[str]
    left_out: list[tuple[str, int, str, str]]
    found: int
    source: str
    name: str = ""
    counts: dict[str, int] = field(default_factory=dict)


def prepare(
    fields: FolderConfig | str | Path,
    crop: CropConfig,
    segment: SegmentConfig | None = None,
    *,
    workers: int | None = None,
    progress: bool = False,
) -> Crops:
    """Read every label image (or segment every field), place every box and apply the filters; nothing is written.

    fields  a `folder` configuration, or a folder of records
    Raises DatasetError naming everything that is wrong, FileNotFoundError where a path does not exist,
    SegmentationUnavailable where a watershed is asked for without scikit-image.
    """
    segment = segment or SegmentConfig()
    count = default_workers() if workers is None else workers
    folder = fields if isinstance(fields, FolderConfig) else None
    if folder is not None:
        found = fields_of_folder(folder, workers=workers, progress=progress)
        limits: dict[str, Any] = {"allow_outside": folder.allow_outside, "max_pixels": folder.max_pixels}
    else:
        found = fields_of_records(fields)  # type: ignore[arg-type]
        limits = {"max_pixels": MAX_PIXELS}
    labels = labels_of(found, crop, segment, **limits)
    sizes = sizes_of(crop, found.manifest.um_per_pixel)
    ids = found.manifest.ids
    problems = Problems()
    plans: list[FieldPlan] = []
    with Progress(progress, "masks", 0, len(ids)) as bar:
        for plan in _plans(_Task(found, labels, crop, sizes), len(ids), count):
            if isinstance(plan, str):
                problems.add("label images", f"{ids[len(plans)]}: {plan}")
                plan = FieldPlan([], [], 0)
            plans.append(plan)
            bar.advance(1)
    problems.check("label images")
    left_out = [(row, 0, "field", why) for row, why in found.skipped]
    left_out += [(ids[i], e.cell, e.reason, e.detail) for i, plan in enumerate(plans) for e in plan.left_out]
    if not any(plan.cells for plan in plans):
        reasons = Counter(reason for _, _, reason, _ in left_out if reason != "note")
        shown = ", ".join(f"{reason} {n}" for reason, n in reasons.most_common())
        raise DatasetError(f"no cell is left to cut out of {len(ids)} field(s): {shown}.")
    notes = list(found.notes) + _notes(plans, found)
    manifest = _manifest(found.manifest, plans, crop, sizes, left_out, folder, notes)
    cutter = Cutter(found, labels, crop, sizes, plans, max(4, 2 * count + 1))
    return Crops(
        manifest,
        cutter,
        notes + manifest.warnings(),
        left_out,
        sum(plan.found for plan in plans),
        _source(found, crop, segment, sizes, plans),
        folder.name if folder is not None else "",
        dict(Counter(reason for _, _, reason, _ in left_out)),
    )


def pack(
    fields: FolderConfig | str | Path,
    crop: CropConfig,
    out: str | Path,
    segment: SegmentConfig | None = None,
    *,
    workers: int | None = None,
    shard_size: int = 0,
    progress: bool = False,
    restart: bool = False,
    prepared: Crops | None = None,
) -> RecordsInfo:
    """Check everything (`prepare`, unless given), then write records to `out`; the same call resumes after a kill.

    `left_out.csv` beside the records lists what did not become a record, and why.
    """
    crops = prepared or prepare(fields, crop, segment, workers=workers, progress=progress)
    info = records.write(
        out,
        crops.manifest,
        crops.cutter,
        name=crops.name,
        shard_size=shard_size,
        workers=workers,
        progress=progress,
        source=crops.source,
        restart=restart,
    )
    with (Path(out) / LEFT_OUT_FILE).open("w", newline="") as file:
        csv.writer(file).writerows([("field", "cell", "reason", "detail"), *crops.left_out])
    return info


@dataclass(frozen=True)
class _Task:
    fields: Fields
    labels: Labels
    crop: CropConfig
    sizes: Sizes

    def __call__(self, number: int) -> FieldPlan | str:
        """The plan of one field, or what is wrong with its label images."""
        try:
            pixels = self.fields.pixels(number) if self.labels.needs_pixels else None
            labels, nuclei = self.labels(number, pixels)
            shape = self.fields.shapes[number]
        except SegmentationUnavailable:
            raise
        except (ImageError, OSError, ValueError) as error:
            return str(error)
        if labels.shape != shape[:2]:
            return size_problem((self.labels.files(number) or ("watershed",))[0], labels, shape)
        plan = plan_field(labels, nuclei, self.crop, self.sizes, self.fields.manifest.ids[number])
        return plan._replace(digest=digest(labels, nuclei))


def _plans(task: _Task, n: int, workers: int) -> Iterator[FieldPlan | str]:
    """Plans in order; a bounded number of fields is in work."""
    if workers <= 1:
        yield from map(task, range(n))
        return
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, n, _AT_ONCE):
            yield from pool.map(task, range(start, min(start + _AT_ONCE, n)))


def _notes(plans: list[FieldPlan], fields: Fields) -> list[str]:
    notes = []
    single = [i for i, plan in enumerate(plans) if plan.found == 1 and any("pieces" in e.detail for e in plan.left_out)]
    if single:
        notes.append(
            f"{len(single)} label image(s) have one label in several pieces (the first: "
            f"{fields.manifest.ids[single[0]]}); masks of 0 and 1? components=split makes each piece a cell."
        )
    empty = sum(1 for plan in plans if not plan.found)
    if empty:
        notes.append(f"{empty} of {len(plans)} label images hold no cell.")
    return notes


def _manifest(
    fields: Manifest,
    plans: list[FieldPlan],
    crop: CropConfig,
    sizes: Sizes,
    left_out: list[tuple[str, int, str, str]],
    folder: FolderConfig | None,
    notes: list[str],
) -> Manifest:
    """One row a cell: what its field says, and where it lies."""
    at = np.repeat(np.arange(len(plans)), [len(plan.cells) for plan in plans])
    rows: list[CellRow] = [row for plan in plans for row in plan.cells]
    inherited = fields.table.iloc[at].reset_index(drop=True)
    names = inherited["id"].tolist()
    columns: dict[str, Any] = {
        "id": [cell_id(name, row.cell) for name, row in zip(names, rows, strict=True)],
        **{name: inherited[name] for name in CORE_COLUMNS if name != "id"},
        "field": pd.Series(names, dtype=object),
    }
    for name in CellRow._fields[:-1]:
        if name in ("nuclei", "nucleus_area") and rows[0].nuclei < 0:
            continue
        columns[name] = np.array([getattr(row, name) for row in rows])
    columns["box"] = np.array([row.box.side for row in rows], np.float64)
    for name in fields.group_columns:
        own = name if name not in OWN_COLUMNS else f"{name}_of_field"
        if own != name:
            notes.append(f"the fields' column '{name}' is kept as '{own}': '{name}' is the cells' own.")
        columns[own] = inherited[name]
    label_names: tuple[str, ...] | None = fields.label_names
    if crop.cell_labels:
        gone = [cell_id(name, cell) for name, cell, reason, _ in left_out if cell and reason != "note"]
        separator = folder.label_separator if folder is not None else ";"
        manual, more = read_cell_labels(crop.cell_labels, columns["id"], gone, separator=separator)
        notes += more
        cells = [manual.get(name, ()) for name in columns["id"]]
        if crop.cell_labels_as == "labels":
            columns["inherited"] = pd.Series([separator.join(v) or None for v in columns["labels"]], dtype=object)
            columns["labels"], label_names = pd.Series(cells, dtype=object), None
        else:
            columns["manual"] = pd.Series([separator.join(v) or None for v in cells], dtype=object)
    return manifests.make(
        pd.DataFrame(columns),
        fields.channels,
        label_names=label_names or None,
        label_kind=fields.label_kind if label_names else None,
        um_per_pixel=_um_per_pixel(fields.um_per_pixel, crop, sizes, notes),
    )


def _um_per_pixel(um: float | None, crop: CropConfig, sizes: Sizes, notes: list[str]) -> float | None:
    if crop.box == "scaled":
        if um is not None:
            notes.append("scaled boxes: every crop has its own pixel size, so none is kept; the column 'box' tells it.")
        return None
    return None if um is None else um * sizes.side / sizes.out


def _source(fields: Fields, crop: CropConfig, segment: SegmentConfig, sizes: Sizes, plans: list[FieldPlan]) -> str:
    """What the pixels are made from. The key `simulated` marks synthetic images (simulated.config_of)."""
    masks = hashlib.blake2b(b"".join(plan.digest for plan in plans), digest_size=16).hexdigest()
    geometry = [sizes.out, crop.padding, crop.masked, crop.fill, crop.components]
    about: dict[str, Any] = {"crops": {"fields": fields.source, "masks": masks, "geometry": geometry}}
    about["crops"]["boxes"] = hashlib.blake2b(
        np.array([row.box for plan in plans for row in plan.cells], np.float64).tobytes(), digest_size=16
    ).hexdigest()
    if segment.segment != "none":
        about["crops"]["segment"] = to_dict(segment)
    if fields.simulated is not None:
        about["simulated"] = fields.simulated
    return json.dumps(about, sort_keys=True)
