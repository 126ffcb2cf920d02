"""Building blocks of organelles: smooth random fields, ridges, weighted spots, rings and persistent random walks.

Lengths here are pixels; callers convert from micrometres. Maps are float32 [H, W]; points are (row, column) floats.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.fft

Points = tuple[np.ndarray, np.ndarray]


def forward_fft(image: np.ndarray) -> np.ndarray:
    """Real 2-D Fourier transform, [H, W] to [H, W // 2 + 1], in the precision of its input."""
    return np.asarray(scipy.fft.rfft2(image))


def inverse_fft(spectrum: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Inverse of `forward_fft` for an image of `shape`."""
    return np.asarray(scipy.fft.irfft2(spectrum, s=shape))


def padded_shape(shape: tuple[int, int], pad: int) -> tuple[int, int]:
    """The shape, fast for the FFT, that holds `shape` with at least `pad` pixels on every side."""
    height, width = (int(scipy.fft.next_fast_len(side + 2 * pad, real=True) or 0) for side in shape)
    return height, width


def mirror_pad(image: np.ndarray, pad: int, shape: tuple[int, int]) -> np.ndarray:
    """Pad [H, W] to `shape` with mirrored borders, `pad` pixels of them before the image."""
    return np.pad(image, [(pad, full - side - pad) for full, side in zip(shape, image.shape, strict=True)], "symmetric")


@lru_cache(maxsize=16)
def _frequencies(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Angular frequencies (radians per pixel) of a real 2-D FFT."""
    rows = (2 * np.pi * scipy.fft.fftfreq(height)).astype(np.float32)[:, None]
    columns = (2 * np.pi * scipy.fft.rfftfreq(width)).astype(np.float32)[None, :]
    return rows, columns


def gaussian_transfer(height: int, width: int, sigma: float) -> np.ndarray:
    """Return the transfer function [H, W // 2 + 1] of an isotropic Gaussian blur."""
    rows, columns = _frequencies(height, width)
    return np.exp(-0.5 * sigma**2 * rows**2) * np.exp(-0.5 * sigma**2 * columns**2)


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, int], scale: float, *, stretch: float = 1.0, angle: float = 0.0
) -> np.ndarray:
    """Return a Gaussian random field of mean 0 and variance 1 whose correlation length is `scale` pixels.

    `stretch` > 1 lengthens it along `angle` (radians from the column axis towards the row axis).
    """
    rows, columns = _frequencies(*shape)
    noise = forward_fft(rng.standard_normal(shape, dtype=np.float32))
    if stretch == 1.0:
        noise *= gaussian_transfer(*shape, scale)
    else:
        along = columns * np.float32(np.cos(angle)) + rows * np.float32(np.sin(angle))
        across = rows * np.float32(np.cos(angle)) - columns * np.float32(np.sin(angle))
        noise *= np.exp(-0.5 * scale**2 * ((stretch * along) ** 2 + across**2))
    noise[0, 0] = 0
    field = inverse_fft(noise, shape)
    return (field / (field.std() + 1e-12)).astype(np.float32)


def ridge(field: np.ndarray, width: float) -> np.ndarray:
    """Return exp(-(field / width)²): thin lines where a smooth field crosses zero, that is a network or fibres."""
    return np.exp(-((field / np.float32(width)) ** 2))


def sample_points(rng: np.random.Generator, weight: np.ndarray, count: int) -> Points:
    """Draw `count` points with probability proportional to `weight` [H, W], jittered inside their pixel."""
    cumulative = np.cumsum(weight, dtype=np.float64)
    if count <= 0 or cumulative[-1] <= 0:
        return np.zeros(0, np.float32), np.zeros(0, np.float32)
    index = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
    index = np.minimum(index, weight.size - 1)
    rows, columns = np.divmod(index, weight.shape[1])
    jitter = rng.random((2, count)) - 0.5
    return (rows + jitter[0]).astype(np.float32), (columns + jitter[1]).astype(np.float32)


def splat_spots(
    shape: tuple[int, int],
    points: Points,
    amplitude: np.ndarray,
    sigma: np.ndarray,
    *,
    ring: np.ndarray | None = None,
) -> np.ndarray:
    """Add Gaussian spots (or rings of radius `ring` and thickness `sigma`) at sub-pixel points."""
    height, width = shape
    rows, columns = points
    if rows.size == 0:
        return np.zeros(shape, np.float32)
    reach = int(np.ceil(3 * float(np.max(sigma)) + (0.0 if ring is None else float(np.max(ring)))))
    offset = np.arange(-reach, reach + 1)
    at_row = np.rint(rows).astype(np.int64)[:, None] + offset
    at_column = np.rint(columns).astype(np.int64)[:, None] + offset
    away_row = (at_row - rows[:, None]).astype(np.float32)
    away_column = (at_column - columns[:, None]).astype(np.float32)
    inverse = (1.0 / (2 * np.asarray(sigma, np.float32) ** 2))[:, None]
    if ring is None:
        value = (np.exp(-inverse * away_row**2) * amplitude[:, None])[:, :, None]
        value = value * np.exp(-inverse * away_column**2)[:, None, :]
    else:
        radius = np.sqrt(away_row[:, :, None] ** 2 + away_column[:, None, :] ** 2)
        value = np.exp(-inverse[:, :, None] * (radius - np.asarray(ring, np.float32)[:, None, None]) ** 2)
        value *= amplitude[:, None, None]
    inside = ((at_row >= 0) & (at_row < height))[:, :, None] & ((at_column >= 0) & (at_column < width))[:, None, :]
    flat = at_row[:, :, None] * width + at_column[:, None, :]
    return np.bincount(flat[inside], weights=value[inside], minlength=height * width).reshape(shape).astype(np.float32)


def splat_points(shape: tuple[int, int], points: Points, amplitude: np.ndarray) -> np.ndarray:
    """Add points bilinearly: each spreads its amplitude over the four pixels around it."""
    height, width = shape
    rows, columns = points
    low_row, low_column = np.floor(rows), np.floor(columns)
    row_part, column_part = rows - low_row, columns - low_column
    low_row, low_column = low_row.astype(np.int64), low_column.astype(np.int64)
    total = np.zeros(height * width)
    for down, row_weight in ((0, 1 - row_part), (1, row_part)):
        for right, column_weight in ((0, 1 - column_part), (1, column_part)):
            at_row, at_column = low_row + down, low_column + right
            keep = (at_row >= 0) & (at_row < height) & (at_column >= 0) & (at_column < width)
            weight = (amplitude * row_weight * column_weight)[keep]
            total += np.bincount(at_row[keep] * width + at_column[keep], weights=weight, minlength=total.size)
    return total.reshape(shape).astype(np.float32)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of [H, W] by FFT with a mirrored border of three sigma."""
    reach = min(int(np.ceil(3 * sigma)), min(image.shape) - 1)
    shape = padded_shape((image.shape[0], image.shape[1]), reach)
    spectrum = forward_fft(mirror_pad(image, reach, shape)) * gaussian_transfer(*shape, sigma)
    result = inverse_fft(spectrum, shape)
    return np.maximum(result[reach : reach + image.shape[0], reach : reach + image.shape[1]], 0).astype(np.float32)


def walk(
    rng: np.random.Generator,
    start: Points,
    heading: np.ndarray,
    steps: np.ndarray,
    owner: np.ndarray,
    allowed: np.ndarray,
    *,
    stride: float,
    bend: float | np.ndarray,
    drift: float | np.ndarray = 0.0,
    deflect: float = 0.0,
) -> tuple[Points, np.ndarray]:
    """Grow persistent random walks that stay where `allowed` [H, W] equals their owner's label.

    `heading` [n] radians, `steps` [n] numbers of strides, `owner` [n] labels, `stride` pixels a step, `bend` standard
    deviation of the heading's change per step, `drift` that of a curvature a walk keeps (both may be [n]). A walk that
    meets a border ends there, or, with `deflect` > 0, turns by that many radians (always to its own side) and tries
    again; at the image's edge it ends.
    Returns the visited points and, for each, the index of its walk.
    """
    rows, columns = start[0].astype(np.float32), start[1].astype(np.float32)
    longest = int(steps.max()) if steps.size else 0
    turns = rng.standard_normal((longest, rows.size), dtype=np.float32) * np.asarray(bend, np.float32)
    turns += (drift * rng.standard_normal(rows.size)).astype(np.float32)
    side = np.where(rng.random(rows.size) < 0.5, -deflect, deflect).astype(np.float32)
    angle = heading.astype(np.float32)
    index = np.flatnonzero(_place(allowed, rows, columns, owner)[1])
    rows, columns, angle = rows[index], columns[index], angle[index]
    mine, turning, to_side = owner[index], turns[:, index], side[index]
    path_rows, path_columns, path_index = [], [], []
    for step in range(longest):
        if step % 4 == 0:  # thinning out the finished ones now and then is cheaper than at every step
            keep = steps[index] > step
            rows, columns, angle, index = rows[keep], columns[keep], angle[keep], index[keep]
            if index.size == 0:
                break
            mine, turning, to_side = owner[index], turns[:, index], side[index]
        angle = angle + turning[step]
        next_rows = rows + np.float32(stride) * np.sin(angle)
        next_columns = columns + np.float32(stride) * np.cos(angle)
        inside, free = _place(allowed, next_rows, next_columns, mine)
        path_rows.append(next_rows[free])
        path_columns.append(next_columns[free])
        path_index.append(index[free])
        if deflect > 0:
            angle = np.where(free, angle, angle + to_side)
            next_rows = np.where(free, next_rows, rows)
            next_columns = np.where(free, next_columns, columns)
            free = inside
        if not free.all():
            next_rows, next_columns, angle, index = next_rows[free], next_columns[free], angle[free], index[free]
            mine, turning, to_side = mine[free], turning[:, free], to_side[free]
        rows, columns = next_rows, next_columns
    if not path_rows:
        return (np.zeros(0, np.float32), np.zeros(0, np.float32)), np.zeros(0, np.int64)
    return (np.concatenate(path_rows), np.concatenate(path_columns)), np.concatenate(path_index)


def _place(
    labels: np.ndarray, rows: np.ndarray, columns: np.ndarray, owner: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each point lies inside the image, and whether on a pixel that carries its owner's label."""
    height, width = labels.shape
    at_row, at_column = np.rint(rows).astype(np.int32), np.rint(columns).astype(np.int32)
    inside = (at_row >= 0) & (at_row < height) & (at_column >= 0) & (at_column < width)
    flat = np.where(inside, at_row * np.int32(width) + at_column, 0)
    return inside, inside & (labels.ravel()[flat] == owner)
