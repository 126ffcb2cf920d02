"""Building blocks shared by the transformer and the heads: initialisers, linear map, layer norm, exact GELU.

`dtype=None` means "as promotion says": float32 parameters and images give float32, float64 ones stay float64, so the
same code is checked against float64 oracles. A dtype of bfloat16 rounds the operands of matmuls only.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.typing import ArrayLike

Dtype = Any


def trunc_normal(key: jax.Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> jax.Array:
    """Normal with standard deviation 0.02: what facebookresearch/dino's `trunc_normal_(std=.02)` gives in effect.

    Its cut is at an absolute +-2, a hundred standard deviations away. `jax.random.truncated_normal` with bounds that
    far is no substitute: one draw in 2**23 lands on the bound itself.
    """
    return 0.02 * jax.random.normal(key, shape, dtype)


def normal_fan_in(key: jax.Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> jax.Array:
    """Normal with standard deviation 1/sqrt(inputs) for kernels [in, out]: activations keep their size at any width.

    The fixed 0.02 was chosen for widths near 768, where it is about half of this; at a width of 128 it is a fifth,
    and a small transformer starts out almost linear.
    """
    return shape[-2] ** -0.5 * jax.random.normal(key, shape, dtype)


# How linear maps start, by the name used in configurations.
KERNELS = {"trunc_normal": trunc_normal, "fan_in": normal_fan_in}


def uniform_fan_in(fan_in: int):
    """Initialiser U(-1/sqrt(fan_in), 1/sqrt(fan_in)): PyTorch's default for linear and convolution layers."""
    bound = fan_in**-0.5

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def at_least_float32(*arrays: ArrayLike) -> Dtype:
    """The promoted dtype of `arrays` and float32: the width of the islands that never run in half precision."""
    return jnp.promote_types(jnp.result_type(*arrays), jnp.float32)


def compute_dtype(name: str) -> Dtype | None:
    """The operand dtype for a precision name: None (promotion decides) for "float32", else the named dtype."""
    return None if name == "float32" else jnp.dtype(name)


def gelu(x: jax.Array) -> jax.Array:
    """Exact (erf) GELU, as PyTorch, timm and DINO; JAX's own default is the tanh approximation."""
    return nn.gelu(x, approximate=False)


def gelu_tanh(x: jax.Array) -> jax.Array:
    """The tanh approximation of GELU that big_vision's models are trained with."""
    return nn.gelu(x, approximate=True)


def quick_gelu(x: jax.Array) -> jax.Array:
    """x * sigmoid(1.702 x), the approximation of GELU in OpenAI's CLIP."""
    return x * nn.sigmoid(1.702 * x)


def swiglu(x: jax.Array) -> jax.Array:
    """SiLU(first half) * second half of the last axis (Shazeer 2020); DINOv2's giant model."""
    gate, value = jnp.split(x, 2, axis=-1)
    return nn.silu(gate) * value


# What stands between the two maps of an MLP, by the name used in configurations.
ACTIVATIONS = {"gelu": gelu, "gelu_tanh": gelu_tanh, "quick_gelu": quick_gelu, "swiglu": swiglu}


class LayerNorm(nn.Module):
    """Layer norm over the last axis, mean and variance in two passes, computed in at least float32.

    The one-pass form E[x^2] - E[x]^2 can go negative in low precision. The result is cast to `dtype` (None: no cast).
    """

    eps: float
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        x = x.astype(at_least_float32(x, scale))
        centred = x - x.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        y = centred * jax.lax.rsqrt(variance + self.eps) * scale + bias
        return y if self.dtype is None else y.astype(self.dtype)


class Linear(nn.Module):
    """A linear map over the last axis: kernel [in, features] by `KERNELS[kernels]`, zero bias.

    Written for the gradient on a CPU, where it makes a whole transformer 13 % faster than `nn.Dense`: all other axes
    are one row axis (the kernel's gradient is then a plain product of two matrices), and there the bias enters as the
    product of a column of ones with it, so that its gradient is a product too and not a reduction. Accelerators add
    it (on an H100 the product costs 1 % of a training step).
    """

    features: int
    dtype: Dtype | None = None
    use_bias: bool = True
    kernels: str = "trunc_normal"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", KERNELS[self.kernels], (x.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        return linear(x, kernel, bias)


def linear(x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
    """x [..., in] @ kernel [in, out] + bias [out], as described at `Linear`."""
    rows = x.reshape(-1, x.shape[-1])
    y = rows @ kernel
    if bias is not None and jax.default_backend() != "cpu":
        y = y + bias
    elif bias is not None:
        y = y + jnp.ones((rows.shape[0], 1), y.dtype) @ bias[None]  # not len(): an exported batch size is a symbol
    return y.reshape(*x.shape[:-1], -1)
