"""One `.npz` file of a JSON header and arrays, read without numpy's loader: nothing in it can run or swell."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from protloc_jax.data.durable import write_whole

HEADER = "header"
_TYPES = {np.dtype(t) for t in (np.float64, np.float32, np.int64, np.int32, np.uint64, np.uint8)}


def content_digest(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of a header and arrays: their names, types, shapes and bytes."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        own = np.ascontiguousarray(arrays[name])
        digest.update(f"\n{name} {own.dtype.str} {own.shape}\n".encode())
        digest.update(own.tobytes())
    return digest.hexdigest()


def write(path: Path, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write header and arrays, whole or not at all; the same content gives the same bytes."""
    text = json.dumps({**header, "sha256": content_digest(header, arrays)}, sort_keys=True).encode()
    buffer = io.BytesIO()
    np.savez(buffer, **{HEADER: np.frombuffer(text, np.uint8), **arrays})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header (with its "sha256") and arrays of a file of `write`.

    Raises FileNotFoundError, or ValueError for what is no such file, is packed, holds other types, or was changed.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist.")
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
            packed = [m.filename for m in members if m.compress_type != zipfile.ZIP_STORED]
            if packed:
                raise ValueError(f"members are compressed ({packed[0]}), which no file written here is.")
            found = {m.filename.removesuffix(".npy"): _array(file.read(m)) for m in members}
        header = json.loads(found.pop(HEADER).tobytes())
        written = header.pop("sha256")
        now = content_digest(header, found)
        if now != written:
            raise ValueError(f"its content was changed after writing (SHA-256 {now[:16]}, written {written[:16]}).")
        return {**header, "sha256": written}, found
    except (
        zipfile.BadZipFile,
        RuntimeError,
        OSError,
        EOFError,
        KeyError,
        TypeError,
        AttributeError,
        ValueError,
    ) as error:
        raise ValueError(f"{path}: not a usable file of arrays: {error}") from error


def _array(data: bytes) -> np.ndarray:
    """The array of one member; its size is held against the bytes that are there before anything is made of it."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"arrays of format {version}.")
    shape, fortran, dtype = readers[version](stream)
    if dtype not in _TYPES:
        raise ValueError(f"an array of type {dtype}.")
    rest = data[stream.tell() :]
    size = dtype.itemsize
    for length in shape:
        size *= int(length)
    if size != len(rest) or min(shape, default=0) < 0:
        raise ValueError(f"an array that says {shape} holds {len(rest)} bytes.")
    return np.frombuffer(rest, dtype).reshape(shape, order="F" if fortran else "C")
