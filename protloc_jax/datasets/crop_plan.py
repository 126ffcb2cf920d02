"""Which cells of a field are cut out, where their boxes lie, and why the others are left out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from protloc_jax.datasets.cell_shapes import Nuclei, Shapes, measure, nuclei_of, tidy
from protloc_jax.datasets.crop_box import CENTRE_CELL, OTHER_CELLS, Box, cut_mask, fixed_box, inside, scaled_box
from protloc_jax.datasets.crop_config import CropConfig
from protloc_jax.datasets.lengths import area, length
from protloc_jax.datasets.problems import DatasetError

# Why cells are left out, in the order in which it is looked for; a cell is listed with the first that applies.
REASONS = {
    "pieces": "the label lies in several pieces (components=drop)",
    "not central": "another cell, or none, lies at the field's centre (select=centre)",
    "border": "nearer to the field's border than margin",
    "area": "smaller than min_area or larger than max_area",
    "no nucleus": "no nucleus lies in the cell",
    "box": "the box crosses the field's border (padding=drop)",
    "inside": "fewer than min_pixels, or a smaller share than min_inside, of the cell lie in the box",
    "coverage": "the cell covers less than min_coverage or more than max_coverage of the crop",
    "others": "other cells cover more than max_others of the crop",
    "drawn": "max_cells others of the field were drawn",
}


@dataclass(frozen=True)
class Sizes:
    """The lengths of a CropConfig in pixels of the fields, and the side of the crops."""

    side: int
    out: int
    margin: float
    min_area: float
    max_area: float


def sizes_of(config: CropConfig, um_per_pixel: float | None) -> Sizes:
    """Resolve lengths. Raises DatasetError where one is in micrometres and the pixel size is unknown."""
    side = max(1, round(length(config.side).pixels(um_per_pixel, "side")))
    if side > 1 << 14:
        raise DatasetError(f"side={config.side}: that is {side:,} pixels.")
    out = config.out_size or (128 if config.box == "scaled" else side)
    most = area(config.max_area).pixels(um_per_pixel, "max_area")
    return Sizes(
        side,
        out,
        length(config.margin).pixels(um_per_pixel, "margin"),
        area(config.min_area).pixels(um_per_pixel, "min_area"),
        most or np.inf,
    )


class CellRow(NamedTuple):
    """One cell to cut out; lengths and areas in pixels of the field.

    row, column   the box's centre, in pixel centres
    border        pixels between the cell and the nearest border of the field
    neighbours    other cells with pixels inside the box
    coverage      share of the crop that is the cell
    others        share of the crop that is other cells, mirrored ones beyond the border (padding=reflect) among them
    nuclei        nuclei in the cell (-1: not known), nucleus_area their pixels
    """

    cell: int
    row: float
    column: float
    area: int
    border: int
    neighbours: int
    coverage: float
    others: float
    nuclei: int
    nucleus_area: int
    box: Box


class LeftOut(NamedTuple):
    """A cell that is not cut out (cell 0: the whole field), or of which something was changed ("note")."""

    cell: int
    reason: str
    detail: str


class FieldPlan(NamedTuple):
    """The cells of one field: those to cut out by rising label, the others, how many there were, the label digest."""

    cells: list[CellRow]
    left_out: list[LeftOut]
    found: int
    digest: bytes = b""


def plan_field(
    labels: np.ndarray, nuclei: np.ndarray | None, config: CropConfig, sizes: Sizes, field_id: str
) -> FieldPlan:
    """Measure the objects of one field, place their boxes and apply the filters.

    labels  [H, W] int32 as read; nuclei likewise, or None where there are none
    """
    labels, before, notes = tidy(labels, config.components)
    dropping = config.components == "drop"
    left_out = [LeftOut(label, "pieces" if dropping else "note", text) for label, text in notes]
    shapes = measure(labels)
    found = before if config.components != "split" else len(shapes.label)
    if not found:
        return FieldPlan([], [LeftOut(0, "no cells", "the label image is empty")], 0)
    own = None if nuclei is None else nuclei_of(labels, shapes, nuclei)
    borders = shapes.borders(labels.shape)
    central = central_label(labels) if config.select == "centre" else 0
    rows: list[CellRow] = []
    for i in range(len(shapes.label)):
        problem = _shape_problem(i, shapes, borders, own, config, sizes)
        if config.select == "centre" and shapes.label[i] != central:
            problem = ("not central", f"cell {central} is" if central else "no cell is")
        if problem is None:
            row, problem = _place(i, labels, shapes, borders, own, config, sizes)
            if row is not None and problem is None:
                rows.append(row)
        if problem is not None:
            left_out.append(LeftOut(int(shapes.label[i]), *problem))
    rows, not_drawn = _draw(rows, config, field_id)
    left_out += not_drawn
    return FieldPlan(rows, sorted(left_out, key=lambda x: (x.cell, x.reason)), found)


def central_label(labels: np.ndarray) -> int:
    """The label of the pixel at [H // 2, W // 2]; where that is free, the commonest within 3 pixels (of equals, the
    lowest); 0 where no cell is so near."""
    row, column = labels.shape[0] // 2, labels.shape[1] // 2
    if labels[row, column] > 0:
        return int(labels[row, column])
    near = labels[max(0, row - 3) : row + 4, max(0, column - 3) : column + 4]
    found, counts = np.unique(near[near > 0], return_counts=True)
    return int(found[np.argmax(counts)]) if len(found) else 0


def _shape_problem(
    i: int, shapes: Shapes, borders: np.ndarray, own: Nuclei | None, config: CropConfig, sizes: Sizes
) -> tuple[str, str] | None:
    if borders[i] < sizes.margin:
        return "border", f"{borders[i]} px from the border"
    if not sizes.min_area <= shapes.area[i] <= sizes.max_area:
        return "area", f"{shapes.area[i]} px"
    if own is not None and not own.number[i] and config.nucleus_wanted:
        return "no nucleus", ""
    return None


def _place(
    i: int,
    labels: np.ndarray,
    shapes: Shapes,
    borders: np.ndarray,
    own: Nuclei | None,
    config: CropConfig,
    sizes: Sizes,
) -> tuple[CellRow | None, tuple[str, str] | None]:
    """The row of object i, or (None, why its box will not do)."""
    cell = int(shapes.label[i])
    top, left, bottom, right = shapes.bounds[i]
    if config.centre == "box":
        row, column = (top + bottom - 1) / 2, (left + right - 1) / 2
    elif config.centre == "field":  # the box of a field's own size is then the field
        row, column = labels.shape[0] // 2, labels.shape[1] // 2
    else:
        row, column = own.centre[i] if config.centre == "nucleus" and own is not None else shapes.centre[i]
    if config.box == "fixed":
        box = fixed_box(row, column, sizes.side)
    else:
        box = scaled_box(row, column, config.factor * max(bottom - top, right - left))
    if config.padding == "drop" and box.crosses(labels.shape):
        return None, ("box", f"box of {box.side:g} px at {box.top:g}, {box.left:g}")
    held = inside(labels, box)
    pixels = int((held == cell).sum())
    if pixels < config.min_pixels or pixels < config.min_inside * shapes.area[i]:
        return None, ("inside", f"{pixels} of {shapes.area[i]} px")
    mask = cut_mask(labels, cell, box, sizes.out, config.padding)
    coverage, others = (float(np.mean(mask == value)) for value in (CENTRE_CELL, OTHER_CELLS))
    if not config.min_coverage <= coverage <= config.max_coverage:
        return None, ("coverage", f"{coverage:.3f} of the crop")
    if others > config.max_others:
        return None, ("others", f"{others:.3f} of the crop")
    present = np.unique(held)
    return CellRow(
        cell,
        float(row),
        float(column),
        int(shapes.area[i]),
        int(borders[i]),
        int(((present > 0) & (present != cell)).sum()),
        coverage,
        others,
        -1 if own is None else int(own.number[i]),
        -1 if own is None else int(own.area[i]),
        box,
    ), None


def _draw(rows: Sequence[CellRow], config: CropConfig, field_id: str) -> tuple[list[CellRow], list[LeftOut]]:
    """At most max_cells of the rows, those whose (seed, field, label) hash lowest; the order stays."""
    if not config.max_cells or len(rows) <= config.max_cells:
        return list(rows), []

    def address(row: CellRow) -> bytes:
        return hashlib.blake2b(f"{config.seed}\x1f{field_id}\x1f{row.cell}".encode(), digest_size=16).digest()

    kept = {row.cell for row in sorted(rows, key=address)[: config.max_cells]}
    detail = f"{config.max_cells} of {len(rows)} drawn"
    return [r for r in rows if r.cell in kept], [LeftOut(r.cell, "drawn", detail) for r in rows if r.cell not in kept]
