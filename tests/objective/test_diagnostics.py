"""Collapse diagnostics: the numbers against NumPy, the verdicts on made-up cases and on runs that really collapse."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from protloc_jax.objective.diagnostics import effective_rank, entropy, feature_moments, feature_spread, judge
from protloc_jax.objective.dino import dino_loss, update_centre

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


STEPS, WARMUP, SEEDS = 200, 50, 5


def self_distil(key, teacher_temp, centre_momentum, offset):
    """Metrics [STEPS] of a small self-distilled perceptron on noisy points around 12 centres that share an offset."""
    keys = jax.random.split(key, 6)
    points = jax.random.normal(keys[0], (12, 16)) + offset
    shapes = {"in": (16, 64), "out": (64, 32), "neck": (32, 16), "last": (16, 64)}
    student = {n: jax.random.normal(k, s) / s[0] ** 0.5 for k, (n, s) in zip(keys[1:5], shapes.items(), strict=True)}

    def features(p, x):
        h = jax.nn.gelu(x @ p["in"]) @ p["out"]
        h = h - h.mean(-1, keepdims=True)
        return h / jnp.sqrt(jnp.square(h).mean(-1, keepdims=True) + 1e-6)

    def logits(p, h):
        z = h @ p["neck"]
        last = p["last"] / jnp.linalg.norm(p["last"], axis=0)
        return z / jnp.linalg.norm(z, axis=-1, keepdims=True) @ last

    optimiser = optax.adamw(3e-3, weight_decay=0.04)

    def body(carry, i):
        student, teacher, moments, centre = carry
        which, noise = jax.random.split(jax.random.fold_in(keys[5], i))
        x = points[jax.random.randint(which, (32,), 0, 12)]
        views = x[:, None] + 0.7 * jax.random.normal(noise, (32, 4, 16))
        target = logits(teacher, features(teacher, views[:, :2]))

        def objective(p):
            h = features(p, views)
            loss, stats = dino_loss(logits(p, h), target, centre, student_temp=0.1, teacher_temp=teacher_temp)
            return loss, (stats, feature_moments(h[:, :2]))

        (loss, (stats, seen)), grads = jax.value_and_grad(objective, has_aux=True)(student)
        updates, moments = optimiser.update(grads, moments, student)
        student = optax.apply_updates(student, updates)
        teacher = jax.tree.map(lambda t, s: 0.98 * t + 0.02 * s, teacher, student)
        centre = update_centre(centre, stats.teacher_logits, centre_momentum)
        metrics = {
            "loss": loss,
            "teacher_entropy": stats.teacher_entropy,
            "prototype_entropy": entropy(stats.teacher_probabilities),
            "kl": stats.kl,
            "feature_std": feature_spread(seen),
            "effective_rank": effective_rank(seen),
            "centre_norm": jnp.linalg.norm(centre),
        }
        return (student, teacher, moments, centre), metrics

    start = (student, student, optimiser.init(student), jnp.zeros(64))
    return jax.lax.scan(body, start, jnp.arange(STEPS))[1]


def test_real_collapses_alarm_within_200_steps_and_healthy_runs_never():
    recipes = jnp.asarray([(0.07, 0.9, 4.0), (0.04, 0.9, 4.0), (0.3, 0.9, 4.0), (0.04, 1.0, 8.0)])
    keys = jax.random.split(jax.random.key(0), SEEDS)
    run = jax.vmap(jax.vmap(self_distil, in_axes=(0, None, None, None)), in_axes=(None, 0, 0, 0))
    metrics = jax.device_get(jax.jit(run)(keys, *recipes.T))

    def states(recipe, seed):
        of_step = ({name: v[recipe, seed, i] for name, v in metrics.items()} for i in range(STEPS))
        return [judge(m, out_dim=64, step=i, warmup=WARMUP).state for i, m in enumerate(of_step)]

    for seed in range(SEEDS):
        for healthy in (0, 1):
            assert set(states(healthy, seed)) == {"warming up", "healthy"}
        assert states(2, seed)[-1] == "uniform collapse"  # teacher too hot
        assert states(3, seed)[-1] == "single-prototype collapse"  # no centre
