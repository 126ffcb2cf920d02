"""One set of rules by which the axes of any file become height, width and channels."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from protloc_jax.images.header import FloatRange, ImageError, Projection, Reading, refuse_dtype

# tifffile's letters for a page axis without a stated meaning. Such pages are taken for channels: the caller names the
# channels and their number is checked.
_UNNAMED = "QI"


def stated(axes: str, reading: Reading) -> str:
    """A TIFF's axes, with `reading.unnamed_axes` in place of as many that have no stated meaning."""
    wanted = reading.unnamed_axes
    nameless = len(axes) == len(wanted) and all(a in "YX" + _UNNAMED for a in axes) and axes[-2:] == wanted[-2:]
    return wanted if nameless else axes


def squeezed(axes: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Axes and sizes without those of size 1, Y and X apart."""
    kept = [(a, n) for a, n in zip(axes, shape, strict=True) if n > 1 or a in "YX"]
    return "".join(a for a, _ in kept), tuple(n for _, n in kept)


def check_axes(path: Path, axes: str, shape: tuple[int, ...], reading: Reading) -> tuple[int, int, int]:
    """The (height, width, channels) that the axes give. Raises ImageError where no rule gives them."""
    kept, sizes = squeezed(axes, shape)
    shown = f"axes {kept} {sizes}"
    if kept.count("Y") != 1 or kept.count("X") != 1:
        raise ImageError(f"{path}: {shown}: not an image with one height and one width.")
    rest = kept.replace("Y", "").replace("X", "")
    if "Z" in rest:
        if reading.projection == "none":
            raise ImageError(
                f"{path}: {shown} is a z-stack; ask for a projection (max, mean or middle) or save one plane."
            )
        rest = rest.replace("Z", "")
    times = math.prod(n for a, n in zip(axes, shape, strict=True) if a == "T")
    if times > 1 and reading.time is None:
        raise ImageError(f"{path}: {shown} is a time series; choose a time point (time) or save one a file.")
    if reading.time is not None and reading.time >= times:
        raise ImageError(f"{path}: time={reading.time}: the file has {times} time point(s), counted from 0.")
    rest = rest.replace("T", "")
    if len(rest) > 1 or (rest and rest not in "CS" + _UNNAMED):
        raise ImageError(f"{path}: {shown}: no rule turns these axes into channels; save it as CYX or YXC.")
    side = dict(zip(kept, sizes, strict=True))
    return side["Y"], side["X"], side.get(rest, 1)


def arrange(pixels: np.ndarray, axes: str, reading: Reading) -> np.ndarray:
    """Pixels with checked `axes` as a contiguous [H, W, C]: time point taken, z projected, channels last."""
    axes, sizes = squeezed(axes, pixels.shape)
    pixels = pixels.reshape(sizes)
    if "T" in axes:
        pixels = pixels.take(reading.time or 0, axes.index("T"))
        axes = axes.replace("T", "")
    if "Z" in axes:
        pixels = project(pixels, axes.index("Z"), reading.projection)
        axes = axes.replace("Z", "")
    if len(axes) == 2:
        pixels, axes = pixels[..., None], axes + "S"
    other = next(a for a in axes if a not in "YX")
    return np.ascontiguousarray(pixels.transpose([axes.index(a) for a in ("Y", "X", other)]))


def project(pixels: np.ndarray, axis: int, projection: Projection) -> np.ndarray:
    """A z-stack as one plane, type kept; means are rounded to the nearest (halves to even)."""
    if projection == "middle":
        return pixels.take(pixels.shape[axis] // 2, axis)
    if projection == "max":
        return pixels.max(axis)
    return np.rint(pixels.mean(axis)).astype(pixels.dtype)


def stored_dtype(path: Path, dtype: np.dtype, float_range: FloatRange | None) -> str:
    """The type that pixels of `dtype` are read as. Raises ImageError where they need a range and none is given."""
    if dtype.newbyteorder("=") in (np.uint8, np.uint16):
        return str(dtype.newbyteorder("="))
    if float_range is None or dtype.kind not in "iuf":
        raise refuse_dtype(path, dtype)
    return "uint16"


def scaled(path: Path, pixels: np.ndarray, float_range: FloatRange | None) -> np.ndarray:
    """8- and 16-bit pixels unchanged; others with `float_range` mapped to [0, 65535], rounded to nearest.

    Raises ImageError for non-finite values and values outside the range.
    """
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels
    assert float_range is not None
    low, high = float_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ImageError(f"{path}: float_range=({low}, {high}): must be two finite numbers, the lower first.")
    bad = ~np.isfinite(pixels) if pixels.dtype.kind == "f" else np.zeros(pixels.shape, bool)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ImageError(f"{path}: {int(bad.sum())} NaN or infinite pixels (the first at index {first}).")
    least, most = float(pixels.min()), float(pixels.max())
    if least < low or most > high:
        raise ImageError(f"{path}: values from {least:g} to {most:g} lie outside float_range ({low:g}, {high:g}).")
    return np.rint((pixels.astype(np.float64) - low) * (65535.0 / (high - low))).astype(np.uint16)


def choose(path: Path, count: int, reading: Reading, what: str, shown: str) -> int:
    """The index of the wanted image among `count`. Raises ImageError where none is chosen or there is no such."""
    if count == 0:
        raise ImageError(f"{path}: holds no {what}.")
    if reading.series is None:
        if count > 1:
            raise ImageError(
                f"{path}: {count} separate {what}s in one file ({shown}); choose one by number (series) or save one a "
                "file."
            )
        return 0
    if reading.series >= count:
        raise ImageError(f"{path}: series={reading.series}: the file has {count} {what}(s), counted from 0 ({shown}).")
    return reading.series
