"""One pre-norm transformer block."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from protloc_jax.model.attention import Attention
from protloc_jax.model.config import VitConfig
from protloc_jax.model.layers import ACTIVATIONS, Dtype, LayerNorm, Linear, compute_dtype
from protloc_jax.model.segments import Segments

# What remat "selective" keeps of a block besides its input. The rest (norms, queries to values, attention weights,
# GELU) is cheap to make again, and the attention weights, T numbers a token and head, are what fills the memory.
KEPT = ("attention_output", "mlp_hidden")


class Mlp(nn.Module):
    """Two linear maps with a non-linearity between; the first is twice as wide where that is a gate."""

    dim: int
    hidden: int
    dtype: Dtype | None = None
    kernels: str = "trunc_normal"
    activation: str = "gelu"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        made = self.hidden * (2 if self.activation == "swiglu" else 1)
        wide = Linear(made, self.dtype, kernels=self.kernels, name="fc1")(x)
        wide = ACTIVATIONS[self.activation](checkpoint_name(wide, KEPT[1]))
        return Linear(self.dim, self.dtype, kernels=self.kernels, name="fc2")(wide)


class Block(nn.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x)); optional LayerScale and per-image branch gains."""

    config: VitConfig
    segments: Segments = ()

    def setup(self) -> None:
        config, dtype = self.config, compute_dtype(self.config.dtype)
        dim, _, heads, hidden = config.shape
        self.norm1 = LayerNorm(config.norm_eps, dtype)
        self.attn = Attention(dim, heads, config.qkv_bias, dtype, config.init, config.attention)
        self.norm2 = LayerNorm(config.norm_eps, dtype)
        self.mlp = Mlp(dim, hidden, dtype, config.init, config.mlp)
        if config.layerscale:
            gain = nn.initializers.constant(config.layerscale)
            self.ls1 = self.param("ls1", gain, (dim,), jnp.float32)
            self.ls2 = self.param("ls2", gain, (dim,), jnp.float32)

    def __call__(
        self, x: jax.Array, gains: jax.Array | None = None, visible: jax.Array | tuple[jax.Array, ...] | None = None
    ) -> jax.Array:
        """Tokens [..., T, D] to tokens; `gains` [2, ...] multiply the attention and the MLP branch (drop-path).

        `visible` [..., T]: tokens that may be attended to; None = all. With `segments` (see `model.segments`) tokens
        are [B, P, D], gains [2, B, P], and there is one `visible` a segment.
        """
        mixed = self.attn(self.norm1(x), visible, self.segments)
        x = x + self._scaled(checkpoint_name(mixed, KEPT[0]), 0, gains)
        return x + self._scaled(self.mlp(self.norm2(x)), 1, gains)

    def attention_weights(self, x: jax.Array, visible: jax.Array | None = None) -> jax.Array:
        """Attention weights [..., heads, T, T] that the block would use on tokens x [..., T, D]."""
        return self.attn.weights(self.norm1(x), visible)

    def _scaled(self, branch: jax.Array, which: int, gains: jax.Array | None) -> jax.Array:
        if self.config.layerscale:
            branch = branch * (self.ls1, self.ls2)[which].astype(branch.dtype)
        if gains is not None:
            gain = gains[which] if self.segments else gains[which][..., None]
            branch = branch * gain[..., None].astype(branch.dtype)
        return branch
