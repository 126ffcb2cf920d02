"""The image formation chain against formulas and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from protloc_jax.simulate import PRESETS, camera
from protloc_jax.simulate.exposure import mix
from protloc_jax.simulate.keys import generator

HPA, OPENCELL = PRESETS["hpa_fov"], PRESETS["opencell"]


def test_psf_width_is_the_gaussian_approximation():
    assert camera.psf_sigma(HPA, 0.52, 0.0) == pytest.approx(0.21 * 0.52 / 1.4)
    assert camera.psf_sigma(HPA, 0.52, 0.3) == pytest.approx(np.hypot(0.21 * 0.52 / 1.4, 0.3))


def test_lens_is_a_sharp_and_a_wide_gaussian():
    image = generator(0, "lens").random((60, 44)).astype(np.float32)
    lens = camera.Lens(image.shape, 1.3, 0.3, 6.0)
    sharp, wide = (scipy.ndimage.gaussian_filter(image.astype(float), s, mode="reflect", truncate=6) for s in (1.3, 6))
    np.testing.assert_allclose(lens(image), 0.7 * sharp + 0.3 * wide, atol=6e-3)


def test_lens_keeps_light():
    image = np.zeros((64, 64), np.float32)
    image[30, 32] = 100
    assert camera.Lens(image.shape, 1.0, 0.35, 5.0)(image).sum() == pytest.approx(100, rel=1e-3)


@pytest.mark.parametrize("preset", [HPA, OPENCELL], ids=["8bit", "16bit"])
def test_noise_is_poisson_plus_read_noise(preset):
    photons = np.full((400, 400), 30.0, np.float32)
    gain = 2.0
    grey = camera.expose(generator(0, "noise"), photons, preset, gain=gain, offset=20.0).astype(float)
    assert grey.mean() == pytest.approx(20 + gain * 30, rel=0.005)
    assert grey.var() == pytest.approx(gain**2 * (30 + preset.read_noise**2) + 1 / 12, rel=0.02)


def test_grey_levels_clip_at_the_bit_depth():
    photons = np.full((8, 8), 1e4, np.float32)
    grey = camera.expose(generator(0, "clip"), photons, HPA, gain=10.0, offset=0.0)
    assert grey.dtype == np.uint8
    assert (grey == 255).all()
    grey = camera.expose(generator(0, "clip"), photons, OPENCELL, gain=100.0, offset=0.0)
    assert grey.dtype == np.uint16
    assert (grey == 65535).all()


def test_no_nuisance_means_none():
    assert camera.draw_plate_effects(generator(0, "plate"), 0.0) == camera.PlateEffects(bleed=0.0)
    assert np.array_equal(camera.illumination((5, 7), (0, 0, 0)), np.ones((5, 7)))


def test_bleed_through_is_a_share_of_the_neighbours_exposure():
    matrix = np.array([[0, 0.1], [0, 0]])
    first, second = camera.bleed([np.ones((2, 2)), np.full((2, 2), 50.0)], [10.0, 100.0], matrix)
    assert np.allclose(first, 1 + 0.1 * 50 / 100 * 10)
    assert np.allclose(second, 50)
    shares = camera.bleed_matrix(HPA)
    assert (np.diag(shares) == 0).all()
    green, yellow, blue = 1, 3, 2
    assert shares[green, yellow] > shares[blue, yellow]


def test_mixture_has_mean_one_and_the_most_structure_its_spread_allows():
    rng = generator(0, "mix")
    pool = 1 + rng.random((64, 64))
    structure = (rng.random((64, 64)) < 0.1).astype(float)
    structure, pool = structure / structure.mean(), pool / pool.mean()
    for contrast in (0.5, 2.0):
        share, rest = mix(structure, pool, contrast)
        limit = (1 + contrast) * pool.std()
        assert share + rest == pytest.approx(1)
        assert share > 0.05
        assert (share * structure + rest * pool).std() <= limit
        more = share + 0.02
        assert (more * structure + (1 - more) * pool).std() > limit


def test_mixtures_at_the_ends():
    point = np.zeros((64, 64))
    point[5, 5] = 1
    assert mix(point, np.ones((64, 64)), 0.1) == pytest.approx((0.05 * 64**2, 0.95))
    assert mix(np.zeros((4, 4)), np.ones((4, 4)), 0.1) == (0.0, 1.0)
    assert mix(np.zeros((4, 4)), np.zeros((4, 4)), 0.1) == (0.0, 0.0)


def test_a_structure_like_the_pool_is_shown_whole():
    pool = 1 + generator(0, "like").random((64, 64))
    share, pool_share = mix(pool**0.9, pool, 0.2)
    assert pool_share == pytest.approx(0)
    assert share * np.mean(pool**0.9) == pytest.approx(1)
