"""Multi-head self-attention with a fused query-key-value projection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from protloc_jax.model.layers import Dtype, Linear, at_least_float32
from protloc_jax.model.segments import Segments, join, split


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

    def __call__(
        self,
        x: jax.Array,
        visible: jax.Array | Sequence[jax.Array] | None = None,
        segments: Segments = (),
    ) -> jax.Array:
        """Tokens to tokens; where `visible` [..., T] is False no token attends to that one (ValueError with cudnn).

        `segments`: x [B, P, D] holds the tokens of several images side by side, see `packed`; tokens attend to those of
        their own image, and `visible` is a sequence, one array [B, V, T] a segment.
        """
        fused = self.qkv(x)
        if not segments:
            return self.proj(self._mixed(fused, visible))
        seen = [None] * len(segments) if visible is None else visible
        pieces = zip(split(fused, segments), seen, strict=True)
        return self.proj(join([self._mixed(piece, shown) for piece, shown in pieces]))

    def _mixed(self, fused: jax.Array, visible: Any) -> jax.Array:
        """Mixed values [..., T, D] of fused queries, keys and values [..., T, 3D]."""
        if self.implementation == "cudnn":
            if visible is not None:
                raise ValueError("attention='cudnn' cannot hide tokens; use attention='xla'.")
            return self._by_kernel(fused)
        query, key, value = self._split(fused)
        mixed = self._softmax(query, key, visible).astype(value.dtype) @ value
        return jnp.swapaxes(mixed, -3, -2).reshape(*fused.shape[:-1], self.dim)

    def weights(self, x: jax.Array, visible: jax.Array | None = None) -> jax.Array:
        """Attention weights [..., heads, T, T] of tokens [..., T, D]; rows (queries) sum to 1."""
        query, key, _ = self._split(self.qkv(x))
        return self._softmax(query, key, visible)

    def _by_kernel(self, fused: jax.Array, implementation: Literal["xla", "cudnn"] = "cudnn") -> jax.Array:
        """Mixed values [..., T, D] by a kernel that never writes the attention weights to memory.

        cuDNN's gradient wants an even number of tokens: an odd one gets a token more, which the lengths hide.
        """
        leading, tokens = fused.shape[:-2], fused.shape[-2]
        fused = fused.reshape(-1, tokens, 3, self.heads, self.dim // self.heads)
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
        return mixed[:, :tokens].reshape(*leading, tokens, self.dim)

    def _split(self, fused: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries, keys and values, each [..., heads, T, dim / heads]; one transposition serves all three."""
        fused = fused.reshape(*fused.shape[:-1], 3, self.heads, self.dim // self.heads)
        query, key, value = jnp.moveaxis(fused, (-3, -2), (0, -3))
        return query, key, value

    def _softmax(self, query: jax.Array, key: jax.Array, visible: jax.Array | None = None) -> jax.Array:
        scale = (self.dim // self.heads) ** -0.5
        logits = jnp.einsum("...qd,...kd->...qk", query * scale, key, preferred_element_type=at_least_float32(query))
        if visible is not None:
            logits = jnp.where(visible[..., None, None, :], logits, -jnp.inf)
        return jax.nn.softmax(logits, axis=-1)
