"""PNG files, 8 and 16 bit a channel, kept bit for bit.

Pillow reads 16-bit colour as 8 bit and 16-bit grey with alpha as 8-bit RGBA, so pixels are decoded by imagecodecs
(libpng); the header is read here, because a decoder allocates what a header claims.
"""

from __future__ import annotations

import struct
from pathlib import Path

import imagecodecs
import numpy as np

from protloc_jax.images.header import Header, ImageError, check_size
from protloc_jax.images.physical_size import from_resolution

_COLOUR = {0: 1, 2: 3, 4: 2, 6: 4}  # PNG colour type -> samples a pixel (grey, RGB, grey + alpha, RGBA)


def png_header(path: Path, max_pixels: int) -> Header:
    """Read the chunks before the pixel data. Raises ImageError for damaged, animated, palette or 1/2/4-bit files."""
    size = path.stat().st_size
    animated = transparent = False
    um_per_pixel = None
    with path.open("rb") as file:
        file.seek(8)
        length, kind = _chunk(path, file.read(8))
        fields = file.read(13)
        if kind != b"IHDR" or length != 13 or len(fields) < 13:
            raise ImageError(f"{path}: damaged PNG: the first chunk is not a header.")
        width, height, depth, colour, _, _, _ = struct.unpack(">IIBBBBB", fields)
        position = 8 + 8 + 13 + 4
        while True:
            file.seek(position)
            length, kind = _chunk(path, file.read(8))
            if kind == b"IDAT":
                break
            if kind == b"IEND":
                raise ImageError(f"{path}: damaged PNG: no pixel data.")
            animated |= kind == b"acTL"
            transparent |= kind == b"tRNS"
            if kind == b"pHYs" and length == 9 and len(physical := file.read(9)) == 9:
                across, down, unit = struct.unpack(">IIB", physical)
                um_per_pixel = from_resolution(across, down, "m") if unit == 1 else None
            position += 12 + length
            if position >= size:
                raise ImageError(f"{path}: truncated PNG: the file ends before its pixel data.")
    if colour == 3:
        raise ImageError(f"{path}: palette PNG: its values are colour numbers, not light; save it as grey or RGB.")
    if colour not in _COLOUR or depth not in (8, 16):
        raise ImageError(
            f"{path}: PNG of {depth} bit and colour type {colour}; only 8 and 16 bit grey or RGB are read."
        )
    if animated:
        raise ImageError(f"{path}: animated PNG; save the frames as separate files.")
    channels = _COLOUR[colour] + (transparent and colour in (0, 2))
    check_size(path, height * width * channels, max_pixels, (height, width, channels))
    return Header(
        path,
        "png",
        (height, width, channels),
        "uint8" if depth == 8 else "uint16",
        "YX" if channels == 1 else "YXS",
        um_per_pixel,
        alpha=channels in (2, 4),
    )


def png_pixels(header: Header) -> np.ndarray:
    """Decode to [H, W, C] as the header says. Raises ImageError for a truncated or damaged file."""
    try:
        pixels = imagecodecs.png_decode(header.path.read_bytes())
    except (imagecodecs.PngError, ValueError, RuntimeError) as error:
        raise ImageError(f"{header.path}: truncated or damaged PNG ({error}).") from error
    return pixels.reshape(header.shape)


def _chunk(path: Path, start: bytes) -> tuple[int, bytes]:
    if len(start) < 8:
        raise ImageError(f"{path}: truncated PNG: the file ends before its pixel data.")
    length, kind = struct.unpack(">I4s", start)
    return length, kind
