"""What a file of foreign weights gives: named tensors that are read when asked for, and plain facts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

Kind = Literal["safetensors", "torch", "npz"]


class WeightsRefused(ValueError):
    """A file of weights is damaged, unsafe, or not what it is said to be; the message names file and fault."""


@dataclass(frozen=True)
class Stored:
    """One tensor of a file, not read yet. `read` gives a new array of `shape` and `dtype` (native order, C order).

    bfloat16 is `ml_dtypes.bfloat16`. `read` raises WeightsRefused where the bytes are not what the file promised.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray] = field(repr=False)


@dataclass(frozen=True)
class WeightFile:
    """Tensors and facts of one file, or of the shards of one index.

    tensors: flat; the levels of a nested torch checkpoint are joined by "/" ("teacher/backbone.cls_token").
    facts:   JSON-able: "config" (config.json), "metadata" (header of a safetensors file or index), and whatever a torch
             checkpoint holds beside tensors, nested as it is there ("args", "epoch", ...).
    files:   what holds the tensors: the one file, or the index and then its shards by name.
    """

    path: Path
    kind: Kind
    tensors: Mapping[str, Stored]
    facts: Mapping[str, Any]
    files: tuple[Path, ...] = ()

    def digest(self) -> str:
        """SHA-256 in hex: of the file, or for shards of the lines `sha256sum INDEX SHARD...` prints in their folder.

        A config.json beside them is no part of it. The files are read in pieces.
        """
        files = self.files or (self.path,)
        each = [_sha256(file) for file in files]
        if len(files) == 1:
            return each[0]
        lines = "".join(f"{digest}  {file.name}\n" for digest, file in zip(each, files, strict=True))
        return hashlib.sha256(lines.encode()).hexdigest()


def listed(items: list[str], most: int = 20) -> str:
    """Offenders on one line, at most twenty of them and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
