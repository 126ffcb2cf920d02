"""The patch stem: an image of any number of channels to a row-major sequence of patch tokens."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from protloc_jax.model.layers import Dtype, linear, uniform_fan_in


def patches(images: jax.Array, patch: int) -> jax.Array:
    """Cut [..., H, W, C] into row-major patches [..., h*w, patch*patch*C]; a remainder at the far edges is dropped."""
    *lead, height, width, channels = images.shape
    rows, columns = height // patch, width // patch
    images = images[..., : rows * patch, : columns * patch, :]
    images = images.reshape(*lead, rows, patch, columns, patch, channels)
    images = jnp.swapaxes(images, -4, -3)
    return images.reshape(*lead, rows * columns, patch * patch * channels)


class PatchStem(nn.Module):
    """Strided patch projection [..., H, W, C] -> [..., h*w, D], written as one matrix product.

    The kernel is stored as a convolution kernel [patch, patch, C, D] with PyTorch's convolution initialisation.
    """

    dim: int
    patch: int
    dtype: Dtype | None = None
    use_bias: bool = True

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        channels = images.shape[-1]
        init = uniform_fan_in(self.patch * self.patch * channels)
        kernel = self.param("kernel", init, (self.patch, self.patch, channels, self.dim))
        bias = self.param("bias", init, (self.dim,)) if self.use_bias else None
        cut = patches(images, self.patch)
        cut, kernel, bias = promote_dtype(cut, kernel, bias, dtype=self.dtype)
        return linear(cut, kernel.reshape(-1, self.dim), bias)
