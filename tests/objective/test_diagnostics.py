"""Collapse diagnostics: the numbers against NumPy, the verdicts on made-up cases and on runs that really collapse."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import pytest

from protloc_jax.objective.diagnostics import effective_rank, feature_moments, feature_spread, judge

LIMIT = math.log(64)
HEALTHY = {
    "loss": 2.5,
    "teacher_entropy": 1.5,
    "prototype_entropy": 3.0,
    "kl": 1.0,
    "feature_std": 0.8,
    "effective_rank": 9.0,
    "centre_norm": 1.0,
}


def test_moments_give_spread_and_rank_of_the_covariance():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 2, 5)) @ np.diag([3.0, 1, 1, 0.1, 0]) + 1.0
    moments = feature_moments(jnp.asarray(x, jnp.float32))
    rows = x.reshape(-1, 5)
    values = np.linalg.eigvalsh(np.cov(rows.T, bias=True))
    np.testing.assert_allclose(feature_spread(moments), rows.std(0).mean(), rtol=1e-4)
    np.testing.assert_allclose(effective_rank(moments), values.sum() ** 2 / (values**2).sum(), rtol=1e-4)


def test_moments_of_micro_batches_average_to_those_of_the_batch():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((8, 2, 5)), jnp.float32)
    halves = [feature_moments(x[i::2]) for i in range(2)]
    whole = feature_moments(x)
    for name, value in whole.items():
        np.testing.assert_allclose((halves[0][name] + halves[1][name]) / 2, value, atol=1e-6)


def test_constant_features_have_rank_0():
    assert float(effective_rank(feature_moments(jnp.full((4, 2, 3), 2.0)))) == 0.0


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "healthy"),
        (
            {"loss": LIMIT, "teacher_entropy": 0.998 * LIMIT, "prototype_entropy": 0.999 * LIMIT, "kl": 1e-4},
            "uniform collapse",
        ),
        (
            {"loss": 0.01, "teacher_entropy": 0.005, "prototype_entropy": 0.006, "kl": 0.005},
            "single-prototype collapse",
        ),
        ({"loss": 1.5, "teacher_entropy": 1.5, "prototype_entropy": 1.501, "kl": 1e-4}, "constant teacher"),
        ({"feature_std": 1e-3}, "flat features"),
        ({"effective_rank": 1.1}, "flat features"),
        ({"kl": float("nan")}, "not finite"),
        # Sure, imitated well, and different for different images: a solved task is no collapse.
        ({"loss": 0.02, "teacher_entropy": 0.01, "prototype_entropy": 2.0, "kl": 0.01}, "healthy"),
    ],
)
def test_verdicts(changes, state):
    verdict = judge(HEALTHY | changes, out_dim=64, step=500, warmup=100)
    assert verdict.state == state
    assert verdict.alarm == (state != "healthy")
    assert len(verdict.words) > 20


def test_nothing_but_non_finite_numbers_alarms_before_the_warm_up_is_over():
    flat = HEALTHY | {"loss": LIMIT, "teacher_entropy": LIMIT, "prototype_entropy": LIMIT, "kl": 0.0}
    assert not judge(flat, out_dim=64, step=99, warmup=100).alarm
    assert judge(flat, out_dim=64, step=100, warmup=100).alarm
    assert judge(flat | {"loss": float("inf")}, out_dim=64, step=0, warmup=100).alarm
