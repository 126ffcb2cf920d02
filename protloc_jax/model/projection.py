"""The MLP heads that pretraining methods put behind the pooled features, and throw away afterwards."""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from protloc_jax.model.classifier import kept_units
from protloc_jax.model.layers import LayerNorm, Linear, at_least_float32, compute_dtype, gelu

Norm = Literal["batch", "layer", "none"]
EPS = 1e-5  # of both norms, PyTorch's default


class BatchNorm(nn.Module):
    """Batch norm over the first axis by the statistics of the batch alone; each place of the axes between for itself.

    There are no running averages: what it stands in never sees a batch after pretraining. Under jit the first axis is
    that of the global batch, so statistics are those of all devices together. Biased variance, in two passes, in at
    least float32; parameters `scale` and `bias` [D].
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        x = x.astype(at_least_float32(x, scale))
        centred = x - x.mean(0, keepdims=True)
        variance = jnp.square(centred).mean(0, keepdims=True)
        return centred * jax.lax.rsqrt(variance + EPS) * scale + bias


class ProjectionHead(nn.Module):
    """Linear, norm, GELU, dropout, Linear: projector, predictor and classifier of the pretraining methods.

    Parameters: `fc1`, `norm` (none with norm "none") and `fc2`. Views of an example are normed each with the same view
    of the other examples, as if they had passed one after another. Source: the reference implementation of
    arXiv:2507.10737 (BatchNorm there by device).
    """

    hidden: int
    out: int
    norm: Norm = "batch"
    dropout: float = 0.0
    dtype: str = "float32"
    kernels: str = "trunc_normal"

    @nn.compact
    def __call__(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        """Features [B, ..., D] to [B, ..., out], at least float32.

        keys  one typed key a row, [B, ...]: its units are dropped by it alone; None = no dropout
        """
        dtype = compute_dtype(self.dtype)
        x = Linear(self.hidden, dtype, kernels=self.kernels, name="fc1")(x)
        if self.norm == "batch":
            x = BatchNorm(name="norm")(x)
        elif self.norm == "layer":
            x = LayerNorm(EPS, name="norm")(x)
        x = gelu(x)
        if keys is not None and self.dropout:
            x = jnp.where(kept_units(keys, 0, self.hidden, self.dropout), x / (1 - self.dropout), 0)
        x = Linear(self.out, dtype, kernels=self.kernels, name="fc2")(x)
        return x.astype(at_least_float32(x))

    def flops(self, width: int) -> int:
        """Operations of a forward pass over one vector of `width` numbers."""
        return 2 * self.hidden * (width + self.out)
