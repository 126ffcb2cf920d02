"""The encoder: raw images to features by the transformer it holds, through its channel plan and preprocessing."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from protloc_jax import channels as ch
from protloc_jax.model.config import VitConfig
from protloc_jax.model.encoder import Encoder
from protloc_jax.model.flops import parameter_shapes
from protloc_jax.model.vit import Vit
from protloc_jax.views.normalisation import Normalisation
from protloc_jax.views.prepare import PrepareConfig

CONFIG = VitConfig(size="custom", dim=16, depth=3, heads=2, channels=2, patch=4, image_size=16, registers=1)
CHANNELS = ch.parse("dna,gfp")
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 20, 22, 2), np.uint8)


def weights():
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: 0.25 * rng.normal(size=a.shape).astype(np.float32), parameter_shapes(CONFIG))


@pytest.fixture
def encoder():
    return Encoder(CONFIG, CHANNELS, weights(), PrepareConfig(Normalisation("none"), crop=16))


def by_hand(images, **options):
    """uint8 images [B, 20, 22, C] cropped at the centre, scaled and encoded without the encoder."""
    x = images[:, 2:18, 3:19].astype(np.float32) / 255
    return Vit(CONFIG).apply({"params": weights()}, x, **options)


def test_encode_is_the_transformer_on_prepared_images(encoder):
    out, want = encoder.encode(IMAGES), by_hand(IMAGES)
    np.testing.assert_allclose(out.cls, want.cls, atol=1e-5)
    np.testing.assert_allclose(out.patches, want.patches, atol=1e-5)
    assert encoder.dim == 16


def test_sixteen_bit_images_are_scaled_by_their_own_range(encoder):
    wide = IMAGES.astype(np.uint16) * 257
    np.testing.assert_allclose(encoder.encode(wide).cls, encoder.encode(IMAGES).cls, atol=1e-5)


def test_self_normalisation_ignores_the_exposure(encoder):
    own = dataclasses.replace(encoder, prepare=PrepareConfig(Normalisation("self")))
    np.testing.assert_allclose(own.encode(IMAGES // 2 * 2).cls, own.encode(IMAGES // 2).cls, atol=1e-4)


def test_features_pool_and_concatenate_blocks(encoder):
    want = by_hand(IMAGES, layers=(1, 2))
    mean = [np.asarray(patches).mean(1) for _, patches in want.layers]
    cls = [np.asarray(c) for c, _ in want.layers]
    got = encoder.features(IMAGES, layers=2, pooling="cls+mean")
    np.testing.assert_allclose(got, np.concatenate([cls[0], mean[0], cls[1], mean[1]], -1), atol=1e-5)
    np.testing.assert_allclose(encoder.features(IMAGES), encoder.encode(IMAGES).cls, atol=1e-6)
    np.testing.assert_allclose(encoder.features(IMAGES, pooling="mean"), mean[1], atol=1e-5)


def test_attention_of_the_class_token(encoder):
    maps = encoder.attention(IMAGES)
    assert maps.shape == (3, 1, 2, 4, 4)
    want = np.asarray(by_hand(IMAGES, attention=True).attention)[:, :, 0, 2:]  # past the class token and the register
    np.testing.assert_allclose(maps[:, 0].reshape(3, 2, 16), want, atol=1e-5)


def test_passes_of_a_channel_plan_are_concatenated(encoder):
    one = np.concatenate([IMAGES[..., :1]] * 2, -1)
    other = np.concatenate([IMAGES[..., 1:]] * 2, -1)
    planned = encoder.with_plan(ch.replicate(2, CHANNELS), CHANNELS)
    assert planned.dim == 32
    assert planned.provenance["channel_plan"] == "replicate each channel"
    want = np.concatenate([by_hand(one).cls, by_hand(other).cls], -1)
    np.testing.assert_allclose(planned.encode(IMAGES).cls, want, atol=1e-5)
    np.testing.assert_allclose(planned.features(IMAGES), want, atol=1e-5)
    assert planned.attention(IMAGES).shape == (3, 2, 2, 4, 4)


def test_other_channels_are_mapped_by_role(encoder):
    tubulin = ch.parse("tubulin,hoechst")
    mapped = encoder.for_channels(tubulin)
    want = np.stack([IMAGES[..., 1], np.zeros_like(IMAGES[..., 0])], -1)
    np.testing.assert_allclose(mapped.encode(IMAGES).cls, by_hand(want).cls, atol=1e-5)
    assert encoder.for_channels(ch.parse("er,gfp,dna")) is encoder


def test_bad_input_is_refused(encoder):
    with pytest.raises(ValueError, match=r"expected \[B, H, W, 2\] \(dna:nucleus,gfp:protein\)"):
        encoder.encode(IMAGES[..., :1])
    with pytest.raises(ValueError, match="2 input slots, but there are 3 channels"):
        Encoder(CONFIG, ch.parse("dna,gfp,er"), weights())
    with pytest.raises(ValueError, match="the plan fills 3 slots"):
        encoder.with_plan(ch.replicate(3, CHANNELS), CHANNELS)
    with pytest.raises(ValueError, match="Did you mean 'mean'"):
        encoder.features(IMAGES, pooling="means")
    with pytest.raises(ValueError, match="layers=4: the model has 3 blocks"):
        encoder.features(IMAGES, layers=4)


def test_one_program_for_each_image_shape(encoder):
    from protloc_jax.model import encoder as module

    encoder.encode(IMAGES)
    before = module._encode._cache_size()
    for seed in range(3):
        encoder.encode(np.random.default_rng(seed).integers(0, 256, IMAGES.shape, np.uint8))
    dataclasses.replace(encoder, um_per_pixel=0.1).encode(IMAGES)
    assert module._encode._cache_size() == before
