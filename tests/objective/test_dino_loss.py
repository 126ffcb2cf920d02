"""The DINO loss against a pair-by-pair NumPy oracle."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dino_oracle import loss_and_gradient

from protloc_jax.objective.dino import dino_loss, update_centre

TEMPS = {"student_temp": 0.1, "teacher_temp": 0.04}


def logits(batch=3, views=5, teacher_views=2, k=17, scale=0.3, seed=0):
    rng = np.random.default_rng(seed)
    shapes = ((batch, views, k), (batch, teacher_views, k), (k,))
    return tuple(scale * rng.standard_normal(shape) for shape in shapes)


@pytest.mark.parametrize("views", [(5, 2), (2, 2), (4, 1), (6, 3)])
def test_loss_and_gradient_equal_the_oracle_in_float64(views):
    arrays = logits(views=views[0], teacher_views=views[1])
    expected, gradient, entropy = loss_and_gradient(*arrays, **TEMPS)
    with jax.enable_x64(True):
        (loss, stats), grads = jax.value_and_grad(functools.partial(dino_loss, **TEMPS), has_aux=True)(*arrays)
        assert loss.dtype == jnp.float64
        np.testing.assert_allclose(loss, expected, rtol=1e-13)
        np.testing.assert_allclose(grads, gradient, atol=1e-13 * np.abs(gradient).max())
        np.testing.assert_allclose(stats.teacher_entropy, entropy, rtol=1e-12)
        np.testing.assert_allclose(stats.kl, expected - entropy, rtol=1e-10)
        np.testing.assert_allclose(stats.teacher_logits, arrays[1].mean((0, 1)), rtol=1e-12)


def test_float32_loss_and_gradient_are_within_1e_4():
    # Large logits, as late in training: softmax at temperature 0.04 is nearly a choice of one.
    arrays = logits(k=4096, scale=1.0)
    expected, gradient, _ = loss_and_gradient(*arrays, **TEMPS)
    narrow = [jnp.asarray(a, jnp.float32) for a in arrays]
    (loss, _), grads = jax.value_and_grad(functools.partial(dino_loss, **TEMPS), has_aux=True)(*narrow)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    np.testing.assert_allclose(grads, gradient, atol=1e-4 * np.abs(gradient).max())


def test_half_precision_logits_are_widened_first():
    student, teacher, centre = (jnp.asarray(a, jnp.bfloat16) for a in logits(k=256))
    loss, _ = dino_loss(student, teacher, centre, **TEMPS)
    expected, *_ = loss_and_gradient(*(np.asarray(a, np.float64) for a in (student, teacher, centre)), **TEMPS)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_uniform_outputs_cost_ln_k():
    student, teacher, centre = jnp.ones((2, 4, 64)), jnp.full((2, 2, 64), -3.0), jnp.zeros(64)
    loss, stats = dino_loss(student, teacher, centre, **TEMPS)
    np.testing.assert_allclose([loss, stats.teacher_entropy], np.log(64), rtol=1e-6)
    assert abs(float(stats.kl)) < 1e-5


def test_teacher_and_centre_get_no_gradient():
    grads = jax.grad(lambda *a: dino_loss(*a, **TEMPS)[0], argnums=(1, 2))(*map(jnp.asarray, logits()))
    assert all(not np.any(g) for g in grads)


def test_a_view_is_never_compared_with_itself():
    student, teacher, centre = logits(views=2, teacher_views=1)
    moved = student.copy()
    moved[:, 0] += np.random.default_rng(1).standard_normal(moved[:, 0].shape)
    before, after = (float(dino_loss(*map(jnp.asarray, (s, teacher, centre)), **TEMPS)[0]) for s in (student, moved))
    assert after == pytest.approx(before, rel=1e-6)


def test_no_pair_is_ever_laid_out():
    batch, views, teacher_views, k = 2, 7, 3, 50
    arrays = [jnp.asarray(a) for a in logits(batch, views, teacher_views, k)]
    jaxpr = jax.make_jaxpr(jax.value_and_grad(lambda *a: dino_loss(*a, **TEMPS)[0]))(*arrays)
    largest = max(v.aval.size for eqn in jaxpr.jaxpr.eqns for v in eqn.outvars)
    assert largest == batch * views * k


@pytest.mark.parametrize(("views", "teacher_views"), [(1, 1), (1, 2), (0, 0)])
def test_views_that_make_no_pair_are_refused(views, teacher_views):
    with pytest.raises(ValueError, match="no pair"):
        dino_loss(jnp.zeros((2, views, 4)), jnp.zeros((2, teacher_views, 4)), jnp.zeros(4), **TEMPS)


def test_the_centre_is_an_exponential_average():
    rng = np.random.default_rng(0)
    centre, expected = jnp.zeros(9), np.zeros(9)
    for _ in range(3):
        mean = rng.standard_normal(9)
        centre, expected = update_centre(centre, jnp.asarray(mean), 0.9), 0.9 * expected + 0.1 * mean
    np.testing.assert_allclose(centre, expected, rtol=1e-6)
