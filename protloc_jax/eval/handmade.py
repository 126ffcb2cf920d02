"""Hand-made image features: what intensity alone, or classical texture statistics, tell about an image.

Both are baselines to stand beside a learned embedding. They need no masks and no training, are the same for an image,
its mirror images and its quarter turns, and are finite for every image, constant ones included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import scipy.fft

BAND_SIGMAS = (0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 11.3)
LAGS = (1, 2, 3, 4, 6, 8, 12, 16)
QUANTILES = (0.01, 0.10, 0.25, 0.75, 0.90, 0.99, 0.999)
LBP_SIGMA = 1.0
CHUNK = 8
_EPSILON = 1e-6


def _check(images: np.ndarray) -> None:
    if images.ndim != 4:
        raise ValueError(f"images: expected [N, H, W, C], got shape {images.shape}")
    if min(images.shape[1:]) < 1:
        raise ValueError(f"images: empty axis in shape {images.shape}")


def _check_protein(channels: int, protein: int) -> None:
    if not 0 <= protein < channels:
        raise ValueError(f"protein: channel {protein} does not exist; the images have {channels} channels")


def _names(channels: int | Sequence[str]) -> tuple[str, ...]:
    if isinstance(channels, int):
        return tuple(f"channel{index}" for index in range(channels))
    return tuple(channels)


def intensity_feature_names(channels: int | Sequence[str]) -> tuple[str, ...]:
    """Return the 2C names of `intensity_features`."""
    names = _names(channels)
    return (*(f"{name}_mean" for name in names), *(f"{name}_std" for name in names))


def intensity_features(images: np.ndarray) -> np.ndarray:
    """Return mean and standard deviation of every channel, float32 [N, 2C] (all means, then all deviations).

    `images` is [N, H, W, C] of any real type; raises ValueError for another shape.
    """
    _check(images)
    mean = images.mean(axis=(1, 2), dtype=np.float64)
    std = images.std(axis=(1, 2), dtype=np.float64)
    return np.concatenate([mean, std], axis=1).astype(np.float32)


def texture_feature_names(channels: int | Sequence[str], *, protein: int) -> tuple[str, ...]:
    """Return the names of `texture_features` for images with these channels."""
    names = _names(channels)
    _check_protein(len(names), protein)
    result = [f"{name}_{moment}" for name in names for moment in ("skewness", "kurtosis")]
    result += [f"quantile_{quantile:g}" for quantile in QUANTILES]
    result += [f"band_{sigma:g}_energy" for sigma in BAND_SIGMAS[:-1]]
    result += [f"band_{sigma:g}_kurtosis" for sigma in BAND_SIGMAS[:-1]]
    result += [f"autocorrelation_{lag}" for lag in LAGS]
    result += [f"homogeneity_{lag}" for lag in LAGS[:3]]
    result += [f"lbp_{code}" for code in range(10)]
    for index, name in enumerate(names):
        if index != protein:
            result += [f"{kind}_with_{name}" for kind in ("correlation", "coarse", "edge", "fine")]
    return tuple(result)


def texture_features(images: np.ndarray, *, protein: int) -> np.ndarray:
    """Return texture statistics that do not see brightness, float32 [N, F].

    `images` is [N, H, W, C] of any real type, `protein` the index of the channel described. Every channel is first
    put to mean 0 and variance 1. The statistics are: skewness and kurtosis of every channel; of the protein channel the
    quantiles, energy and kurtosis in eight difference-of-Gaussian bands, autocorrelation, grey-level homogeneity and a
    histogram of rotation-invariant uniform local binary patterns (Ojala et al. 2002); and its correlation with
    every other channel as it is, blurred, with that channel's edges, and between fine details. F = 40 + 6C.
    Raises ValueError for another shape or a channel that does not exist.
    """
    _check(images)
    _check_protein(images.shape[3], protein)
    parts = [_chunk_features(images[start : start + CHUNK], protein) for start in range(0, len(images), CHUNK)]
    width = len(texture_feature_names(images.shape[3], protein=protein))
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros((0, width), np.float32)


def _standardise(image: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1 over [N, H, W]; an (almost) constant image becomes 0."""
    centred = image - image.mean(axis=(1, 2), keepdims=True, dtype=np.float64).astype(image.dtype)
    std = np.sqrt(np.mean(centred * centred, axis=(1, 2), keepdims=True, dtype=np.float64)).astype(image.dtype)
    scale = np.abs(image).max(axis=(1, 2), keepdims=True)
    inverse = np.where(std > _EPSILON * np.maximum(scale, 1e-20), 1.0 / np.maximum(std, 1e-20), 0.0)
    return centred * inverse.astype(image.dtype)


def _skewness_kurtosis(image: np.ndarray) -> list[np.ndarray]:
    """Skewness and excess kurtosis of standardised [N, H, W], compressed by asinh because spots make them huge."""
    square = image * image
    skewness = np.mean(square * image, axis=(1, 2), dtype=np.float64)
    kurtosis = np.mean(square * square, axis=(1, 2), dtype=np.float64) - 3.0 * np.any(image != 0, axis=(1, 2))
    return [np.arcsinh(skewness), np.arcsinh(kurtosis)]


class _Blur:
    """Gaussian blurs of one stack [N, H, W] with mirrored borders, which are products in the cosine transform."""

    def __init__(self, image: np.ndarray) -> None:
        self.spectrum = scipy.fft.dctn(image, axes=(1, 2))
        self.frequencies = [np.pi * np.arange(side, dtype=image.dtype) / side for side in image.shape[1:]]

    def __call__(self, sigma: float) -> np.ndarray:
        row, column = (np.exp(-0.5 * (sigma * frequency) ** 2) for frequency in self.frequencies)
        return np.asarray(scipy.fft.idctn(self.spectrum * (row[:, None] * column[None, :]), axes=(1, 2)))


def _correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.asarray(np.mean(_standardise(first) * _standardise(second), axis=(1, 2), dtype=np.float64))


def _shifted(image: np.ndarray, lag: int, statistic: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Average a statistic of pairs `lag` apart, horizontally and vertically; 0 where the image is smaller."""
    values = []
    if lag < image.shape[1]:
        values.append(np.mean(statistic(image[:, lag:], image[:, :-lag]), axis=(1, 2)))
    if lag < image.shape[2]:
        values.append(np.mean(statistic(image[:, :, lag:], image[:, :, :-lag]), axis=(1, 2)))
    return np.mean(values, axis=0) if values else np.zeros(len(image))


def _local_binary_patterns(image: np.ndarray) -> np.ndarray:
    """Histogram [N, 10] of uniform patterns of the 8 neighbours: codes 0–8 count brighter ones, 9 is the rest."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="symmetric")
    height, width = image.shape[1:]
    around = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))
    margin = np.float32(1e-4)  # of a standard deviation: rounding noise on flat ground is no pattern
    bits = np.stack([padded[:, y : y + height, x : x + width] > image + margin for y, x in around])
    brighter = bits.sum(axis=0)
    changes = (bits != np.roll(bits, 1, axis=0)).sum(axis=0)
    code = np.where(changes <= 2, brighter, 9)
    return np.stack([np.mean(code == value, axis=(1, 2)) for value in range(10)], axis=1)


def _edges(smooth: np.ndarray) -> np.ndarray:
    """Gradient magnitude [N, H, W] by central differences."""
    smooth = np.pad(smooth, ((0, 0), (1, 1), (1, 1)), mode="symmetric")
    down = smooth[:, 2:, 1:-1] - smooth[:, :-2, 1:-1]
    right = smooth[:, 1:-1, 2:] - smooth[:, 1:-1, :-2]
    return np.hypot(down, right)


def _chunk_features(images: np.ndarray, protein: int) -> np.ndarray:
    channels = [_standardise(images[..., index].astype(np.float32)) for index in range(images.shape[3])]
    columns: list[np.ndarray] = []
    for channel in channels:
        columns += _skewness_kurtosis(channel)
    target = channels[protein]
    columns += list(np.arcsinh(np.quantile(target.reshape(len(target), -1), QUANTILES, axis=1)))

    blurs = [_Blur(channel) for channel in channels]
    blur = blurs[protein]
    blurred = [blur(sigma) for sigma in BAND_SIGMAS]
    bands = [fine - coarse for fine, coarse in pairwise(blurred)]
    columns += [np.log10(np.mean(band * band, axis=(1, 2)) + 1e-8) for band in bands]
    columns += [_skewness_kurtosis(_standardise(band))[1] for band in bands]
    columns += [_shifted(target, lag, lambda a, b: a * b) for lag in LAGS]
    columns += [_shifted(target, lag, lambda a, b: 1.0 / (1.0 + np.abs(a - b))) for lag in LAGS[:3]]
    columns += list(_local_binary_patterns(blur(LBP_SIGMA)).T)

    coarse_target, fine_target = blur(4.0), blur(0.7) - blur(2.8)
    for index, channel in enumerate(channels):
        if index == protein:
            continue
        other = blurs[index]
        columns.append(_correlation(target, channel))
        columns.append(_correlation(coarse_target, other(4.0)))
        columns.append(_correlation(target, _edges(other(1.5))))
        columns.append(_correlation(fine_target, other(0.7) - other(2.8)))
    return np.stack(columns, axis=1)
