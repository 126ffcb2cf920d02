"""Tokens of images of several sizes side by side: one array for the linear maps, images apart for attention."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

# One (images, tokens of each) a size.
Segments = tuple[tuple[int, int], ...]


def split(packed: jax.Array, segments: Segments) -> list[jax.Array]:
    """[B, P, D] with P the sum of V * T over segments to one [B, V, T, D] a segment."""
    pieces, start = [], 0
    for views, tokens in segments:
        piece = jax.lax.slice_in_dim(packed, start, start + views * tokens, axis=1)
        pieces.append(piece.reshape(packed.shape[0], views, tokens, packed.shape[-1]))
        start += views * tokens
    return pieces


def join(pieces: Sequence[jax.Array]) -> jax.Array:
    """[B, V, T, D] a segment to [B, P, D]. The example axis stays in front: nothing moves between devices."""
    return jnp.concatenate([p.reshape(p.shape[0], -1, p.shape[-1]) for p in pieces], axis=1)


def for_tokens(of_images: jax.Array, segments: Segments) -> jax.Array:
    """[..., images of all segments] to [..., P]: the number of an image for each of its tokens."""
    tokens = np.concatenate([np.full(views, tokens) for views, tokens in segments])
    return jnp.take(of_images, np.repeat(np.arange(len(tokens)), tokens), axis=-1)
