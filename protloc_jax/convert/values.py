"""Moving values: stored tensors straight into the leaves of a tree, one at a time, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from protloc_jax.convert.check import listed
from protloc_jax.convert.rules import Place, Shape, put
from protloc_jax.convert.weight_file import Stored, WeightsRefused
from protloc_jax.train.digest import nested

FLOATS = ("float32", "float16", "bfloat16", "float64")
CHUNK = 1 << 20  # numbers looked at together when a tensor is searched for what is not finite


def kinds(tensors: Mapping[str, Stored]) -> list[str]:
    """Names of tensors that hold no floating-point numbers, with their dtype."""
    return [f"{name}: {t.dtype}" for name, t in tensors.items() if np.dtype(t.dtype).name not in FLOATS]


def filled(
    shapes: Mapping[str, Shape], wanted: Mapping[str, tuple[Place, Shape]], tensors: Mapping[str, Stored]
) -> tuple[dict, list[str]]:
    """(nested tree of float32 leaves, names of float64 tensors that lost digits).

    One tensor is read at a time and written into its place, so that the memory is that of the tree. Half precision is
    widened without loss; float64 is rounded to the nearest float32. Raises WeightsRefused naming every tensor that
    holds NaN or infinite values, those too large for float32 among them.
    """
    leaves = {path: _empty(shape) for path, shape in shapes.items()}
    faults, rounded = [], []
    for name, (place, _) in wanted.items():
        stored = tensors[name].read()
        leaf = leaves[place.rule.target]
        into = leaf[place.block] if place.block >= 0 else leaf
        bad = not_finite(stored)
        if stored.dtype == np.float64:
            with np.errstate(over="ignore"):
                narrow = stored.astype(np.float32)
            bad = bad or not_finite(narrow)
            if not bad and (narrow.astype(np.float64) != stored).any():
                rounded.append(name)
            stored = narrow
        if bad:
            faults.append(f"{name}: {bad} of {stored.size} values are NaN or infinite")
        else:
            put(place.rule, place.part, stored, into)
    if faults:
        raise WeightsRefused(f"{len(faults)} tensors hold values that are not finite:\n  {listed(faults)}")
    return nested(leaves), rounded


def not_finite(array: np.ndarray) -> int:
    """How many values are NaN or infinite."""
    flat = array.reshape(-1)
    return sum(int(np.count_nonzero(~np.isfinite(flat[start : start + CHUNK]))) for start in range(0, flat.size, CHUNK))


def _empty(shape: Shape) -> np.ndarray:
    """An array whose memory a CPU's jax can take as it is, instead of copying it: it must begin at a multiple of 64."""
    count = math.prod(shape)
    room = np.empty(4 * count + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + 4 * count].view(np.float32).reshape(shape)
