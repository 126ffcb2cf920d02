"""Evaluation's one deterministic view: to floats, optional resize and centre crop, the normalisation of training."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import jax
import jax.numpy as jnp

from protloc_jax.config import ConfigError, check_literals
from protloc_jax.views.image_ops import to_float
from protloc_jax.views.normalisation import Normalisation, normalise
from protloc_jax.views.resample import resize, shorter_side


@dataclass(frozen=True)
class PrepareConfig:
    """How an image is prepared for evaluation.

    normalisation  the one the weights were trained with
    resize         shorter side the image is brought to; 0 = as it is (DINO4Cells reads images at native size)
    crop           side of the centre crop; 0 = none. Larger than the image is refused
    interpolation, antialias  as in training views
    """

    normalisation: Normalisation = field(default_factory=Normalisation)
    resize: int = 0
    crop: int = 0
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        check_literals(self)
        bad = [f"{name}={getattr(self, name)}" for name in ("resize", "crop") if getattr(self, name) < 0]
        if bad:
            raise ConfigError(f"{', '.join(bad)}: must be 0 or more.")


def prepare(images: jax.Array, config: PrepareConfig, *, dtype=jnp.float32) -> jax.Array:
    """Prepare images [B, H, W, C] (uint8, uint16 or float in [0, 1]) as floats [B, H', W', C]; call inside jit.

    Raises ValueError where the centre crop does not fit the (resized) image or constants do not fit the channels.
    """
    return jax.vmap(lambda image: _prepare_one(image, config, dtype))(images)


def prepare_masks(masks: jax.Array, config: PrepareConfig) -> jax.Array:
    """How much of each prepared pixel is the cell's (mask value 1), float32 [B, H', W'] in [0, 1], of masks [B, H, W].

    Resized and cropped as `prepare` does with the images, always bilinearly: a bicubic kernel has negative lobes, and
    shares have not.
    """
    how = replace(config, interpolation="bilinear")
    return jax.vmap(lambda mask: _framed((mask == 1).astype(jnp.float32)[:, None], how)[:, 0])(masks)


def _prepare_one(image: jax.Array, config: PrepareConfig, dtype) -> jax.Array:
    x = _framed(to_float(jnp.swapaxes(image, 1, 2), dtype), config)
    return normalise(jnp.swapaxes(x, 1, 2), config.normalisation, channel_axis=2)


def _framed(x: jax.Array, config: PrepareConfig) -> jax.Array:
    """Resized and cropped, [rows, channels, columns]."""
    height, width = x.shape[0], x.shape[2]
    if config.resize and config.resize != min(height, width):
        height, width = shorter_side(height, width, config.resize)
        x = resize(
            x,
            (height, width),
            interpolation=config.interpolation,
            antialias=config.antialias,
            gather=jax.default_backend() != "tpu",
        )
    if config.crop:
        if config.crop > min(height, width):
            raise ValueError(f"centre crop {config.crop} does not fit an image of {height} x {width} pixels.")
        top, left = (height - config.crop + 1) // 2, (width - config.crop + 1) // 2
        x = x[top : top + config.crop, :, left : left + config.crop]
    return x
