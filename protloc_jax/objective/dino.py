"""The DINO loss and its centre (Caron et al. 2021; facebookresearch/dino, `main_dino.py`, class DINOLoss)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


class DinoStats(NamedTuple):
    """What the loss saw, as means over examples (so that means over micro-batches are means over the batch)."""

    teacher_entropy: jax.Array  # nats; ln K when the teacher says nothing, 0 when it always points at one prototype
    kl: jax.Array  # nats, from teacher to student over the pairs of the loss; loss = teacher_entropy + kl
    teacher_probabilities: jax.Array  # [K] mean over views; their entropy says how many prototypes are in use
    teacher_logits: jax.Array  # [K] mean raw teacher logit, what the centre follows


def dino_loss(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    centre: jax.Array,
    *,
    student_temp: ArrayLike,
    teacher_temp: ArrayLike,
) -> tuple[jax.Array, DinoStats]:
    """Cross-entropy of every (teacher view, student view) pair of an image, except a view with itself; mean of all.

    student_logits [B, V, K], teacher_logits [B, Vg, K], centre [K]; the first Vg student views are the teacher's, in
    order. The teacher gets no gradient. Computed in at least float32; float64 stays float64. Starts near ln K.

    The sum over pairs is taken before the sum over prototypes: with p_i the teacher's probabilities and l_j the
    student's log-probabilities, sum_{i != j} p_i . l_j = (sum_i p_i) . (sum_j l_j) - sum_i p_i . l_i, so no pair is
    ever laid out and the cost is that of reading the logits.
    """
    views, teacher_views = student_logits.shape[-2], teacher_logits.shape[-2]
    pairs = teacher_views * (views - 1)
    if views < teacher_views or pairs < 1:
        raise ValueError(
            f"{teacher_views} teacher views and {views} student views make no pair; the student needs the teacher's "
            "views and the two together at least one pair of different views."
        )
    wide = jnp.promote_types(jnp.result_type(student_logits, teacher_logits, centre), jnp.float32)
    temps = [jnp.asarray(t, wide) for t in (student_temp, teacher_temp)]
    teacher = jax.lax.stop_gradient(teacher_logits).astype(wide)
    mean_logits = teacher.mean((0, 1))
    log_p = jax.nn.log_softmax((teacher - jax.lax.stop_gradient(centre).astype(wide)) / temps[1], axis=-1)
    p = jnp.exp(log_p)
    entropy = -(p * log_p).sum(-1).mean()

    scaled = student_logits.astype(wide) / temps[0]
    normaliser = jax.nn.logsumexp(scaled, axis=-1)
    agreement = (p.sum(1) * scaled.sum(1)).sum(-1) - (p * scaled[:, :teacher_views]).sum((1, 2))
    # Each p_i sums to 1, so the normaliser of student view j enters once for every teacher view but itself.
    normalisers = teacher_views * normaliser.sum(1) - normaliser[:, :teacher_views].sum(1)
    loss = (normalisers - agreement).mean() / pairs
    return loss, DinoStats(entropy, jax.lax.stop_gradient(loss) - entropy, p.mean((0, 1)), mean_logits)


def update_centre(centre: jax.Array, mean_logits: jax.Array, momentum: ArrayLike) -> jax.Array:
    """The centre [K] after a step: an exponential average of the global batch's mean raw teacher logits [K]."""
    momentum = jnp.asarray(momentum, centre.dtype)
    return centre * momentum + mean_logits.astype(centre.dtype) * (1 - momentum)
