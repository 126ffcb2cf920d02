"""Measures on images made by hand or of known spectrum; finite on anything; nuclei counted as drawn."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage as ndimage

from protloc_jax.datasets import quality_measures as measures


def coloured_noise(exponent, size=256, seed=0):
    """Noise whose power falls as frequency to the minus `exponent`."""
    rng = np.random.default_rng(seed)
    radius = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    radius[0, 0] = 1
    return np.fft.ifft2(np.fft.fft2(rng.normal(size=(size, size))) * radius ** (-exponent / 2)).real


def blobs(size=192, radius=11, noise=3.0, blur=0.0, seed=0):
    """A stain of 16 separate textured discs on a background of 100 grey levels, as a camera with noise sees it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    image = np.zeros((size, size))
    step = size // 4
    for i in range(16):
        centre = step * (i // 4) + step // 2, step * (i % 4) + step // 2
        image[np.hypot(y - centre[0], x - centre[1]) <= radius] = 1
    image *= 1 + 0.5 * ndimage.gaussian_filter(rng.normal(size=image.shape), 1.5) * 5
    image = ndimage.gaussian_filter(image, 1 + blur)
    return np.clip(np.rint(100 + 400 * image + noise * rng.normal(size=image.shape)), 0, 65535).astype(np.uint16)


@pytest.mark.parametrize("exponent", [0.5, 1.5, 2.5])
def test_slope_is_that_of_the_spectrum(exponent):
    slopes = [measures.spectrum_measures(coloured_noise(exponent, seed=s))["slope"] for s in range(3)]
    assert np.mean(slopes) == pytest.approx(-exponent, abs=0.12)


def test_focus_of_two_waves_by_hand():
    """A coarse wave of amplitude 4 and a fine one of amplitude 1: power 16 to 1."""
    x = np.arange(256)
    image = 4 * np.cos(2 * np.pi * 8 / 256 * x)[None] + np.cos(2 * np.pi * 32 / 256 * x)[None] + np.zeros((256, 1))
    found = measures.spectrum_measures(image)
    assert found["focus"] == pytest.approx(np.log10(1 / 16), abs=0.01)
    assert found["signal"] == 6.0


def test_focus_sees_blur_and_not_noise():
    sharp = [measures.channel_measures(blobs(seed=s)) for s in range(3)]
    noisy = [measures.channel_measures(blobs(noise=12, seed=s)) for s in range(3)]
    blurred = [measures.channel_measures(blobs(blur=3, seed=s)) for s in range(3)]
    focus = [np.mean([m["focus"] for m in group]) for group in (sharp, noisy, blurred)]
    assert focus[1] == pytest.approx(focus[0], abs=0.12)
    assert focus[2] < focus[0] - 0.5


def test_noise_hides_blur_from_the_laplacian_but_not_from_focus():
    drop = {"focus": [], "laplacian": []}
    for seed in range(4):
        sharp, blurred = (measures.channel_measures(blobs(noise=60, blur=b, seed=seed)) for b in (0, 2))
        for name, values in drop.items():
            values.append(sharp[name] - blurred[name])
    assert min(drop["focus"]) > 3 * max(drop["laplacian"])


def test_laplacian_by_its_definition():
    image = blobs().astype(np.float64)
    smooth = ndimage.gaussian_filter(image, 1.0)
    padded = np.pad(smooth, 1, mode="symmetric")
    around = padded[2:, 1:-1] + padded[:-2, 1:-1] + padded[1:-1, 2:] + padded[1:-1, :-2]
    wanted = np.log10((around - 4 * smooth).var() / smooth.var())
    assert measures.channel_measures(image)["laplacian"] == pytest.approx(wanted, abs=1e-9)


def test_levels_by_hand():
    image = np.zeros((10, 10), np.uint16)
    image[:5] = 4095
    image[5, :2] = 255
    found = measures.channel_measures(image)
    assert found["mean"] == pytest.approx((50 * 4095 + 2 * 255) / 100)
    assert found["zero"] == pytest.approx(0.48)
    assert (found["p01"], found["p99"], found["constant"]) == (0, 4095, 0)
    top = measures.top_counts(image)
    assert (top["at_4095"], top["at_255"], top["at_65535"], top["max"]) == (0.5, 0.02, 0.0, 4095.0)


def test_vignetting_is_evened_out():
    y, x = np.mgrid[:90, :140] / 100.0
    shade = 50 + 20 * y - 7 * x + 11 * x * y - 30 * x**2 + 4 * y**2
    np.testing.assert_allclose(measures.evened(shade), shade.mean(), atol=1e-9)
    cells = blobs()
    dim = 1 - 0.15 * np.add(*(np.mgrid[:192, :192] / 96.0 - 1) ** 2)
    shaded = measures.channel_measures(cells * dim)
    plain = measures.channel_measures(cells)
    assert shaded["focus"] == pytest.approx(plain["focus"], abs=0.1)
    assert measures.count_nuclei(cells * dim) == 16


def test_noise_is_measured_beside_content():
    y = np.mgrid[:200, :200][0]
    rng = np.random.default_rng(0)
    assert measures.noise_sd(3.0 * y + rng.normal(0, 7, (200, 200))) == pytest.approx(7, rel=0.03)
    assert measures.noise_sd(3.0 * y) == pytest.approx(0, abs=1e-9)


def test_otsu_is_the_best_of_all_thresholds():
    rng = np.random.default_rng(1)
    image = np.concatenate([rng.normal(10, 2, 600), rng.normal(40, 5, 300)])
    edges = np.histogram_bin_edges(image, 256)

    def between(cut):
        low, high = image[image <= cut], image[image > cut]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) and len(high) else 0

    best = max(between(cut) for cut in edges[1:-1])
    assert between(measures.otsu(image)) == pytest.approx(best, rel=1e-3)
    assert measures.otsu(np.full((3, 3), 5)) == 5


def test_nuclei_are_counted_as_drawn():
    assert measures.count_nuclei(blobs()) == 16
    assert measures.count_nuclei(blobs(noise=12)) == 16
    assert measures.count_nuclei(blobs(radius=5)) == 16
    assert measures.count_nuclei(blobs(radius=5), least_pixels=250) == 0


@pytest.mark.parametrize("noise", [1.0, 4.0, 15.0])
def test_an_empty_field_is_empty(noise):
    shade = 1 + 0.1 * np.linspace(-1, 1, 128)[:, None] - 0.1 * np.linspace(-1, 1, 128) ** 2
    image = np.rint(200 * shade + noise * np.random.default_rng(0).normal(size=(128, 128))).clip(0).astype(np.uint16)
    found = measures.channel_measures(image)
    assert measures.count_nuclei(image) == 0
    assert found["foreground"] < 0.005
    assert found["signal"] < 0
    full = measures.channel_measures(blobs())
    assert full["signal"] > 1 and full["foreground"] > 0.1


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((16, 16), np.uint8),
        np.full((9, 33), 65535, np.uint16),
        np.eye(8, dtype=np.uint8),
        np.zeros((1, 1), np.uint16),
        np.full((2, 5), 3, np.uint8),
    ],
)
def test_any_image_gives_finite_numbers(image):
    found = {**measures.channel_measures(image), **measures.top_counts(image)}
    assert all(np.isfinite(v) for v in found.values()), found
    assert measures.count_nuclei(image) >= 0
    assert found["constant"] == float(image.min() == image.max())
    if found["constant"]:
        assert (found["focus"], found["signal"], found["slope"], found["foreground"]) == (-6, -6, 0, 0)
        assert measures.count_nuclei(image) == 0


def test_correlations_are_pearsons():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(20, 30, 3))
    image[..., 1] += image[..., 0]
    image = np.concatenate([image, np.ones((20, 30, 1))], axis=2)
    found = measures.correlations(image, ("a", "b", "c", "flat"))
    wanted = np.corrcoef(image[..., :3].reshape(-1, 3).T)
    assert list(found) == ["corr_a_b", "corr_a_c", "corr_a_flat", "corr_b_c", "corr_b_flat", "corr_c_flat"]
    assert found["corr_a_b"] == pytest.approx(wanted[0, 1])
    assert found["corr_b_c"] == pytest.approx(wanted[1, 2])
    assert found["corr_a_flat"] == 0
