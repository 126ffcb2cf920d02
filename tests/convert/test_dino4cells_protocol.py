"""DINO4Cells' extraction: images at native size to [0, 1], each channel of each image by its own mean and spread."""

from __future__ import annotations

import numpy as np
import pytest
from test_layouts import reference, scaled
from tiny_vit import HEADS, PATCH, tensors, write

from protloc_jax.channel_plans import plan_of
from protloc_jax.channels import parse
from protloc_jax.eval.load import load

TOLD = {"heads": HEADS, "normalise": "self", "channels": "microtubules,protein,nucleus,er", "layout": "dino"}


def by_itself(image):
    """One uint8 image [H, W, C] as float64, each channel less its mean, by its population spread + 1e-7."""
    x = image.astype(np.float64) / 255
    out = np.empty_like(x)
    for c in range(x.shape[2]):
        pixels = x[..., c].ravel()
        mean = sum(pixels) / len(pixels)
        spread = (sum((pixels - mean) ** 2) / len(pixels)) ** 0.5
        out[..., c] = (x[..., c] - mean) / (spread + 1e-7)
    return out


@pytest.fixture
def weights(tmp_path):
    pytest.importorskip("torch", reason="its bicubic resize is the oracle here")
    named = scaled(tensors(channels=4))
    return named, write(tmp_path, {f"teacher/backbone.{k}": v for k, v in named.items()}, "hpa.safetensors")


@pytest.mark.torch
@pytest.mark.parametrize("sides", [(6 * PATCH, 4 * PATCH), (8 * PATCH, 8 * PATCH)])
def test_native_size_by_a_float64_oracle(weights, sides):
    named, file = weights
    encoder = load(file, size="native", foreign=TOLD)
    assert (encoder.prepare.resize, encoder.prepare.crop) == (0, 0)
    assert encoder.provenance["image_size"] == "native"
    images = np.random.default_rng(3).integers(0, 256, (2, *sides, 4), np.uint8)
    images[1, ..., 3] = 0  # an empty channel stays zero (of another constant, float32 leaves its rounding over 1e-7)
    out = encoder.encode(images)
    for i, image in enumerate(images):
        wanted = reference(named, by_itself(image), "dino")
        np.testing.assert_allclose(out.cls[i], wanted[0], atol=2e-4, rtol=0)
        np.testing.assert_allclose(out.patches[i], wanted[1:], atol=2e-4, rtol=0)
    own = images[:1]
    bright = (own // 4 * 2 + 30).astype(np.uint8), (own // 4 * 3).astype(np.uint8)
    one, two = (encoder.encode(b).cls for b in bright)
    np.testing.assert_allclose(one, two, atol=1e-3)


@pytest.mark.torch
def test_two_channels_by_a_plan(weights):
    """OpenCell's two channels in two passes: each vector is that of the image with its other slots zero."""
    named, file = weights
    source = parse("hoechst,gfp")
    encoder = load(file, size="native", foreign=TOLD)
    encoder = encoder.with_plan(plan_of("per-channel", encoder.channels, source), source)
    images = np.random.default_rng(4).integers(0, 256, (1, 5 * PATCH, 4 * PATCH, 2), np.uint8)
    got = np.asarray(encoder.encode(images).cls)[0]
    parts = []
    for slot, channel in ((1, 1), (2, 0)):
        whole = np.zeros((*images.shape[1:3], 4), np.uint8)
        whole[..., slot] = images[0, ..., channel]
        parts.append(reference(named, by_itself(whole), "dino")[0])
    np.testing.assert_allclose(got, np.concatenate(parts), atol=2e-4, rtol=0)
