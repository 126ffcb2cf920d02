"""One record: a small header and one compressed frame a channel, so that a channel subset decodes only its own frames.

    "PLJ1", bytes a sample (1 or 2), filter, flags (1 = mask), 0, channels, height, width, record index,
    length of each frame, crc32 of everything so far; then the frames: channels in order, mask last.

Frames are zstd with its own content checksum, so every read is checked at almost no cost. 8-bit planes are stored as
differences along the row (an HPA field of view: 0.51 instead of 0.62 of raw, for 0.2 ms more a 4x512x512 image; on
noisier simulated cells both give 0.65), 16-bit planes with low and high bytes apart (an OpenCell field: 0.64 instead of
0.72, and faster both ways). Differences are at level 1 as small as at level 3, in half the time (HPA fields 0.248 and
0.254 of raw, HPA cells 0.618 and 0.623, nuclei of DSB 2018 0.364 and 0.366); 16-bit planes gain by level 3 (Cell
Painting 0.598 instead of 0.611).
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Sequence

import imagecodecs
import numpy as np
import zstandard

CODECS = {"uint8": "planes-delta-zstd1", "uint16": "planes-shuffle-zstd3"}
DTYPES = {"uint8": np.dtype(np.uint8), "uint16": np.dtype(np.uint16)}

_MAGIC = b"PLJ1"
_HEAD = struct.Struct("<4sBBBBIIIQ")
_DELTA, _SHUFFLE = 1, 2
_local = threading.local()  # zstd contexts must not be shared between threads


class RecordError(ValueError):
    """A record's bytes are damaged, or are not what the data set says they are."""


def encode(pixels: np.ndarray, index: int, mask: np.ndarray | None = None) -> bytes:
    """The bytes of record `index`: `pixels` [H, W, C] uint8 or uint16, and optionally `mask` [H, W] uint8.

    Equal input gives equal bytes (same zstd version). The caller has checked shapes and types.
    """
    height, width, channels = pixels.shape
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    wide = pixels.dtype == np.uint16
    frames = [
        _compress(_shuffle(plane), 3) if wide else _compress(imagecodecs.delta_encode(plane, axis=1), 1)
        for plane in planes
    ]
    if mask is not None:
        frames.append(_compress(np.ascontiguousarray(mask, np.uint8), 3))
    head = _HEAD.pack(
        _MAGIC,
        pixels.dtype.itemsize,
        _SHUFFLE if wide else _DELTA,
        int(mask is not None),
        0,
        channels,
        height,
        width,
        index,
    )
    head += struct.pack(f"<{len(frames)}I", *map(len, frames))
    return b"".join([head, struct.pack("<I", zlib.crc32(head)), *frames])


def decode(data: bytes, channels: Sequence[int] | None = None, *, index: int, out: np.ndarray | None = None):
    """Pixels [H, W, C] of a record, or of the chosen channels in the order asked, written to `out` where given.

    Raises RecordError when the header, a checksum, the record's own index or the shape of `out` does not fit.
    """
    header = Header(data, index)
    chosen = range(header.channels) if channels is None else channels
    shape = (header.height, header.width, len(chosen))
    if out is None:
        out = np.empty(shape, header.dtype)
    elif out.shape != shape or out.dtype != header.dtype:
        raise RecordError(f"holds {shape} {header.dtype} where {out.shape} {out.dtype} was expected.")
    absent = [channel for channel in chosen if not 0 <= channel < header.channels]
    if absent:
        raise RecordError(f"has {header.channels} channels; there is no channel {absent[0]}.")
    for slot, channel in enumerate(chosen):
        header.plane_into(channel, out[..., slot])
    return out


def decode_mask(data: bytes, *, index: int) -> np.ndarray:
    """The mask [H, W] uint8 of a record. Raises RecordError where it is damaged or has none."""
    header = Header(data, index)
    if not header.has_mask:
        raise RecordError("has no mask.")
    raw = header.frame(header.channels, header.height * header.width)
    return np.frombuffer(raw, np.uint8).reshape(header.height, header.width).copy()


class Header:
    """The checked header of a record: shape, type and where each frame lies."""

    def __init__(self, data: bytes, index: int):
        self.data = data
        if len(data) < _HEAD.size or data[:4] != _MAGIC:
            raise RecordError("is not an image record of this format.")
        _, size, self.filter, flags, _, self.channels, self.height, self.width, found = _HEAD.unpack_from(data)
        self.has_mask = bool(flags & 1)
        count = self.channels + self.has_mask
        end = _HEAD.size + 4 * count
        if len(data) < end + 4 or zlib.crc32(data[:end]) != struct.unpack_from("<I", data, end)[0]:
            raise RecordError("has a damaged header.")
        if found != index:
            raise RecordError(f"says that it is record {found}.")
        lengths = struct.unpack_from(f"<{count}I", data, _HEAD.size)
        self.starts = np.concatenate([[end + 4], end + 4 + np.cumsum(lengths, dtype=np.int64)]).tolist()
        if self.starts[-1] != len(data):
            raise RecordError(f"is {len(data)} bytes long, its header says {self.starts[-1]}.")
        self.dtype = DTYPES["uint8" if size == 1 else "uint16"]

    def frame(self, number: int, size: int) -> bytes:
        data = self.data[self.starts[number] : self.starts[number + 1]]
        try:
            # The size is checked before anything is allocated for it.
            if zstandard.frame_content_size(data) != size:
                raise RecordError(f"frame {number} does not hold {size} bytes.")
            return _decompressor().decompress(data)
        except zstandard.ZstdError as error:
            raise RecordError(f"frame {number} is damaged ({error}).") from error

    def plane_into(self, channel: int, out: np.ndarray) -> None:
        shape = (self.height, self.width)
        raw = self.frame(channel, self.height * self.width * self.dtype.itemsize)
        if self.filter == _DELTA:
            imagecodecs.delta_decode(np.frombuffer(raw, np.uint8).reshape(shape), axis=1, out=out)
        elif self.filter == _SHUFFLE:
            low, high = np.frombuffer(raw, np.uint8).reshape(2, *shape)
            np.left_shift(high, 8, out=out, dtype=np.uint16)
            np.bitwise_or(out, low, out=out)
        else:
            raise RecordError(f"uses the unknown filter {self.filter}.")


def _shuffle(plane: np.ndarray) -> np.ndarray:
    """[2, H, W] uint8: the low bytes, then the high bytes."""
    return np.stack([plane.astype(np.uint8), (plane >> 8).astype(np.uint8)])


def _compress(array: np.ndarray, level: int) -> bytes:
    if not hasattr(_local, "compressors"):
        _local.compressors = {n: zstandard.ZstdCompressor(level=n, write_checksum=True) for n in (1, 3)}
    return _local.compressors[level].compress(array.data if array.flags.c_contiguous else array.tobytes())


def _decompressor() -> zstandard.ZstdDecompressor:
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    return _local.decompressor
