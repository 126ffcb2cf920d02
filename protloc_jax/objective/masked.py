"""The loss of masked autoencoders: pixels of the patches that the encoder did not see."""

from __future__ import annotations

import jax
import jax.numpy as jnp

EPS = 1e-6


def masked_pixel_loss(
    predicted: jax.Array, pixels: jax.Array, masked: jax.Array, *, normalise: bool = True
) -> jax.Array:
    """Mean squared error over masked patches; predicted and pixels [..., N, P], masked bool [..., N]; scalar.

    With `normalise` each patch of the target has its own mean (over all of its P numbers, channels included) taken
    away and is divided by the root of its unbiased variance + 1e-6. Every image must have as many masked patches as
    the others (their mean is then the mean over images). At least float32.
    Source: He et al. 2022 (arXiv:2111.06377).
    """
    wide = jnp.promote_types(jnp.result_type(predicted, pixels), jnp.float32)
    predicted, pixels = predicted.astype(wide), pixels.astype(wide)
    if normalise:
        centred = pixels - pixels.mean(-1, keepdims=True)
        variance = jnp.square(centred).sum(-1, keepdims=True) / (pixels.shape[-1] - 1)
        pixels = centred * jax.lax.rsqrt(variance + EPS)
    of_patch = jnp.square(predicted - pixels).mean(-1)
    return jnp.where(masked, of_patch, 0).sum() / masked.sum().astype(wide)
