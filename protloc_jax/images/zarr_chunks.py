"""Chunk files of a Zarr array, checked one by one before a decoder sees them.

Decoders allocate what a chunk claims to hold, and inflate gzip data to its end. Here a chunk must hold exactly what the
array's metadata says, found out from its first bytes or, for gzip and zlib, by inflating no further than that.
"""

from __future__ import annotations

import itertools
import math
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from protloc_jax.images.header import ImageError
from protloc_jax.images.zarr_metadata import ArrayMetadata, Packed, Shard

MAX_CHUNKS = 2**20
_SHOWN = 4
_ABSENT = 2**64 - 1
_WBITS = {"gzip": 31, "zlib": 15}

Region = tuple[slice, ...]


def check_present(array: ArrayMetadata, region: Region, *, fill: bool) -> None:
    """Every chunk file of `region` is there (unless `fill`) and of a believable size. Raises ImageError naming them."""
    missing: list[str] = []
    for _, path in _chunks_of(array, region):
        size = _size(path)
        if size is None:
            missing.append(str(path))
        elif size > _most_bytes(array):
            raise ImageError(
                f"{path}: {size:,} bytes for a chunk of {array.chunk_bytes:,} unpacked bytes: damaged, or another's."
            )
        if len(missing) > _SHOWN:
            break
    if missing and not fill:
        more = " and more" if len(missing) > _SHOWN else ""
        raise ImageError(
            f"{array.path}: missing chunk(s) {', '.join(missing[:_SHOWN])}{more}. Writers may leave out chunks that "
            "hold the fill value only: missing_chunks=fill reads them so."
        )


def read_region(array: ArrayMetadata, region: Region, *, fill: bool) -> np.ndarray:
    """The pixels of `region`, chunk by chunk. Raises ImageError naming the chunk file that cannot be decoded."""
    import zarr
    import zarr.storage

    out = np.empty([s.stop - s.start for s in region], array.dtype.newbyteorder("="))
    try:
        store = zarr.storage.LocalStore(array.path, read_only=True)
        opened: Any = zarr.open_array(store=store, mode="r", zarr_format=2 if array.zarr_format == 2 else 3)
    except Exception as error:  # the library raises many kinds; the file is what they have in common
        raise ImageError(f"{array.path}: damaged Zarr array ({error}).") from error
    for index, path in _chunks_of(array, region):
        check_chunk(array, index, fill=fill)
        part = tuple(
            slice(max(s.start, i * n), min(s.stop, (i + 1) * n))
            for s, i, n in zip(region, index, array.chunks, strict=True)
        )
        target = tuple(slice(p.start - s.start, p.stop - s.start) for p, s in zip(part, region, strict=True))
        try:
            out[target] = opened[part]
        except Exception as error:
            raise ImageError(f"{path}: damaged chunk, or packed by another codec ({error}).") from error
    return out


def check_chunk(array: ArrayMetadata, index: tuple[int, ...], *, fill: bool) -> None:
    """Raise ImageError naming the file of a chunk that is missing or does not unpack to its size."""
    path = array.chunk_file(index)
    if _size(path) is None:
        if fill:
            return
        raise ImageError(f"{path}: missing chunk.")
    data = path.read_bytes()
    if array.shard is None:
        problem = _problem(data, array.packed, array.chunk_bytes)
    else:
        problem = _shard_problem(data, array, array.shard, index, fill=fill)
    if problem:
        raise ImageError(f"{path}: damaged chunk, or packed by another codec: {problem}.")


def _chunks_of(array: ArrayMetadata, region: Region) -> Iterator[tuple[tuple[int, ...], Path]]:
    ranges = [range(s.start // n, -(-s.stop // n)) for s, n in zip(region, array.chunks, strict=True)]
    count = math.prod(map(len, ranges))
    if count > MAX_CHUNKS:
        raise ImageError(f"{array.path}: {count:,} chunks for one image, more than the limit of {MAX_CHUNKS:,}.")
    for index in itertools.product(*ranges):
        yield index, array.chunk_file(index)


def _size(path: Path) -> int | None:
    """Bytes of a chunk file, None where there is none. Raises ImageError for links and folders."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(found.st_mode):
        raise ImageError(f"{path}: a chunk that is not a regular file; refused.")
    return found.st_size


def _most_bytes(array: ArrayMetadata) -> int:
    """No packing makes data an eighth larger; indices of shards take 16 bytes a chunk."""
    inner = math.prod(array.chunks) // math.prod(array.shard.chunks) if array.shard else 1
    return array.chunk_bytes + array.chunk_bytes // 8 + 64 * inner + 1024


def _problem(data: bytes, packed: Packed, expected: int) -> str:
    """Why the bytes of a chunk do not unpack to `expected` bytes, or ''."""
    if packed.checksum:
        if len(data) < 4:
            return f"{len(data)} bytes"
        data = data[:-4]
    try:
        claimed = _claimed(data, packed.compressor, expected)
    except (struct.error, zlib.error, zstandard.ZstdError, ValueError) as error:
        return str(error) or type(error).__name__
    return "" if claimed == expected else f"it holds {claimed:,} bytes where {expected:,} belong"


def _claimed(data: bytes, compressor: str, expected: int) -> int:
    """Bytes that a chunk would unpack to; counted no further than one more than expected."""
    if not compressor:
        return len(data)
    if compressor == "blosc":
        claimed, packed = struct.unpack_from("<I", data, 4)[0], struct.unpack_from("<I", data, 12)[0]
        if packed != len(data):
            raise ValueError(f"{len(data):,} bytes where its header says {packed:,}")
        return claimed
    if compressor == "lz4":
        return struct.unpack_from("<I", data)[0]
    if compressor == "zstd":
        claimed = zstandard.frame_content_size(data)
        if claimed >= 0:
            return claimed
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as stream:
            return len(stream.read(expected + 1))
    total = 0
    while data:
        inflater = zlib.decompressobj(_WBITS[compressor])
        total += len(inflater.decompress(data, expected - total + 1))
        if total > expected:
            break
        if not inflater.eof:
            raise ValueError("truncated")
        data = inflater.unused_data
    return total


def _shard_problem(data: bytes, array: ArrayMetadata, shard: Shard, at: tuple[int, ...], *, fill: bool) -> str:
    """Why the shard `at` cannot be unpacked: its index, or one of the chunks in it; '' where it can."""
    grid = tuple(n // k for n, k in zip(array.chunks, shard.chunks, strict=True))
    count = math.prod(grid)
    length = 16 * count
    whole = length + 4 * shard.index_checksum
    if len(data) < whole:
        return f"{len(data)} bytes, too short for its index of {count} chunks"
    index = data[:length] if shard.index_first else data[len(data) - whole : len(data) - whole + length]
    expected = math.prod(shard.chunks) * array.dtype.itemsize
    for number, (start, size) in enumerate(np.frombuffer(index, "<u8").reshape(-1, 2).tolist()):
        if start == size == _ABSENT:
            inside = zip(at, array.chunks, np.unravel_index(number, grid), shard.chunks, array.shape, strict=True)
            if fill or any(a * n + int(g) * k >= end for a, n, g, k, end in inside):
                continue  # chunks beyond the array's end need not be there
            return f"chunk {number} of the shard is absent (missing_chunks=fill reads the fill value)"
        if start + size > len(data):
            return f"chunk {number} of the shard lies beyond the file's end"
        problem = _problem(data[start : start + size], shard.packed, expected)
        if problem:
            return f"chunk {number} of the shard: {problem}"
    return ""
