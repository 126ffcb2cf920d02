"""The paper's two filters of single-cell crops, with counts of what they drop.

Source: Gupta, Moses and Lu (PMLR 311, 2025), section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np


class Filtered(NamedTuple):
    """Which crops stay [N] bool, and how many each filter drops; `both` counts crops that both would drop."""

    kept: np.ndarray
    dropped: dict[str, int]


def intensity_floor(
    fields: Iterable[np.ndarray], *, percentile: float = 5.0, per: Literal["pixel", "image"] = "pixel"
) -> float:
    """The percentile of the protein channel over full fields, each [H, W].

    per   distribution of all pixels, or of the fields' means: the paper does not say which
    Pixels of unsigned integers up to 16 bits are counted, not kept, so any number of fields fits in memory. Linear
    interpolation, as numpy.percentile. Raises ValueError without fields, or for another `per`.
    """
    if per not in ("pixel", "image"):
        raise ValueError(f"per='{per}': pixel or image.")
    counts = np.zeros(1 << 16, np.int64)
    values: list[np.ndarray] = []
    for field in fields:
        if per == "image":
            values.append(np.array([field.mean(dtype=np.float64)]))
        elif field.dtype in (np.uint8, np.uint16):
            counts += np.bincount(field.ravel(), minlength=1 << 16)
        else:
            values.append(np.asarray(field, np.float64).ravel())
    if counts.any() and values:
        raise ValueError("fields of integers and of floating point together: give one kind.")
    if values:
        return float(np.percentile(np.concatenate(values), percentile))
    if not counts.any():
        raise ValueError("no field to take a percentile of.")
    place = (counts.sum() - 1) * percentile / 100
    low, high = np.searchsorted(np.cumsum(counts), [np.floor(place), np.ceil(place)], side="right")
    return float(low + (high - low) * (place - np.floor(place)))


def filter_crops(
    images: np.ndarray,
    masks: np.ndarray,
    *,
    floor: float,
    channel: int = 0,
    min_coverage: float = 0.05,
    max_coverage: float = 0.95,
) -> Filtered:
    """Drop dim crops and those whose cell covers too little or too much.

    images  [N, H, W, C], compared with `floor` (see `intensity_floor`) by the mean of `channel`, the protein's
    masks   [N, H, W] uint8, 1 = the cell
    Dropped: mean below the floor (dim); coverage below min_coverage (small) or above max_coverage (large).
    """
    dim = images[..., channel].mean((1, 2), dtype=np.float64) < floor
    coverage = (masks == 1).mean((1, 2))
    small, large = coverage < min_coverage, coverage > max_coverage
    counts = {"dim": dim, "small": small, "large": large, "both": dim & (small | large)}
    return Filtered(~(dim | small | large), {name: int(which.sum()) for name, which in counts.items()})
