"""Cell tokens against a float64 NumPy transformer of one block, and what vectors of lines do to features."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from protloc_jax.channels import parse
from protloc_jax.convert.frozen import freeze
from protloc_jax.convert.refusal import ExportRefused
from protloc_jax.model.config import VitConfig
from protloc_jax.model.encoder import Encoder
from protloc_jax.model.flops import count_parameters, parameter_shapes, vit_flops
from protloc_jax.model.vit import Vit
from protloc_jax.train.digest import named_leaves
from protloc_jax.views.prepare import PrepareConfig

PLAIN = VitConfig(size="custom", dim=16, depth=1, heads=2, patch=8, image_size=16, channels=2, registers=1)
CONFIG = dataclasses.replace(PLAIN, cell_tokens=2, cell_dim=3, position_prefix="all")
LINES = np.asarray([[4.0, -3.0, 7.0], [-5.0, 2.0, 1.0]])


@pytest.fixture(scope="module")
def images():
    """Two images of two views each, the same two images twice: only their lines differ. 24 x 16 pixels."""
    one = np.random.default_rng(0).normal(size=(1, 2, 24, 16, 2))
    return np.concatenate([one, one])


@pytest.fixture(scope="module")
def params() -> Any:
    """Random numbers of a size at which every part matters, float64."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda s: rng.normal(size=s.shape) * 0.3, parameter_shapes(CONFIG))


@pytest.fixture(scope="module")
def encoded(params, images):
    """Outputs in float64 for lines (0, 1) and (1, 0): one program."""
    with jax.enable_x64(True):
        apply = jax.jit(lambda lines: Vit(CONFIG).apply({"params": params}, images, cell_line=lines, attention=True))
        return [jax.tree.map(np.asarray, apply(lines)) for lines in (LINES, LINES[::-1].copy())]


def layer_norm(x, p):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + CONFIG.norm_eps) * p["scale"] + p["bias"]


def oracle(p, image, line):
    """Tokens [T, D] after block and norm, and attention [heads, T, T], of one image [24, 16, C], in plain NumPy."""
    tokens = []
    for token in range(2):  # g = reshape(Linear(h)), number by number
        of_token = range(token * 16, token * 16 + 16)
        tokens.append(
            [p["cells"]["bias"][j] + sum(line[i] * p["cells"]["kernel"][i, j] for i in range(3)) for j in of_token]
        )
    cells = np.asarray(tokens)
    patches = [
        np.einsum("hwc,hwcd->d", image[8 * r : 8 * r + 8, 8 * c : 8 * c + 8], p["stem"]["kernel"]) + p["stem"]["bias"]
        for r in range(3)
        for c in range(2)
    ]
    before = np.concatenate([p["cls"][0], cells, p["registers"][0]]) + p["pos"][0, :4]
    # "dino" bicubic positions of 3 x 2 patches are checked in test_posembed; here the table is given whole.
    x = np.concatenate([before, np.asarray(patches) + p["resized"]])
    b = jax.tree.map(lambda a: a[0], p["blocks"])
    y = layer_norm(x, b["norm1"])
    qkv = (y @ b["attn"]["qkv"]["kernel"] + b["attn"]["qkv"]["bias"]).reshape(len(x), 3, 2, 8)
    weights, mixed = [], []
    for head in range(2):
        q, k, v = qkv[:, 0, head], qkv[:, 1, head], qkv[:, 2, head]
        logits = q @ k.T / np.sqrt(8)
        w = np.exp(logits - logits.max(-1, keepdims=True))
        weights.append(w / w.sum(-1, keepdims=True))
        mixed.append(weights[-1] @ v)
    x = x + np.concatenate(mixed, axis=-1) @ b["attn"]["proj"]["kernel"] + b["attn"]["proj"]["bias"]
    h = layer_norm(x, b["norm2"]) @ b["mlp"]["fc1"]["kernel"] + b["mlp"]["fc1"]["bias"]
    h = h * 0.5 * (1 + erf(h / np.sqrt(2)))
    x = x + h @ b["mlp"]["fc2"]["kernel"] + b["mlp"]["fc2"]["bias"]
    return layer_norm(x, p["norm"]), np.stack(weights)


def test_tokens_stand_between_class_token_and_registers_as_computed_by_hand(params, images, encoded):
    from protloc_jax.model.posembed import axis_matrix

    down, across = axis_matrix("dino", 2, 3), axis_matrix("dino", 2, 2)
    grid = params["pos"][0, 4:].reshape(2, 2, 16)
    resized = np.einsum("rs,ct,std->rcd", down, across, grid).reshape(6, 16)
    out = encoded[0]
    for image in range(2):
        for view in range(2):
            tokens, attention = oracle({**params, "resized": resized}, images[image, view], LINES[image])
            np.testing.assert_allclose(out.cls[image, view], tokens[0], rtol=0, atol=1e-10)
            np.testing.assert_allclose(out.registers[image, view], tokens[3:4], rtol=0, atol=1e-10)
            np.testing.assert_allclose(out.patches[image, view], tokens[4:], rtol=0, atol=1e-10)
            np.testing.assert_allclose(out.attention[image, view], attention, rtol=0, atol=1e-10)


def test_lines_change_features_and_go_with_their_rows(encoded):
    straight, turned = encoded
    assert np.abs(straight.cls[0] - straight.cls[1]).max() > 0.05  # the same images
    np.testing.assert_array_equal(straight.cls[::-1], turned.cls)
    np.testing.assert_array_equal(straight.patches[::-1], turned.patches)


def test_shapes_and_other_parameters_are_those_without_tokens():
    plain, with_tokens = (
        jax.eval_shape(Vit(c).init, jax.random.key(0), jnp.zeros((1, 16, 16, 2))) for c in (PLAIN, CONFIG)
    )
    plain, with_tokens = named_leaves(plain["params"]), named_leaves(with_tokens["params"])
    assert set(with_tokens) - set(plain) == {"cells/kernel", "cells/bias"}
    assert with_tokens["cells/kernel"].shape == (3, 32) and with_tokens["pos"].shape == (1, 4 + 4, 16)
    assert CONFIG.prefix == PLAIN.prefix + 2 and CONFIG.tokens(24, 16) == 4 + 6
    only_cls = dataclasses.replace(CONFIG, position_prefix="cls")
    assert count_parameters(parameter_shapes(only_cls)) == count_parameters(parameter_shapes(PLAIN)) + 3 * 32 + 32
    longer = dataclasses.replace(PLAIN, registers=3)
    assert vit_flops(only_cls, 16) == vit_flops(longer, 16) + 2 * 3 * 32


def test_no_tokens_are_the_transformer_as_it_was():
    """Numbers and names of the version before there were cell tokens."""
    config = dataclasses.replace(PLAIN, registers=2, position_prefix="all")
    x = jnp.linspace(-1, 1, 2 * 2 * 24 * 16 * 2).reshape(2, 2, 24, 16, 2)
    variables = Vit(config).init(jax.random.key(3), x[:, 0])
    out: Any = jax.jit(Vit(config).apply)(variables, x)
    before = [0.20275484025478363, 0.9997341632843018, -1.3216861486434937, -0.4229317605495453]
    np.testing.assert_allclose(out.cls[1, 1, :4], before, rtol=2e-6)
    np.testing.assert_allclose(np.abs(out.patches).sum(), 315.7129211425781, rtol=2e-6)


def test_vectors_are_wanted_exactly_where_there_are_tokens(params, images):
    def shaped(config, lines):
        vit = Vit(config)
        given = None if lines is None else jnp.zeros(lines)
        return jax.eval_shape(
            lambda p: vit.apply({"params": p}, jnp.asarray(images, jnp.float32), cell_line=given), params
        )

    assert shaped(CONFIG, (2, 3)).cls.shape == shaped(CONFIG, (2, 2, 3)).cls.shape == (2, 2, 16)
    with pytest.raises(ValueError, match=r"2 cell token\(s\) .* needs the cell-line vector \[\.\.\., 3\]"):
        shaped(CONFIG, None)
    for wrong in ((2, 4), (1, 3), (2, 1, 3)):
        with pytest.raises(ValueError, match=r"cell-line vectors have shape"):
            shaped(CONFIG, wrong)
    with pytest.raises(ValueError, match=r"no cell tokens \(model\.cell_tokens=0\)"):
        shaped(PLAIN, (2, 3))
    with pytest.raises(ValueError, match=r"cell_dim=0: the width of the vectors is filled in from data\.cell_vectors"):
        shaped(dataclasses.replace(CONFIG, cell_dim=0), (2, 3))
    with pytest.raises(ValueError, match="cell_tokens=-1: must not be negative"):
        VitConfig(cell_tokens=-1)


def test_an_encoder_gives_them_to_features_and_maps(params, images):
    how = PrepareConfig(resize=16, crop=16)
    encoder = Encoder(CONFIG, parse("nucleus,gfp"), jax.tree.map(np.float32, params), how)
    raw = (np.clip(images[:, 0], 0, 1) * 255).astype(np.uint8)
    lines = LINES.astype(np.float32)
    out = encoder.encode(raw, cell_lines=lines)
    features = encoder.features(raw, pooling="cls+mean", cell_lines=lines)
    np.testing.assert_allclose(features[:, :16], out.cls, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(features[:, 16:], out.patches.mean(1), rtol=1e-5, atol=1e-6)
    assert np.abs(features[0] - features[1]).max() > 0.05
    maps, flow = encoder.attention(raw, cell_lines=lines), encoder.rollout(raw, cell_lines=lines)
    assert maps.shape == (2, 1, 2, 2, 2) and flow.shape == (2, 1, 2, 2)
    # Half of a rollout of one block is the token itself, and the class token is none of the patches.
    np.testing.assert_allclose(flow, maps.mean(2) / 2, rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match=r"cell_lines \[2, 3\]; none were given"):
        encoder.encode(raw)
    with pytest.raises(ValueError, match=r"cell_lines \[2, 3\]; these have shape \(1, 3\)"):
        encoder.features(raw, cell_lines=lines[:1])
    with pytest.raises(ExportRefused, match=r"weights with cell tokens \(model\.cell_tokens=2\) read the vector"):
        freeze(encoder)
    plain = jax.tree.map(lambda s: np.zeros(s.shape, np.float32), parameter_shapes(PLAIN))
    with pytest.raises(ValueError, match="cell_lines were given, and these weights have no cell tokens"):
        Encoder(PLAIN, parse("nucleus,gfp"), plain, how).attention(raw, cell_lines=lines)
