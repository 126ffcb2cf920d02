"""What a file of weights looks like to the conversion: named tensors that are read when asked for, and facts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np


class WeightsRefused(ValueError):
    """Weights were refused; the message lists everything that is wrong with them at once."""


@dataclass(frozen=True)
class Stored:
    """One tensor of a file: shape, dtype as stored, and `read()` for the C-ordered array."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class WeightFile:
    """A file of weights, opened. `tensors` is flat, levels of a nested checkpoint joined by "/"."""

    path: Path
    kind: Literal["safetensors", "torch", "npz"]
    tensors: Mapping[str, Stored]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def digest(self) -> str:
        """SHA-256 of the file."""
        digest = hashlib.sha256()
        with self.path.open("rb") as stream:
            while piece := stream.read(1 << 22):
                digest.update(piece)
        return digest.hexdigest()


def open_weights(path: str | Path) -> WeightFile:
    """Open a safetensors file, or a folder that holds one."""
    from safetensors import safe_open

    path = Path(path)
    folder = path if path.is_dir() else path.parent
    file = path / "model.safetensors" if path.is_dir() else path
    reader = safe_open(str(file), framework="numpy")
    tensors = {}
    for name in reader.keys():  # noqa: SIM118
        part = reader.get_slice(name)
        kind = {"F32": "float32", "F16": "float16", "F64": "float64", "I64": "int64"}[part.get_dtype()]
        tensors[name] = Stored(tuple(part.get_shape()), np.dtype(kind), lambda name=name: reader.get_tensor(name))
    facts = {}
    if (folder / "config.json").is_file():
        facts["config"] = json.loads((folder / "config.json").read_text())
    return WeightFile(file, "safetensors", tensors, facts)
