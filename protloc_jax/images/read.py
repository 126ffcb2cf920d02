"""Reading one image file: header first, then pixels, always channels last and never fewer bits than the file has."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from protloc_jax.images.header import Format, Header, ImageError, Reading, sniff
from protloc_jax.images.jpeg import jpeg_header, jpeg_pixels
from protloc_jax.images.ome_zarr import zarr_header, zarr_image
from protloc_jax.images.png import png_header, png_pixels
from protloc_jax.images.tiff import tiff_header, tiff_image
from protloc_jax.images.vendor import vendor_header, vendor_image


class Image(NamedTuple):
    """A decoded image.

    pixels         [H, W, C] uint8 or uint16
    axes           the file's own axes, for example "CYX"
    um_per_pixel   physical pixel size where the file states one, else None
    alpha          the last channel is transparency, not light
    channel_names  what the file calls its channels; () where it does not say
    """

    pixels: np.ndarray
    axes: str
    um_per_pixel: float | None
    alpha: bool = False
    channel_names: tuple[str, ...] = ()


def header(path: str | Path, **reading: Any) -> Header:
    """What `read` with the same arguments would give, without decoding.

    `reading` are the fields of `Reading`. Raises FileNotFoundError, or ImageError naming the file.
    """
    how, path, kind = _checked(path, reading)
    if kind == "png":
        return png_header(path, how.max_pixels)
    if kind == "jpeg":
        return jpeg_header(path, how.max_pixels)
    if kind == "tiff":
        return tiff_header(path, how)
    return zarr_header(path, how) if kind == "zarr" else vendor_header(path, how)


def read(path: str | Path, **reading: Any) -> Image:
    """Decode a PNG, JPEG, TIFF, OME-Zarr or vendor file to [H, W, C]; the arguments and errors are those of `header`.

    8- and 16-bit values are kept exactly. Raises ImageError also for truncated or damaged pixel data.
    """
    how, path, kind = _checked(path, reading)
    if kind == "png":
        found = png_header(path, how.max_pixels)
        pixels = png_pixels(found)
    elif kind == "jpeg":
        found = jpeg_header(path, how.max_pixels)
        pixels = jpeg_pixels(found)
    elif kind == "tiff":
        found, pixels = tiff_image(path, how)
    else:
        found, pixels = zarr_image(path, how) if kind == "zarr" else vendor_image(path, how)
    if pixels.shape != found.shape or pixels.dtype != found.dtype:
        raise ImageError(
            f"{found.path}: decoded to {pixels.shape} {pixels.dtype} where the header says {found.shape} {found.dtype}."
        )
    return Image(pixels, found.axes, found.um_per_pixel, found.alpha, found.channel_names)


def _checked(path: str | Path, reading: dict[str, Any]) -> tuple[Reading, Path, Format]:
    how, path = Reading(**reading), Path(path)
    kind = sniff(path)
    for name in ("series", "time", "level"):
        if kind in ("png", "jpeg") and getattr(how, name):
            raise ImageError(f"{path}: {name}={getattr(how, name)}: a {kind.upper()} holds one image (number 0).")
    return how, path, kind
