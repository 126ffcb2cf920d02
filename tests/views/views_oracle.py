"""Plain NumPy float64 forms of every view operation, on images [H, W, C]; loops where they are clearer."""

from __future__ import annotations

import colorsys
import math

import numpy as np
from scipy import ndimage

LUMA = np.array([0.299, 0.587, 0.114])


def triangle(x: float) -> float:
    return max(0.0, 1.0 - abs(x))


def cubic(x: float, a: float) -> float:
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    if x < 2:
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return 0.0


def axis_weights(length: int, out: int, interpolation: str, antialias: bool) -> np.ndarray:
    """[out, length] weights of a one-dimensional resize."""
    weights = np.zeros((out, length))
    step = length / out
    for i in range(out):
        if antialias:
            wide = max(step, 1.0)
            for j in range(length):
                x = (j + 0.5 - step * (i + 0.5)) / wide
                weights[i, j] = triangle(x) if interpolation == "bilinear" else cubic(x, -0.5)
            weights[i] /= weights[i].sum()
            continue
        centre = step * (i + 0.5) - 0.5
        if interpolation == "bilinear":
            centre = min(max(centre, 0.0), length - 1)
        below = math.floor(centre)
        for j in range(below - 1, below + 3):
            w = triangle(centre - j) if interpolation == "bilinear" else cubic(centre - j, -0.75)
            weights[i, min(max(j, 0), length - 1)] += w
    return weights


def resize(image: np.ndarray, out: tuple[int, int], interpolation: str, antialias: bool) -> np.ndarray:
    rows = axis_weights(image.shape[0], out[0], interpolation, antialias)
    columns = axis_weights(image.shape[1], out[1], interpolation, antialias)
    return np.einsum("sh,hwc,tw->stc", rows, image, columns)


def box(uniform, height: int, width: int, scale, ratio) -> tuple[int, int, int, int]:
    """RandomResizedCrop's loop, on numbers drawn beforehand: ten areas, ten ratios, row and column."""
    f = np.float32
    for i in range(10):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * float(uniform[i]))
        low, high = math.log(ratio[0]), math.log(ratio[1])
        shape = math.exp(low + (high - low) * float(uniform[10 + i]))
        w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < w <= width and 0 < h <= height:
            return int(f(uniform[20]) * f(height - h + 1)), int(f(uniform[21]) * f(width - w + 1)), h, w
    h, w = height, width
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


def blend(x, reference, factor):
    return np.clip(factor * x + (1 - factor) * reference, 0, 1)


def grey(x: np.ndarray) -> np.ndarray:
    return (x @ LUMA)[..., None]


def hue(x: np.ndarray, turn: float) -> np.ndarray:
    out = np.empty_like(x)
    for place in np.ndindex(x.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*x[place])
        out[place] = colorsys.hsv_to_rgb((h + turn) % 1.0, s, v)
    return out


def blur(x: np.ndarray, sigma: float, sigma_max: float) -> np.ndarray:
    if sigma == 0:
        return x
    radius = math.ceil(3 * sigma_max)
    for axis in (0, 1):
        x = ndimage.gaussian_filter1d(x, sigma, axis=axis, mode="nearest", radius=radius)
    return x


def homography(corners: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """The projective map [3, 3] that sends four points (x, y) to four others, from the linear system."""
    rows, right = [], []
    for (x, y), (u, v) in zip(corners, moved, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    return np.append(np.linalg.solve(np.array(rows, float), np.array(right, float)), 1.0).reshape(3, 3)


def warp(image: np.ndarray, right: bool, bottom: bool, dx: float, dy: float) -> np.ndarray:
    height, width = image.shape[:2]
    corners = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]], float)
    moved = corners.copy()
    moved[2 * bottom + right] += [-dx if right else dx, -dy if bottom else dy]
    back = homography(moved, corners)
    y, x = np.mgrid[:height, :width]
    u, v, w = np.einsum("ij,jhw->ihw", back, np.stack([x, y, np.ones_like(x)]).astype(float))
    places = np.stack([v / w, u / w])
    sample = [
        ndimage.map_coordinates(image[..., c], places, order=1, mode="grid-constant", cval=0.0)
        for c in range(image.shape[2])
    ]
    return np.stack(sample, axis=-1)


def self_normalise(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(axis=(0, 1))) / (x.std(axis=(0, 1)) + 1e-7)
