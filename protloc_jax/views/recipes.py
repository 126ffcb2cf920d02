"""Augmentation recipes as plain data: how strong each operation is, per kind of view.

The order of operations is the same in every recipe, and an operation of strength 0 is not computed:

    whole image   resize -> warp -> drop_channel -> rescale_protein
    crop          random resized crop -> flips and quarter turns (folded into the crop) -> rotate
    pixels        gamma -> jitter | brightness, contrast -> channel gain, offset, contrast -> grey -> blur -> noise
                  -> solarise
    last          normalise -> gain, shift

Published recipes work on 8-bit images between steps; here pixels stay floating point in [0, 1] throughout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

RecipeName = Literal["dino", "dino4cells", "dino4cells_fov", "dino4cells_cell_painting", "rxrx", "rxrx_byol", "ours"]


@dataclass(frozen=True)
class Strengths:
    """Strength of every operation for one kind of view; 0 switches an operation off.

    warp              probability of moving one random corner inwards by up to a quarter of the shorter side
    drop_channel      probability of zeroing one channel (never a protected one)
    rescale_protein   probability of multiplying the protein by U(0, 2) / (largest value of the whole image)
    flip_horizontal   probability of a left-right flip
    flip_vertical     probability of an up-down flip
    turn              probability of drawing a number of quarter turns, uniform over 0, 1, 2, 3
    gamma             per channel, pixel ** exp(U(-gamma, gamma))
    jitter            probability of the colour jitter of the four fields below, in random order
    jitter_brightness, jitter_contrast, jitter_saturation   factor U(1 - value, 1 + value), one for all channels
    jitter_hue        hue turned by U(-value, value) of a full circle (red-green-blue images only)
    grey              probability of replacing red, green and blue by their luminance (such images only)
    brightness        per channel, multiply by max(N(1, brightness), 0.5), clipped to [0, 1]
    contrast          per channel, scale about the channel's mean by max(N(1, contrast), 0.5), clipped to [0, 1]
    blur              probability of a Gaussian blur with sigma U(blur_sigma), in pixels of the crop
    noise             Gaussian noise of standard deviation U(0, noise), clipped to [0, 1]
    solarise          probability of inverting the pixels at or above one half
    rotate            largest angle in degrees of a turn by a uniform angle (nearest pixel, zeros beyond the border)
    channel_gain      probability of multiplying each channel by U(0.8, 1.2); not clipped, as the two below
    channel_offset    probability of adding U(offset_level) * U(0.5, 1.5), the second number a channel's own
    channel_contrast  probability that each channel, with probability 1/2, is scaled about its mean by U(0.8, 1.3)
    gain, shift       per channel after normalisation, pixel * exp(N(0, gain)) + N(0, shift)
    """

    warp: float = 0.0
    drop_channel: float = 0.0
    rescale_protein: float = 0.0
    flip_horizontal: float = 0.5
    flip_vertical: float = 0.0
    turn: float = 0.0
    gamma: float = 0.0
    jitter: float = 0.0
    jitter_brightness: float = 0.0
    jitter_contrast: float = 0.0
    jitter_saturation: float = 0.0
    jitter_hue: float = 0.0
    grey: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    noise: float = 0.0
    solarise: float = 0.0
    gain: float = 0.0
    shift: float = 0.0
    rotate: float = 0.0
    channel_gain: float = 0.0
    channel_offset: float = 0.0
    offset_level: tuple[float, float] = (0.01 / 255, 0.1 / 255)
    channel_contrast: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """One augmentation recipe: strengths of the first global view, of the other global views and of the local views.

    interpolation, antialias   how the crop is resampled
    normalise                  "self" (per crop and channel) or "dataset" (constants)
    resize                     shorter side the whole image is brought to before anything else; 0 = as it is
    protected                  roles that drop_channel never touches
    rescaled                   role that rescale_protein multiplies
    drop_min_channels          images with fewer channels than this lose none
    sizes                      (global, local) crop sizes the recipe was published with
    source                     where the numbers come from
    """

    first: Strengths
    other: Strengths
    local: Strengths
    interpolation: Literal["bilinear", "bicubic"]
    antialias: bool
    normalise: Literal["self", "dataset"]
    source: str
    resize: int = 0
    protected: tuple[str, ...] = ("protein",)
    rescaled: str = "protein"
    drop_min_channels: int = 4
    sizes: tuple[int, int] = (224, 96)


def _dino(blur: float, solarise: float = 0.0) -> Strengths:
    return Strengths(
        jitter=0.8,
        jitter_brightness=0.4,
        jitter_contrast=0.4,
        jitter_saturation=0.2,
        jitter_hue=0.1,
        grey=0.2,
        blur=blur,
        solarise=solarise,
    )


def _cells(warp: float = 0.0, drop: float = 0.0, rescale: float = 0.0) -> Strengths:
    return Strengths(
        warp=warp, drop_channel=drop, rescale_protein=rescale, flip_vertical=0.5, brightness=0.5, contrast=0.5
    )


def _rxrx(blur: float) -> Strengths:
    return Strengths(rotate=90.0, channel_gain=0.5, channel_offset=0.3, channel_contrast=0.5, blur=blur)


_PAINTING = Strengths(drop_channel=0.2, rescale_protein=0.2, brightness=0.8, contrast=0.8)

# Self-normalisation undoes any gain and offset of a channel, so intensity jitter before it acts only where it clips.
# Ours therefore bends intensities (gamma) before it and jitters gain and offset after it. Images under the microscope
# have no upright direction: all eight flips and turns. Channels are dropped from two on, never the protein.
_OURS = Strengths(drop_channel=0.2, flip_vertical=0.5, turn=1.0, gamma=0.2, gain=0.1, shift=0.1)

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "dino": Recipe(
            first=_dino(blur=1.0),
            other=_dino(blur=0.1, solarise=0.2),
            local=_dino(blur=0.5),
            interpolation="bicubic",
            antialias=True,
            normalise="dataset",
            source="Caron et al. 2021 (arXiv:2104.14294), facebookresearch/dino main_dino.py",
        ),
        "dino4cells": Recipe(
            first=_cells(warp=1.0),
            other=_cells(drop=0.2),
            local=_cells(drop=0.2),
            interpolation="bilinear",
            antialias=False,
            normalise="self",
            source="Doron et al. 2023, DINO4Cells, the transform list of the shipped HPA configurations",
        ),
        "dino4cells_fov": Recipe(
            first=_cells(warp=1.0, rescale=0.2),
            other=_cells(drop=0.2, rescale=0.2),
            local=_cells(drop=0.2, rescale=0.2),
            interpolation="bilinear",
            antialias=False,
            normalise="dataset",
            source="Doron et al. 2023, DINO4Cells, parameter dump of the HPA field-of-view run",
        ),
        "dino4cells_cell_painting": Recipe(
            first=_PAINTING,
            other=_PAINTING,
            local=_PAINTING,
            interpolation="bilinear",
            antialias=False,
            normalise="self",
            resize=224,
            protected=("rna", "mitochondria"),
            rescaled="rna",
            sizes=(128, 64),
            source="Doron et al. 2023, DINO4Cells, the Cell Painting configurations (slot 1 is RNA; RNA and Mito stay)",
        ),
        # SimCLR and MoCo v3; WSL is the same with blur 0.2, MAE has crops, flips and turns alone. The published blur is
        # cut at 11 pixels, ours at three times the largest sigma, 6: a thousandth of the widest kernel. Offsets of 0.01
        # to 0.1 grey levels do next to nothing; offset_level=(0.01, 0.1) is what may have been meant.
        "rxrx": Recipe(
            first=_rxrx(0.5),
            other=_rxrx(0.5),
            local=_rxrx(0.5),
            interpolation="bilinear",
            antialias=True,
            normalise="self",
            source="Chen et al. 2025 (arXiv:2507.10737), transforms of the released pretraining code",
        ),
        "rxrx_byol": Recipe(
            first=_rxrx(1.0),
            other=_rxrx(0.1),
            local=_rxrx(0.5),
            interpolation="bilinear",
            antialias=True,
            normalise="self",
            source="Chen et al. 2025 (arXiv:2507.10737), transforms of the released pretraining code, BYOL's two views",
        ),
        "ours": Recipe(
            first=_OURS,
            other=_OURS,
            local=_OURS,
            interpolation="bilinear",
            antialias=True,
            normalise="self",
            drop_min_channels=2,
            source="this project",
        ),
    }
)
