"""Contrastive losses of two views: NT-Xent, as SimCLR has it, and queries against momentum keys, as MoCo v3 has it.

Both compare every example with the whole batch given. The example axis leads and is never merged with the view axis,
so that under jit a batch that is split over devices is compared as one: what is exchanged are the projections, some
hundred numbers a view.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


class Contrast(NamedTuple):
    """A loss, and the share of anchors that are nearest to their own counterpart (ties count as missed)."""

    loss: jax.Array
    top1: jax.Array


def nt_xent(projections: jax.Array, *, temperature: ArrayLike) -> Contrast:
    """NT-Xent of projections [B, 2, D] of two views, a mean over the 2B anchors; at least float32.

    Each anchor is to find the other view of its example among the 2B - 1 other projections, by cosine over
    temperature. Source: Chen et al. 2020 (arXiv:2002.05709), equation 1.
    """
    if projections.ndim != 3 or projections.shape[1] != 2:
        raise ValueError(f"projections have shape {projections.shape}; NT-Xent compares two views, [B, 2, D].")
    z = unit_vectors(projections)
    logits = jnp.einsum("bvd,cwd->bvcw", z, z, precision="highest") / jnp.asarray(temperature, z.dtype)
    own_example, own_view = jnp.eye(len(z), dtype=bool)[:, None, :, None], jnp.eye(2, dtype=bool)[None, :, None, :]
    logits = jnp.where(own_example & own_view, -jnp.inf, logits)
    true = own_example & ~own_view
    right = jnp.where(true, logits, 0).sum((2, 3))
    loss = jax.nn.logsumexp(logits, axis=(2, 3)) - right
    return Contrast(loss.mean(), _share(right > jnp.where(true, -jnp.inf, logits).max((2, 3))))


def info_nce(queries: jax.Array, keys: jax.Array, *, temperature: ArrayLike) -> Contrast:
    """InfoNCE of queries [B, 2, D] against the keys [B, 2, D] of the other view, times twice the temperature.

    A mean over examples and both directions; keys get no gradient; at least float32. Negatives are the keys of the
    batch, there is no queue. Source: Chen, Xie and He 2021 (arXiv:2104.02057), algorithm 1, whose factor keeps the
    gradient's size when the temperature changes.
    """
    if queries.shape != keys.shape or queries.ndim != 3 or queries.shape[1] != 2:
        raise ValueError(f"queries {queries.shape} and keys {keys.shape}: two views of each example, [B, 2, D].")
    q, k = unit_vectors(queries), unit_vectors(jax.lax.stop_gradient(keys))[:, ::-1]
    tau = jnp.asarray(temperature, q.dtype)
    logits = jnp.einsum("bvd,cvd->bvc", q, k, precision="highest") / tau
    true = jnp.eye(len(q), dtype=bool)[:, None]
    right = jnp.where(true, logits, 0).sum(-1)
    loss = 2 * tau * (jax.nn.logsumexp(logits, axis=-1) - right).mean()
    return Contrast(loss, _share(right > jnp.where(true, -jnp.inf, logits).max(-1)))


def unit_vectors(x: jax.Array, eps: float = 1e-12) -> jax.Array:
    """x / max(|x|, eps) over the last axis, in at least float32; the gradient at 0 is finite."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), eps * eps))


def _share(hits: jax.Array) -> jax.Array:
    return jax.lax.stop_gradient(hits.astype(jnp.float32).mean())
