"""TIFF files (plain, ImageJ, OME, BigTIFF): axes put in order, 8 and 16 bit kept, other pixel types only on request."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile

from protloc_jax.images.header import Header, ImageError, Projection, check_size, refuse_dtype
from protloc_jax.images.tiff_guard import check_skeleton

# tifffile's letters for a page axis without a stated meaning. Such pages are taken for channels: the caller names the
# channels and their number is checked.
_UNNAMED = "QI"
_TO_UM = {"m": 1e6, "cm": 1e4, "mm": 1e3, "um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "nm": 1e-3}
_REFUSED_COLOUR = {3: "palette", 5: "CMYK"}

FloatRange = tuple[float, float]


def tiff_header(path: Path, max_pixels: int, projection: Projection, float_range: FloatRange | None) -> Header:
    """Header of a TIFF. Raises ImageError for truncated files, several images in one file, z-stacks, time series,
    and pixels other than uint8 / uint16 (unless `float_range` is given)."""
    with _opened(path, max_pixels) as (file, series):
        return _header(path, file, series, projection, float_range)


def tiff_image(
    path: Path, max_pixels: int, projection: Projection, float_range: FloatRange | None
) -> tuple[Header, np.ndarray]:
    """Header and pixels [H, W, C]. Raises ImageError also for damaged data, NaN, and values out of `float_range`."""
    with _opened(path, max_pixels) as (file, series):
        header = _header(path, file, series, projection, float_range)
        try:
            pixels = series.asarray(maxworkers=1)
        except Exception as error:  # decoders raise many kinds; the file is what they have in common
            raise ImageError(f"{path}: truncated or damaged TIFF ({error}).") from error
        axes, sizes = _squeezed(series)
    pixels = pixels.reshape(sizes)
    if pixels.dtype not in (np.uint8, np.uint16):
        assert float_range is not None
        pixels = _scaled(path, pixels, float_range)
    if "Z" in axes:
        at = axes.index("Z")
        pixels = pixels.max(at) if projection == "max" else np.rint(pixels.mean(at)).astype(pixels.dtype)
        axes = axes.replace("Z", "")
    if len(axes) == 2:
        pixels, axes = pixels[..., None], axes + "S"
    other = next(a for a in axes if a not in "YX")
    pixels = pixels.transpose([axes.index(a) for a in ("Y", "X", other)])
    return header, np.ascontiguousarray(pixels).reshape(header.shape)


def _header(
    path: Path,
    file: tifffile.TiffFile,
    series: tifffile.TiffPageSeries,
    projection: Projection,
    float_range: FloatRange | None,
) -> Header:
    axes, sizes = _squeezed(series)
    _check_axes(path, axes, sizes, projection)
    kept = dict(zip(axes, sizes, strict=True))
    channels = math.prod(kept[a] for a in axes if a not in "YXZ")
    plain = series.dtype in (np.uint8, np.uint16)
    if not plain and (float_range is None or series.dtype.kind not in "iuf"):
        raise refuse_dtype(path, series.dtype)
    extra = series.keyframe.extrasamples if "S" in axes else ()
    return Header(
        path,
        "tiff",
        (kept["Y"], kept["X"], channels),
        str(series.dtype) if plain else "uint16",
        axes,
        _um_per_pixel(file),
        alpha=any(int(e) in (1, 2) for e in extra),
    )


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[tuple[tifffile.TiffFile, tifffile.TiffPageSeries]]:
    """The file's one image series, after checks that need no pixel."""
    pages = check_skeleton(path)
    try:
        # An OME-TIFF may name other files as its pages; they are not opened.
        file = tifffile.TiffFile(path, _multifile=False)
    except (tifffile.TiffFileError, struct.error, ValueError, KeyError, IndexError) as error:
        raise ImageError(f"{path}: damaged TIFF ({error}).") from error
    with file:
        try:
            first = file.pages.first
            claimed = (first.imagedepth, first.imagelength, first.imagewidth, first.samplesperpixel)
            check_size(path, math.prod(claimed), max_pixels, tuple(n for n in claimed if n != 1) or (1,))
            found = file.series
        except (tifffile.TiffFileError, struct.error, ValueError, KeyError, IndexError) as error:
            if isinstance(error, ImageError):
                raise
            raise ImageError(f"{path}: damaged TIFF ({error}).") from error
        if len(found) != 1:
            shapes = ", ".join(f"{s.axes} {s.shape}" for s in found[:4])
            raise ImageError(f"{path}: {len(found)} separate images in one file ({shapes}); save one a file.")
        series = found[0]
        # tifffile falls back to "the pages I found" when a description does not fit the file, which loses channels.
        for kind, named in (("ome", file.is_ome), ("imagej", file.is_imagej)):
            if named and series.kind != kind:
                raise ImageError(
                    f"{path}: truncated TIFF or part of a set: its {kind.upper()} description does not describe the "
                    "pixels of this file alone."
                )
        check_size(path, math.prod(series.shape), max_pixels, series.shape)
        colour = int(series.keyframe.photometric)
        if colour in _REFUSED_COLOUR:
            raise ImageError(f"{path}: {_REFUSED_COLOUR[colour]} TIFF; save it as grey or RGB.")
        _check_extent(path, series, pages)
        yield file, series


def _check_extent(path: Path, series: tifffile.TiffPageSeries, pages: int) -> None:
    """Every strip and tile that the series needs lies in the file (readers put zeros where one does not)."""
    size = path.stat().st_size
    cut = f"{path}: truncated TIFF: pixel data lies beyond the end of the file ({size:,} bytes)."
    if series.dataoffset is not None and series.dataoffset + series.nbytes > size:
        raise ImageError(cut)
    if series.dataoffset is not None and pages < len(series.pages):
        return  # ImageJ writes one directory for a contiguous stack of many pages
    for page in series.pages:
        if page is None:
            raise ImageError(f"{path}: a page of the image is missing from this file (a multi-file OME-TIFF?).")
        if any(not n for n in page.databytecounts):
            raise ImageError(f"{path}: pixel data is missing from the file (a strip or tile of 0 bytes).")
        ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False)]
        if not ends or max(ends) > size:
            raise ImageError(cut)


def _squeezed(series: tifffile.TiffPageSeries) -> tuple[str, tuple[int, ...]]:
    kept = [(a, n) for a, n in zip(series.axes, series.shape, strict=True) if n > 1 or a in "YX"]
    return "".join(a for a, _ in kept), tuple(n for _, n in kept)


def _check_axes(path: Path, axes: str, sizes: tuple[int, ...], projection: Projection) -> None:
    shown = f"axes {axes} {sizes}"
    if axes.count("Y") != 1 or axes.count("X") != 1:
        raise ImageError(f"{path}: {shown}: not an image with one height and one width.")
    rest = axes.replace("Y", "").replace("X", "")
    if "Z" in rest:
        if projection == "none":
            raise ImageError(f"{path}: {shown} is a z-stack; ask for a projection (max or mean) or save one plane.")
        rest = rest.replace("Z", "")
    if "T" in rest:
        raise ImageError(f"{path}: {shown} is a time series; save one time point a file.")
    if len(rest) > 1 or (rest and rest not in "CS" + _UNNAMED):
        raise ImageError(f"{path}: {shown}: no rule turns these axes into channels; save it as CYX or YXC.")


def _scaled(path: Path, pixels: np.ndarray, float_range: FloatRange) -> np.ndarray:
    """Map [low, high] to [0, 65535], rounded to nearest; refuses non-finite values and values outside the range."""
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


def _um_per_pixel(file: tifffile.TiffFile) -> float | None:
    """Pixel size stated by OME or ImageJ metadata; a bare resolution tag is a printer's setting and not believed."""
    if file.is_ome and file.ome_metadata:
        found = re.search(r'PhysicalSizeX="([0-9.eE+-]+)"', file.ome_metadata)
        unit = re.search(r'PhysicalSizeXUnit="([^"]+)"', file.ome_metadata)
        scale = _TO_UM.get(unit.group(1) if unit else "µm")  # OME's default unit
        return _positive(float(found.group(1)) * scale) if found and scale else None
    if file.is_imagej and file.imagej_metadata:
        scale = _TO_UM.get(str(file.imagej_metadata.get("unit", "")).replace("\\u00B5", "µ").lower())
        tag = file.pages.first.tags.get("XResolution")
        if scale and tag is not None and tag.value[0]:
            return _positive(scale * tag.value[1] / tag.value[0])
    return None


def _positive(value: float) -> float | None:
    return value if math.isfinite(value) and value > 0 else None
