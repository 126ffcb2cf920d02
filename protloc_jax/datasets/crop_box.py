"""The box around a cell: where it lies, and the pixels and the mask inside it.

Boxes are in edge coordinates: pixel (r, c) covers [r, r + 1) x [c, c + 1), so a box of whole numbers cuts whole pixels.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image as Pillow

Padding = Literal["reflect", "zero", "drop"]
Masked = Literal["none", "cell", "others"]
CENTRE_CELL, OTHER_CELLS = 1, 2  # in the stored mask; 0 is free of cells


class Box(NamedTuple):
    """A square: its upper left corner and its side, in edge coordinates of the field."""

    top: float
    left: float
    side: float

    def crosses(self, shape: tuple[int, int]) -> bool:
        """Part of the box lies outside of a field of this height and width."""
        return self.top < 0 or self.left < 0 or self.top + self.side > shape[0] or self.left + self.side > shape[1]


def fixed_box(row: float, column: float, side: int) -> Box:
    """A box of whole pixels; the pixel nearest to the centre (row, column; halves go down and right) is its
    [side // 2, side // 2]."""
    return Box(math.floor(row + 0.5) - side // 2, math.floor(column + 0.5) - side // 2, side)


def scaled_box(row: float, column: float, side: float) -> Box:
    """A box of any side with the centre (row, column) of pixel centres exactly in its middle."""
    return Box(row + 0.5 - side / 2, column + 0.5 - side / 2, side)


def inside(labels: np.ndarray, box: Box) -> np.ndarray:
    """The part of a field's labels [H, W] whose pixel centres lie in the box (and in the field)."""
    return labels[
        max(0, math.ceil(box.top - 0.5)) : max(0, math.ceil(box.top + box.side - 0.5)),
        max(0, math.ceil(box.left - 0.5)) : max(0, math.ceil(box.left + box.side - 0.5)),
    ]


def cut_mask(labels: np.ndarray, cell: int, box: Box, out: int, padding: Padding) -> np.ndarray:
    """The mask [out, out] uint8 of a crop: 1 = the cell, 2 = other cells, 0 = free; nearest pixel where resized.

    labels  [H, W] int, 0 = free; other numbers than `cell`, negative ones too, are other cells
    padding beyond the field, "reflect" mirrors the labels too: mirrored cells, the centre cell's own image among them,
            are other cells. "zero" is free.
    """
    height, width = labels.shape
    steps = (np.arange(out) + 0.5) * (box.side / out)
    rows, columns = np.floor(box.top + steps).astype(np.int64), np.floor(box.left + steps).astype(np.int64)
    found, outside = _window(labels, rows, columns)
    mask = np.where(found == 0, 0, OTHER_CELLS).astype(np.uint8)
    mask[(found == cell) & ~outside] = CENTRE_CELL
    if padding == "zero" and (rows[0] < 0 or columns[0] < 0 or rows[-1] >= height or columns[-1] >= width):
        mask[outside] = 0
    return mask


def cut_pixels(
    field: np.ndarray,
    labels: np.ndarray,
    cell: int,
    box: Box,
    out: int,
    *,
    padding: Padding,
    masked: Masked = "none",
    fill: np.ndarray | int = 0,
) -> np.ndarray:
    """The crop [out, out, C] of a field [H, W, C], of the same type.

    Whole-pixel boxes of side `out` are cut as they are. Others are resampled with a triangle filter, which antialiases
    where the crop is smaller than the box. Light is masked out (see CropConfig.masked; replaced by `fill`, one value or
    one a channel) before resampling, so that none of it seeps in.
    """
    whole = box.side == out and all(float(v).is_integer() for v in box)
    reach = 0 if whole else math.ceil(max(box.side / out, 1.0)) + 1
    rows, columns = (
        np.arange(math.floor(start) - reach, math.ceil(start + box.side) + reach) for start in (box.top, box.left)
    )
    pixels, outside = _window(field, rows, columns)
    if padding == "zero":
        pixels[outside] = 0
    if masked != "none":
        found, _ = _window(labels, rows, columns)
        own = (found == cell) & ~outside
        keep = own if masked == "cell" else own | (found == 0)
        pixels[~keep] = fill
    if whole:
        return pixels
    top, left = box.top - rows[0], box.left - columns[0]
    corners = (left, top, left + box.side, top + box.side)
    # Pillow filters only 8-bit and float planes, so each channel goes through float32, which holds 16 bit exactly.
    planes = [
        np.asarray(
            Pillow.fromarray(plane.astype(np.float32)).resize((out, out), Pillow.Resampling.BILINEAR, box=corners)
        )
        for plane in np.moveaxis(pixels, -1, 0)
    ]
    most = np.iinfo(field.dtype).max
    return np.clip(np.rint(np.stack(planes, -1)), 0, most).astype(field.dtype)


def _window(array: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A copy of array[rows][:, columns] with positions beyond the array mirrored at its edge pixels, and where
    [rows, columns] that was."""
    height, width = array.shape[:2]
    outside = ((rows < 0) | (rows >= height))[:, None] | ((columns < 0) | (columns >= width))[None]
    return array[_mirrored(rows, height)[:, None], _mirrored(columns, width)[None]], outside


def _mirrored(positions: np.ndarray, n: int) -> np.ndarray:
    """Positions folded into [0, n) by reflection, without repeating the edge."""
    if n == 1:
        return np.zeros_like(positions)
    folded = positions % (2 * n - 2)
    return np.where(folded < n, folded, 2 * n - 2 - folded)
