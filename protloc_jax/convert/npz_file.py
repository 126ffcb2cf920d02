"""Reading .npz files (big_vision, JAX ViT releases): one array at a time, nothing pickled, no claim taken on trust."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np

from protloc_jax.convert.stored import Stored, WeightFile, WeightsRefused, listed
from protloc_jax.convert.torch_zip import repeated, zip_entries

# Zeros compress a thousandfold, weights hardly. An array of less than this may be all zeros; a larger one that claims
# more than so many times its bytes in the file is refused before memory is asked for.
_FREELY_CLAIMED, _RATIO = 2**28, 100
_LONGEST_TEXT = 2**20
_MOST_AXES = 64
_LONGEST_HEADER = 10_000
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_npz(path: Path) -> WeightFile:
    """The arrays of an .npz file under their own names ("params/img/embedding/kernel"), read when asked for.

    Arrays of two bytes without a meaning ("|V2") are bfloat16, which NumPy cannot name. Text becomes facts. Raises
    WeightsRefused, with all offenders, for arrays of pickled objects or records, for members that are no array, and for
    members that claim over 256 MiB and more than a hundred times their bytes in the file.
    """
    entries = zip_entries(path)
    problems = [f"'{name}' is there twice" for name in repeated([entry.filename for entry in entries])]
    tensors: dict[str, Stored] = {}
    facts: dict[str, Any] = {}
    with zipfile.ZipFile(path) as archive:
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            try:
                shape, dtype, _ = _opened(archive, entry, _header)
                if dtype.kind in "SU":
                    facts[name] = _opened(archive, entry, _text)
                else:
                    tensors[name] = Stored(shape, _native(dtype), _reader(path, entry, shape, _native(dtype)))
            except _Unusable as error:
                problems.append(f"'{entry.filename}' {error}")
    if problems:
        raise WeightsRefused(f"{path}: {listed(problems)}.")
    return WeightFile(path, "npz", tensors, facts, (path,))


_Reads = Callable[[IO[bytes], zipfile.ZipInfo], Any]


class _Unusable(Exception):
    pass


def _reader(path: Path, entry: zipfile.ZipInfo, shape: tuple[int, ...], dtype: np.dtype) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        try:
            with zipfile.ZipFile(path) as archive:
                array = _opened(archive, entry, _array)
        except _Unusable as error:
            raise WeightsRefused(f"{path}: '{entry.filename}' {error}.") from error
        # As in `zip_entries`; the file has changed since it was opened.
        except Exception as error:
            raise WeightsRefused(f"{path} cannot be read any more: {error}.") from error
        if array.shape != shape or array.dtype != dtype:
            raise WeightsRefused(f"{path}: '{entry.filename}' is not what it was when the file was opened.")
        return array

    return read


def _opened(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, function: _Reads) -> Any:
    """What `function` makes of a member. Raises _Unusable."""
    if not entry.filename.endswith(".npy"):
        raise _Unusable("is no array (.npy)")
    if entry.compress_type not in _COMPRESSIONS or entry.flag_bits & 1:
        raise _Unusable("is encrypted or compressed in another way than NumPy does")
    try:
        with archive.open(entry) as member:
            return function(member, entry)
    except _Unusable:
        raise
    # A damaged member shows as BadZipFile, zlib.error, EOFError, ValueError, struct.error, NotImplementedError, ...
    except Exception as error:
        raise _Unusable(f"is damaged or cut ({str(error)[:200]})") from error


def _header(member: IO[bytes], entry: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype, bool]:
    """(shape, dtype, Fortran order), as far as they are to be believed, leaving the member before its first element."""
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(member, max_header_size=_LONGEST_HEADER)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(member, max_header_size=_LONGEST_HEADER)
    else:
        raise _Unusable(f"is of version {version} of the .npy format, which only records have")
    if len(shape) > _MOST_AXES or not all(0 <= n < 2**62 for n in shape):
        raise _Unusable("has a shape that no array can have")
    shape = tuple(int(n) for n in shape)
    _check(entry, shape, dtype)
    return shape, dtype, fortran


def _array(member: IO[bytes], entry: zipfile.ZipInfo) -> np.ndarray:
    shape, dtype, fortran = _header(member, entry)
    data = np.empty(math.prod(shape) * dtype.itemsize, np.uint8)
    at = 0
    while at < len(data) and (given := member.readinto(memoryview(data)[at : at + 2**24])):  # type: ignore[attr-defined]
        at += given
    # The end of a member is where its checksum is compared.
    if at < len(data) or member.read(1):
        raise _Unusable("has another length than its header says")
    array = data.view(dtype).reshape(shape, order="F" if fortran else "C")
    if dtype == np.dtype("V2"):
        array = array.view(ml_dtypes.bfloat16)
    return np.ascontiguousarray(array).astype(_native(dtype), copy=False).reshape(shape)


def _text(member: IO[bytes], entry: zipfile.ZipInfo) -> Any:
    """Text as Python has it, nested as the array is."""
    return _array(member, entry).astype(np.str_).tolist()


def _check(entry: zipfile.ZipInfo, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if dtype.hasobject:
        raise _Unusable("is an array of pickled objects, which only running code could read")
    if dtype.kind not in "biufcSU" and dtype != np.dtype("V2"):
        raise _Unusable(f"is of type {dtype}, no numbers")
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > entry.file_size:
        raise _Unusable(f"should have {claimed:,} bytes and has fewer")
    if dtype.kind in "SU" and claimed > _LONGEST_TEXT:
        raise _Unusable(f"is text of {claimed:,} bytes")
    if claimed > _FREELY_CLAIMED and claimed > _RATIO * max(entry.compress_size, 1):
        raise _Unusable(f"claims {claimed:,} bytes out of {entry.compress_size:,} in the file")


def _native(dtype: np.dtype) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16) if dtype == np.dtype("V2") else dtype.newbyteorder("=")
