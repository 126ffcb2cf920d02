"""Fields, spots and walks against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from protloc_jax.simulate import primitives
from protloc_jax.simulate.keys import generator


def rng(seed=0):
    return generator(seed, "test")


def test_addresses_are_independent_and_repeatable():
    first = generator(1, "a", "bc").random(4)
    assert np.array_equal(first, generator(1, "a", "bc").random(4))
    for other in (generator(2, "a", "bc"), generator(1, "ab", "c"), generator(1, "a", "bc", "")):
        assert not np.array_equal(first, other.random(4))


@pytest.mark.parametrize("scale", [2.0, 5.0])
def test_smooth_field_has_the_correlation_of_its_scale(scale):
    field = primitives.smooth_field(rng(), (512, 512), scale)
    assert field.mean() == pytest.approx(0, abs=1e-4)
    assert field.var() == pytest.approx(1, abs=1e-3)
    lag = round(2 * scale)
    # White noise blurred by a Gaussian of sigma s has the autocorrelation exp(-d² / 4s²).
    measured = float(np.mean(field[lag:] * field[:-lag]))
    assert measured == pytest.approx(np.exp(-(lag**2) / (4 * scale**2)), abs=0.06)


def test_stretched_field_is_longer_along_its_angle():
    field = primitives.smooth_field(rng(), (256, 256), 1.5, stretch=8, angle=np.pi / 2)
    along_rows = float(np.mean(field[6:] * field[:-6]))
    along_columns = float(np.mean(field[:, 6:] * field[:, :-6]))
    assert along_rows > 0.7
    assert abs(along_columns) < 0.2


def test_blur_equals_the_spatial_filter():
    image = rng().random((40, 52), dtype=np.float32)
    expected = scipy.ndimage.gaussian_filter(image.astype(np.float64), 1.7, mode="reflect", truncate=6)
    np.testing.assert_allclose(primitives.blur(image, 1.7), expected, atol=2e-3)


def test_points_follow_their_weight():
    weight = np.zeros((20, 30), np.float32)
    weight[4, 5], weight[10, 20] = 1, 3
    rows, columns = primitives.sample_points(rng(), weight, 4000)
    assert np.mean(np.rint(rows) == 10) == pytest.approx(0.75, abs=0.03)
    assert set(zip(np.rint(rows), np.rint(columns), strict=True)) == {(4, 5), (10, 20)}
    assert primitives.sample_points(rng(), 0 * weight, 10)[0].size == 0


def test_spots_equal_a_sum_of_gaussians():
    points = np.array([10.3, 20.0]), np.array([12.6, 5.0])
    amplitude, sigma = np.array([2.0, 1.0]), np.array([1.2, 1.2])
    rows, columns = np.mgrid[:32, :32]
    expected = sum(
        a * np.exp(-((rows - r) ** 2 + (columns - c) ** 2) / (2 * s**2))
        for r, c, a, s in zip(*points, amplitude, sigma, strict=True)
    )
    np.testing.assert_allclose(
        primitives.splat_spots((32, 32), points, amplitude, sigma), expected, atol=2 * np.exp(-4.5)
    )


def test_rings_are_hollow():
    ring = primitives.splat_spots(
        (31, 31), (np.array([15.0]), np.array([15.0])), np.ones(1), np.array([0.7]), ring=np.array([5.0])
    )
    assert ring[15, 20] == pytest.approx(1, abs=1e-3)
    assert ring[15, 15] < 1e-3


def test_points_keep_their_mass_inside_the_image():
    rows, columns = rng().uniform(1, 14, (2, 50))
    amplitude = rng(1).random(50)
    assert primitives.splat_points((16, 16), (rows, columns), amplitude).sum() == pytest.approx(amplitude.sum())
    outside = primitives.splat_points((16, 16), (np.array([-3.0]), np.array([4.0])), np.ones(1))
    assert outside.sum() == 0


@pytest.mark.parametrize("deflect", [0.0, 0.5])
def test_walks_stay_at_home_and_keep_their_stride(deflect):
    allowed = np.zeros((64, 64), np.int32)
    allowed[10:50, 10:30], allowed[10:50, 30:50] = 1, 2
    owner = np.repeat([1, 2], 30)
    start = np.full(60, 30.0), np.where(owner == 1, 20.0, 40.0)
    heading = rng().uniform(0, 2 * np.pi, 60)
    (rows, columns), index = primitives.walk(
        rng(), start, heading, np.full(60, 40), owner, allowed, stride=1.0, bend=0.1, deflect=deflect
    )
    assert np.array_equal(allowed[np.rint(rows).astype(int), np.rint(columns).astype(int)], owner[index])
    one = index == 7
    steps = np.hypot(np.diff(rows[one]), np.diff(columns[one]))
    np.testing.assert_allclose(steps, 1.0, atol=1e-3)
    longest = np.bincount(index, minlength=60).max()
    assert longest <= 40
    # Without deflection a walk ends at the first border; with it, it goes on along the border.
    assert np.bincount(index).mean() < 20 if deflect == 0 else np.bincount(index).mean() > 25


def test_a_walk_that_starts_abroad_goes_nowhere():
    allowed = np.ones((8, 8), np.int32)
    start = np.array([4.0]), np.array([4.0])
    points, index = primitives.walk(
        rng(), start, np.zeros(1), np.array([5]), np.array([2]), allowed, stride=1.0, bend=0.0
    )
    assert points[0].size == index.size == 0
