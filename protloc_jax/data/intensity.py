"""Intensity statistics of a data set, exact and independent of the order of the images: one histogram a channel."""

from __future__ import annotations

import numpy as np

QUANTILES = {"p01": 0.01, "p50": 0.50, "p99": 0.99, "p999": 0.999}


class Histogram:
    """Counts [C, 256 or 65536] int64 of every pixel value; addition merges, so shards and workers sum up exactly."""

    def __init__(self, channels: int, dtype: np.dtype, counts: np.ndarray | None = None):
        self.bins = int(np.iinfo(dtype).max) + 1
        self.counts = np.zeros((channels, self.bins), np.int64) if counts is None else counts

    def add(self, pixels: np.ndarray) -> None:
        """Count an image [H, W, C]."""
        for channel in range(pixels.shape[-1]):
            self.counts[channel] += _counts(pixels[..., channel].ravel(), self.bins)

    def merge(self, counts: np.ndarray) -> None:
        self.counts += counts

    def summary(self, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
        """{channel: mean, std, min, max, percentiles (nearest rank), zero and saturated fraction}; {} without pixels.

        Saturated means the largest value of the type: a 12-bit camera that clips at 4095 is not recognised.
        """
        if not self.counts.any():
            return {}
        return {name: self._channel(counts) for name, counts in zip(names, self.counts, strict=True)}

    def _channel(self, counts: np.ndarray) -> dict[str, float]:
        total = int(counts.sum())
        values = np.flatnonzero(counts)
        weights = [int(c) for c in counts[values]]
        # Python integers: sums of squares of 16-bit images leave 53 bits after 2**21 pixels.
        first = sum(int(v) * c for v, c in zip(values, weights, strict=True))
        second = sum(int(v) ** 2 * c for v, c in zip(values, weights, strict=True))
        mean = first / total
        variance = (second * total - first * first) / (total * total)
        running = np.cumsum(counts)
        ranks = {name: int(np.searchsorted(running, np.ceil(q * total))) for name, q in QUANTILES.items()}
        return {
            "mean": mean,
            "std": variance**0.5,
            "min": int(values[0]),
            "max": int(values[-1]),
            **ranks,
            "zero_fraction": int(counts[0]) / total,
            "saturated_fraction": int(counts[-1]) / total,
        }


def _counts(values: np.ndarray, bins: int) -> np.ndarray:
    """How often each value comes; 8-bit values are counted two at a time."""
    if values.dtype != np.uint8 or len(values) < 2:
        return np.bincount(values, minlength=bins)
    even = len(values) // 2 * 2
    pairs = np.bincount(values[:even].view(np.uint16), minlength=2**16).reshape(256, 256)
    counts = pairs.sum(0) + pairs.sum(1)
    if even < len(values):
        counts[values[-1]] += 1
    return counts


def constant_channels(pixels: np.ndarray) -> tuple[int, ...]:
    """Indices of the channels of [H, W, C] in which every pixel has the same value."""
    flat = pixels.reshape(-1, pixels.shape[-1])
    # Nearly every channel shows two values within a few thousand pixels; only the others are looked at whole.
    few = flat[:: max(1, len(flat) // 4096)]
    return tuple(int(c) for c in np.flatnonzero((few == flat[0]).all(0)) if (flat[:, c] == flat[0, c]).all())
