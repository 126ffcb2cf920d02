"""Reading .safetensors files: the library checks the header, a tensor is read when asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from protloc_jax.convert.stored import Stored, WeightFile, WeightsRefused, listed

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
    "C64": np.dtype(np.complex64),
}


def read_safetensors(path: Path) -> WeightFile:
    """The tensors of one .safetensors file by name, and its header's `__metadata__` as facts["metadata"].

    Raises WeightsRefused for a file that is cut or longer than its header says, whose offsets overlap or leave gaps, or
    with tensors of a type that NumPy has no equal of (eight bits and fewer); all of these are named.
    """
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata()
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            described = {name: (one.get_dtype(), tuple(one.get_shape())) for name, one in slices.items()}
    except SafetensorError as error:
        raise WeightsRefused(f"{path} is no whole .safetensors file: {error}.") from error
    foreign = [f"{name} ({dtype})" for name, (dtype, _) in sorted(described.items()) if dtype not in DTYPES]
    if foreign:
        raise WeightsRefused(
            f"{path} holds tensors of types that are not read here: {listed(foreign)}. Supported: {', '.join(DTYPES)}."
        )
    tensors = {
        name: Stored(shape, DTYPES[dtype], _reader(path, name, shape, DTYPES[dtype]))
        for name, (dtype, shape) in described.items()
    }
    facts: dict[str, Any] = {"metadata": dict(metadata)} if metadata else {}
    return WeightFile(path, "safetensors", tensors, facts, (path,))


def _reader(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        # Opened anew for every tensor: no handle stays open, and the header is checked against the file as it is now.
        try:
            with safe_open(path, "numpy") as file:
                array = file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise WeightsRefused(f"{path}: '{name}' cannot be read: {error}.") from error
        if array.shape != shape or array.dtype != dtype:
            raise WeightsRefused(f"{path}: '{name}' is not what it was when the file was opened.")
        return array

    return read
