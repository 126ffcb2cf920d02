"""Attention rollout against whole matrices multiplied in float64 NumPy, and what holds of every rollout."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import pytest
from channel_model import CONFIG as BY_CHANNEL
from channel_model import weights
from test_vit import CONFIG, images, oracle, scrambled

from protloc_jax.channels import parse
from protloc_jax.model.encoder import Encoder
from protloc_jax.model.rollout import rollout
from protloc_jax.model.vit import Vit
from protloc_jax.views.normalisation import Normalisation
from protloc_jax.views.prepare import PrepareConfig

STILL = dataclasses.replace(CONFIG, drop_path=0.0)


def multiplied(maps):
    """Rollout matrices [B, T, T] of attention [depth, B, heads, T, T], first block first."""
    depth, batch, _, tokens, _ = maps.shape
    result = np.broadcast_to(np.eye(tokens), (batch, tokens, tokens))
    for number in range(depth):
        mixed = (maps[number].mean(1) + np.eye(tokens)) / 2
        result = (mixed / mixed.sum(-1, keepdims=True)) @ result
    return result


def by_model(config, params, x):
    out = Vit(config).apply({"params": params}, x, block_inputs=True)
    return rollout(config, params["blocks"], out.block_inputs)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-13)])
def test_rollout_equals_the_product_of_matrices(dtype, tolerance):
    with jax.enable_x64(dtype == "float64"):
        params, x = scrambled(STILL, dtype), images(dtype)
        row = jax.jit(lambda p, x: by_model(STILL, p, x))(params, x)
        assert row.dtype == dtype
        _, maps = oracle(params, x, STILL, None)
        np.testing.assert_allclose(row, multiplied(maps)[:, 0], atol=tolerance)
        np.testing.assert_allclose(np.sum(row, -1), 1, atol=10 * tolerance)


def test_unrolled_blocks_and_rematerialisation_change_nothing():
    params, x = scrambled(STILL), images()
    other = dataclasses.replace(STILL, scan=False, remat="selective")
    want, got = (jax.jit(functools.partial(by_model, config))(params, x) for config in (STILL, other))
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_the_encoder_leaves_out_class_token_and_registers():
    encoder = Encoder(STILL, parse("dna,gfp,er,actin"), scrambled(STILL), PrepareConfig(Normalisation("none")))
    x = np.random.default_rng(0).random((2, 16, 16, 4)).astype(np.float32)
    _, maps = oracle(encoder.params, x, STILL, None)
    want = multiplied(maps)[:, 0, STILL.prefix :].reshape(2, 1, 4, 4)
    np.testing.assert_allclose(encoder.rollout(x), want, atol=1e-6)
    last = maps[-1][:, :, 0, STILL.prefix :].reshape(2, 1, STILL.shape.heads, 4, 4)
    np.testing.assert_allclose(encoder.attention(x), last, atol=1e-5)


def test_tokens_of_every_channel_have_a_map_each():
    source = parse("gfp,nucleus")
    encoder = Encoder(BY_CHANNEL, source, weights(), PrepareConfig(Normalisation("none")))
    x = np.random.default_rng(0).random((2, 12, 12, 2)).astype(np.float32)
    apart, whole = encoder.rollout(x, by_channel=True), encoder.rollout(x)
    assert apart.shape == (2, 1, 2, 3, 3) and whole.shape == (2, 1, 3, 3)
    np.testing.assert_allclose(apart.sum(2), whole, atol=1e-6)
    run = jax.jit(lambda p, x, rows: Vit(BY_CHANNEL).apply({"params": p}, x, channel_ids=rows, block_inputs=True))
    out = run(encoder.params, x, np.asarray([1, 0]))
    want = rollout(BY_CHANNEL, encoder.params["blocks"], out.block_inputs)[:, 2:].reshape(2, 2, 3, 3)
    np.testing.assert_allclose(apart[:, 0], want, atol=1e-6)


def test_a_token_that_is_hidden_gets_nothing():
    params, x = weights(), np.random.default_rng(0).random((1, 12, 12, 2)).astype(np.float32)
    present = np.asarray([[True, False]])
    visible = np.ones((1, 20), bool)
    visible[:, 11:] = False

    @jax.jit
    def run(params, x):
        out = Vit(BY_CHANNEL).apply({"params": params}, x, present=present, block_inputs=True)
        return rollout(BY_CHANNEL, params["blocks"], out.block_inputs, visible)

    row = np.asarray(run(params, x))
    assert (row[:, 11:] == 0).all() and row.sum() == pytest.approx(1)
