"""Tokens of every channel against a float64 oracle, against the joint stem, and against leaving a channel out."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from channel_model import CONFIG, WORDS, forward, pictures, weights

from protloc_jax.model.channel_tokens import row_ids
from protloc_jax.model.config import VitConfig
from protloc_jax.model.flops import Crops, activation_bytes, vit_flops
from protloc_jax.model.vit import Vit

VIT = Vit(CONFIG)
PATCHES = 9


@partial(jax.jit, static_argnums=0)
def run(vit, params, images, ids=None, present=None):
    """Everything that a model gives; one program for each kind of input in this file."""
    return vit.apply({"params": params}, images, channel_ids=ids, present=present, layers=(0,), attention=True)


def test_forward_equals_the_numpy_oracle():
    rows, tolerance = np.array([3, 0, 4]), 1e-12
    with jax.enable_x64(True):
        params, images = weights(dtype="float64"), pictures(3, "float64")
        out = run(VIT, params, images, rows)
        for i, image in enumerate(images):
            tokens, attention = forward(params, image, rows)
            assert len(tokens) == CONFIG.tokens(12, 12) == 2 + 3 * PATCHES
            of_places = tokens[2:].reshape(3, PATCHES, -1).mean(0)
            np.testing.assert_allclose(out.cls[i], tokens[0], rtol=0, atol=tolerance)
            np.testing.assert_allclose(out.registers[i], tokens[1:2], rtol=0, atol=tolerance)
            np.testing.assert_allclose(out.patches[i], of_places, rtol=0, atol=tolerance)
            np.testing.assert_allclose(out.attention[i], attention, rtol=0, atol=tolerance)


def test_rows_are_the_first_ones_unless_told_otherwise():
    params, images = weights(), pictures(3)
    named, first = (run(VIT, params, images, np.array(ids)).cls for ids in ([1, 4, 2], [0, 1, 2]))
    assert np.abs(named - first).max() > 0.01
    assert row_ids(CONFIG, 3, None).tolist() == [0, 1, 2]


def test_one_channel_without_a_vector_of_its_own_is_the_joint_model_bit_for_bit():
    params, images = weights(), pictures(1, side=(16, 13))  # a grid that needs the position table resized
    joint = dataclasses.replace(CONFIG, stem="joint", channel_names=(), channels=1)
    plain = {name: leaf for name, leaf in params.items() if name != "channels"}
    zero = {**params, "channels": np.zeros_like(params["channels"])}
    jax.tree.map(np.testing.assert_array_equal, run(VIT, zero, images), run(Vit(joint), plain, images))


def test_the_order_of_channels_changes_nothing_but_rounding():
    params, images = weights(), pictures(3)
    one = run(VIT, params, images, np.array([0, 1, 3]))
    other = run(VIT, params, images[..., [2, 0, 1]], np.array([3, 0, 1]))
    np.testing.assert_allclose(one.cls, other.cls, atol=1e-5)
    np.testing.assert_allclose(one.patches, other.patches, atol=1e-5)


def test_a_hidden_channel_is_as_good_as_absent():
    present, ids = np.array([[True, False, True], [False, True, True]]), np.arange(3)
    with jax.enable_x64(True):
        params, images = weights(dtype="float64"), pictures(3, "float64")
        out = run(VIT, params, images, ids, present)
        for i, shown in enumerate(present):
            alone = run(VIT, params, images[..., shown], np.flatnonzero(shown))
            for got, want in zip([*out[:2], *out.layers[0]], [*alone[:2], *alone.layers[0]], strict=True):
                np.testing.assert_allclose(got[i], want[i], rtol=0, atol=1e-12)
        # Nothing of it reaches the output, neither another picture nor what is not a number.
        for value in (-7.0, np.nan):
            other = np.where(present[:, None, None], images, value)
            jax.tree.map(np.testing.assert_array_equal, run(VIT, params, other, ids, present)[:4], out[:4])


def test_no_gradient_reaches_a_hidden_channel_or_an_absent_row():
    present = np.array([[True, False, True], [False, True, True]])
    config = dataclasses.replace(CONFIG, remat="selective", class_token=False, final_norm="pooled", pre_norm=True)
    vit, params = Vit(config, (4, 0, 1)), weights(config)

    def loss(images, params):
        out = vit.apply({"params": params}, images, present=present)
        return (out.cls**2).sum() + (out.patches**3).sum()

    of_images, of_params = jax.jit(jax.grad(loss, argnums=(0, 1)))(pictures(3), params)
    size = np.abs(of_images).max((1, 2))
    assert (size[~present] == 0).all() and (size[present] > 1e-6).all()
    rows = np.abs(of_params["channels"]).max(-1)
    assert (rows[[2, 3]] == 0).all() and (rows[[0, 1, 4]] > 1e-6).all(), "rows that are not there learn nothing"


def test_arithmetic_and_memory_grow_with_the_channels():
    two, four = (dataclasses.replace(CONFIG, channels=n) for n in (2, 4))
    dim, depth, _, hidden = CONFIG.shape
    for config, channels in ((two, 2), (four, 4)):
        tokens = 2 + channels * PATCHES
        products = depth * (tokens * dim * (4 * dim + 2 * hidden) + 2 * tokens**2 * dim) + channels * PATCHES * 16 * dim
        assert vit_flops(config, 12) == 2 * products
    assert activation_bytes(four, Crops(1, 12), 1) > 1.8 * activation_bytes(two, Crops(1, 12), 1)


def test_what_does_not_fit_is_refused_by_name():
    params, images = {"params": weights()}, pictures(3)
    joint = dataclasses.replace(CONFIG, stem="joint", channel_names=())
    for model, x, options, words in (
        (VIT, images, {"channel_ids": (0, 1)}, "2 channel ids for images of 3 channels"),
        (VIT, images, {"channel_ids": (0, 5, -1)}, r"channel ids \[5, -1\] are no rows of a vocabulary of 5"),
        (VIT, pictures(6), {}, "images have 6 channels and the vocabulary 5 rows"),
        (VIT, pictures(0), {}, "expected"),
        (VIT, images, {"present": jnp.ones((2, 2), bool)}, r"present is bool\(2, 2\); .* need bool\(2, 3\)"),
        (Vit(joint), images, {"present": jnp.ones((2, 3), bool)}, "stem='joint'"),
        (Vit(dataclasses.replace(CONFIG, channel_names=())), images, {}, "channel_names is empty"),
    ):
        with pytest.raises(ValueError, match=words):
            jax.eval_shape(lambda p, x=x, model=model, options=options: model.apply(p, x, **options), params)
    fused = Vit(dataclasses.replace(CONFIG, attention="cudnn", dtype="bfloat16"))
    with pytest.raises(ValueError, match="cudnn' cannot hide tokens"):
        jax.eval_shape(lambda p: fused.apply(p, images, present=jnp.ones((2, 3), bool)), params)


def test_configurations_that_contradict_themselves_are_refused():
    with pytest.raises(ValueError, match=r"channel_names=a: stem='joint'(.|\n)*channel_sampling='hierarchical': needs"):
        VitConfig(channel_names=("a",), channel_sampling="hierarchical")
    with pytest.raises(ValueError, match=r"channel_names: channel names must be unique; repeated: a"):
        VitConfig(stem="channels", channel_names=("a", "b", "a:er"))
    with pytest.raises(
        ValueError, match=r"channel_sampling='hierarchical' hides tokens, which attention='cudnn' cannot"
    ):
        VitConfig(
            stem="channels", channel_names=WORDS, channel_sampling="hierarchical", attention="cudnn", dtype="bfloat16"
        )
