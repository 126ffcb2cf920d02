"""KoLeo: spread the features of a batch by pushing every one away from its nearest neighbour."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def koleo_loss(features: jax.Array, *, eps: float = 1e-8) -> jax.Array:
    """Minus the mean log distance of each example to its nearest neighbour, per view; features [B, V, D], scalar.

    Features are L2-normalised; neighbours are sought among the other examples of the global batch in the same view
    (Sablayrolles et al. 2019, arXiv:1806.03198; weight 0.1 in DINOv2). Duplicates stay finite, in value and gradient:
    `eps` is added to the squared distance. At least float32. ValueError for a batch of one, which has no neighbour.
    """
    batch = features.shape[0]
    if batch < 2:
        raise ValueError("the KoLeo regulariser needs at least two examples a batch; set method.koleo=0.")
    wide = features.astype(jnp.promote_types(features.dtype, jnp.float32))
    unit = wide / jnp.sqrt(jnp.square(wide).sum(-1, keepdims=True) + eps)
    fixed = jax.lax.stop_gradient(unit)
    similarity = jnp.einsum("bvd,cvd->vbc", fixed, fixed, precision=jax.lax.Precision.HIGHEST)
    similarity = jnp.where(jnp.eye(batch, dtype=bool), -jnp.inf, similarity)
    nearest = jnp.argmax(similarity, axis=-1)  # [V, B]
    neighbour = jax.vmap(lambda x, at: x[at], in_axes=(1, 0), out_axes=1)(unit, nearest)
    square = jnp.square(unit - neighbour).sum(-1)
    return -0.5 * jnp.log(square + eps).mean()
