"""The fields that cells are cut out of (files or records) and their label images (files or a watershed)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from protloc_jax import images
from protloc_jax.config import nearest
from protloc_jax.data import info as info_file
from protloc_jax.data import records
from protloc_jax.data.manifest import Manifest
from protloc_jax.data.read import ShardReader, read_pixels
from protloc_jax.datasets import folder
from protloc_jax.datasets.crop_config import CropConfig
from protloc_jax.datasets.folder_config import FolderConfig
from protloc_jax.datasets.gathered import cell_text
from protloc_jax.datasets.naming import fields_of, fill
from protloc_jax.datasets.paths import Confined, PathRefused
from protloc_jax.datasets.problems import DatasetError, Problems
from protloc_jax.datasets.table import need_columns, read_table
from protloc_jax.datasets.watershed import SegmentConfig, segment_cells, segment_nuclei


@dataclass(frozen=True)
class FolderPixels:
    """Field i from its files: [H, W, C], every field in its own size. Picklable."""

    images: folder.Images

    def __call__(self, row: int) -> np.ndarray:
        return self.images.whole(row)


@dataclass(frozen=True)
class RecordPixels:
    """Field i from records. Picklable."""

    shards: ShardReader

    def __call__(self, row: int) -> np.ndarray:
        return read_pixels(self.shards, row)


@dataclass(frozen=True)
class Fields:
    """Checked fields of view.

    manifest  one row a field
    pixels    the image of row i
    shapes    (height, width, channels) of every field
    root      what paths of label images are relative to, unless the configuration says
    source    text that changes when the pixels would
    simulated the simulation that the fields come from, or None for real images: what is synthetic must say so
    """

    manifest: Manifest
    pixels: Callable[[int], np.ndarray]
    shapes: tuple[tuple[int, int, int], ...]
    root: Path
    source: str
    notes: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    simulated: dict[str, Any] | None = None


def fields_of_folder(config: FolderConfig, *, workers: int | None, progress: bool) -> Fields:
    """Fields from a folder or table, checked as `data pack folder` does, except that their sizes may differ.

    Raises as folder.prepare does.
    """
    # Any policy but "error" lets sizes differ while checking; nothing is padded, for fields are read by their own size.
    config = replace(config, sizes="pad", size=(), masks="")
    checked = folder.prepare(config, workers=workers, progress=progress)
    path = Path(config.path)
    root = Path(config.root) if config.root else path if path.is_dir() else path.parent
    return Fields(
        checked.manifest,
        FolderPixels(checked.images),
        checked.shapes,
        root,
        checked.source,
        checked.notes,
        checked.skipped,
    )


def fields_of_records(directory: str | Path) -> Fields:
    """Fields from a folder of records. Raises as records.open does."""
    with records.open(directory) as opened:
        info = opened.info
        return Fields(
            opened.manifest,
            RecordPixels(ShardReader(opened.directory, info.shards)),
            ((info.height, info.width, len(info.channels)),) * info.n,
            Path(directory),
            f"records {info.digest}",
            simulated=info.simulated,
        )


def is_records(path: str | Path) -> bool:
    """The path is a folder of (finished) records."""
    return (Path(path) / info_file.FILE).is_file()


@dataclass(frozen=True)
class Labels:
    """Label images of field i: (objects [H, W] int32, nuclei [H, W] int32 or None). Picklable.

    cells, nuclei  a file a field, or None where that comes from elsewhere
    planes         channels for the watershed, as SegmentConfig.planes gives them
    """

    crop: CropConfig
    segment: SegmentConfig
    cells: tuple[Path, ...] | None
    nuclei: tuple[Path, ...] | None
    planes: tuple[int | None, int | None]
    um_per_pixel: float | None
    max_pixels: int = images.MAX_PIXELS

    @property
    def needs_pixels(self) -> bool:
        return self.segment.segment != "none"

    def __call__(self, row: int, pixels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Raises ImageError for unusable files and label images of two sizes."""
        nuclei = self._read(self.nuclei, row)
        cells = self._read(self.cells, row)
        if self.needs_pixels:
            assert pixels is not None
            nucleus, cell = self.planes
            if nuclei is None:
                assert nucleus is not None
                nuclei = segment_nuclei(pixels[..., nucleus], self.segment, um_per_pixel=self.um_per_pixel)
            elif nuclei.shape != pixels.shape[:2]:
                raise images.ImageError(size_problem(self.files(row)[0], nuclei, pixels.shape))
            if cell is not None:
                cells = segment_cells(pixels[..., cell], nuclei, self.segment, um_per_pixel=self.um_per_pixel)
        if cells is None:
            assert nuclei is not None
            return nuclei, nuclei if self.crop.nucleus_wanted else None
        if nuclei is not None and nuclei.shape != cells.shape:
            raise images.ImageError(f"{self.files(row)[-1]}: the label images of nuclei and cells differ in size.")
        return cells, nuclei

    def files(self, row: int) -> tuple[Path, ...]:
        """The label files of field i, cells first."""
        return tuple(paths[row] for paths in (self.cells, self.nuclei) if paths is not None)

    def _read(self, paths: tuple[Path, ...] | None, row: int) -> np.ndarray | None:
        if paths is None:
            return None
        return images.read_labels(paths[row], max_pixels=self.max_pixels, colours=self.crop.colour_labels)


def size_problem(where: object, labels: np.ndarray, shape: tuple[int, ...]) -> str:
    """The message for a label image of another size than its field."""
    have = " x ".join(map(str, labels.shape))
    return f"{where}: the label image is {have} where the field is {shape[0]} x {shape[1]}."


def labels_of(
    fields: Fields, crop: CropConfig, segment: SegmentConfig, *, allow_outside: bool = False, max_pixels: int
) -> Labels:
    """Find the label image of every field, or the channels to segment.

    Raises DatasetError naming every missing file, column and field at once, ConfigError where neither or both of label
    images and a watershed are asked for.
    """
    if not (crop.cells or crop.nuclei or segment.segment != "none"):
        raise DatasetError("give label images (cells, nuclei), or segment=nuclei or cells to find them.")
    given = {"cells": bool(crop.cells), "nuclei": bool(crop.nuclei)}
    twice = (segment.segment == "cells" and given["cells"]) or (segment.segment == "nuclei" and given["nuclei"])
    if twice:
        raise DatasetError(f"segment={segment.segment} and label images of {segment.segment} exclude each other.")
    if crop.nucleus_wanted and not given["nuclei"] and segment.segment == "none":
        asked = "need_nucleus" if crop.need_nucleus else "centre=nucleus"
        raise DatasetError(f"{asked} needs the nuclei: give their label images (nuclei) or segment=nuclei.")
    planes = (None, None)
    if segment.segment != "none":
        planes = segment.planes(fields.manifest.channels, nuclei_given=given["nuclei"])
    frame = _frame(fields, crop)
    root = Path(crop.label_root) if crop.label_root else fields.root
    if crop.label_table and not crop.label_root:
        root = Path(crop.label_table).parent
    confined = Confined(root, allow_outside=allow_outside)
    problems = Problems()
    found = {
        name: _resolve(getattr(crop, name), frame, confined, name, problems) if given[name] else None for name in given
    }
    problems.check("label images")
    return Labels(crop, segment, found["cells"], found["nuclei"], planes, fields.manifest.um_per_pixel, max_pixels)


def _frame(fields: Fields, crop: CropConfig) -> dict[str, list[str]]:
    """Columns by name with one text a field: the manifest's, and those of the label table joined by id."""
    table = fields.manifest.table
    frame = {str(c): [cell_text(v) for v in table[c]] for c in table.columns if c != "labels"}
    if not crop.label_table:
        return frame
    extra, rows = read_table(Path(crop.label_table))
    problems = Problems()
    wanted = [(v, k) for k, v in (("cells", crop.cells), ("nuclei", crop.nuclei)) if v and "{" not in v]
    problems.extend("missing columns", need_columns(extra, [("id", "the field's id"), *wanted]))
    problems.check(crop.label_table)
    at: dict[str, int] = {}
    for number, name in enumerate(map(cell_text, extra["id"])):
        if name in at:
            problems.add("duplicate ids", f"{rows[number]}: '{name}' was used in {rows[at[name]]}")
        at.setdefault(name, number)
    missing = [name for name in frame["id"] if name not in at]
    problems.extend("fields without a row", missing)
    problems.check(crop.label_table)
    order = [at[name] for name in frame["id"]]
    for column in extra.columns:
        texts = [cell_text(v) for v in extra[column]]
        frame[str(column)] = [texts[i] for i in order]
    return frame


def _resolve(
    wanted: str, frame: dict[str, list[str]], confined: Confined, what: str, problems: Problems
) -> tuple[Path, ...]:
    if "{" in wanted:
        fields_of(wanted)
        ids = frame["id"]
        texts = [fill(wanted, {name: values[i] for name, values in frame.items()}) for i in range(len(ids))]
    elif wanted in frame:
        texts = frame[wanted]
    else:
        problems.add(
            "missing columns", f"{what}: no column '{wanted}'.{nearest(wanted, frame)} Columns: {', '.join(frame)}."
        )
        return ()
    paths = []
    for name, text in zip(frame["id"], texts, strict=True):
        try:
            path = confined.locate(text)
            if isinstance(path, str):
                raise PathRefused(f"'{path}' is an address; label images must be local files.")
            paths.append(path)
        except PathRefused as error:
            problems.add("refused paths", f"{name}: {error}")
        except FileNotFoundError as error:
            problems.add(f"missing label images of {what}", f"{name}: {error}")
    return tuple(paths)


def digest(labels: np.ndarray, nuclei: np.ndarray | None) -> bytes:
    """What tells one pair of label images from another."""
    found = hashlib.blake2b(repr(labels.shape).encode(), digest_size=12)
    for one in (labels, nuclei):
        found.update(b"-" if one is None else np.ascontiguousarray(one, np.int32).data)
    return found.digest()
