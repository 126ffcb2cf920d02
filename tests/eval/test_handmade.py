"""Hand-made features: cases counted by hand, SciPy as an oracle, and what they must not see."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from protloc_jax.eval import handmade


def named(images, protein=0):
    values = handmade.texture_features(images, protein=protein)
    names = handmade.texture_feature_names(images.shape[3], protein=protein)
    assert values.shape == (len(images), len(names))
    assert len(set(names)) == len(names)
    return {name: values[:, index] for index, name in enumerate(names)}


def noise(shape=(3, 48, 48, 2), seed=0):
    return np.random.default_rng(seed).gamma(2.0, 30.0, shape)


def test_intensity_by_hand():
    images = np.zeros((1, 2, 2, 2), np.uint8)
    images[0, :, :, 0] = [[0, 2], [4, 6]]
    images[0, :, :, 1] = 200
    np.testing.assert_allclose(handmade.intensity_features(images), [[3.0, 200.0, np.sqrt(5.0), 0.0]])
    assert handmade.intensity_feature_names(("a", "b")) == ("a_mean", "b_mean", "a_std", "b_std")


def test_intensity_of_large_integers_does_not_overflow():
    images = np.full((2, 64, 64, 1), 65535, np.uint16)
    np.testing.assert_allclose(handmade.intensity_features(images), [[65535, 0]] * 2)


def test_moments_and_quantiles_equal_scipy():
    images = noise()
    features = named(images, protein=1)
    for channel in range(2):
        flat = images[..., channel].reshape(3, -1)
        np.testing.assert_allclose(
            np.sinh(features[f"channel{channel}_skewness"]), scipy.stats.skew(flat, axis=1), rtol=1e-4
        )
        np.testing.assert_allclose(
            np.sinh(features[f"channel{channel}_kurtosis"]), scipy.stats.kurtosis(flat, axis=1), rtol=1e-4
        )
    flat = scipy.stats.zscore(images[..., 1].reshape(3, -1), axis=1)
    np.testing.assert_allclose(np.sinh(features["quantile_0.9"]), np.quantile(flat, 0.9, axis=1), rtol=1e-4)


def test_bands_equal_spatial_filters():
    images = noise((2, 64, 64, 1))
    features = named(images)
    z = scipy.stats.zscore(images[..., 0].reshape(2, -1), axis=1).reshape(2, 64, 64)
    fine, coarse = (scipy.ndimage.gaussian_filter(z, s, mode="reflect", truncate=8, axes=(1, 2)) for s in (2.0, 2.8))
    np.testing.assert_allclose(features["band_2_energy"], np.log10(np.mean((fine - coarse) ** 2, (1, 2))), atol=0.01)


def test_stripes_by_hand():
    """Columns 0, 0, 1, 1, 0, 0, 1, 1 …: standardised to -1, -1, 1, 1."""
    images = np.tile(np.array([0, 0, 1, 1]), (1, 16, 4))[..., None]
    features = named(images)
    # Down the columns every pair is equal (product 1); across, neighbours agree in 8 of 15 pairs: (8 - 7) / 15.
    np.testing.assert_allclose(features["autocorrelation_1"], (1 + 1 / 15) / 2, rtol=1e-5)
    np.testing.assert_allclose(features["autocorrelation_2"], (1 - 1) / 2, atol=1e-6)
    np.testing.assert_allclose(features["autocorrelation_4"], 1, rtol=1e-5)
    # Homogeneity 1 / (1 + |difference|): equal pairs give 1, the others 1 / 3.
    np.testing.assert_allclose(features["homogeneity_1"], (1 + (8 + 7 / 3) / 15) / 2, rtol=1e-5)
    assert features["autocorrelation_16"] == 0  # no pair is that far apart


def test_local_binary_patterns_by_hand():
    image = np.zeros((1, 3, 3))
    image[0, 1, 1] = 1
    histogram = handmade._local_binary_patterns(image)[0]
    # The centre has no brighter neighbour (code 0). At the sides the centre alone is brighter (code 1); so it is at
    # the corners, where mirrored borders repeat side and corner pixels, all of them 0.
    np.testing.assert_allclose(histogram[:2], [1 / 9, 8 / 9])
    checker = np.indices((8, 8)).sum(axis=0)[None] % 2.0
    # Inside, a 0 has four brighter neighbours in alternation: not uniform (code 9); a 1 has none.
    assert handmade._local_binary_patterns(checker)[0, 9] > 0.25


def test_a_channel_matches_itself_and_not_another():
    images = noise((2, 48, 48, 3))
    images[..., 2] = 5 * images[..., 0] + 7
    features = named(images)
    for kind in ("correlation", "coarse", "fine"):
        np.testing.assert_allclose(features[f"{kind}_with_channel2"], 1, atol=1e-4)
    assert np.abs(features["correlation_with_channel1"]).max() < 0.1
    images[..., 2] *= -1
    np.testing.assert_allclose(named(images)["correlation_with_channel2"], -1, atol=1e-4)


def test_edges_are_found():
    disc = (np.hypot(*(np.indices((64, 64)) - 32)) < 16).astype(float)
    ring = np.abs(np.hypot(*(np.indices((64, 64)) - 32)) - 16) < 1.5
    features = named(np.stack([ring, disc], axis=-1)[None].astype(float))
    assert features["edge_with_channel1"] > 0.7
    assert features["edge_with_channel1"] > features["correlation_with_channel1"] + 0.5


@pytest.mark.parametrize(
    "turn",
    [
        lambda x: x[:, ::-1],
        lambda x: x[:, :, ::-1],
        lambda x: x.transpose(0, 2, 1, 3),
        lambda x: np.rot90(x, 1, (1, 2)),
    ],
    ids=["up-down", "left-right", "transpose", "quarter"],
)
def test_flips_and_turns_change_nothing(turn):
    images = noise()
    np.testing.assert_allclose(
        handmade.texture_features(turn(images), protein=1), handmade.texture_features(images, protein=1), atol=2e-4
    )


def test_brightness_and_contrast_change_nothing():
    images = noise()
    expected = handmade.texture_features(images, protein=0)
    np.testing.assert_allclose(handmade.texture_features(3.7 * images + 500, protein=0), expected, atol=2e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64, bool])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_type_and_any_number_of_channels(dtype, channels):
    images = noise((2, 32, 40, channels)).clip(0, 255).astype(dtype)
    features = handmade.texture_features(images, protein=channels - 1)
    assert features.dtype == np.float32
    assert features.shape == (2, 40 + 6 * channels)
    assert np.isfinite(features).all()
    assert np.isfinite(handmade.intensity_features(images)).all()


@pytest.mark.parametrize("side", [1, 2, 3, 8, 32])
@pytest.mark.parametrize("value", [0, 7, 65535])
def test_constant_and_tiny_images_stay_finite(side, value):
    images = np.full((2, side, side, 2), value, np.uint16)
    features = named(images)
    assert all(np.isfinite(column).all() for column in features.values())
    assert (features["channel0_skewness"] == 0).all()
    assert (features["correlation_with_channel1"] == 0).all()
    assert np.isfinite(handmade.texture_features(noise((2, side, side, 2)), protein=0)).all()


def test_chunks_make_no_difference():
    images = noise((handmade.CHUNK + 3, 32, 32, 2))
    together = handmade.texture_features(images, protein=0)
    alone = np.concatenate([handmade.texture_features(image[None], protein=0) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert handmade.texture_features(images[:0], protein=0).shape == (0, together.shape[1])


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"\[N, H, W, C\], got shape \(8, 8\)"):
        handmade.intensity_features(np.zeros((8, 8)))
    with pytest.raises(ValueError, match="channel 2 does not exist; the images have 2 channels"):
        handmade.texture_features(noise(), protein=2)
    with pytest.raises(ValueError, match="empty axis"):
        handmade.texture_features(np.zeros((1, 0, 4, 1)), protein=0)
