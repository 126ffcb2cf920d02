"""Single cells of packed OpenCell fields: crops with the protein's labels, and a person's labels beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from protloc_jax.config import nearest
from protloc_jax.data import manifest as manifests
from protloc_jax.data import records
from protloc_jax.datasets import crops
from protloc_jax.datasets.crop_config import CropConfig
from protloc_jax.datasets.crop_fields import is_records
from protloc_jax.datasets.crops import Crops
from protloc_jax.datasets.problems import DatasetError
from protloc_jax.datasets.watershed import SegmentConfig

_NEEDED = ("protein", "gene", "fov")
LABEL_SOURCE = "label_source"


def prepare(
    fields: str | Path,
    crop: CropConfig,
    segment: SegmentConfig | None = None,
    *,
    masks_out: str | Path | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> Crops:
    """Crops of records that `prepare opencell` packed, with the column `label_source`.

    It says where `labels` come from: "protein" (inherited), "manual" (crop.cell_labels with cell_labels_as="labels")
    or "none". The other kind stands in a column of its own, `manual` or `inherited`; the two are never mixed.
    Raises DatasetError where `fields` are no records of OpenCell, and what `crops.prepare` raises.
    """
    if not is_records(fields):
        raise DatasetError(f"{fields}: not a folder of records; pack the fields first: protloc data prepare opencell.")
    with records.open(fields) as opened:
        have = [str(c) for c in opened.manifest.table.columns]
    missing = [f"'{c}'{nearest(c, have)}" for c in _NEEDED if c not in have]
    if missing:
        raise DatasetError(f"{fields}: not records of `protloc data prepare opencell`: no column {', '.join(missing)}")
    found = crops.prepare(fields, crop, segment, masks_out=masks_out, workers=workers, progress=progress)
    manual = bool(crop.cell_labels) and crop.cell_labels_as == "labels"
    table = found.manifest.table
    kind = "manual" if manual else "protein"
    sources = [kind if own else "none" for own in table["labels"]]
    manifest = manifests.make(
        table.assign(**{LABEL_SOURCE: pd.Series(sources, dtype=object)}),
        found.manifest.channels,
        label_names=found.manifest.label_names or None,
        label_kind=found.manifest.label_kind,
        um_per_pixel=found.manifest.um_per_pixel,
    )
    notes = [
        *found.notes,
        f"labels: {sources.count(kind):,} cells from the {_WHOSE[kind]}, {sources.count('none'):,} none.",
    ]
    if crop.cell_labels:
        notes.append(_agreement(table, manual))
    return replace(found, manifest=manifest, notes=notes)


_WHOSE = {"protein": "protein (inherited by every cell)", "manual": "table of manual labels"}


def _agreement(table: pd.DataFrame, manual: bool) -> str:
    """How many manual labels are among the labels of the cell's protein."""
    by_hand = table["labels"] if manual else [str(v).split(";") if v else [] for v in table["manual"]]
    inherited = [str(v).split(";") if v else [] for v in table["inherited"]] if manual else table["labels"]
    pairs = [(set(a), set(b)) for a, b in zip(by_hand, inherited, strict=True) if len(a)]
    inside = sum(a <= b for a, b in pairs)
    return f"{inside} of {len(pairs)} manual labels are among those of the cell's protein."
