"""Classification losses against float64 NumPy, at the ends of the logits too."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protloc_jax.objective.classification import classification_loss

RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((7, 5)) * 3
TARGETS = (RNG.random((7, 5)) < 0.4).astype(np.float64)
TARGETS[:, 0] = np.maximum(TARGETS[:, 0], ~TARGETS.any(1))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def in_numpy(x, t, kind, smoothing=0.0, gamma=2.0, alpha=0.0):
    if kind == "cross_entropy":
        log_p = x - x.max(1, keepdims=True)
        log_p = log_p - np.log(np.exp(log_p).sum(1, keepdims=True))
        share = t / t.sum(1, keepdims=True) * (1 - smoothing) + smoothing / x.shape[1]
        return -(share * log_p).sum(1)
    t = t * (1 - smoothing) + smoothing / 2
    p = sigmoid(x)
    terms = -(t * np.log(p) + (1 - t) * np.log(1 - p))
    if kind == "focal":
        terms = terms * (1 - np.where(t == 1, p, 1 - p)) ** gamma
        terms = terms * np.where(t == 1, alpha, 1 - alpha) if alpha else terms
    return terms.mean(1)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("bce", {}),
        ("bce", {"smoothing": 0.2}),
        ("cross_entropy", {}),
        ("cross_entropy", {"smoothing": 0.1}),
        ("focal", {}),
        ("focal", {"gamma": 0.0}),
        ("focal", {"gamma": 1.3, "alpha": 0.25}),
    ],
)
def test_values_are_those_of_numpy(kind, more):
    names = {"smoothing": "label_smoothing", "gamma": "focal_gamma", "alpha": "focal_alpha"}
    options = {names[key]: value for key, value in more.items()}
    with jax.enable_x64(True):
        found = classification_loss(jnp.asarray(LOGITS), jnp.asarray(TARGETS), kind=kind, **options)
    assert found.dtype == jnp.float64
    np.testing.assert_allclose(found, in_numpy(LOGITS, TARGETS, kind, **more), rtol=1e-12)
    single = classification_loss(jnp.asarray(LOGITS, jnp.float32), jnp.asarray(TARGETS), kind=kind, **options)
    np.testing.assert_allclose(single, found, rtol=2e-5)


@pytest.mark.parametrize("kind", ["bce", "focal", "cross_entropy"])
def test_extreme_logits_have_finite_losses_and_gradients(kind):
    x = jnp.asarray([[200.0, -200.0, 0.0], [-200.0, 200.0, 200.0]])
    t = jnp.asarray([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    value, grad = jax.value_and_grad(lambda x: classification_loss(x, t, kind=kind).sum())(x)
    assert np.isfinite(value) and np.isfinite(grad).all()
    assert value > 50


def test_half_precision_is_widened():
    found = classification_loss(jnp.asarray(LOGITS, jnp.bfloat16), jnp.asarray(TARGETS), kind="bce")
    assert found.dtype == jnp.float32
