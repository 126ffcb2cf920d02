"""Stochastic depth: rates, scaling, and draws that belong to an image and a block."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from protloc_jax.model.droppath import branch_gains, ramp


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def test_the_rate_rises_linearly_from_zero():
    np.testing.assert_allclose(ramp(0.3, 4), [0.0, 0.1, 0.2, 0.3])
    np.testing.assert_allclose(ramp(0.3, 1), [0.0])


def test_gains_are_zero_or_one_over_keep():
    gains = np.asarray(branch_gains(keys(4000), 0.5, 3))
    assert gains.shape == (3, 2, 4000)
    for block, rate in enumerate([0.0, 0.25, 0.5]):
        kept = gains[block] != 0
        np.testing.assert_allclose(gains[block][kept], 1 / (1 - rate), rtol=1e-6)
        assert 1 - kept.mean() == pytest.approx(rate, abs=0.03)
    both = (gains[2] == 0).all(0).mean()
    assert both == pytest.approx(0.25, abs=0.03)  # the two branches are drawn apart
    blocks = ((gains[1, 0] == 0) & (gains[2, 0] == 0)).mean()
    assert blocks == pytest.approx(0.125, abs=0.03)  # and so are the blocks


def test_a_draw_is_a_function_of_key_and_block_only():
    some = keys(6)
    whole = np.asarray(branch_gains(some, 0.5, 4))
    np.testing.assert_array_equal(whole[:, :, 2:3], branch_gains(some[2:3], 0.5, 4))
    np.testing.assert_array_equal(whole, np.reshape(branch_gains(some.reshape(2, 3), 0.5, 4), (4, 2, 6)))
    for block in range(4):
        draw = np.asarray(jax.random.uniform(jax.random.fold_in(some[3], block), (2,)))
        rate = 0.5 * block / 3
        np.testing.assert_allclose(whole[block, :, 3], np.where(draw < 1 - rate, 1 / (1 - rate), 0), rtol=1e-6)


def test_a_single_key_without_batch():
    assert branch_gains(keys(1)[0], 0.5, 3).shape == (3, 2)
