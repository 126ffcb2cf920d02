"""What the JSON files of a Zarr store (format 2 or 3) say, checked before the zarr library sees any of it.

Zarr metadata names the code that decodes: an object type or a pickle codec runs whatever a file holds. Here only plain
numbers and a short list of compressors pass, and no path leads out of the store.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from protloc_jax.images.header import ImageError

MAX_JSON_BYTES = 2**24
COMPRESSORS = ("blosc", "zstd", "gzip", "zlib", "lz4")
_V3_COMPRESSORS = ("blosc", "zstd", "gzip")
_KINDS = {"u": (1, 2, 4), "i": (1, 2, 4), "f": (4, 8)}


@dataclass(frozen=True)
class Packed:
    """How the bytes of one chunk are packed: compressor ('' for none), with a CRC-32C of 4 bytes at the end or not."""

    compressor: str
    checksum: bool = False


@dataclass(frozen=True)
class Shard:
    """A chunk file that holds many small chunks and an index of where each lies."""

    chunks: tuple[int, ...]
    packed: Packed
    index_first: bool
    index_checksum: bool


@dataclass(frozen=True)
class ArrayMetadata:
    """A checked Zarr array.

    chunks  the part of the array that one file holds
    prefix  and `separator`: how the name of a chunk's file is made
    """

    path: Path
    zarr_format: int
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype
    packed: Packed
    shard: Shard | None
    prefix: str
    separator: str

    def chunk_file(self, index: Sequence[int]) -> Path:
        name = self.separator.join(map(str, index))
        return self.path / (f"{self.prefix}{self.separator}{name}" if self.prefix else name)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one decoded chunk file."""
        return math.prod(self.chunks) * self.dtype.itemsize


def group_attributes(path: Path) -> dict[str, Any]:
    """The OME attributes of a Zarr group, from `ome` in format 3 (OME-Zarr 0.5) or all of them in format 2 (0.4).

    Raises ImageError naming the metadata file that is missing, damaged or no group's.
    """
    if (path / "zarr.json").is_file():
        found = read_json(path / "zarr.json")
        if found.get("node_type") != "group":
            raise ImageError(f"{path / 'zarr.json'}: not a Zarr group but a {found.get('node_type')!r}.")
        attributes = _mapping(path / "zarr.json", found.get("attributes", {}), "attributes")
        # 0.5 puts everything under "ome"; some writers of format 3 left the 0.4 keys where they were.
        return _mapping(path / "zarr.json", attributes.get("ome", attributes), "ome")
    if (path / ".zattrs").is_file():
        return read_json(path / ".zattrs")
    raise ImageError(f"{path}: no OME-Zarr metadata (no zarr.json and no .zattrs).")


def array_metadata(path: Path) -> ArrayMetadata:
    """The metadata of a Zarr array. Raises ImageError for all but whole or floating numbers in known packings."""
    if (path / "zarr.json").is_file():
        return _array_v3(path, read_json(path / "zarr.json"))
    if (path / ".zarray").is_file():
        return _array_v2(path, read_json(path / ".zarray"))
    raise ImageError(f"{path}: no Zarr array (no zarr.json and no .zarray).")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ImageError naming the file for anything else, and for files of more than 16 MiB."""
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise ImageError(f"{path}: {size:,} bytes of metadata, more than the limit of {MAX_JSON_BYTES:,}.")
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{path}: damaged metadata, not JSON ({error}).") from error
    return _mapping(path, found, "the file")


def child(root: Path, parent: Path, name: object) -> Path:
    """A member of `parent` that metadata names. Raises ImageError where it is not a folder below `root`."""
    if not isinstance(name, str) or not name or "\0" in name or "\\" in name or Path(name).is_absolute():
        raise ImageError(f"{parent}: its metadata names the member {name!r}; refused.")
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise ImageError(f"{parent}: its metadata names the member {name!r}, which leaves its folder; refused.")
    path = parent / name
    if not path.is_dir():
        raise ImageError(f"{path}: its metadata names this member, and it is not there.")
    real_root, real = os.path.realpath(root), os.path.realpath(path)
    if os.path.commonpath([real_root, real]) != real_root:
        raise ImageError(f"{path}: a link that leaves {root}; refused.")
    return path


def _array_v2(path: Path, found: Mapping[str, Any]) -> ArrayMetadata:
    where = path / ".zarray"
    if (path / ".zattrs").is_file():
        read_json(path / ".zattrs")  # the zarr library reads it too
    dtype = _dtype(where, found.get("dtype"))
    if found.get("filters"):
        raise ImageError(f"{where}: filters {_ids(found['filters'])} are not read; convert the store.")
    compressor = found.get("compressor")
    name = "" if compressor is None else str(_mapping(where, compressor, "compressor").get("id"))
    _check_compressor(where, name, COMPRESSORS)
    shape, chunks = _grid(where, found.get("shape"), found.get("chunks"))
    separator = _separator(where, found.get("dimension_separator", "."))
    return ArrayMetadata(path, 2, shape, chunks, dtype, Packed(name), None, "", separator)


def _array_v3(path: Path, found: Mapping[str, Any]) -> ArrayMetadata:
    where = path / "zarr.json"
    if found.get("node_type") != "array":
        raise ImageError(f"{where}: not a Zarr array but a {found.get('node_type')!r}.")
    if found.get("storage_transformers"):
        raise ImageError(f"{where}: storage transformers are not read; convert the store.")
    dtype = _dtype(where, found.get("data_type"))
    grid, configuration = _named(where, found.get("chunk_grid"))
    if grid != "regular":
        raise ImageError(f"{where}: the chunk grid '{grid}' is not read, only 'regular'.")
    shape, chunks = _grid(where, found.get("shape"), configuration.get("chunk_shape"))
    naming, options = _named(where, found.get("chunk_key_encoding"))
    if naming not in ("default", "v2"):
        raise ImageError(f"{where}: the chunk key encoding '{naming}' is not known.")
    separator = _separator(where, options.get("separator", "/" if naming == "default" else "."))
    codecs = [_named(where, one) for one in _list(where, found.get("codecs"), "codecs")]
    packed, shard = Packed(""), None
    if len(codecs) == 1 and codecs[0][0] == "sharding_indexed":
        shard = _shard(where, codecs[0][1], chunks)
    else:
        packed = _packed(where, codecs)
    return ArrayMetadata(path, 3, shape, chunks, dtype, packed, shard, "c" if naming == "default" else "", separator)


def _shard(where: Path, options: Mapping[str, Any], whole: tuple[int, ...]) -> Shard:
    _, inner = _grid(where, whole, options.get("chunk_shape"))
    if any(n % k for n, k in zip(whole, inner, strict=True)):
        raise ImageError(f"{where}: shards of {whole} do not divide into chunks of {inner}.")
    index = [_named(where, one) for one in _list(where, options.get("index_codecs"), "index_codecs")]
    if [name for name, _ in index] not in (["bytes"], ["bytes", "crc32c"]) or index[0][1].get("endian") == "big":
        raise ImageError(f"{where}: a shard index packed by {_ids([name for name, _ in index])} is not read.")
    packed = _packed(where, [_named(where, one) for one in _list(where, options.get("codecs"), "codecs")])
    return Shard(inner, packed, options.get("index_location", "end") == "start", len(index) == 2)


def _packed(where: Path, codecs: Sequence[tuple[str, Mapping[str, Any]]]) -> Packed:
    """Transposes, then `bytes`, then at most one compressor, then at most one CRC-32C."""
    names = [name for name, _ in codecs]
    rest = list(names)
    while rest and rest[0] == "transpose":
        rest.pop(0)
    plain = bool(rest) and rest.pop(0) == "bytes"
    checksum = bool(rest) and rest[-1] == "crc32c"
    rest = rest[:-1] if checksum else rest
    if not plain or len(rest) > 1:
        raise ImageError(f"{where}: the codecs {_ids(names)} are not read; convert the store.")
    if rest:
        _check_compressor(where, rest[0], _V3_COMPRESSORS)
    return Packed(rest[0] if rest else "", checksum)


def _check_compressor(where: Path, name: str, allowed: Sequence[str]) -> None:
    if name and name not in allowed:
        raise ImageError(
            f"{where}: the compressor '{name}' is not read (only {', '.join(allowed)}); convert the store."
        )


def _dtype(where: Path, name: object) -> np.dtype:
    """A numeric dtype by its text; object, text and structured types are refused without being built."""
    kinds = {f"{'uint' if k == 'u' else 'int' if k == 'i' else 'float'}{8 * n}" for k in _KINDS for n in _KINDS[k]}
    codes = {f"{order}{k}{n}" for k in _KINDS for n in _KINDS[k] for order in ("<>" if n > 1 else "|<>")}
    if not isinstance(name, str) or name not in kinds | codes:
        note = " Arrays of Python objects can hold code and are never read." if "O" in str(name) else ""
        raise ImageError(f"{where}: the data type {name!r} is no whole or floating number.{note}")
    return np.dtype(name)


def _grid(where: Path, shape: object, chunks: object) -> tuple[tuple[int, ...], tuple[int, ...]]:
    whole, parts = _sizes(where, shape, "shape"), _sizes(where, chunks, "chunks")
    if len(whole) != len(parts):
        raise ImageError(f"{where}: {len(whole)} axes but chunks of {len(parts)}.")
    return whole, parts


def _sizes(where: Path, values: object, what: str) -> tuple[int, ...]:
    good = isinstance(values, list | tuple) and 0 < len(values) <= 8
    if not good or any(type(v) is not int or v < 1 for v in values):  # type: ignore[union-attr]
        raise ImageError(f"{where}: {what} {str(values)[:80]}: expected 1 to 8 positive whole numbers.")
    return tuple(values)  # type: ignore[arg-type]


def _separator(where: Path, value: object) -> str:
    if value not in (".", "/"):
        raise ImageError(f"{where}: chunk names separated by {value!r}; expected '.' or '/'.")
    return str(value)


def _named(where: Path, value: object) -> tuple[str, Mapping[str, Any]]:
    """(name, configuration) of an extension point; a bare text is a name without configuration."""
    if isinstance(value, str):
        return value, {}
    found = _mapping(where, value, "an extension")
    return str(found.get("name")), _mapping(where, found.get("configuration", {}), "a configuration")


def _mapping(where: Path, value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ImageError(f"{where}: {what} is {type(value).__name__} where a JSON object is expected.")
    return value


def _list(where: Path, value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ImageError(f"{where}: {what} is {type(value).__name__} where a JSON list is expected.")
    return value


def _ids(values: object) -> str:
    items = values if isinstance(values, list) else [values]
    return ", ".join(str(v.get("id", v) if isinstance(v, dict) else v)[:40] for v in items[:6])
