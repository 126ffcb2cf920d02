"""What an image file claims to be, read before any pixel is decoded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from protloc_jax.config import nearest

Format = Literal["png", "jpeg", "tiff", "zarr", "vendor"]
Projection = Literal["none", "max", "mean", "middle"]
MissingChunks = Literal["error", "fill"]
FloatRange = tuple[float, float]

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
# Formats that bioio plug-ins read. The suffix decides which plug-in opens a file, so the first bytes must agree.
VENDOR_MAGIC: dict[str, tuple[bytes, ...]] = {
    ".nd2": (b"\xda\xce\xbe\x0a", b"\x00\x00\x00\x0cjP  "),
    ".czi": (b"ZISRAWFILE",),
    ".lif": (b"\x70\x00\x00\x00",),
    ".oib": (b"\xd0\xcf\x11\xe0",),
    ".ims": (b"\x89HDF\r\n\x1a\n",),
}
ZARR_FILES = ("zarr.json", ".zgroup", ".zattrs", ".zarray")


class ImageError(ValueError):
    """An image file was refused; the message begins with the file's path."""


@dataclass(frozen=True)
class Reading:
    """Which pixels of a file are wanted, and how.

    max_pixels      refuse files that claim more values (height x width x planes) than this
    projection      how a z-stack becomes one plane: "none" refuses it, "max", "mean", "middle" (plane n // 2 of n)
    float_range     the pixel values that become 0 and 65535 where pixels are not uint8 or uint16; None refuses those
    series          which image, from 0, of a file that holds several (positions, scenes); None refuses those
    time            which time point, from 0, of a time series; None refuses those
    level           resolution level of an OME-Zarr image, 0 the finest
    missing_chunks  OME-Zarr chunks without a file: "error", or "fill" with the array's fill value (writers leave out
                    chunks that hold nothing else)
    unnamed_axes    the axes of a TIFF that has as many and names none but Y and X, "ZCYX" for example; "" takes one
                    such axis for channels and refuses more

    Raises ValueError naming every value that cannot be.
    """

    max_pixels: int = MAX_PIXELS
    projection: Projection = "none"
    float_range: FloatRange | None = None
    series: int | None = None
    time: int | None = None
    level: int = 0
    missing_chunks: MissingChunks = "error"
    unnamed_axes: str = ""

    def __post_init__(self) -> None:
        problems = []
        for name, kind in (("projection", Projection), ("missing_chunks", MissingChunks)):
            value, allowed = getattr(self, name), get_args(kind)
            if value not in allowed:
                problems.append(f"{name}='{value}': not one of {', '.join(allowed)}.{nearest(value, allowed)}")
        for name in ("series", "time", "level"):
            value = getattr(self, name)
            if value is not None and value < 0:
                problems.append(f"{name}={value}: counts from 0.")
        named = self.unnamed_axes
        if named and (len(set(named)) != len(named) or set(named) - set("TCZYXS") or not {"Y", "X"} <= set(named)):
            problems.append(f"unnamed_axes='{named}': different letters of TCZYXS, with Y and X, such as ZCYX.")
        if problems:
            raise ValueError("\n  ".join(problems))


@dataclass(frozen=True)
class Header:
    """The array that reading a file will give.

    path           the file, or the folder of an OME-Zarr image
    format         "png", "jpeg" or "tiff" by the file's first bytes (its suffix is not trusted), "zarr" or "vendor"
    shape          (height, width, channels) after axes are put in order
    dtype          "uint8" or "uint16"
    axes           the file's own axes, for example "YX", "CYX", "YXS"; S are the samples of a colour image
    um_per_pixel   physical pixel size in micrometres where the file states one, else None
    alpha          the last channel is transparency, not light
    channel_names  what the file calls its channels, in order; () where it does not say
    """

    path: Path
    format: Format
    shape: tuple[int, int, int]
    dtype: str
    axes: str
    um_per_pixel: float | None = None
    alpha: bool = False
    channel_names: tuple[str, ...] = ()

    @property
    def colour(self) -> bool:
        """The file is a colour image (red, green, blue) and not a stack of named channels."""
        return self.axes.count("S") == 1 and self.shape[2] - self.alpha == 3


def is_zarr(path: Path) -> bool:
    """A folder that holds Zarr metadata: one image, or a plate of them."""
    return path.is_dir() and any((path / name).is_file() for name in ZARR_FILES)


def stored_bytes(path: Path) -> int:
    """Bytes on disk of an image file, or of all files of a Zarr folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, files in os.walk(path) for name in files)


def sniff(path: Path) -> Format:
    """The format of a file by its first bytes. Raises FileNotFoundError, or ImageError for anything else."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file.")
    if is_zarr(path):
        return "zarr"
    if not path.is_file():
        raise ImageError(f"{path}: not a regular file, nor a folder with an OME-Zarr image.")
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        raise ImageError(f"{path}: empty file (0 bytes).")
    for magic, kind in _MAGIC:
        if start.startswith(magic):
            return kind
    expected = VENDOR_MAGIC.get(path.suffix.lower())
    if expected and start.startswith(expected):
        return "vendor"
    wanted = f"{path.suffix.lower()[1:].upper()} file" if expected else "PNG, JPEG or TIFF image"
    raise ImageError(f"{path}: not a {wanted} (it begins with {start[:8]!r}).")


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
