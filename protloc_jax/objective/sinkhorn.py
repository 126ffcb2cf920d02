"""Teacher assignments balanced over the batch (Sinkhorn-Knopp), the centring of SwAV and DINOv2."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def balanced_logits(teacher_logits: jax.Array, *, teacher_temp: ArrayLike, iterations: int = 3) -> jax.Array:
    """Logits [B, V, K] whose softmax at `teacher_temp` gives every prototype an equal share of the global batch.

    Alternately divides prototypes by their mass over all B * V views and views by their mass over prototypes, ending
    with the views, as DINOv2 does (Oquab et al. 2023, arXiv:2304.07193; Caron et al. 2020, arXiv:2006.09882). Done on
    logarithms in at least float32, so nothing overflows at low temperatures. No gradient flows. Unlike a centre, it
    looks at the whole batch, so it does not split over micro-batches.
    """
    wide = jnp.promote_types(teacher_logits.dtype, jnp.float32)
    temp = jnp.asarray(teacher_temp, wide)
    log_q = jax.lax.stop_gradient(teacher_logits).astype(wide) / temp
    for _ in range(iterations):
        log_q = log_q - jax.nn.logsumexp(log_q, axis=(0, 1), keepdims=True)
        log_q = log_q - jax.nn.logsumexp(log_q, axis=-1, keepdims=True)
    return log_q * temp
