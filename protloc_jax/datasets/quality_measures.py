"""What one image says about its own quality: focus, content, saturation, intensity, nuclei. Finite for any image."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.fft
import scipy.ndimage as ndimage

# Grey levels at which cameras of 8, 10, 12, 14 and 16 bit clip.
TOP_LEVELS = (255, 1023, 4095, 16383, 65535)
# Bands of spatial frequency, cycles a pixel: coarse holds cells, fine their edges and texture, noise only the camera's.
COARSE, FINE, NOISE_ABOVE = (1 / 100, 1 / 16), (1 / 16, 1 / 5), 0.4
FLOOR = -6.0  # logarithm given for "nothing at all"
_SMOOTH = 2.0  # pixels


def channel_measures(image: np.ndarray) -> dict[str, float]:
    """Measures of one channel [H, W] of integers or floats, all finite.

    mean, p01, p50, p99, p999   grey levels
    background   5th percentile after light smoothing
    zero         share of pixels at 0
    constant     1 where every pixel has one value
    foreground   share of pixels (evened out and smoothed) above the background by 5 standard deviations of the noise
    focus        log10 of power in the fine band over power in the coarse band, the noise floor taken off both
    signal       log10 of power in both bands over that of the noise: below 0, noise outweighs content
    laplacian    log10 of the variance of the Laplacian over the variance of the image, after smoothing by one pixel
    slope        slope of log power over log frequency (radial mean), the coarse and fine bands together
    Illumination is evened out (`evened`) before foreground, focus, signal and slope, so that vignetting is no content.
    `focus` is the one to judge by: photon noise hides blur from the other two.
    """
    x = np.asarray(image, np.float64)
    smooth, flat = ndimage.gaussian_filter(x, _SMOOTH), evened(x)
    level = ndimage.gaussian_filter(flat, _SMOOTH)
    p01, p50, p99, p999 = (float(v) for v in np.percentile(x, (1, 50, 99, 99.9)))
    return {
        "mean": float(x.mean()),
        "p01": p01,
        "p50": p50,
        "p99": p99,
        "p999": p999,
        "background": float(np.percentile(smooth, 5)),
        "zero": float((x == 0).mean()),
        "constant": float(x.min() == x.max()),
        "foreground": float((level > np.percentile(level, 5) + _above_noise(x)).mean()),
        "laplacian": _laplacian(x),
        **spectrum_measures(flat),
    }


def spectrum_measures(image: np.ndarray) -> dict[str, float]:
    """`focus`, `signal` and `slope` of one channel [H, W] (see `channel_measures`)."""
    x = np.asarray(image, np.float64)
    x = (0 * x if _constant(x) else x - x.mean()) * np.outer(np.hanning(x.shape[0]), np.hanning(x.shape[1]))
    power = np.abs(np.asarray(scipy.fft.rfft2(x))) ** 2
    across, along = scipy.fft.fftfreq(x.shape[0])[:, None], scipy.fft.rfftfreq(x.shape[1])[None]
    radius = np.hypot(across, along)
    above = power[radius > NOISE_ABOVE]
    # The power of white noise is exponentially distributed: its mean is its median over ln 2. The median does not mind
    # the few frequencies that content may still reach.
    noise = float(np.median(above)) / np.log(2) if above.size else 0.0

    def band(low: float, high: float) -> tuple[float, int]:
        inside = (radius > low) & (radius <= high)
        return float(power[inside].sum() - noise * inside.sum()), int(inside.sum())

    (coarse, n_coarse), (fine, n_fine) = band(*COARSE), band(*FINE)
    return {
        "focus": _log_ratio(fine, coarse),
        "signal": _log_ratio((coarse + fine) / max(n_coarse + n_fine, 1), noise),
        "slope": _slope(power, radius, min(x.shape)),
    }


def evened(image: np.ndarray) -> np.ndarray:
    """An image [H, W] minus its least-squares surface of second order, with its mean kept."""
    x = np.asarray(image, np.float64)
    (y, z), thin, solve = _surface_fit(x.shape)
    c = solve @ x[thin].ravel()
    surface = (c[0] + c[1] * y + c[2] * y**2)[:, None] + (c[3] * z + c[4] * z**2)[None] + c[5] * np.outer(y, z)
    return x - surface + surface.mean()


@lru_cache(maxsize=4)
def _surface_fit(shape: tuple[int, int]) -> tuple[tuple[np.ndarray, np.ndarray], tuple[slice, ...], np.ndarray]:
    """Coordinates along both axes, the grid of pixels fitted to, and what turns its values into six coefficients."""
    y, x = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape)
    # A thinned grid is enough to fit six numbers to.
    thin = tuple(slice(None, None, max(1, n // 32)) for n in shape)
    rows, columns = (v.ravel() for v in np.meshgrid(y[thin[0]], x[thin[1]], indexing="ij"))
    terms = [np.ones_like(rows), rows, rows**2, columns, columns**2, rows * columns]
    return (y, x), thin, np.linalg.pinv(np.stack(terms, axis=1))


def noise_sd(image: np.ndarray) -> float:
    """Standard deviation of white noise in an image [H, W], by a difference filter that cancels planes.

    Immerkaer, Computer Vision and Image Understanding 64 (1996). 0 for images smaller than 3 x 3.
    """
    x = np.asarray(image, np.float64)
    if min(x.shape) < 3:
        return 0.0
    kernel = np.outer([1.0, -2.0, 1.0], [1.0, -2.0, 1.0])
    filtered = ndimage.convolve(x, kernel)[1:-1, 1:-1]
    return float(np.sqrt(np.pi / 2) / 6 * np.abs(filtered).mean())


def otsu(image: np.ndarray, bins: int = 256) -> float:
    """The threshold between two classes of pixels that maximises the variance between them (Otsu, 1979).

    Pixels above it are the bright class. Chosen among the edges of `bins` equal bins; a constant image gets its value.
    """
    x = np.asarray(image, np.float64).ravel()
    if _constant(x):
        return float(x.max())
    counts, edges = np.histogram(x, bins)
    middle = (edges[1:] + edges[:-1]) / 2
    below, sum_below = np.cumsum(counts)[:-1], np.cumsum(counts * middle)[:-1]
    above = counts.sum() - below
    sum_above = (counts * middle).sum() - sum_below
    between = below * above * (sum_below / below - sum_above / np.maximum(above, 1)) ** 2
    return float(edges[1:-1][int(np.argmax(between))])


def count_nuclei(image: np.ndarray, *, least_pixels: int = 30) -> int:
    """Connected bright objects of a nuclear stain [H, W]; nuclei that touch count once.

    A pixel is bright above Otsu's threshold of the evened and smoothed image, and above the background by 5 standard
    deviations of the noise, so that an empty field counts none. Holes are filled; objects below `least_pixels` are
    dropped.
    """
    smooth = ndimage.gaussian_filter(evened(image), _SMOOTH)
    cut = max(otsu(smooth), float(np.percentile(smooth, 5)) + _above_noise(image))
    labels, _ = ndimage.label(ndimage.binary_fill_holes(smooth > cut))  # type: ignore[misc]
    return int((np.bincount(np.asarray(labels).ravel())[1:] >= least_pixels).sum())


def top_counts(image: np.ndarray) -> dict[str, float]:
    """Share of pixels of one channel [H, W] at every level where a camera may clip, and the largest pixel."""
    shares = {f"at_{level}": float((image == level).mean()) for level in TOP_LEVELS if level <= image.max()}
    return {f"at_{level}": 0.0 for level in TOP_LEVELS} | shares | {"max": float(image.max())}


def correlations(image: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    """Pearson correlation of every pair of channels of [H, W, C]; 0 where a channel is constant."""
    x = image.reshape(-1, image.shape[-1]).astype(np.float64)
    x -= x.mean(axis=0)
    spread = np.sqrt((x**2).sum(axis=0))
    product = x.T @ x / np.maximum(np.outer(spread, spread), 1e-12)
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
    return {f"corr_{names[i]}_{names[j]}": float(product[i, j]) for i, j in pairs}


def _above_noise(image: np.ndarray) -> float:
    """5 standard deviations of what smoothing leaves of white noise, and at least half a grey level."""
    return max(5 * noise_sd(image) / (2 * np.sqrt(np.pi) * _SMOOTH), 0.5)


def _constant(x: np.ndarray) -> bool:
    """Whether an array holds one value, rounding errors aside."""
    return bool(np.ptp(x) <= 1e-9 * max(1.0, float(np.abs(x).max())))


def _laplacian(x: np.ndarray) -> float:
    smooth = ndimage.gaussian_filter(x, 1.0)
    return _log_ratio(float(ndimage.laplace(smooth).var()), float(smooth.var()))


def _slope(power: np.ndarray, radius: np.ndarray, side: int) -> float:
    """Least-squares slope of log mean power over log frequency, in rings one cycle an image wide; 0 without power."""
    ring = np.rint(radius * side).astype(int)
    mean = np.bincount(ring.ravel(), power.ravel()) / np.maximum(np.bincount(ring.ravel()), 1)
    rings = np.arange(max(2, int(np.ceil(COARSE[0] * side))), int(FINE[1] * side) + 1)
    rings = rings[mean[rings] > 1e-9 * max(mean.max(), 1e-12)] if len(rings) else rings
    return float(np.polyfit(np.log(rings), np.log(mean[rings]), 1)[0]) if len(rings) > 1 else 0.0


def _log_ratio(a: float, b: float) -> float:
    """log10(a / b), within ±6 and -6 where a is nothing (whatever b is)."""
    if a <= 0:
        return FLOOR
    return float(np.clip(np.log10(a) - np.log10(b), FLOOR, -FLOOR)) if b > 0 else -FLOOR
