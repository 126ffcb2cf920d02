"""Patches without cells as records: cut out of fields of view by their label images, or out of simulated fields.

A patch has its field's labels and groups (protein, plate, …), so that a cell can be put on cell-free background of a
class. Its mask is 0, but for pixels of cells that the rules let pass, which are 2.
"""

from __future__ import annotations

import csv
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from protloc_jax.config import ConfigError, from_mapping, to_dict
from protloc_jax.data import manifest as manifests
from protloc_jax.data import records
from protloc_jax.data.info import RecordsInfo
from protloc_jax.data.manifest import CORE_COLUMNS, Manifest
from protloc_jax.data.packing_progress import Progress
from protloc_jax.datasets import simulated
from protloc_jax.datasets.cell_free import CellFreeConfig, free_corners, grid
from protloc_jax.datasets.crop_box import OTHER_CELLS
from protloc_jax.datasets.crop_config import CropConfig
from protloc_jax.datasets.crop_fields import (
    Fields,
    digest,
    fields_of_folder,
    fields_of_records,
    labels_of,
    size_problem,
)
from protloc_jax.datasets.folder_config import FolderConfig
from protloc_jax.datasets.inspection import default_workers
from protloc_jax.datasets.ordered_map import ordered_map
from protloc_jax.datasets.problems import DatasetError, Problems
from protloc_jax.datasets.watershed import SegmentationUnavailable, SegmentConfig
from protloc_jax.images import MAX_PIXELS, ImageError
from protloc_jax.simulate import SimConfig

DROPPED_FILE = "dropped.csv"
OWN_COLUMNS = ("field", "top", "left")
_AT_ONCE = 256
_HELD = 4

# [H, W] int labels of field i, from its pixels.
Cutter = Callable[[int], tuple[np.ndarray, np.ndarray]]
LabelsOf = Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray | None]]


class FieldPatches(NamedTuple):
    """One field: the corners kept [n, 2], all candidates of the grid, how many each rule dropped, the label digest."""

    corners: np.ndarray
    candidates: int
    dropped: dict[str, int]
    digest: bytes


@dataclass(frozen=True)
class Patches:
    """Checked patches, ready to be packed.

    notes   what a user should know although it is no error
    counts  per field (id, candidates, kept, and how many each rule dropped)
    """

    manifest: Manifest
    cutter: Cutter
    notes: list[str]
    counts: list[dict[str, Any]]
    source: str
    name: str
    parallel: str

    def summary(self) -> str:
        """How many patches there are, and how many each rule dropped."""
        total = pd.DataFrame(self.counts).drop(columns="field").sum()
        rules = ", ".join(f"{name} {int(n):,}" for name, n in total.items() if name not in ("candidates", "kept"))
        return (
            f"{int(total['kept']):,} of {int(total['candidates']):,} patches of {len(self.counts):,} fields hold no "
            f"cell; dropped: {rules}."
        )


def prepare(
    fields: FolderConfig | str | Path,
    free: CellFreeConfig,
    crop: CropConfig | None = None,
    segment: SegmentConfig | None = None,
    *,
    workers: int | None = None,
    progress: bool = False,
) -> Patches:
    """Place the patches of every field by its label image; no record is written.

    fields  a `folder` configuration, a folder of records of fields, or one of simulated images, whose fields are
            rendered again and have label images of their own
    crop    where the label images are (cells, nuclei, label_root, label_table, colour_labels)

    Raises DatasetError naming everything that is wrong, ConfigError for label images of a simulation or variance limits
    without one protein channel, FileNotFoundError where a path does not exist.
    """
    crop, segment = crop or CropConfig(), segment or SegmentConfig()
    count = default_workers() if workers is None else workers
    found, labels, parallel = _inputs(fields, crop, segment, workers=workers, progress=progress)
    channel = found.manifest.channels.protein
    if channel is None and (free.min_variance > 0 or free.max_variance < np.inf):
        raise ConfigError(
            f"min_variance, max_variance: are of the protein's channel, and no channel (or more than one) of "
            f"{found.manifest.channels} has the role protein."
        )
    whole = _removable(found, fields, free)
    task = _Task(found, labels, free, channel or 0) if whole is None else _Emptied(found, whole, free)
    problems, placed = Problems(), []
    with Progress(progress, "patches", 0, found.manifest.n) as bar:
        for patches in ordered_map(task, range(found.manifest.n), count, at_once=_AT_ONCE):
            if isinstance(patches, str):
                problems.add("label images", f"{found.manifest.ids[len(placed)]}: {patches}")
                patches = FieldPatches(np.zeros((0, 2), np.int64), 0, {}, b"")
            placed.append(patches)
            bar.advance(1)
    problems.check("label images")
    counts = [
        {"field": name, "candidates": one.candidates, "kept": len(one.corners), **one.dropped}
        for name, one in zip(found.manifest.ids, placed, strict=True)
    ]
    if not any(len(one.corners) for one in placed):
        total = pd.DataFrame(counts).drop(columns="field").sum()
        shown = ", ".join(f"{name} {int(n):,}" for name, n in total.items())
        raise DatasetError(
            f"no patch of {free.size} pixels without cells in {len(counts):,} field(s): {shown}; a smaller size, "
            "stride or distance finds more."
        )
    notes = list(found.notes)
    none = sum(not len(one.corners) for one in placed)
    if none:
        notes.append(f"{none:,} of {len(placed):,} fields have no patch without cells, see {DROPPED_FILE}.")
    manifest = _manifest(found.manifest, placed, notes)
    at = np.repeat(np.arange(len(placed)), [len(one.corners) for one in placed])
    corners = np.concatenate([one.corners for one in placed])
    cutter: Cutter = PatchCutter(found.pixels, labels, at, corners, free.size)
    if whole is not None:
        cutter = simulated.EmptiedPatches(whole, tuple(found.manifest.ids[i] for i in at), corners, free)
    name = fields.name if isinstance(fields, FolderConfig) else "cell-free"
    return Patches(manifest, cutter, notes + manifest.warnings(), counts, _source(found, placed, free), name, parallel)


def pack(
    patches: Patches,
    out: str | Path,
    *,
    workers: int | None = None,
    shard_size: int = 0,
    progress: bool = False,
    restart: bool = False,
) -> RecordsInfo:
    """Write prepared patches as records; the same call resumes after a kill.

    `dropped.csv` beside the records counts per field what each rule dropped. Simulated fields are rendered by
    processes, so a script that calls this needs a __main__ guard.
    """
    info = records.write(
        out,
        patches.manifest,
        patches.cutter,
        name=patches.name,
        shard_size=shard_size,
        workers=workers,
        parallel="threads" if workers == 0 or patches.parallel == "threads" else "processes",
        progress=progress,
        source=patches.source,
        restart=restart,
    )
    with (Path(out) / DROPPED_FILE).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in patches.counts for name in row)), restval=0)
        writer.writeheader()
        writer.writerows(patches.counts)
    return info


class PatchCutter:
    """(patch [S, S, C], mask [S, S] uint8) of row i. Picklable, and safe to call from threads."""

    def __init__(
        self, pixels: Callable[[int], np.ndarray], labels: LabelsOf, field: np.ndarray, corners: np.ndarray, size: int
    ):
        self.pixels, self.labels, self.field, self.corners, self.size = pixels, labels, field, corners, size
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def __call__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        pixels, labels = self._field(int(self.field[row]))
        top, left = self.corners[row].tolist()
        box = slice(top, top + self.size), slice(left, left + self.size)
        return pixels[box].copy(), np.where(labels[box] > 0, OTHER_CELLS, 0).astype(np.uint8)

    def _field(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        with self._lock:
            if number not in self._held:
                pixels = self.pixels(number)
                self._held[number] = pixels, self.labels(number, pixels)[0]
                while len(self._held) > _HELD:
                    self._held.popitem(last=False)
            return self._held[number]


@dataclass(frozen=True)
class _Task:
    fields: Fields
    labels: LabelsOf
    free: CellFreeConfig
    channel: int

    def __call__(self, number: int) -> FieldPatches | str:
        """The patches of one field, or what is wrong with its label image."""
        try:
            pixels = self.fields.pixels(number)
            labels, nuclei = self.labels(number, pixels)
        except SegmentationUnavailable:
            raise
        except (ImageError, OSError, ValueError) as error:
            return str(error)
        if labels.shape != pixels.shape[:2]:
            return size_problem("its labels", labels, pixels.shape)
        corners, dropped = free_corners(labels, pixels, self.free, channel=self.channel)
        candidates = len(corners) + sum(dropped.values())
        name = self.fields.manifest.ids[number]
        kept = _drawn(corners, self.free, name)
        if self.free.most:
            dropped = {**dropped, "drawn": len(corners) - len(kept)}
        return FieldPatches(kept, candidates, dropped, digest(labels, nuclei))


@dataclass(frozen=True)
class _Emptied:
    """As _Task where cells in a patch's way are removed: the whole grid."""

    fields: Fields
    config: SimConfig
    free: CellFreeConfig

    def __call__(self, number: int) -> FieldPatches | str:
        name = self.fields.manifest.ids[number]
        corners = grid(self.fields.shapes[number], self.free)
        kept = _drawn(corners, self.free, name)
        dropped = {"near": 0, "drawn": len(corners) - len(kept)}
        return FieldPatches(kept, len(corners), dropped, self.free.near.encode())


def _removable(found: Fields, fields: FolderConfig | str | Path, free: CellFreeConfig) -> SimConfig | None:
    """The simulation whose cells are to be removed; None where patches are only dropped."""
    if free.near == "drop":
        return None
    if found.simulated is None:
        where = fields.path if isinstance(fields, FolderConfig) else fields
        raise ConfigError(f"near=remove: {where} holds real images; only from simulated fields can cells be removed.")
    if free.min_variance > 0 or free.max_variance < np.inf:
        raise ConfigError("near=remove: leave out min_variance and max_variance, all patches are fit.")
    return from_mapping(SimConfig, found.simulated)


def _inputs(
    fields: FolderConfig | str | Path, crop: CropConfig, segment: SegmentConfig, *, workers: int | None, progress: bool
) -> tuple[Fields, LabelsOf, str]:
    if isinstance(fields, FolderConfig):
        found = fields_of_folder(fields, workers=workers, progress=progress)
        limits: dict[str, Any] = {"allow_outside": fields.allow_outside, "max_pixels": fields.max_pixels}
        return found, labels_of(found, crop, segment, **limits), "threads"
    found = fields_of_records(fields)
    if found.simulated is None:
        return found, labels_of(found, crop, segment, max_pixels=MAX_PIXELS), "threads"
    if crop.cells or crop.nuclei or segment.segment != "none":
        raise ConfigError(f"{fields}: holds simulated images, whose fields have label images: leave out other ones.")
    with records.open(fields) as opened:
        config = simulated.config_of(opened.info)
    assert config is not None
    return *_simulated_fields(config), "processes"


def _simulated_fields(config: SimConfig) -> tuple[Fields, LabelsOf]:
    """The fields of a simulation, whatever one image of its records shows."""
    if config.pooled:
        raise ConfigError("pooled: cells of one field carry several proteins, so that its patches belong to none.")
    whole = replace(config, unit="field", background="keep", neighbours="plain", neighbour_draw=0)
    rendered = simulated.RenderedFields(whole)
    manifest = simulated.manifest_of(whole)
    shape = (whole.size, whole.size, len(whole.domain.channels))
    about = to_dict(whole)
    source = json.dumps(about, sort_keys=True)
    found = Fields(manifest, rendered.pixels, (shape,) * manifest.n, Path(), source, simulated=about)
    return found, rendered.labels


def _drawn(corners: np.ndarray, free: CellFreeConfig, field: str) -> np.ndarray:
    """At most `most` of the corners, those whose (seed, field, place) hash lowest; the order stays."""
    if not free.most or len(corners) <= free.most:
        return corners

    def address(i: int) -> bytes:
        text = f"{free.seed}\x1f{field}\x1f{corners[i, 0]}\x1f{corners[i, 1]}"
        return hashlib.blake2b(text.encode(), digest_size=16).digest()

    return corners[sorted(sorted(range(len(corners)), key=address)[: free.most])]


def _manifest(fields: Manifest, placed: list[FieldPatches], notes: list[str]) -> Manifest:
    at = np.repeat(np.arange(len(placed)), [len(one.corners) for one in placed])
    corners = np.concatenate([one.corners for one in placed])
    inherited = fields.table.iloc[at].reset_index(drop=True)
    names = inherited["id"].tolist()
    columns: dict[str, Any] = {
        "id": [f"{name}-free-{top}-{left}" for name, (top, left) in zip(names, corners.tolist(), strict=True)],
        **{name: inherited[name] for name in CORE_COLUMNS if name != "id"},
        "field": pd.Series(names, dtype=object),
        "top": corners[:, 0],
        "left": corners[:, 1],
    }
    for name in fields.group_columns:
        own = name
        while own in OWN_COLUMNS or (own != name and own in fields.group_columns):
            own += "_of_field"
        if own != name:
            notes.append(f"the fields' column '{name}' is kept as '{own}': '{name}' is the patches' own.")
        columns[own] = inherited[name]
    return manifests.make(
        pd.DataFrame(columns),
        fields.channels,
        label_names=fields.label_names or None,
        label_kind=fields.label_kind,
        um_per_pixel=fields.um_per_pixel,
    )


def _source(fields: Fields, placed: list[FieldPatches], free: CellFreeConfig) -> str:
    """What the pixels are made from. The key `simulated` marks synthetic images (simulated.config_of)."""
    found = hashlib.blake2b(digest_size=16)
    for one in placed:
        found.update(one.digest + np.ascontiguousarray(one.corners, np.int64).tobytes())
    about: dict[str, Any] = {"cell_free": {"fields": fields.source, "size": free.size, "places": found.hexdigest()}}
    if free.near == "remove":
        about["cell_free"]["distance"] = free.distance
    if fields.simulated is not None:
        about["simulated"] = fields.simulated
    return json.dumps(about, sort_keys=True)
