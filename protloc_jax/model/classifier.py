"""A classifier on top of the backbone's features."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from protloc_jax.model.layers import Linear, at_least_float32, compute_dtype


class ClassifierHead(nn.Module):
    """Linear map to classes, after hidden layers with ReLU and dropout where there are any.

    Parameters: `mlp_0` ... one a hidden width, and `last`. With hidden=(512, 256) and dropout=0.5 it is the
    `simple_clf` of DINO4Cells (Doron et al. 2023).
    """

    classes: int
    hidden: tuple[int, ...] = ()
    dropout: float = 0.0
    dtype: str = "float32"
    kernels: str = "trunc_normal"

    @nn.compact
    def __call__(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        """Features [..., D] to logits [..., classes], at least float32.

        keys  one typed key a row, [...]: its units are dropped by it alone, whatever else is in the batch; None = no
              dropout
        """
        dtype = compute_dtype(self.dtype)
        for i, width in enumerate(self.hidden):
            x = nn.relu(Linear(width, dtype, kernels=self.kernels, name=f"mlp_{i}")(x))
            if keys is not None and self.dropout:
                x = jnp.where(kept_units(keys, i, width, self.dropout), x / (1 - self.dropout), 0)
        x = Linear(self.classes, dtype, kernels=self.kernels, name="last")(x)
        return x.astype(at_least_float32(x))


def kept_units(keys: jax.Array, layer: int, width: int, dropout: float) -> jax.Array:
    """Which of `width` units of a hidden layer stay, bool [..., width], by keys [...]."""

    def of_row(key: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(key, layer), (width,), jnp.float32) >= dropout

    draw = of_row
    for _ in keys.shape:
        draw = jax.vmap(draw)
    return draw(keys)
