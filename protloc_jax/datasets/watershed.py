"""Nuclei and cells without masks: smoothing, Otsu's threshold, seeds and a watershed (scikit-image).

A plain method for well-separated stains, to begin with. Where cells overlap or stains are weak, a trained segmenter
(Cellpose, StarDist, HPA-Cell-Segmentation) draws better masks; give those as label images instead.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import ndimage

from protloc_jax.channels import ChannelSet
from protloc_jax.config import ConfigError, check_literals, nearest, opt
from protloc_jax.datasets.cell_shapes import pieces_of
from protloc_jax.datasets.lengths import length

# What fills a cell comes before what only outlines or threads it.
_CELL_ROLES = ("cytosol", "rna", "microtubules", "er", "actin", "membrane", "mitochondria")
_SMALLEST = 12  # pixels; specks below are no seed for the diameter's estimate


class SegmentationUnavailable(ConfigError):
    """scikit-image is not installed."""


@dataclass(frozen=True)
class SegmentConfig:
    """How to find nuclei, and cells around them, where there are no label images.

    Raises ConfigError naming every value that cannot be.
    """

    segment: Literal["none", "nuclei", "cells"] = opt(
        "none", "without label images: nuclei, or cells (seeded by the nuclei), found by a watershed (extra 'segment')"
    )
    nucleus_channel: str = opt("", "channel to find nuclei in; empty = the one with the role nucleus")
    cell_channel: str = opt(
        "", f"channel to find cells in; empty = the first with the role {', '.join(_CELL_ROLES[:-1])} or mitochondria"
    )
    nucleus_diameter: str = opt("0", "usual diameter of a nucleus, '40' pixels or '12um'; 0 = estimated in each field")
    seeds: Literal["distance", "intensity"] = opt(
        "distance", "one seed a nucleus from its shape (distance to the edge) or from its brightest spot"
    )
    seed_distance: float = opt(0.35, "least distance of two seeds, as a share of the diameter")
    smooth: float = opt(0.03, "sigma of the smoothing before thresholds, as a share of the diameter")
    nucleus_threshold: float = opt(0.8, "factor on Otsu's threshold of the nucleus channel, above the background")
    cell_threshold: float = opt(0.2, "factor on Otsu's threshold of the cell channel, above the background")
    threshold_from: Literal["background", "zero"] = opt(
        "background",
        "what the factors count from: the background (the median of what lies below Otsu's threshold), or 0",
    )
    cell_reach: float = opt(2.0, "cells end this far from their nucleus, in nucleus diameters")

    def __post_init__(self) -> None:
        check_literals(self)
        problems = []
        try:
            length(self.nucleus_diameter)
        except ConfigError as error:
            problems.append(f"nucleus_diameter: {error}")
        for name, least, most in (
            ("seed_distance", 0.05, 5),
            ("smooth", 0, 1),
            ("nucleus_threshold", 0.05, 20),
            ("cell_threshold", 0.05, 20),
            ("cell_reach", 0.1, 100),
        ):
            if not least <= getattr(self, name) <= most:
                problems.append(f"{name}={getattr(self, name)}: between {least:g} and {most:g}.")
        if problems:
            raise ConfigError("\n  ".join(problems))

    def diameter(self, um_per_pixel: float | None) -> float:
        """The given diameter in pixels; 0 = to be estimated. DatasetError where it needs an unknown pixel size."""
        return length(self.nucleus_diameter).pixels(um_per_pixel, "nucleus_diameter")

    def planes(self, channels: ChannelSet, *, nuclei_given: bool) -> tuple[int | None, int | None]:
        """Positions of the nucleus and the cell channel, None for one that is not needed.

        Raises ConfigError with the nearest name, or where no channel has a fitting role.
        """
        nucleus = None
        if not nuclei_given:
            nucleus = _channel(channels, self.nucleus_channel, ("nucleus",), "nucleus_channel")
        if self.segment != "cells":
            return nucleus, None
        return nucleus, _channel(channels, self.cell_channel, _CELL_ROLES, "cell_channel")


def _channel(channels: ChannelSet, name: str, roles: tuple[str, ...], key: str) -> int:
    if name:
        if name not in channels.names:
            raise ConfigError(
                f"{key}: no channel '{name}'.{nearest(name, channels.names)} Channels: {', '.join(channels.names)}."
            )
        return channels.names.index(name)
    for role in roles:
        if channels.with_role(role):
            return channels.with_role(role)[0]
    raise ConfigError(f"{key}: no channel has the role {' or '.join(roles)} ({channels}); name one.")


def segment_nuclei(plane: np.ndarray, config: SegmentConfig, *, um_per_pixel: float | None = None) -> np.ndarray:
    """Label image [H, W] int32 of the nuclei in one channel [H, W]: 0 = none, 1..n in reading order of their seeds.

    Smoothed, thresholded (Otsu), holes filled, split by a watershed from one seed a nucleus. What is smaller than a
    tenth of a disc of the usual diameter is no nucleus. A plane of one single value has none.
    """
    if plane.min() == plane.max():
        return np.zeros(plane.shape, np.int32)
    light = plane.astype(np.float32)
    diameter = config.diameter(um_per_pixel) or _diameter(light, config)
    smoothed = ndimage.gaussian_filter(light, max(0.7, config.smooth * diameter))
    inside = ndimage.binary_fill_holes(smoothed > _threshold(smoothed, config.nucleus_threshold, config))
    assert inside is not None
    inside = _without_small(inside, 0.1 * math.pi * diameter**2 / 4)
    distance = ndimage.distance_transform_edt(inside)
    assert isinstance(distance, np.ndarray)
    if config.seeds == "distance":
        landscape = ndimage.gaussian_filter(distance, 0.05 * diameter)
    else:
        landscape = ndimage.gaussian_filter(light, 0.15 * diameter)
    peaks = _skimage("feature").peak_local_max(
        landscape,
        min_distance=max(1, round(config.seed_distance * diameter)),
        labels=pieces_of(inside)[0],
        exclude_border=False,
    )
    seeds = np.zeros(plane.shape, np.int32)
    peaks = peaks[np.lexsort(peaks.T[::-1])]
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return _skimage("segmentation").watershed(-landscape, seeds, mask=inside).astype(np.int32)


def segment_cells(
    plane: np.ndarray, nuclei: np.ndarray, config: SegmentConfig, *, um_per_pixel: float | None = None
) -> np.ndarray:
    """Label image [H, W] int32 of the cells around `nuclei` [H, W], with the nuclei's numbers.

    Each cell grows from its nucleus, through bright parts of `plane` first, over what is brighter than a share of
    Otsu's threshold and near enough to a nucleus. A nucleus always belongs to its cell.
    """
    light = plane.astype(np.float32)
    sizes = np.bincount(nuclei.ravel())[1:]
    sizes = sizes[sizes > 0]
    if not len(sizes):
        return np.zeros(plane.shape, np.int32)
    diameter = config.diameter(um_per_pixel) or float(2 * np.sqrt(np.median(sizes) / math.pi))
    smoothed = ndimage.gaussian_filter(light, max(0.7, config.smooth * diameter))
    away = ndimage.distance_transform_edt(nuclei == 0)
    assert isinstance(away, np.ndarray)
    if smoothed.min() < smoothed.max():
        inside = smoothed > _threshold(smoothed, config.cell_threshold, config)
    else:
        inside = np.ones(plane.shape, bool)
    inside = (inside & (away <= config.cell_reach * diameter)) | (nuclei > 0)
    # Darkness and distance both count, so that a seam between two equally bright cells lies midway.
    span = float(np.quantile(smoothed, 0.99) - np.quantile(smoothed, 0.01)) or 1.0
    landscape = away / diameter - smoothed / span
    cells = _skimage("segmentation").watershed(landscape, nuclei, mask=inside).astype(np.int32)
    return np.where(nuclei > 0, nuclei, cells).astype(np.int32)


def _diameter(light: np.ndarray, config: SegmentConfig) -> float:
    """Typical diameter: twice the greatest depth of the bright pieces, their median weighted by area."""
    smoothed = ndimage.gaussian_filter(light, 1.0)
    pieces, count = pieces_of(smoothed > _threshold(smoothed, config.nucleus_threshold, config))
    filled = ndimage.distance_transform_edt(ndimage.binary_fill_holes(pieces > 0))
    areas = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    depths = np.asarray(ndimage.maximum(filled, pieces, np.arange(1, count + 1)))
    keep = areas >= _SMALLEST
    if not keep.any():
        return 8.0
    order = np.argsort(depths[keep], kind="stable")
    share = np.cumsum(areas[keep][order]) / areas[keep].sum()
    return max(4.0, 2 * float(depths[keep][order][np.searchsorted(share, 0.5)]))


def _threshold(smoothed: np.ndarray, factor: float, config: SegmentConfig) -> float:
    """Otsu's threshold, its height above the background (the median of what lies below it), or above 0, by `factor`."""
    otsu = float(_skimage("filters").threshold_otsu(smoothed))
    if config.threshold_from == "zero":
        return factor * otsu
    below = smoothed[smoothed <= otsu]
    background = float(np.median(below)) if below.size else float(smoothed.min())
    return background + factor * (otsu - background)


def _without_small(inside: np.ndarray, least: float) -> np.ndarray:
    pieces, _ = pieces_of(inside)
    big = np.bincount(pieces.ravel()) >= least
    big[0] = False
    return big[pieces]


def _skimage(part: str) -> Any:
    """A module of scikit-image, which is imported by nothing else."""
    try:
        return importlib.import_module(f"skimage.{part}")
    except ImportError as error:
        raise SegmentationUnavailable(
            "segment= needs scikit-image; install it with: pip install 'protloc-jax[segment]', or give label images."
        ) from error
