"""Encoding a part of the patches, the decoder that paints the rest, and the throw-away heads."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protloc_jax.model.config import VitConfig
from protloc_jax.model.masked import MaskedDecoder, decoder_config, kept_patches
from protloc_jax.model.projection import ProjectionHead
from protloc_jax.model.vit import Vit

CONFIG = VitConfig(size="custom", dim=16, depth=1, heads=2, patch=4, image_size=16, channels=2, registers=1)
VIT = Vit(CONFIG)
QUICK = {"xla_backend_optimization_level": 0}


@pytest.fixture(name="vit", scope="module")
def _vit():
    with jax.enable_x64(True):
        images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 16, 2)))
        params = drawn(VIT, images)
        encode = jax.jit(lambda x, kept: VIT.apply({"params": params}, x, kept=kept), compiler_options=QUICK)
        yield images, params, encode


def drawn(module, *inputs):
    """Parameters of a module, float64, without compiling its initialisers."""
    rng = np.random.default_rng(7)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), shapes)


def test_nothing_dropped_is_the_whole_image_in_any_order(vit):
    images, _, encode = vit
    order = np.random.default_rng(1).permuted(np.tile(np.arange(16, dtype=np.int32), (2, 1)), axis=1)
    with jax.enable_x64(True):
        whole, kept = encode(images, None), encode(images, order)
        np.testing.assert_allclose(kept.cls, whole.cls, atol=1e-12)
        np.testing.assert_allclose(kept.registers, whole.registers, atol=1e-12)
        np.testing.assert_allclose(kept.patches, np.take_along_axis(whole.patches, order[..., None], 1), atol=1e-12)


def test_a_dropped_patch_has_no_influence_and_a_kept_one_has(vit):
    images, _, encode = vit
    kept = np.array([[1, 6, 11], [0, 5, 15]], np.int32)
    with jax.enable_x64(True):
        seen = encode(images, kept)
        assert seen.patches.shape == (2, 3, 16)
        for patch in range(16):
            row, column = (4 * n for n in divmod(patch, 4))
            other = np.asarray(images).copy()
            other[:, row : row + 4, column : column + 4] = 7.0
            moved = [not np.array_equal(a, b) for a, b in zip(encode(other, kept).cls, seen.cls, strict=True)]
            assert moved == [patch in kept[0], patch in kept[1]]


def test_kept_that_does_not_fit_is_refused(vit):
    images, params, _ = vit
    for kept in (np.zeros((2, 17), np.int32), np.zeros((2, 0), np.int32), np.zeros((1, 3), np.int32), np.zeros((2, 3))):
        with pytest.raises(ValueError, match=r"K from 1 to 16"):
            VIT.apply({"params": params}, images, kept=jnp.asarray(kept))
    with pytest.raises(ValueError, match="without seen"):
        VIT.apply({"params": params}, images, kept=jnp.zeros((2, 3), int), seen=jnp.ones((2, 16), bool))


def test_masks_are_the_examples_own_and_even():
    keys = jax.random.split(jax.random.key(3), 400)
    kept = np.asarray(jax.jit(kept_patches, static_argnums=(1, 2))(keys, 8, 2))
    assert kept.dtype == np.int32 and (kept[:, 0] != kept[:, 1]).all()
    np.testing.assert_array_equal(kept_patches(keys[7:8, None], 8, 2)[0, 0], kept[7])
    counts = np.bincount(kept.ravel(), minlength=8)
    assert ((counts - 100) ** 2 / 100).sum() < 24.3  # chi-squared, 7 degrees of freedom, 0.1 %


def test_the_decoder_puts_tokens_in_their_places():
    """Without blocks to mix tokens the pixels of a place are those of its own token and position."""
    config = decoder_config(CONFIG, dim=8, depth=1, heads=2)
    decoder = MaskedDecoder(config, patches=6, outputs=5)
    rng = np.random.default_rng(0)
    visible, specials = rng.normal(size=(3, 2, 16)), rng.normal(size=(3, 1, 16))
    kept = np.array([[4, 0], [1, 2], [5, 3]])
    with jax.enable_x64(True):
        params = drawn(decoder, visible, kept, specials)
        for part, layer in (("attn", "proj"), ("mlp", "fc2")):
            params["blocks"][part][layer] = jax.tree.map(jnp.zeros_like, params["blocks"][part][layer])
        got = jax.jit(decoder.apply, compiler_options=QUICK)({"params": params}, visible, kept, specials)
    p = jax.tree.map(np.asarray, params)
    for image in range(3):
        for place in range(6):
            token = p["mask"]
            if place in kept[image]:
                token = visible[image, list(kept[image]).index(place)] @ p["embed"]["kernel"] + p["embed"]["bias"]
            token = token + p["pos"][0, 1 + place]
            token = (token - token.mean()) / np.sqrt(token.var() + 1e-6) * p["norm"]["scale"] + p["norm"]["bias"]
            want = token @ p["pixels"]["kernel"] + p["pixels"]["bias"]
            np.testing.assert_allclose(got[image, place], want, rtol=1e-9)


@pytest.mark.torch
@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_the_head_is_torchs(norm):
    torch = pytest.importorskip("torch", reason="the oracle is written in torch")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(7, 2, 6)) * 2 + 1
    head = ProjectionHead(8, 3, norm)
    with jax.enable_x64(True):
        params = jax.tree.map(np.asarray, drawn(head, x))
        got = jax.jit(head.apply, compiler_options=QUICK)({"params": params}, x)
    norms = {"batch": torch.nn.BatchNorm1d(8), "layer": torch.nn.LayerNorm(8), "none": torch.nn.Identity()}
    peer = torch.nn.Sequential(torch.nn.Linear(6, 8), norms[norm], torch.nn.GELU(), torch.nn.Linear(8, 3)).double()
    weights = {f"{i}.{name}": params[layer] for i, layer in ((0, "fc1"), (3, "fc2")) for name in ("weight", "bias")}
    state = {k: v["kernel"].T if k.endswith("weight") else v["bias"] for k, v in weights.items()}
    if norm != "none":
        state |= {"1.weight": params["norm"]["scale"], "1.bias": params["norm"]["bias"]}
    peer.load_state_dict({k: torch.tensor(v) for k, v in state.items()}, strict=False)
    for view in range(2):  # one after another, as two forward passes of a two-view method
        np.testing.assert_allclose(got[:, view], peer(torch.tensor(x[:, view])).detach(), rtol=1e-9)


def test_dropped_units_are_the_examples_own():
    head = ProjectionHead(32, 4, "none", dropout=0.5)
    x, keys = jnp.ones((3, 6)), jax.random.split(jax.random.key(1), 3)
    params = {"params": drawn(head, x)}
    apply = jax.jit(head.apply, compiler_options=QUICK)
    together = apply(params, x, keys)
    assert len({float(row[0]) for row in together}) == 3
    np.testing.assert_allclose(apply(params, x[:1], keys[1:2])[0], together[1], rtol=1e-5, atol=1e-6)
    assert not np.allclose(apply(params, x)[0], together[0])
