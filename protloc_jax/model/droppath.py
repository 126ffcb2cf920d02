"""Stochastic depth addressed per image: each draw is a pure function of the image's key and the block's number."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def ramp(rate: float, depth: int) -> np.ndarray:
    """Drop probabilities [depth] rising linearly from 0 at the first block to `rate` at the last."""
    return np.linspace(0.0, rate, depth)


def branch_gains(keys: jax.Array, rate: float, depth: int) -> jax.Array:
    """Factors [depth, 2, ...] for the attention and MLP branches of every block: 0 (dropped) or 1 / keep.

    `keys` are typed random keys [...], one an image; block `i` of an image draws from fold_in(key, i), so the draw
    depends on neither the other images of the batch nor the way the batch is split.
    """
    rates = ramp(rate, depth)
    keep = jnp.asarray(1.0 - rates, jnp.float32)

    def of_image(key: jax.Array) -> jax.Array:
        per_block = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), (2,), jnp.float32))
        return per_block(jnp.arange(depth)) < keep[:, None]

    kept = of_image
    for _ in range(keys.ndim):
        kept = jax.vmap(kept, in_axes=0, out_axes=2)
    kept = kept(keys)
    return kept / (1.0 - rates).reshape(depth, *(1,) * (kept.ndim - 1))
