"""What an image file claims to be, read before any pixel is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

Format = Literal["png", "jpeg", "tiff"]
Projection = Literal["none", "max", "mean"]

# 2**28 values: four 8192 x 8192 channels, or half a gigabyte of 16-bit pixels.
MAX_PIXELS = 2**28

_MAGIC: tuple[tuple[bytes, Format], ...] = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
)


class ImageError(ValueError):
    """An image file was refused; the message begins with the file's path."""


@dataclass(frozen=True)
class Header:
    """The array that reading a file will give.

    path          the file
    format        "png", "jpeg" or "tiff", by the file's first bytes (its suffix is not trusted)
    shape         (height, width, channels) after axes are put in order
    dtype         "uint8" or "uint16"
    axes          the file's own axes, for example "YX", "CYX", "YXS"; S are the samples of a colour image
    um_per_pixel  physical pixel size where the file states one in a length unit, else None
    alpha         the last channel is transparency, not light
    """

    path: Path
    format: Format
    shape: tuple[int, int, int]
    dtype: str
    axes: str
    um_per_pixel: float | None = None
    alpha: bool = False

    @property
    def colour(self) -> bool:
        """The file is a colour image (red, green, blue) and not a stack of named channels."""
        return self.axes.count("S") == 1 and self.shape[2] - self.alpha == 3


def sniff(path: Path) -> Format:
    """The format of a file by its first bytes. Raises FileNotFoundError, or ImageError for anything else."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file.")
    if not path.is_file():
        raise ImageError(f"{path}: not a regular file.")
    with path.open("rb") as file:
        start = file.read(8)
    if not start:
        raise ImageError(f"{path}: empty file (0 bytes).")
    for magic, kind in _MAGIC:
        if start.startswith(magic):
            return kind
    raise ImageError(f"{path}: not a PNG, JPEG or TIFF image (it begins with {start!r}).")


def check_size(path: Path, values: int, max_pixels: int, shape: tuple[int, ...]) -> None:
    """Refuse a header that claims more than `max_pixels` values, or none, before anything is allocated."""
    if values <= 0:
        raise ImageError(f"{path}: the header claims an image without pixels ({_times(shape)}).")
    if values > max_pixels:
        raise ImageError(
            f"{path}: the header claims {_times(shape)} = {values:,} values, more than the limit of {max_pixels:,}; "
            "raise max_pixels if the file is to be trusted."
        )


def refuse_dtype(path: Path, dtype: np.dtype | str) -> ImageError:
    """The error for pixels that are neither 8 nor 16 bit unsigned."""
    return ImageError(
        f"{path}: {dtype} pixels; records hold uint8 or uint16. Give the range that black and white stand for "
        "(float_range, for example 0,1) to scale to 16 bit, or convert the file."
    )


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{side:,}" for side in shape)
