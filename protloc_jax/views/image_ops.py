"""Pixel operations on one crop, laid out [rows, channels, columns], values in [0, 1].

The channel axis stands in the middle because both products of the crop are then plain matrix products without a
transposition. Every operation takes numbers that were drawn already; which draw an example gets is
decided in one place (`multicrop`). Switched-off cases are the operation's neutral parameter, not a branch: a
vmapped branch would compute both sides anyway.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, what Pillow's grey conversion uses


def unit(dtype) -> float:
    """What one step of a pixel type is worth: 1 / 255 for uint8, 1 / 65535 for uint16, 1 for floating point."""
    if jnp.issubdtype(dtype, jnp.floating):
        return 1.0
    if dtype not in (jnp.uint8, jnp.uint16):
        raise ValueError(f"pixels of type {dtype}: give uint8, uint16 or floating point in [0, 1].")
    return 1.0 / float(jnp.iinfo(dtype).max)


def to_float(pixels: jax.Array, dtype=jnp.float32) -> jax.Array:
    """Integer pixels as floats in [0, 1]; floats only change precision."""
    return pixels.astype(dtype) * jnp.asarray(unit(pixels.dtype), dtype)


def blend(x: jax.Array, reference: jax.Array | float, factor: jax.Array) -> jax.Array:
    """`factor * x + (1 - factor) * reference`, clipped to [0, 1]."""
    return jnp.clip(factor * x + (1.0 - factor) * reference, 0.0, 1.0)


def brightness(x: jax.Array, factor: jax.Array) -> jax.Array:
    """Multiply each channel by its factor [C], clipped."""
    return jnp.clip(x * factor[:, None], 0.0, 1.0)


def contrast(x: jax.Array, factor: jax.Array) -> jax.Array:
    """Scale each channel about its own mean by its factor [C], clipped."""
    return blend(x, jnp.mean(x, axis=(0, 2), keepdims=True), factor[:, None])


def luminance(x: jax.Array) -> jax.Array:
    """Grey value [rows, 1, columns] of a red-green-blue image."""
    return LUMA[0] * x[:, 0:1] + LUMA[1] * x[:, 1:2] + LUMA[2] * x[:, 2:3]


def jitter_rgb(x: jax.Array, factors: jax.Array, hue: jax.Array, order: jax.Array, hue_place: jax.Array) -> jax.Array:
    """Colour jitter of a red-green-blue image: brightness, contrast, saturation and hue in a drawn order.

    factors    [3] brightness, contrast, saturation; all 1 and hue 0 leave the image as it is
    order      [3] permutation of 0, 1, 2 in which these are applied
    hue_place  how many of them come before the hue, 0 .. 3. A permutation of three and a uniform place are a uniform
               permutation of four, and the costly hue turn is computed once.
    """
    for before in (True, False):
        for place in range(3):
            active = (place < hue_place) if before else (place >= hue_place)
            kind = order[place]
            grey = luminance(x)
            reference = jnp.where(kind == 0, 0.0, jnp.where(kind == 1, jnp.mean(grey), grey))
            x = blend(x, reference, jnp.where(active, factors[kind], 1.0))
        if before:
            x = turn_hue(x, hue)
    return x


def jitter_channels(x: jax.Array, factors: jax.Array, contrast_first: jax.Array) -> jax.Array:
    """The jitter's analogue for any channels: one brightness and one contrast factor for all, in a drawn order.

    The pivot of the contrast is each channel's own mean, so a one-channel image gets exactly the published operation.
    Saturation and hue mix channels, which would write the nucleus into the protein, and are left out.
    """
    for place in range(2):
        is_contrast = contrast_first == (place == 0)
        pivot = jnp.where(is_contrast, jnp.mean(x, axis=(0, 2), keepdims=True), 0.0)
        x = blend(x, pivot, jnp.where(is_contrast, factors[1], factors[0]))
    return x


def turn_hue(x: jax.Array, turn: jax.Array) -> jax.Array:
    """Turn the hue of a red-green-blue image by `turn` circles; value and saturation stay."""
    red, green, blue = x[:, 0], x[:, 1], x[:, 2]
    high = jnp.max(x, axis=1)
    chroma = high - jnp.min(x, axis=1)
    safe = jnp.where(chroma > 0, chroma, 1.0)
    # Orders and not `high == red`: a compiler may compute a value twice, with another last bit, and then no channel
    # equals the highest. Where two are nearly equal, either formula gives the same hue.
    sixth = jnp.where(
        (red >= green) & (red >= blue),
        (green - blue) / safe,
        jnp.where(green >= blue, 2.0 + (blue - red) / safe, 4.0 + (red - green) / safe),
    )
    sixth = sixth + 6.0 * turn

    def channel(n: float) -> jax.Array:
        k = jnp.mod(n + sixth, 6.0)
        return high - chroma * jnp.clip(jnp.minimum(k, 4.0 - k), 0.0, 1.0)

    return jnp.stack([channel(5.0), channel(3.0), channel(1.0)], axis=1)


def gamma(x: jax.Array, exponent: jax.Array) -> jax.Array:
    """`x ** exponent` per channel [C]; zero stays zero."""
    safe = jnp.maximum(x, 1e-12)
    return jnp.where(x > 0, jnp.exp(exponent[:, None] * jnp.log(safe)), 0.0)


def blur(x: jax.Array, sigma: jax.Array, *, sigma_max: float) -> jax.Array:
    """Gaussian blur along rows and columns, borders replicated; sigma 0 leaves the image as it is.

    The kernel is cut at three times `sigma_max` (static, so that shapes are) and normalised.
    """
    radius = math.ceil(3.0 * sigma_max)
    narrow = jnp.maximum(sigma, 1e-3).astype(x.dtype)  # exp underflows to exactly 0 one pixel away
    weights = jnp.exp(-0.5 * jnp.square(jnp.arange(-radius, radius + 1).astype(x.dtype) / narrow))
    weights = weights / jnp.sum(weights)
    for axis in (0, 2):
        pads = [(0, 0)] * 3
        pads[axis] = (radius, radius)
        padded = jnp.pad(x, pads, mode="edge")
        parts = [
            weights[t] * jax.lax.slice_in_dim(padded, t, t + x.shape[axis], axis=axis) for t in range(2 * radius + 1)
        ]
        x = sum(parts[1:], parts[0])
    return x


def solarise(x: jax.Array, threshold: jax.Array) -> jax.Array:
    """Invert the pixels at or above `threshold`; a threshold above 1 changes nothing."""
    return jnp.where(x >= threshold, 1.0 - x, x)
