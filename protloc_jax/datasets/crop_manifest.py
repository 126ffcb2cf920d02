"""The manifest of single-cell crops: what each cell's field says, where the cell lies, and its own labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from protloc_jax.data import manifest as manifests
from protloc_jax.data.manifest import CORE_COLUMNS, Manifest
from protloc_jax.datasets.cell_labels import cell_id, read_cell_labels
from protloc_jax.datasets.crop_config import CropConfig
from protloc_jax.datasets.crop_plan import CellRow, FieldPlan, Sizes

OWN_COLUMNS = (
    "field", "cell", "row", "column", "area", "border", "neighbours", "coverage", "others", "nuclei", "nucleus_area",
    "box", "manual", "inherited",
)  # fmt: skip


def cell_manifest(
    fields: Manifest,
    plans: list[FieldPlan],
    crop: CropConfig,
    sizes: Sizes,
    left_out: list[tuple[str, int, str, str]],
    notes: list[str],
    *,
    separator: str,
) -> Manifest:
    """One row a cell, fields in order and labels rising; `notes` gets what a user should know.

    left_out   (field, cell, reason, detail) of the cells that are not cut out
    separator  what stands between several labels of one cell

    Columns of the fields that are called like the cells' own become `<name>_of_field`. Raises DatasetError for a bad
    table of cell labels.
    """
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
        own = name
        while own in OWN_COLUMNS or (own != name and own in fields.group_columns):
            own += "_of_field"
        if own != name:
            notes.append(f"the fields' column '{name}' is kept as '{own}': '{name}' is the cells' own.")
        columns[own] = inherited[name]
    label_names: tuple[str, ...] | None = fields.label_names
    if crop.cell_labels:
        gone = [cell_id(name, cell) for name, cell, reason, _ in left_out if cell and reason != "note"]
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
