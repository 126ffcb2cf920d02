"""Classification losses of multi-hot targets, one number an example."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp


def classification_loss(
    logits: jax.Array,
    targets: jax.Array,
    *,
    kind: Literal["bce", "focal", "cross_entropy"],
    label_smoothing: float = 0.0,
    focal_gamma: float = 2.0,
    focal_alpha: float = 0.0,
) -> jax.Array:
    """The loss of each row [...] of logits [..., L] against multi-hot targets [..., L], in at least float32.

    bce            mean over classes of the binary cross-entropy; smoothing moves targets towards 1/2
    focal          the same, each term times (1 - p of what is true) ** gamma, and with alpha times alpha for positives
                   and 1 - alpha for negatives (Lin et al. 2017, arXiv:1708.02002)
    cross_entropy  of the softmax against the labels of the row, evenly; smoothing as in PyTorch, over all classes

    A row without labels means nothing: the caller gives it weight 0.
    """
    wide = jnp.promote_types(jnp.result_type(logits), jnp.float32)
    x, t = logits.astype(wide), targets.astype(wide)
    if kind == "cross_entropy":
        share = t / jnp.maximum(t.sum(-1, keepdims=True), 1)
        share = share * (1 - label_smoothing) + label_smoothing / x.shape[-1]
        return -(share * jax.nn.log_softmax(x, axis=-1)).sum(-1)
    if kind == "bce":
        t = t * (1 - label_smoothing) + label_smoothing / 2
    terms = -(t * jax.nn.log_sigmoid(x) + (1 - t) * jax.nn.log_sigmoid(-x))
    if kind == "focal":
        # exp of a logarithm: the power's gradient stays finite where a probability rounds to 0 or 1.
        log_wrong = t * jax.nn.log_sigmoid(-x) + (1 - t) * jax.nn.log_sigmoid(x)
        terms = terms * jnp.exp(focal_gamma * log_wrong)
        if focal_alpha:
            terms = terms * (t * focal_alpha + (1 - t) * (1 - focal_alpha))
    return terms.mean(-1)
