"""Reading one image file: header first, then pixels, always channels last and never fewer bits than the file has."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np

from protloc_jax.config import nearest
from protloc_jax.images.header import MAX_PIXELS, Format, Header, ImageError, Projection, sniff
from protloc_jax.images.jpeg import jpeg_header, jpeg_pixels
from protloc_jax.images.png import png_header, png_pixels
from protloc_jax.images.tiff import FloatRange, tiff_header, tiff_image


class Image(NamedTuple):
    """A decoded image.

    pixels        [H, W, C] uint8 or uint16
    axes          the file's own axes, for example "CYX"
    um_per_pixel  physical pixel size where the file states one, else None
    alpha         the last channel is transparency, not light
    """

    pixels: np.ndarray
    axes: str
    um_per_pixel: float | None
    alpha: bool = False


def header(
    path: str | Path,
    *,
    max_pixels: int = MAX_PIXELS,
    projection: Projection = "none",
    float_range: FloatRange | None = None,
) -> Header:
    """What `read` with the same arguments would give, without decoding.

    max_pixels   refuse files that claim more values (height x width x planes) than this
    projection   how a z-stack becomes one plane: "none" refuses it, "max", "mean"
    float_range  the pixel values that become 0 and 65535 in TIFFs that are not uint8 or uint16; None refuses those

    Raises FileNotFoundError, or ImageError naming the file.
    """
    path, kind = _checked(path, projection)
    if kind == "png":
        return png_header(path, max_pixels)
    if kind == "jpeg":
        return jpeg_header(path, max_pixels)
    return tiff_header(path, max_pixels, projection, float_range)


def read(
    path: str | Path,
    *,
    max_pixels: int = MAX_PIXELS,
    projection: Projection = "none",
    float_range: FloatRange | None = None,
) -> Image:
    """Decode a PNG, JPEG or TIFF file to [H, W, C]; the arguments and errors are those of `header`.

    8- and 16-bit values are kept exactly. Raises ImageError also for truncated or damaged pixel data.
    """
    path, kind = _checked(path, projection)
    if kind == "png":
        found = png_header(path, max_pixels)
        pixels = png_pixels(found)
    elif kind == "jpeg":
        found = jpeg_header(path, max_pixels)
        pixels = jpeg_pixels(found)
    else:
        found, pixels = tiff_image(path, max_pixels, projection, float_range)
    if pixels.shape != found.shape or pixels.dtype != found.dtype:
        raise ImageError(
            f"{found.path}: decoded to {pixels.shape} {pixels.dtype} where the header says {found.shape} {found.dtype}."
        )
    return Image(pixels, found.axes, found.um_per_pixel, found.alpha)


def _checked(path: str | Path, projection: Projection) -> tuple[Path, Format]:
    allowed = get_args(Projection)
    if projection not in allowed:
        hint = nearest(projection, allowed)
        raise ValueError(f"projection='{projection}': not one of {', '.join(allowed)}.{hint}")
    return Path(path), sniff(Path(path))
