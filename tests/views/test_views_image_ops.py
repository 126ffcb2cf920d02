"""Every pixel operation against its plain NumPy, SciPy, Pillow or colorsys form."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import views_oracle as oracle
from PIL import Image, ImageEnhance

from protloc_jax.config import ConfigError
from protloc_jax.views import image_ops as ops
from protloc_jax.views.normalisation import Normalisation, normalise
from protloc_jax.views.warp import draw_corner, warp


def picture(channels: int = 3, height: int = 12, width: int = 15, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, channels))


def middle(image) -> jax.Array:
    return jnp.swapaxes(jnp.asarray(image), 1, 2)


def close(got, want, atol=2e-6) -> None:
    np.testing.assert_allclose(np.swapaxes(np.asarray(got), 1, 2), want, atol=atol)


def test_integers_become_shares_of_their_range():
    assert ops.to_float(jnp.asarray([0, 51, 255], jnp.uint8)).tolist() == pytest.approx([0, 0.2, 1])
    assert ops.to_float(jnp.asarray([0, 13107, 65535], jnp.uint16)).tolist() == pytest.approx([0, 0.2, 1])
    assert ops.to_float(jnp.asarray([0.25])).tolist() == [0.25]
    with pytest.raises(ValueError, match=r"int32.*uint8, uint16"):
        ops.to_float(jnp.asarray([1], jnp.int32))


@pytest.mark.parametrize("channels", range(1, 7))
def test_brightness_and_contrast_act_per_channel(channels):
    x, factor = picture(channels), np.linspace(0.5, 1.9, channels)
    close(ops.brightness(middle(x), jnp.asarray(factor)), np.clip(x * factor, 0, 1))
    close(ops.contrast(middle(x), jnp.asarray(factor)), oracle.blend(x, x.mean(axis=(0, 1)), factor))


def test_gamma_bends_and_keeps_black():
    x = picture(2)
    x[0, 0] = 0
    close(ops.gamma(middle(x), jnp.asarray([0.7, 1.4])), x ** np.array([0.7, 1.4]), atol=1e-5)


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.7, 2.0])
def test_blur_equals_scipy(sigma):
    x = picture(2, 20, 20)
    got = ops.blur(middle(x), jnp.asarray(sigma), sigma_max=2.0)
    close(got, oracle.blur(x, sigma, 2.0))
    if sigma == 0:
        close(got, x.astype(np.float32), atol=0)


def test_solarise_inverts_the_bright_half():
    x = picture()
    x[0, 0] = 0.5
    close(ops.solarise(middle(x), jnp.asarray(0.5)), np.where(x >= 0.5, 1 - x, x))
    close(ops.solarise(middle(x), jnp.asarray(2.0)), x)


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.0, 0.07, 0.4])
def test_hue_equals_colorsys(turn):
    x = picture()
    x[0, 0], x[0, 1], x[0, 2] = 0.3, [0.5, 0.5, 0.1], 0.0  # grey, a tie of two channels, black
    close(ops.turn_hue(middle(x), jnp.asarray(turn)), oracle.hue(x, turn), atol=3e-6)


@pytest.mark.parametrize(("order", "place"), [*itertools.product([(0, 1, 2), (2, 0, 1), (1, 2, 0)], [0, 1, 2, 3])])
def test_colour_jitter_in_every_kind_of_order(order, place):
    x, factors, turn = picture(seed=4), np.array([1.3, 0.7, 1.15]), 0.08
    steps = [
        lambda v: oracle.blend(v, 0.0, factors[0]),
        lambda v: oracle.blend(v, oracle.grey(v).mean(), factors[1]),
        lambda v: oracle.blend(v, oracle.grey(v), factors[2]),
    ]
    sequence = [steps[i] for i in order]
    sequence.insert(place, lambda v: oracle.hue(v, turn))
    want = x
    for step in sequence:
        want = step(want)
    got = ops.jitter_rgb(middle(x), jnp.asarray(factors), jnp.asarray(turn), jnp.asarray(order), jnp.asarray(place))
    close(got, want, atol=5e-6)


def test_colour_operations_agree_with_pillow():
    pixels = np.random.default_rng(5).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    image, x = Image.fromarray(pixels), middle(pixels / 255)
    still = jnp.asarray([1.0, 1.0, 1.0])
    for kind, enhance in enumerate((ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)):
        got = ops.jitter_rgb(x, still.at[kind].set(1.4), jnp.asarray(0.0), jnp.asarray([0, 1, 2]), jnp.asarray(0))
        close(got, np.asarray(enhance(image).enhance(1.4)) / 255, atol=1.5 / 255)  # Pillow rounds to 8 bits
    close(ops.luminance(x), np.asarray(image.convert("L"))[..., None] / 255, atol=1 / 255)


@pytest.mark.parametrize("contrast_first", [True, False])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_jitter_of_other_channel_counts(channels, contrast_first):
    x, factors = picture(channels), np.array([1.3, 0.7])
    want = x
    for contrast in (contrast_first, not contrast_first):
        want = oracle.blend(want, want.mean(axis=(0, 1)), 0.7) if contrast else oracle.blend(want, 0.0, 1.3)
    close(ops.jitter_channels(middle(x), jnp.asarray(factors), jnp.asarray(contrast_first)), want)


@pytest.mark.parametrize("corner", range(4))
def test_warp_equals_the_solved_homography(corner):
    x = picture(2, 21, 34)
    right, bottom = corner % 2 == 1, corner >= 2
    with jax.enable_x64(True):
        got = np.asarray(warp(jnp.asarray(x), right, bottom, jnp.asarray(4.3), jnp.asarray(2.1)))
    np.testing.assert_allclose(got, oracle.warp(x, right, bottom, 4.3, 2.1), atol=1e-9)
    still = warp(jnp.asarray(x, jnp.float32), right, bottom, jnp.asarray(0.0), jnp.asarray(0.0))
    np.testing.assert_allclose(still, x, atol=2e-5)


def test_warp_draws_every_corner_within_a_quarter_of_the_shorter_side():
    uniform = jax.random.uniform(jax.random.key(0), (4000, 4))
    right, bottom, dx, dy = jax.vmap(lambda u: draw_corner(u, 40, 100, 0.5))(uniform)
    counts = np.bincount(2 * np.asarray(bottom) + np.asarray(right), minlength=4)
    np.testing.assert_allclose(counts / 4000, 0.25, atol=0.03)
    for shift in (np.asarray(dx), np.asarray(dy)):
        moved = shift[np.asarray(uniform[:, 0]) < 0.5]
        assert not shift[np.asarray(uniform[:, 0]) >= 0.5].any()
        np.testing.assert_allclose(np.quantile(moved, [0, 0.5, 1]), [0, 5, 10], atol=0.4)


@pytest.mark.parametrize("channels", [1, 4])
def test_self_normalisation(channels):
    x = picture(channels)
    close(normalise(middle(x), Normalisation("self"), channel_axis=1), oracle.self_normalise(x), atol=1e-5)


def test_self_normalised_constants_stay_finite():
    for value in (0.0, 0.3, 1.0):
        flat = normalise(jnp.full((50, 2, 50), value), Normalisation("self"), channel_axis=1)
        assert np.isfinite(flat).all()
        assert np.abs(flat).max() < 1


def test_dataset_normalisation_and_its_refusals():
    x = picture(2)
    how = Normalisation("dataset", (0.1, 0.2), (0.5, 2.0))
    close(normalise(middle(x), how, channel_axis=1), (x - [0.1, 0.2]) / [0.5, 2.0])
    with pytest.raises(ConfigError, match="2 means and the images 3 channels"):
        normalise(middle(picture(3)), how, channel_axis=1)
    with pytest.raises(ConfigError, match="needs mean and std"):
        Normalisation("dataset")
    with pytest.raises(ConfigError, match="above 0"):
        Normalisation("dataset", (0.1,), (0.0,))
    with pytest.raises(ConfigError, match="1 means but 2"):
        Normalisation("dataset", (0.1,), (1.0, 1.0))
