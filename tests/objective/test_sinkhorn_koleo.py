"""Balanced assignments and the KoLeo regulariser against plain float64 NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protloc_jax.objective.koleo import koleo_loss
from protloc_jax.objective.sinkhorn import balanced_logits


def sinkhorn_oracle(logits, temp, iterations):
    """DINOv2's own form: exponentials, prototypes then samples, on a [K, samples] matrix."""
    q = np.exp(logits.reshape(-1, logits.shape[-1]).astype(np.float64) / temp).T
    k, n = q.shape
    q /= q.sum()
    for _ in range(iterations):
        q /= q.sum(1, keepdims=True) * k
        q /= q.sum(0, keepdims=True) * n
    return (q * n).T.reshape(logits.shape)


@pytest.mark.parametrize("iterations", [1, 3])
def test_balanced_assignments_equal_the_plain_form(iterations):
    logits = np.random.default_rng(0).normal(0, 0.1, (6, 2, 5)).astype(np.float32)
    got = jax.nn.softmax(balanced_logits(jnp.asarray(logits), teacher_temp=0.05, iterations=iterations) / 0.05)
    np.testing.assert_allclose(got, sinkhorn_oracle(logits, 0.05, iterations), rtol=2e-5, atol=1e-7)


def test_prototypes_share_the_batch_and_low_temperatures_stay_finite():
    logits = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (40, 2, 4)), jnp.float32)
    log_q = balanced_logits(logits, teacher_temp=1e-3, iterations=3) / 1e-3
    assert np.isfinite(np.asarray(log_q)).all()
    q = jax.nn.softmax(balanced_logits(logits, teacher_temp=0.3, iterations=50) / 0.3)
    np.testing.assert_allclose(q.mean((0, 1)), np.full(4, 0.25), atol=1e-4)


def test_no_gradient_flows_through_the_assignments():
    logits = jnp.ones((3, 2, 4))
    assert not np.asarray(jax.grad(lambda x: balanced_logits(x, teacher_temp=0.1).sum())(logits)).any()


def koleo_oracle(x):
    x = x.astype(np.float64)
    x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    total = []
    for v in range(x.shape[1]):
        d = np.linalg.norm(x[:, None, v] - x[None, :, v], axis=-1)
        np.fill_diagonal(d, np.inf)
        total.append(-np.log(d.min(1)).mean())
    return np.mean(total)


def test_koleo_equals_the_definition_and_its_gradient_the_finite_difference():
    x = np.random.default_rng(2).normal(size=(7, 2, 5)).astype(np.float32)
    assert float(koleo_loss(jnp.asarray(x))) == pytest.approx(koleo_oracle(x), abs=1e-5)
    grad = np.asarray(jax.grad(koleo_loss)(jnp.asarray(x)))
    step = np.zeros_like(x)
    step[3, 1, 2] = 1e-3
    slope = (koleo_oracle(x + step) - koleo_oracle(x - step)) / 2e-3
    assert grad[3, 1, 2] == pytest.approx(slope, rel=1e-2, abs=1e-4)


def test_koleo_of_duplicates_is_finite_and_of_one_example_refused():
    value, grad = jax.value_and_grad(koleo_loss)(jnp.ones((4, 1, 3)))
    assert np.isfinite(value)
    assert np.isfinite(np.asarray(grad)).all()
    with pytest.raises(ValueError, match="at least two"):
        koleo_loss(jnp.ones((1, 2, 3)))
