"""Single-cell crops: fields of view and label images become records of one cell each, with a mask.

The mask of a record is 1 in the cell, 2 in other cells, and 0 where no cell is.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from protloc_jax.config import to_dict
from protloc_jax.data import records
from protloc_jax.data.info import RecordsInfo
from protloc_jax.data.manifest import Manifest, capped
from protloc_jax.data.packing_progress import Progress
from protloc_jax.datasets.crop_config import CropConfig
from protloc_jax.datasets.crop_cutter import Cutter
from protloc_jax.datasets.crop_fields import (
    Fields,
    Labels,
    digest,
    fields_of_folder,
    fields_of_records,
    labels_of,
    size_problem,
)
from protloc_jax.datasets.crop_manifest import cell_manifest
from protloc_jax.datasets.crop_plan import FieldPlan, Sizes, plan_field, sizes_of
from protloc_jax.datasets.folder_config import FolderConfig
from protloc_jax.datasets.inspection import default_workers
from protloc_jax.datasets.ordered_map import ordered_map
from protloc_jax.datasets.problems import DatasetError, Problems
from protloc_jax.datasets.watershed import SegmentationUnavailable, SegmentConfig
from protloc_jax.images import MAX_PIXELS, ImageError

LEFT_OUT_FILE = "left_out.csv"
_AT_ONCE = 256


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
    masks_out: str | Path | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> Crops:
    """Read every label image (or segment every field), place every box and apply the filters; no record is written.

    fields     a `folder` configuration, or a folder of records
    masks_out  folder for the label images of a watershed, `<id>_cells.tif` and `<id>_nuclei.tif`, to look at and to
               mend; given as cells='{id}_cells.tif' and label_root they make the same records

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
    segment.diameter(found.manifest.um_per_pixel)
    ids = found.manifest.ids
    folder_of_masks = _masks_folder(masks_out, labels, ids)
    problems = Problems()
    plans: list[FieldPlan] = []
    task = _Task(found, labels, crop, sizes, folder_of_masks)
    with Progress(progress, "masks", 0, len(ids)) as bar:
        for plan in ordered_map(task, range(len(ids)), count, at_once=_AT_ONCE):
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
    notes = list(found.notes) + _notes(plans, found, crop)
    manifest = cell_manifest(
        found.manifest, plans, crop, sizes, left_out, notes, separator=folder.label_separator if folder else ";"
    )
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
    masks_out: Path | None

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
        if self.masks_out is not None:
            self._save(number, labels, nuclei)
        plan = plan_field(labels, nuclei, self.crop, self.sizes, self.fields.manifest.ids[number])
        return plan._replace(digest=digest(labels, nuclei))

    def _save(self, number: int, labels: np.ndarray, nuclei: np.ndarray | None) -> None:
        assert self.masks_out is not None
        path = self.masks_out / self.fields.manifest.ids[number]
        path.parent.mkdir(parents=True, exist_ok=True)
        only_nuclei = self.labels.segment.segment == "nuclei" and self.labels.cells is None
        found = {"nuclei": labels} if only_nuclei else {"cells": labels, "nuclei": nuclei}
        for name, one in found.items():
            if one is not None:
                tifffile.imwrite(path.with_name(f"{path.name}_{name}.tif"), one, compression="zlib")


def _masks_folder(masks_out: str | Path | None, labels: Labels, ids: Sequence[str]) -> Path | None:
    """The folder for label images. DatasetError for ids that would lead out of it, or where nothing is segmented."""
    if not masks_out:
        return None
    if not labels.needs_pixels:
        raise DatasetError("masks_out: there are label images already; it keeps those of segment=.")
    outside = [f"'{name}'" for name in ids if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:
        raise DatasetError(f"masks_out: ids that lead out of the folder: {capped(outside)}.")
    return Path(masks_out)


def _notes(plans: list[FieldPlan], fields: Fields, crop: CropConfig) -> list[str]:
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
    if crop.select == "centre":
        lost = [f"{fields.manifest.ids[i]} ({_why(plan)})" for i, plan in enumerate(plans) if not plan.cells]
        if lost:
            notes.append(f"{len(lost)} of {len(plans)} fields have no cell of their own: {capped(lost, 50)}.")
    return notes


def _why(plan: FieldPlan) -> str:
    """Why the cell at a field's centre is left out."""
    others = [one for one in plan.left_out if one.reason not in ("not central", "note")]
    return f"{others[0].reason}: {others[0].detail}" if others else "none at the centre"


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
