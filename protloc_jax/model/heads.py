"""Projection heads on top of the class token."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from protloc_jax.model.layers import Linear, at_least_float32, compute_dtype, gelu, uniform_fan_in
from protloc_jax.model.prototypes import gathered_features, split_logits


class DinoHead(nn.Module):
    """The DINO head: MLP, L2 normalisation, weight-normalised linear map to prototypes (Caron et al. 2021).

    Parameters: `mlp_0` ... `mlp_{layers-1}` and `last` with directions v [bottleneck, out_dim] and gains g [out_dim].
    With `norm_last_layer` the gains keep their initial 1: no gradient reaches them.
    """

    out_dim: int
    hidden: int = 2048
    bottleneck: int = 256
    layers: int = 3
    norm_last_layer: bool = True
    dtype: str = "float32"
    kernels: str = "trunc_normal"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Features [..., D] to prototype logits [..., out_dim], at least float32; any leading axes, none merged."""
        dtype = compute_dtype(self.dtype)
        for i in range(self.layers):
            last = i == self.layers - 1
            x = Linear(self.bottleneck if last else self.hidden, dtype, kernels=self.kernels, name=f"mlp_{i}")(x)
            x = x if last else gelu(x)
        x = l2_normalise(x)
        return WeightNormDense(self.out_dim, self.norm_last_layer, self.dtype, name="last")(x)


class WeightNormDense(nn.Module):
    """A linear map without bias whose column k is g_k v_k / |v_k|, [..., bottleneck] -> [..., out_dim].

    The norms divide the product and not the kernel: the same number with far fewer operations for small batches.
    """

    out_dim: int
    freeze_gain: bool = True
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        # PyTorch's default for the linear layer that weight_norm wraps; the forward pass ignores the length of v, but
        # the gradient is inversely proportional to it.
        v = self.param("v", uniform_fan_in(width), (width, self.out_dim))
        g = self.param("g", nn.initializers.ones, (self.out_dim,), jnp.float32)
        if self.freeze_gain:
            g = jax.lax.stop_gradient(g)
        wide = at_least_float32(x, v)
        gain = g.astype(wide) / jnp.sqrt(jnp.square(v.astype(wide)).sum(0))
        dtype = compute_dtype(self.dtype) or wide
        rows = gathered_features(x.astype(dtype)).reshape(-1, width)
        logits = jnp.matmul(rows, v.astype(dtype), preferred_element_type=wide) * gain
        return split_logits(logits.reshape(*x.shape[:-1], self.out_dim))


def l2_normalise(x: jax.Array, eps: float = 1e-12) -> jax.Array:
    """x / max(|x|, eps) over the last axis, in at least float32; the gradient at 0 is finite."""
    x = x.astype(at_least_float32(x))
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), eps * eps))
