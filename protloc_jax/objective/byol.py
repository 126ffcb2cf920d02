"""The loss of BYOL: predict the other view's projection by the slowly moving network."""

from __future__ import annotations

import jax

from protloc_jax.objective.contrastive import unit_vectors


def byol_loss(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """2 - 2 cos(prediction of one view, target of the other), a mean over both directions and the batch.

    predictions, targets [B, 2, D], in the order of the views; targets get no gradient; at least float32.
    Source: Grill et al. 2020 (arXiv:2006.07733), equation 2; there the two directions are added, here averaged, as in
    the knowledge-guided pretraining of arXiv:2507.10737.
    """
    if predictions.shape != targets.shape or predictions.ndim != 3 or predictions.shape[1] != 2:
        raise ValueError(f"predictions {predictions.shape} and targets {targets.shape}: two views each, [B, 2, D].")
    p, t = unit_vectors(predictions), unit_vectors(jax.lax.stop_gradient(targets))[:, ::-1]
    return 2 - 2 * (p * t).sum(-1).mean()
