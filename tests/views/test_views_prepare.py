"""Evaluation's view against NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import views_oracle as oracle

from protloc_jax.config import ConfigError, from_json, to_json
from protloc_jax.views import Normalisation, PrepareConfig, prepare


def pixels(height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, height, width, 2), dtype=np.uint8)


def test_native_size_and_self_normalisation_by_default():
    images = pixels()
    got = jax.jit(prepare, static_argnums=1)(images, PrepareConfig())
    want = np.stack([oracle.self_normalise(image / 255) for image in images])
    np.testing.assert_allclose(got, want, atol=1e-5)
    sixteen = prepare(images.astype(np.uint16) * 257, PrepareConfig())
    np.testing.assert_allclose(sixteen, want, atol=1e-5)


@pytest.mark.parametrize(("interpolation", "antialias"), [("bilinear", True), ("bicubic", True), ("bicubic", False)])
def test_resize_crop_and_dataset_constants(interpolation, antialias):
    how = Normalisation("dataset", (0.2, 0.4), (0.5, 0.25))
    config = PrepareConfig(how, resize=12, crop=9, interpolation=interpolation, antialias=antialias)
    images = pixels()
    with jax.enable_x64(True):
        got = prepare(jnp.asarray(images), config, dtype=jnp.float64)
    assert got.dtype == jnp.float64
    for view, image in zip(got, images, strict=True):
        small = oracle.resize(image / 255, (12, 18), interpolation, antialias).clip(0, 1)
        want = (small[2:11, 5:14] - [0.2, 0.4]) / [0.5, 0.25]
        np.testing.assert_allclose(view, want, atol=1e-12)


def test_refusals_and_round_trip():
    with pytest.raises(ValueError, match="crop 25 does not fit an image of 20 x 30"):
        prepare(pixels(), PrepareConfig(crop=25))
    with pytest.raises(ConfigError, match="resize=-1"):
        PrepareConfig(resize=-1)
    config = PrepareConfig(Normalisation("dataset", (0.1,), (0.2,)), resize=256, crop=224)
    assert from_json(PrepareConfig, to_json(config)) == config
