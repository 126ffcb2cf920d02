"""Windows: fixed parts of an image at its native size, encoded one by one and combined to one feature."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from protloc_jax.config import nearest

Combine = Literal["mean", "median", "lower-median"]
COMBINES = get_args(Combine)

_NAMED = ("ws_dino", "grid:2x2")
_GRID = re.compile(r"grid:([1-9][0-9]{0,3})x([1-9][0-9]{0,3})")
_BOX = re.compile(r"([0-9]{1,6}):([0-9]{1,6}),([0-9]{1,6}):([0-9]{1,6})")
# The four crops of WS-DINO's evaluation (Eval_BBBC021.py) on fields of 512 x 640 pixels; the left ones are wider.
_WS_DINO_FIELD = (512, 640)
_WS_DINO = ((32, 256, 64, 320), (32, 256, 320, 544), (256, 480, 64, 320), (256, 480, 320, 544))


class Box(NamedTuple):
    """Rows y0 to y1 and columns x0 to x1 of an image, ends not included."""

    y0: int
    y1: int
    x0: int
    x1: int

    def of(self, images: np.ndarray) -> np.ndarray:
        """The window of images [B, H, W, C]."""
        return images[:, self.y0 : self.y1, self.x0 : self.x1]

    @property
    def text(self) -> str:
        return f"{self.y0}:{self.y1},{self.x0}:{self.x1}"


def windows_of(text: str, size: tuple[int, int], patch: int) -> tuple[Box, ...]:
    """The windows that a text means on images of `size` (height, width), for a model of this patch size.

    ws_dino           the four crops of 512 x 640 fields; on other sizes the same fractions of the field, every edge
                      rounded to the nearest multiple of the patch inside the image
    grid:RxC          R rows and C columns of equal windows without gap or overlap, each as large a multiple of the
                      patch as fits, in the middle of the image
    y0:y1,x0:x1;...   windows as they are written, in pixels, ends not included
    Raises ValueError for another text, and naming every window that leaves the image, holds no patch, is no multiple of
    the patch or comes twice.
    """
    height, width = size
    if text == "ws_dino":
        boxes = tuple(Box(*(_edge(v, i < 2, size, patch) for i, v in enumerate(box))) for box in _WS_DINO)
    elif grid := _GRID.fullmatch(text):
        boxes = _grid(int(grid[1]), int(grid[2]), size, patch)
    else:
        found = [_BOX.fullmatch(part.strip()) for part in text.split(";")]
        if not all(found):
            hint = nearest(text, _NAMED)
            raise ValueError(f"windows='{text}': not ws_dino, grid:RxC or y0:y1,x0:x1;y0:y1,x0:x1;....{hint}")
        boxes = tuple(Box(*map(int, box.groups())) for box in found if box)
    problems = []
    for number, box in enumerate(boxes, start=1):
        name, sides = f"window {number} ({box.text})", (box.y1 - box.y0, box.x1 - box.x0)
        if box.y1 > height or box.x1 > width:
            problems.append(f"{name} leaves the image")
        elif min(sides) < patch:
            problems.append(f"{name} holds no whole patch of {patch}")
        elif sides[0] % patch or sides[1] % patch:
            problems.append(f"{name} of {sides[0]} x {sides[1]} is no multiple of the patch of {patch}")
        if box in boxes[: number - 1]:
            problems.append(f"{name} comes twice")
    if problems:
        raise ValueError(f"windows='{text}' on images of {height} x {width} pixels: {'; '.join(problems)}.")
    return boxes


def combined(parts: Sequence[np.ndarray], how: Combine) -> np.ndarray:
    """Features [B, D] of n windows each as one [B, D] float32, element by element.

    "mean"; "median", of an even number the mean of the two middle values; "lower-median", the lower of these, as
    torch.median gives it (so WS-DINO's field features). Raises ValueError for another word.
    """
    stacked = np.stack(parts)
    if how == "mean":
        found = stacked.mean(0, dtype=np.float64)
    elif how == "median":
        found = np.median(stacked, 0)
    elif how == "lower-median":
        found = np.sort(stacked, 0)[(len(stacked) - 1) // 2]
    else:
        raise ValueError(f"combine='{how}': not one of {', '.join(COMBINES)}.{nearest(how, COMBINES)}")
    return found.astype(np.float32)


def _edge(value: int, vertical: bool, size: tuple[int, int], patch: int) -> int:
    """An edge of WS-DINO's crops on images of another size."""
    side, field = (size[0], _WS_DINO_FIELD[0]) if vertical else (size[1], _WS_DINO_FIELD[1])
    return min(round(value * side / field / patch), side // patch) * patch


def _grid(rows: int, columns: int, size: tuple[int, int], patch: int) -> tuple[Box, ...]:
    height, width = size[0] // rows // patch * patch, size[1] // columns // patch * patch
    top, left = (size[0] - rows * height) // 2, (size[1] - columns * width) // 2
    return tuple(
        Box(top + r * height, top + (r + 1) * height, left + c * width, left + (c + 1) * width)
        for r in range(rows)
        for c in range(columns)
    )
