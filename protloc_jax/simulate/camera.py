"""From densities to a digital image: bleed-through, PSF and haze, exposure, vignetting, noise, gain and clipping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from protloc_jax.simulate.presets import Preset
from protloc_jax.simulate.primitives import (
    forward_fft,
    gaussian_transfer,
    inverse_fft,
    mirror_pad,
    padded_shape,
    sample_points,
    splat_spots,
)

FEW_PHOTONS = np.float32(8.0)


@dataclass(frozen=True)
class PlateEffects:
    """What one plate does to a channel: factors around 1, and the coefficients of its illumination."""

    exposure: float = 1.0
    background: float = 1.0
    offset: float = 0.0
    psf: float = 1.0
    haze: float = 1.0
    bleed: float = 1.0
    tilt: tuple[float, float, float] = (0.0, 0.0, 0.0)


def draw_plate_effects(rng: np.random.Generator, strength: float) -> PlateEffects:
    """Draw one plate's effects on one channel; `strength` 0 gives none, and no bleed-through."""
    draw = rng.standard_normal(9)
    return PlateEffects(
        exposure=float(np.exp(0.20 * strength * draw[0])),
        background=float(np.exp(0.30 * strength * draw[1])),
        offset=float(0.3 * strength * draw[2]),
        psf=float(np.exp(0.08 * strength * abs(draw[3]))),
        haze=float(np.exp(0.25 * strength * draw[4])),
        bleed=float(strength * np.exp(0.3 * draw[5])),
        tilt=tuple((strength * np.array([0.08, 0.08, 0.10]) * [draw[6], draw[7], abs(draw[8])]).tolist()),
    )


def together(first: PlateEffects, second: PlateEffects) -> PlateEffects:
    """Two sets of effects on one channel, as of a batch and of one of its plates."""
    return PlateEffects(
        exposure=first.exposure * second.exposure,
        background=first.background * second.background,
        offset=first.offset + second.offset,
        psf=first.psf * second.psf,
        haze=first.haze * second.haze,
        bleed=first.bleed,
        tilt=(first.tilt[0] + second.tilt[0], first.tilt[1] + second.tilt[1], first.tilt[2] + second.tilt[2]),
    )


def illumination(shape: tuple[int, int], tilt: tuple[float, float, float]) -> np.ndarray:
    """Return the relative illumination [H, W]: a plane and a radial fall-off, never below 0.2."""
    y = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :]
    return np.maximum(1 + tilt[0] * y + tilt[1] * x - tilt[2] * (x * x + y * y), 0.2).astype(np.float32)


def psf_sigma(preset: Preset, wavelength: float, defocus: float) -> float:
    """Return the PSF's sigma in µm: 0.21 λ / NA, with defocus (µm) added in quadrature."""
    return float(np.hypot(0.21 * wavelength / preset.numerical_aperture, defocus))


def bleed_matrix(preset: Preset) -> np.ndarray:
    """Return [C, C] shares: how much of channel j, in units of its own exposure, shows up in channel i."""
    wavelength = np.array([optics.wavelength for optics in preset.optics])
    away = np.abs(wavelength[:, None] - wavelength[None, :])
    matrix = preset.bleed_through * np.exp(-np.maximum(away - 0.03, 0) / 0.05)
    np.fill_diagonal(matrix, 0)
    return matrix


class Lens:
    """Optics of one channel for one field: (1 - haze) of a sharp PSF and haze of a wide one, borders mirrored."""

    def __init__(self, shape: tuple[int, int], sigma_px: float, haze: float, haze_sigma_px: float) -> None:
        self.shape = shape
        self.pad = min(int(np.ceil(2 * haze_sigma_px)), min(shape) - 1)
        self.padded = padded_shape(shape, self.pad)
        self.transfer = (1 - haze) * gaussian_transfer(*self.padded, sigma_px)
        self.transfer += haze * gaussian_transfer(*self.padded, haze_sigma_px)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Blur [H, W]."""
        (height, width), pad = self.shape, self.pad
        spectrum = forward_fft(mirror_pad(image.astype(np.float32), pad, self.padded))
        result = inverse_fft(spectrum * self.transfer, self.padded)
        return np.maximum(result[pad : pad + height, pad : pad + width], 0)


def bleed(stains: Sequence[np.ndarray], levels: Sequence[float], matrix: np.ndarray) -> list[np.ndarray]:
    """Add to each channel its share of the others; `levels` are the photons one unit of exposure means in each."""
    result = []
    for i, stain in enumerate(stains):
        for j in np.flatnonzero(matrix[i]).tolist():
            stain = stain + np.float32(matrix[i, j] * levels[i] / levels[j]) * stains[j]
        result.append(stain)
    return result


def count_photons(rng: np.random.Generator, expected: np.ndarray) -> np.ndarray:
    """Draw Poisson counts for `expected` photons [H, W], float32.

    From `FEW_PHOTONS` up the Cornish-Fisher expansion of the Poisson distribution stands in for it (mean, variance and
    skewness agree; its values need not be whole, which read noise hides): an order of magnitude faster.
    """
    z = rng.standard_normal(expected.shape, dtype=np.float32)
    root = np.sqrt(np.maximum(expected, FEW_PHOTONS))
    square = z * z
    counts = np.maximum(expected + root * z + (square - 1) / 6 + z * (1 - square) / (72 * root), 0)
    few = expected < FEW_PHOTONS
    counts[few] = rng.poisson(expected[few])
    return counts


def debris(rng: np.random.Generator, shape: tuple[int, int], um: float) -> np.ndarray:
    """A few bright out-of-place blobs [H, W], in units of the exposure; `um` per pixel."""
    everywhere = np.ones(shape, np.float32)
    points = sample_points(rng, everywhere, int(rng.integers(2, 7)))
    sigma = rng.uniform(0.4, 2.0, points[0].size) / um
    return splat_spots(shape, points, rng.uniform(1, 4, points[0].size).astype(np.float32), sigma)


def expose(rng: np.random.Generator, photons: np.ndarray, preset: Preset, *, gain: float, offset: float) -> np.ndarray:
    """Turn expected photons [H, W] into grey levels: Poisson, read noise, gain, offset, rounding and clipping."""
    read = np.float32(preset.read_noise) * rng.standard_normal(photons.shape, dtype=np.float32)
    grey = np.rint((count_photons(rng, photons) + read) * np.float32(gain) + np.float32(offset))
    return np.clip(grey, 0, 2**preset.bit_depth - 1).astype(np.uint8 if preset.bit_depth == 8 else np.uint16)
