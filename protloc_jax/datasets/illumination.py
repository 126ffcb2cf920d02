"""Uneven illumination: a smooth brightness function a plate and channel, estimated from that plate or given as files.

The usual ways are those of CellProfiler (mean of a plate's images, median filter, division) and of pybbbc (Gaussian).
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import ndimage

Statistic = Literal["mean", "median"]
Smoothing = Literal["median", "gaussian"]
Unit = Literal["mean", "minimum"]

_GRID = 64  # functions are estimated on images reduced to about this many pixels a side; they are far smoother
_ROBUST = 0.02  # CellProfiler's robust minimum: the 2 % quantile
_LEAST = 0.05  # no pixel is brightened more than twentyfold
_HELD = 8  # plates whose whole functions are held at once


@dataclass(frozen=True)
class Grid:
    """A function [h, w, C] on blocks of `block` pixels of an image of `size`; `full` interpolates it linearly."""

    values: np.ndarray
    size: tuple[int, int]
    block: int

    def full(self) -> np.ndarray:
        """[H, W, C] float32."""
        rows, columns = (_interpolation(n, self.block) for n in self.size)
        return np.einsum("yh,hwc,xw->yxc", rows, self.values, columns, optimize=True).astype(np.float32)


@dataclass
class Illumination:
    """Brightness functions by plate, and images divided by them.

    load  plate -> the function [H, W, C] float32, larger where the microscope sees brighter
    """

    load: Callable[[str], np.ndarray]
    digest: str
    _held: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def function(self, plate: str) -> np.ndarray:
        with self._lock:
            if plate in self._held:
                return self._held[plate]
        found = self.load(plate)
        with self._lock:
            while len(self._held) >= _HELD:
                self._held.pop(next(iter(self._held)))
            self._held[plate] = found
        return found

    def correct(self, pixels: np.ndarray, plate: str) -> tuple[np.ndarray, int]:
        """[H, W, C] divided by the plate's function, dtype kept; and how many values the division saturated.

        Raises ValueError where the function has another size.
        """
        function = self.function(plate)
        if function.shape != pixels.shape:
            shown = [" x ".join(map(str, shape)) for shape in (function.shape, pixels.shape)]
            raise ValueError(
                f"the illumination function of plate '{plate}' is {shown[0]} where the image is {shown[1]}."
            )
        most = np.iinfo(pixels.dtype).max
        divided = np.rint(pixels / function)
        saturated = int(((divided > most) & (pixels < most)).sum())
        return np.clip(divided, 0, most).astype(pixels.dtype), saturated

    def __getstate__(self) -> dict[str, Any]:
        return {"load": self.load, "digest": self.digest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["load"], state["digest"])


@dataclass(frozen=True)
class Estimated:
    """Functions on grids, by plate. Picklable."""

    grids: Mapping[str, Grid]

    def __call__(self, plate: str) -> np.ndarray:
        return self.grids[plate].full()


def reduced(pixels: np.ndarray) -> tuple[np.ndarray, int]:
    """Means over square blocks [h, w, C] float32, about 64 to the shorter side, and the block's side in pixels.

    The last block of a row or column may be narrower.
    """
    block = max(1, min(pixels.shape[:2]) // _GRID)
    sums = pixels.astype(np.float64)
    for axis in (0, 1):
        starts = np.arange(0, pixels.shape[axis], block)
        counts = np.diff(np.append(starts, pixels.shape[axis]))
        shape = [1, 1, 1]
        shape[axis] = -1
        sums = np.add.reduceat(sums, starts, axis) / counts.reshape(shape)
    return sums.astype(np.float32), block


def fit(
    images: Iterable[np.ndarray],
    size: tuple[int, int],
    block: int,
    *,
    statistic: Statistic = "mean",
    smoothing: Smoothing = "median",
    window: float = 0.3,
    unit: Unit = "mean",
) -> tuple[Grid, list[int]]:
    """The function of one plate from its reduced images [h, w, C], and the channels that are too dark to have one.

    statistic  over the images
    smoothing  "median" over a square window, or "gaussian" with a standard deviation of half of it
    window     as a share of the image's shorter side
    unit       what becomes 1: the "mean" of the function (brightness is kept on the whole), or its robust "minimum"
               (the 2 % quantile; nothing is brightened). No value falls below a twentieth of it

    Edges are continued by their own value, so that a median keeps a tilt as it is.
    """
    centre, count = None, 0
    if statistic == "mean":
        for image in images:
            centre = image.astype(np.float64) if centre is None else centre + image
            count += 1
        assert centre is not None
        centre = centre / count
    else:
        centre = np.median(np.stack(list(images)), 0).astype(np.float64)
    width = window * min(size) / block
    rows, columns = (_interpolation(n, block).mean(0) for n in size)
    dark = []
    planes = []
    for channel in range(centre.shape[2]):
        plane = centre[..., channel]
        if smoothing == "median":
            smooth = ndimage.median_filter(plane, size=max(1, round(width) // 2 * 2 + 1), mode="nearest")
        else:
            smooth = ndimage.gaussian_filter(plane, width / 2, mode="nearest")
        one = rows @ smooth @ columns if unit == "mean" else np.quantile(smooth, _ROBUST)
        if one <= 0:
            dark.append(channel)
            planes.append(np.ones_like(smooth))
        else:
            planes.append(np.maximum(smooth / one, 1.0 if unit == "minimum" else _LEAST))
    return Grid(np.stack(planes, -1), size, block), dark


def estimated(grids: Mapping[str, Grid]) -> Illumination:
    digest = hashlib.blake2b(digest_size=16)
    for plate in sorted(grids):
        digest.update(plate.encode() + np.ascontiguousarray(grids[plate].values).tobytes())
    return Illumination(Estimated(grids), digest.hexdigest())


def save(illumination: Illumination, folder: Path, channels: Sequence[str]) -> None:
    """Write estimated functions as <plate>_<channel>.npy, so that they can be given to another packing.

    Characters that are no part of a plain file name become '_'; where two names would then be one, a number follows.
    """
    assert isinstance(illumination.load, Estimated)
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.npy"):  # of an earlier packing, perhaps with other plates
        old.unlink()
    taken: set[str] = set()
    for plate, grid in illumination.load.grids.items():
        full = grid.full()
        for number, channel in enumerate(channels):
            name = plain = re.sub(r"[^A-Za-z0-9._-]", "_", f"{plate}_{channel}")
            while name in taken:
                name = f"{plain}-{len(taken)}"
            taken.add(name)
            np.save(folder / f"{name}.npy", full[..., number], allow_pickle=False)


def _interpolation(n: int, block: int) -> np.ndarray:
    """[n, blocks]: linear weights from the blocks' centres to pixels; outside of the outer centres their value."""
    starts = np.arange(0, n, block)
    centres = (starts + np.append(starts[1:], n) - 1) / 2
    return np.stack([np.interp(np.arange(n), centres, unit) for unit in np.eye(len(centres))], 1)
