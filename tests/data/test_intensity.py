"""Intensity statistics against NumPy on all the pixels at once."""

from __future__ import annotations

import numpy as np
import pytest
from small_records import image

from protloc_jax.data.intensity import Histogram, constant_channels


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_summary_equals_numpy(dtype: str) -> None:
    images = [image(i, 9, 11, 2, dtype) for i in range(20)]
    images[3][..., 1] = np.iinfo(dtype).max
    images[4][..., 0] = 0
    halves = [Histogram(2, np.dtype(dtype)) for _ in range(2)]
    for number, pixels in enumerate(images):
        halves[number % 2].add(pixels)
    halves[0].merge(halves[1].counts)
    found = halves[0].summary(("a", "b"))
    for channel, name in enumerate(("a", "b")):
        every = np.stack(images)[..., channel].astype(np.float64).ravel()
        stats = found[name]
        assert stats["mean"] == pytest.approx(every.mean(), rel=1e-12)
        assert stats["std"] == pytest.approx(every.std(), rel=1e-12)
        assert (stats["min"], stats["max"]) == (every.min(), every.max())
        for key, percent in (("p01", 1), ("p50", 50), ("p99", 99), ("p999", 99.9)):
            assert stats[key] == np.percentile(every, percent, method="inverted_cdf"), key
        assert stats["zero_fraction"] == (every == 0).mean()
        assert stats["saturated_fraction"] == (every == np.iinfo(dtype).max).mean()


def test_variance_of_bright_16_bit_images_is_exact() -> None:
    """Two values next to each other at the top of the range: a float32 or naive sum of squares would lose it."""
    histogram = Histogram(1, np.dtype(np.uint16))
    histogram.merge(np.zeros((1, 65536), np.int64))
    histogram.counts[0, 65534] = histogram.counts[0, 65535] = 10**12
    stats = histogram.summary(("a",))["a"]
    assert (stats["mean"], stats["std"]) == (65534.5, 0.5)


def test_no_pixels_no_numbers() -> None:
    assert Histogram(1, np.dtype(np.uint8)).summary(("a",)) == {}


@pytest.mark.parametrize("shape", [(1, 1, 2), (3, 5, 2), (7, 8, 3)])
def test_counts_of_any_number_of_pixels(shape: tuple[int, int, int]) -> None:
    """8-bit values are counted in pairs: an odd one is not lost, and channels do not mix in any memory layout."""
    pixels = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    for given in (
        pixels,
        np.asfortranarray(pixels),
        np.ascontiguousarray(pixels.transpose(2, 0, 1)).transpose(1, 2, 0),
    ):
        histogram = Histogram(shape[2], np.dtype(np.uint8))
        histogram.add(given)
        for channel in range(shape[2]):
            expected = np.zeros(256, int)
            for value in pixels[..., channel].ravel():
                expected[value] += 1
            np.testing.assert_array_equal(histogram.counts[channel], expected)


def test_one_other_pixel_anywhere_is_not_constant() -> None:
    """Few pixels are looked at first; the answer is that of all."""
    for size in (1, 7, 64, 200):
        for place in {0, 1, size * size // 2, size * size - 1} - ({1} if size == 1 else set()):
            pixels = np.full((size, size, 2), 9, np.uint16)
            pixels.reshape(-1, 2)[place, 1] = 8
            assert constant_channels(pixels) == ((0,) if size > 1 else (0, 1))


def test_constant_channels() -> None:
    pixels = image(0, 5, 5, 3)
    assert constant_channels(pixels) == ()
    pixels[..., 1] = 7
    assert constant_channels(pixels) == (1,)
    pixels[0, 0, 1] = 8
    assert constant_channels(pixels) == ()
