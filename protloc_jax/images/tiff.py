"""TIFF files (plain, ImageJ, OME, BigTIFF): axes put in order, 8 and 16 bit kept, other pixel types only on request."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile

from protloc_jax.images.axes import arrange, check_axes, choose, scaled, squeezed, stated, stored_dtype
from protloc_jax.images.header import Header, ImageError, Reading, check_size
from protloc_jax.images.ome_xml import OmeImage, parse_ome_xml
from protloc_jax.images.physical_size import from_resolution, in_um, square
from protloc_jax.images.tiff_guard import check_skeleton

_REFUSED_COLOUR = {3: "palette", 5: "CMYK"}
_RESOLUTION_UNITS = {2: "inch", 3: "cm"}


class _Opened(NamedTuple):
    file: tifffile.TiffFile
    series: tifffile.TiffPageSeries
    ome: OmeImage | None


def tiff_header(path: Path, reading: Reading) -> Header:
    """Header of a TIFF. Raises ImageError for truncated files, several images, z-stacks and time series of which none
    is chosen, and pixels other than uint8 / uint16 (unless a `float_range` is given)."""
    with _opened(path, reading) as opened:
        return _header(path, opened, reading)


def tiff_image(path: Path, reading: Reading) -> tuple[Header, np.ndarray]:
    """Header and pixels [H, W, C]. Raises ImageError also for damaged data, NaN, and values out of `float_range`."""
    with _opened(path, reading) as opened:
        header = _header(path, opened, reading)
        try:
            pixels = opened.series.asarray(maxworkers=1)
        except Exception as error:  # decoders raise many kinds; the file is what they have in common
            raise ImageError(f"{path}: truncated or damaged TIFF ({error}).") from error
        pixels = pixels.reshape(opened.series.shape)
        axes = stated(opened.series.axes, reading)
    return header, arrange(scaled(path, pixels, reading.float_range), axes, reading).reshape(header.shape)


def _header(path: Path, opened: _Opened, reading: Reading) -> Header:
    file, series, ome = opened
    whole = stated(series.axes, reading)
    shape = check_axes(path, whole, series.shape, reading)
    axes, _ = squeezed(whole, series.shape)
    names = ome.channel_names if ome else _imagej_names(file, shape[2]) if file.is_imagej else ()
    extra = series.keyframe.extrasamples if "S" in axes else ()
    return Header(
        path,
        "tiff",
        shape,
        stored_dtype(path, np.dtype(series.dtype), reading.float_range),
        axes,
        _um_per_pixel(file, series, ome),
        alpha=any(int(e) in (1, 2) for e in extra),
        channel_names=names if len(names) == shape[2] and "S" not in axes else (),
    )


@contextmanager
def _opened(path: Path, reading: Reading) -> Iterator[_Opened]:
    """The file's wanted image series, after checks that need no pixel."""
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
            check_size(path, math.prod(claimed), reading.max_pixels, tuple(n for n in claimed if n != 1) or (1,))
            # Before the library looks at the text itself.
            ome = parse_ome_xml(path, file.ome_metadata) if file.is_ome and file.ome_metadata else []
            found = file.series
        except (tifffile.TiffFileError, struct.error, ValueError, KeyError, IndexError) as error:
            if isinstance(error, ImageError):
                raise
            raise ImageError(f"{path}: damaged TIFF ({error}).") from error
        chosen = choose(path, len(found), reading, "image", ", ".join(f"{s.axes} {s.shape}" for s in found[:4]))
        series = found[chosen]
        # tifffile falls back to "the pages I found" when a description does not fit the file, which loses channels.
        for kind, named in (("ome", file.is_ome), ("imagej", file.is_imagej)):
            if named and series.kind != kind:
                raise ImageError(
                    f"{path}: truncated TIFF or part of a set: its {kind.upper()} description does not describe the "
                    "pixels of this file alone."
                )
        check_size(path, math.prod(series.shape), reading.max_pixels, series.shape)
        colour = int(series.keyframe.photometric)
        if colour in _REFUSED_COLOUR:
            raise ImageError(f"{path}: {_REFUSED_COLOUR[colour]} TIFF; save it as grey or RGB.")
        _check_extent(path, series, pages)
        yield _Opened(file, series, ome[chosen] if len(ome) == len(found) else None)


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


def _imagej_names(file: tifffile.TiffFile, channels: int) -> tuple[str, ...]:
    """The labels of an ImageJ stack whose planes are its channels."""
    labels = (file.imagej_metadata or {}).get("Labels") or ()
    names = tuple(str(label).strip() for label in labels)
    return names if len(names) == channels and all(names) else ()


def _um_per_pixel(file: tifffile.TiffFile, series: tifffile.TiffPageSeries, ome: OmeImage | None) -> float | None:
    """Pixel size as OME or ImageJ metadata state it, else as resolution tags do where those can be believed."""
    if ome is not None and ome.um_per_pixel is not None:
        return ome.um_per_pixel
    tags = series.keyframe.tags
    across, down = (_ratio(tags.get(name)) for name in ("XResolution", "YResolution"))
    if across is None or down is None:
        return None
    if file.is_imagej:
        unit = str((file.imagej_metadata or {}).get("unit", "")).replace("\\u00B5", "µ")
        return square(in_um(1 / across, unit), in_um(1 / down, unit))
    tag = tags.get("ResolutionUnit")
    unit = _RESOLUTION_UNITS.get(int(tag.value) if tag is not None else 2)
    return from_resolution(across, down, unit) if unit else None


def _ratio(tag: tifffile.TiffTag | None) -> float | None:
    """Pixels a unit, or None where the tag is absent or no positive fraction."""
    if tag is None or not isinstance(tag.value, tuple) or len(tag.value) != 2 or not all(tag.value):
        return None
    return tag.value[0] / tag.value[1]
