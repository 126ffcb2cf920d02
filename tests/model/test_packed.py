"""Crops of two sizes side by side through one transformer give what one pass a size gives, gradients included."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protloc_jax.model.config import VitConfig
from protloc_jax.model.packed import encode_together
from protloc_jax.model.segments import for_tokens, join, split
from protloc_jax.model.vit import Vit

PLAIN = VitConfig(size="custom", dim=16, depth=2, heads=2, patch=4, channels=2, image_size=16, drop_path=0.4)
KINDS = {
    "plain": PLAIN,
    "unrolled, recomputed": dataclasses.replace(PLAIN, scan=False, remat="block"),
    "channels": dataclasses.replace(PLAIN, stem="channels", channel_names=("nucleus:nucleus", "protein:protein")),
    "cell tokens, registers, mean": dataclasses.replace(
        PLAIN, cell_tokens=1, cell_dim=3, registers=2, final_norm="pooled", layerscale=0.5
    ),
}


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
def test_side_by_side_is_size_by_size(config, float64):
    rng = np.random.default_rng(0)
    sizes = [jnp.asarray(rng.standard_normal((3, views, side, side, 2))) for views, side in ((2, 16), (3, 8))]
    keys = jax.random.split(jax.random.key(1), (3, 5))
    of_size = (slice(None, 2), slice(2, None))
    line = jnp.asarray(rng.standard_normal((3, 3))) if config.cell_tokens else None
    present = [None, None]
    if config.stem == "channels":
        shown = jnp.asarray(rng.random((3, 5, 2)) < 0.5).at[..., 0].set(True)
        present = [shown[:, at] for at in of_size]
    vit: Any = Vit(config)
    params = vit.init(jax.random.key(0), sizes[0], cell_line=line)["params"]
    params = jax.tree.map(lambda p: jnp.asarray(p + 0.1 * rng.standard_normal(p.shape), jnp.float64), params)
    weight = jnp.asarray(rng.standard_normal((3, 5, 16)))

    def apart(params):
        features = [
            vit.apply({"params": params}, x, keys[:, at], present=shown, cell_line=line).cls
            for x, at, shown in zip(sizes, of_size, present, strict=True)
        ]
        return (jnp.concatenate(features, axis=1) * weight).sum(), features

    def together(params):
        outputs = encode_together(vit, params, sizes, keys, present=present, cell_line=line)
        features = [output.cls for output in outputs]
        return (jnp.concatenate(features, axis=1) * weight).sum(), features

    (_, want), want_grads = jax.jit(jax.value_and_grad(apart, has_aux=True))(params)
    (_, got), got_grads = jax.jit(jax.value_and_grad(together, has_aux=True))(params)
    for a, b in zip(jax.tree.leaves((got, got_grads)), jax.tree.leaves((want, want_grads)), strict=True):
        assert a.dtype == jnp.float64
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(got_grads["blocks"]))


def test_the_blocks_are_passed_once():
    sizes = [jnp.zeros((1, 2, 16, 16, 2)), jnp.zeros((1, 3, 8, 8, 2))]
    vit: Any = Vit(dataclasses.replace(PLAIN, drop_path=0.0))
    params = vit.init(jax.random.key(0), sizes[0])["params"]
    text = str(jax.make_jaxpr(lambda p: [o.cls for o in encode_together(vit, p, sizes)])(params))
    apart = str(jax.make_jaxpr(lambda p: [vit.apply({"params": p}, x).cls for x in sizes])(params))
    assert text.count("scan[") == 1
    assert apart.count("scan[") == 2


def test_split_undoes_join_and_numbers_follow_their_image():
    segments = ((2, 3), (1, 2))
    pieces = [np.arange(24.0).reshape(1, 2, 3, 4), 100 + np.arange(8.0).reshape(1, 1, 2, 4)]
    packed = join([jnp.asarray(p) for p in pieces])
    assert packed.shape == (1, 8, 4)
    for piece, back in zip(pieces, split(packed, segments), strict=True):
        np.testing.assert_array_equal(back, piece)
    np.testing.assert_array_equal(for_tokens(jnp.asarray([7, 8, 9]), segments), [7, 7, 7, 8, 8, 8, 9, 9])
