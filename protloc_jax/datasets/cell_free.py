"""Patches without cells: a grid over a field, kept away from every cell's centre, and crops whose mask is empty.

Source: Gupta, Moses and Lu (PMLR 311, 2025), appendix D.1. Single-cell crops always show their cell, so patches come
from fields with label images (`free_patches` makes records of them).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import ndimage

from protloc_jax.config import ConfigError, check_literals, opt


@dataclass(frozen=True)
class CellFreeConfig:
    """Where cell-free patches lie."""

    size: int = opt(64, "side of a patch, pixels (published)")
    stride: int = opt(32, "step of the grid, pixels (published)")
    distance: float = opt(50.0, "patches whose centre is nearer to a cell's centroid are dropped, pixels (published)")
    border: int = opt(
        0, "pixels at the field's border that no patch touches; the paper excludes borders, width unknown"
    )
    min_variance: float = opt(
        0.0, "patches of smaller pixel variance are dropped; the paper's value is unknown, 0 = none"
    )
    max_variance: float = opt(
        float("inf"), "patches of larger pixel variance are dropped; whether the paper cuts above or below is unknown"
    )
    near: Literal["drop", "remove"] = opt(
        "drop",
        "patches that are too near to cells: drop them, or (simulated fields, which are dense) remove those cells, and "
        "all that reach into the patch, and render the field without them",
    )
    labelled: Literal["allow", "drop"] = opt(
        "allow",
        "patches that pass but hold pixels of a cell: allow (published rule; their mask is 2 there), or drop",
    )
    most: int = opt(0, "most patches of one field, drawn by seed, field and place; 0 = all")
    seed: int = opt(0, "seed of most")

    def __post_init__(self) -> None:
        check_literals(self)
        least = {"size": 1, "stride": 1, "distance": 0, "border": 0, "most": 0}
        low = [f"{k}={getattr(self, k)}: at least {least[k]}." for k in least if getattr(self, k) < least[k]]
        if low:
            raise ConfigError(" ".join(low))


class FreePatches(NamedTuple):
    """Patches kept of one field: their upper left corners [n, 2] (row, column), and how many each rule dropped."""

    corners: np.ndarray
    dropped: dict[str, int]


def free_corners(labels: np.ndarray, image: np.ndarray, config: CellFreeConfig, *, channel: int = 0) -> FreePatches:
    """Corners of the cell-free patches of a field.

    labels   [H, W] integer label image, 0 = no cell
    image    [H, W, C]; the variance is that of `channel`, the protein's
    A patch is too near where the middle of its pixels lies at less than `distance` from a cell's centroid.
    The rules apply in this order: near, labelled, variance; a patch is counted under the first that drops it.
    """
    corners = grid(labels.shape, config)
    names = np.unique(labels[labels > 0])
    kept = np.ones(len(corners), bool)
    dropped: dict[str, int] = {}

    def drop(reason: str, bad: Any) -> None:
        dropped[reason] = int((kept & bad).sum())
        kept[bad] = False

    # In coordinates of pixel centres, as the centroids are.
    middles = corners + (config.size - 1) / 2
    near = np.zeros(len(corners), bool)
    if len(names):
        centres = np.array(ndimage.center_of_mass(labels > 0, labels, names))
        for start in range(0, len(corners), 1024):
            away = np.linalg.norm(middles[start : start + 1024, None] - centres[None], axis=-1)
            near[start : start + 1024] = (away < config.distance).any(1)
    drop("near", near)
    if config.labelled == "drop":
        drop("labelled", cut(labels[..., None] > 0, corners, config.size).any((1, 2, 3)))
    variance = cut(image[..., channel : channel + 1], corners, config.size).astype(np.float64).var((1, 2, 3))
    drop("variance", (variance < config.min_variance) | (variance > config.max_variance))
    return FreePatches(corners[kept], dropped)


def grid(shape: tuple[int, ...], config: CellFreeConfig) -> np.ndarray:
    """Upper left corners [n, 2] of all candidates in a field of this height and width."""
    rows, columns = (
        np.arange(config.border, side - config.border - config.size + 1, config.stride) for side in shape[:2]
    )
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)


def in_the_way(labels: np.ndarray, corner: np.ndarray, config: CellFreeConfig) -> np.ndarray:
    """Labels of the cells that reach into a patch, or whose centroid is nearer than `distance` to its middle."""
    (top, left), size = corner, config.size
    names = np.unique(labels[labels > 0])
    if not len(names):
        return names
    centres = np.array(ndimage.center_of_mass(labels > 0, labels, names))
    near = np.linalg.norm(centres - (np.asarray(corner) + (size - 1) / 2), axis=1) < config.distance
    return names[near | np.isin(names, labels[top : top + size, left : left + size])]


def cut(image: np.ndarray, corners: np.ndarray, size: int) -> np.ndarray:
    """The patches [n, size, size, C] of an image [H, W, C] at corners [n, 2]."""
    rows = corners[:, 0, None] + np.arange(size)
    columns = corners[:, 1, None] + np.arange(size)
    return image[rows[:, :, None], columns[:, None, :]]


def free_rows(masks: np.ndarray) -> np.ndarray:
    """Rows [n] of the crops whose mask [N, H, W] holds neither the cell (1) nor others (2)."""
    return np.flatnonzero(~(masks != 0).any((1, 2)))
