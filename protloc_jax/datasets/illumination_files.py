"""Illumination functions given as files: .npy (never pickled) or TIFF, one a plate and channel."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from protloc_jax import images
from protloc_jax.datasets.illumination import Illumination
from protloc_jax.datasets.naming import fill
from protloc_jax.datasets.paths import Confined, PathRefused
from protloc_jax.datasets.problems import Problems

_RANGE = (0.0, 1.0)  # only so that a header of floats is accepted; the values are read as they are


@dataclass(frozen=True)
class Files:
    """Functions from files, by plate. Picklable."""

    paths: dict[str, tuple[Path, ...]]

    def __call__(self, plate: str) -> np.ndarray:
        return np.stack([read_function(path) for path in self.paths[plate]], -1)


def given(folder: Path, pattern: str, plates: Sequence[str], tokens: Sequence[str], problems: Problems) -> Illumination:
    """The functions of some plates. Missing, refused, damaged and unusable files all go to `problems`.

    pattern  such as '{plate}/{plate}_Illum{channel}.npy', below `folder`
    tokens   the word of each channel, in order
    """
    confined = Confined(folder)
    paths: dict[str, tuple[Path, ...]] = {}
    for plate in plates:
        own = []
        for token in tokens:
            try:
                path = confined.locate(fill(pattern, {"plate": plate, "channel": token}))
                assert isinstance(path, Path)
                own.append(path)
            except (PathRefused, FileNotFoundError) as error:
                problems.add("illumination functions", f"plate '{plate}', channel '{token}': {error}")
        paths[plate] = tuple(own)
    return from_files(paths, problems)


def from_files(paths: dict[str, tuple[Path, ...]], problems: Problems) -> Illumination:
    """The functions in some files by plate, one a channel; what cannot be used goes to `problems`."""
    digests: dict[Path, bytes] = {}
    for path in dict.fromkeys(path for own in paths.values() for path in own):
        try:
            digests[path] = hashlib.sha256(read_function(path).tobytes()).digest()
        except (images.ImageError, OSError) as error:
            problems.add("illumination functions", str(error))
    digest = hashlib.blake2b(digest_size=16)
    for plate in sorted(paths):
        digest.update(plate.encode() + b"".join(digests.get(path, b"") for path in paths[plate]))
    return Illumination(Files(paths), digest.hexdigest())


def read_function(path: Path) -> np.ndarray:
    """A function [H, W] float32, finite and positive. Raises ImageError naming the file."""
    try:
        values = _read_npy(path) if path.suffix.lower() == ".npy" else _read_tiff(path)
    except (images.ImageError, OSError):
        raise
    except Exception as error:  # NumPy's header parser alone raises ValueError, SyntaxError, TokenError, ...
        raise images.ImageError(f"{path}: not a readable illumination function ({error}).") from error
    if values.ndim != 2 or values.dtype.kind not in "uif":
        raise images.ImageError(f"{path}: {values.dtype} of shape {values.shape}; an illumination function is [H, W].")
    values = values.astype(np.float32)
    if not np.isfinite(values).all() or values.min() <= 0:
        raise images.ImageError(f"{path}: an illumination function must be finite and positive everywhere.")
    return values


def _read_npy(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"format version {version}")
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = reader(file)
        if dtype.hasobject:
            raise ValueError("it holds Python objects, which are not read")
        wanted = int(np.prod([int(n) for n in shape], dtype=object)) * dtype.itemsize
        if wanted != os.path.getsize(path) - file.tell():
            raise ValueError(f"the header claims {wanted:,} bytes of values, and the file has others")
    return np.load(path, allow_pickle=False)


def _read_tiff(path: Path) -> np.ndarray:
    images.header(path, float_range=_RANGE)  # refuses bombs and damage before anything is decoded
    return np.squeeze(tifffile.imread(path))
