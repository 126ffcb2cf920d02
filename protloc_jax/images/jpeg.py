"""JPEG files: 8-bit grey or RGB. JPEG is lossy, and many atlases ship it all the same."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import imagecodecs
import numpy as np

from protloc_jax.images.header import Header, ImageError, check_size
from protloc_jax.images.physical_size import from_resolution

_END = b"\xff\xd9"
# Start-of-frame markers; 0xC4, 0xC8 and 0xCC carry tables instead.
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DENSITY_UNITS = {1: "inch", 2: "cm"}


def jpeg_header(path: Path, max_pixels: int) -> Header:
    """Walk the markers to the frame header. Raises ImageError for damaged, CMYK or 12-bit files."""
    um_per_pixel = None
    with path.open("rb") as file:
        file.seek(2)
        while True:
            marker, length = _marker(path, file)
            if marker == 0xE0 and length >= 12:
                density = file.read(12)
                um_per_pixel = _um_per_pixel(density)
                length -= len(density)
            if marker in _FRAMES:
                fields = file.read(6)
                break
            if marker in (0xD9, 0xDA):
                raise ImageError(f"{path}: damaged JPEG: no frame header before the pixel data.")
            file.seek(length, 1)
    if len(fields) < 6:
        raise ImageError(f"{path}: truncated JPEG: the file ends inside its frame header.")
    depth, height, width, channels = struct.unpack(">BHHB", fields)
    if depth != 8 or channels not in (1, 3):
        raise ImageError(f"{path}: JPEG of {depth} bit and {channels} components; only 8-bit grey or RGB is read.")
    check_size(path, height * width * channels, max_pixels, (height, width, channels))
    return Header(path, "jpeg", (height, width, channels), "uint8", "YX" if channels == 1 else "YXS", um_per_pixel)


def jpeg_pixels(header: Header) -> np.ndarray:
    """Decode to [H, W, C] uint8. Raises ImageError for a truncated or damaged file."""
    data = header.path.read_bytes()
    # The decoder fills what is missing with grey and says nothing. Inside the entropy-coded data 0xFF is never
    # followed by 0xD9, so an end marker after the last start of scan is the real one.
    if data.rfind(_END) < data.rfind(b"\xff\xda"):
        raise ImageError(f"{header.path}: truncated JPEG: the file has no end marker.")
    try:
        pixels = imagecodecs.jpeg8_decode(data)
    except (imagecodecs.Jpeg8Error, ValueError, RuntimeError) as error:
        raise ImageError(f"{header.path}: damaged JPEG ({error}).") from error
    if pixels.size != np.prod(header.shape):
        raise ImageError(f"{header.path}: damaged JPEG: {pixels.shape} pixels where the header says {header.shape}.")
    return pixels.reshape(header.shape)


def _marker(path: Path, file: BinaryIO) -> tuple[int, int]:
    """The next marker and the length of what follows its length field."""
    start = file.read(2)
    while len(start) == 2 and start == b"\xff\xff":  # fill bytes
        start = start[1:] + file.read(1)
    if len(start) < 2:
        raise ImageError(f"{path}: truncated JPEG: the file ends before its frame header.")
    if start[0] != 0xFF:
        raise ImageError(f"{path}: damaged JPEG: no marker where one must stand.")
    if start[1] == 0xD9:
        return 0xD9, 0
    size = file.read(2)
    if len(size) < 2:
        raise ImageError(f"{path}: truncated JPEG: the file ends before its frame header.")
    return start[1], max(struct.unpack(">H", size)[0] - 2, 0)


def _um_per_pixel(density: bytes) -> float | None:
    """Pixel size by the density of a JFIF header, where it can be believed."""
    if len(density) < 12 or density[:5] != b"JFIF\0":
        return None
    unit, across, down = struct.unpack_from(">BHH", density, 7)
    return from_resolution(across, down, _DENSITY_UNITS[unit]) if unit in _DENSITY_UNITS else None
