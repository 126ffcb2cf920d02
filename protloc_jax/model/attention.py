"""Multi-head self-attention with a fused query-key-value projection."""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from protloc_jax.model.layers import Dtype, Linear, at_least_float32


class Attention(nn.Module):
    """Softmax attention over tokens [..., T, D]; softmax in at least float32.

    The fused kernel [D, 3D] holds queries, keys, values in that order, heads inside each (PyTorch / timm / DINO).
    """

    dim: int
    heads: int
    qkv_bias: bool = True
    dtype: Dtype | None = None
    kernels: str = "trunc_normal"
    implementation: Literal["xla", "cudnn"] = "xla"

    def setup(self) -> None:
        self.qkv = Linear(3 * self.dim, self.dtype, self.qkv_bias, self.kernels)
        self.proj = Linear(self.dim, self.dtype, kernels=self.kernels)

    def __call__(self, x: jax.Array, visible: jax.Array | None = None) -> jax.Array:
        """Tokens to tokens; where `visible` [..., T] is False no token attends to that one (ValueError with cudnn)."""
        if self.implementation == "cudnn":
            if visible is not None:
                raise ValueError("attention='cudnn' cannot hide tokens; use attention='xla'.")
            return self.proj(self._fused(x))
        query, key, value = self._split(x)
        mixed = self._softmax(query, key, visible).astype(value.dtype) @ value
        return self.proj(jnp.swapaxes(mixed, -3, -2).reshape(x.shape))

    def weights(self, x: jax.Array, visible: jax.Array | None = None) -> jax.Array:
        """Attention weights [..., heads, T, T] of tokens [..., T, D]; rows (queries) sum to 1."""
        query, key, _ = self._split(x)
        return self._softmax(query, key, visible)

    def _fused(self, x: jax.Array, implementation: Literal["xla", "cudnn"] = "cudnn") -> jax.Array:
        """Mixed values [..., T, D] by a kernel that never writes the attention weights to memory.

        cuDNN's gradient wants an even number of tokens: an odd one gets a token more, which the lengths hide.
        """
        tokens = x.shape[-2]
        fused = self.qkv(x).reshape(-1, tokens, 3, self.heads, self.dim // self.heads)
        lengths = None
        if tokens % 2:
            fused = jnp.pad(fused, ((0, 0), (0, 1), (0, 0), (0, 0), (0, 0)))
            lengths = jnp.full(fused.shape[:1], tokens, jnp.int32)
        query, key, value = (fused[:, :, i] for i in range(3))
        mixed = jax.nn.dot_product_attention(
            query,
            key,
            value,
            query_seq_lengths=lengths,
            key_value_seq_lengths=lengths,
            implementation=implementation,
        )
        return mixed[:, :tokens].reshape(x.shape)

    def _split(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries, keys and values, each [..., heads, T, dim / heads]; one transposition serves all three."""
        fused = self.qkv(x).reshape(*x.shape[:-1], 3, self.heads, self.dim // self.heads)
        query, key, value = jnp.moveaxis(fused, (-3, -2), (0, -3))
        return query, key, value

    def _softmax(self, query: jax.Array, key: jax.Array, visible: jax.Array | None = None) -> jax.Array:
        scale = (self.dim // self.heads) ** -0.5
        logits = jnp.einsum("...qd,...kd->...qk", query * scale, key, preferred_element_type=at_least_float32(query))
        if visible is not None:
            logits = jnp.where(visible[..., None, None, :], logits, -jnp.inf)
        return jax.nn.softmax(logits, axis=-1)
