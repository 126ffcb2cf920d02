"""Resizing the learned position table to other patch grids, by the named convention of the code a weight came from.

Each convention is a pair of small dense matrices, one per axis, made once in NumPy float64 from static sizes. The
conventions differ by up to a few percent of the table's values, far more than converted weights may be off by:

- "dino": facebookresearch/dino, and DINOv2 without registers. Bicubic (a = -0.75, no antialias); 0.1 is added to the
  wanted grid before forming the scale factor, and that factor itself maps coordinates.
- "dinov2_registers": DINOv2 with registers. By size, bicubic with antialias (a = -0.5).
- "timm": timm's `resample_abs_pos_embed`. By size, bicubic with antialias; skipping looks at the grid only.
- "hf": Hugging Face's ViT and DINOv2. By size, bicubic (a = -0.75, no antialias).
- "jax_zoom": google-research/vision_transformer. Linear with aligned corners (`scipy.ndimage.zoom`, order 1).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from protloc_jax.model.config import Position


def resize_table(
    table: jax.Array, convention: Position, patch: int, height: int, width: int, *, prefix: int = 1
) -> jax.Array:
    """Position table [1, prefix + g*g, D] resized for an image of `height` x `width` pixels: [1, prefix + h*w, D].

    The first `prefix` rows (the class token's) are kept. The table is returned as it is where the convention skips
    resizing.
    """
    side = round((table.shape[1] - prefix) ** 0.5)
    rows, columns = height // patch, width // patch
    square = rows == columns if convention in ("timm", "jax_zoom") else height == width
    if rows * columns == side * side and square:
        return table
    down = jnp.asarray(axis_matrix(convention, side, rows), table.dtype)
    across = jnp.asarray(axis_matrix(convention, side, columns), table.dtype)
    grid = table[0, prefix:].reshape(side, side, -1)
    grid = jnp.einsum("rs,sct->rct", down, grid, precision="highest")
    grid = jnp.einsum("cs,rst->rct", across, grid, precision="highest")
    return jnp.concatenate([table[:, :prefix], grid.reshape(1, rows * columns, -1)], axis=1)


@functools.lru_cache(maxsize=256)
def axis_matrix(convention: Position, size: int, out: int) -> np.ndarray:
    """Interpolation matrix [out, size] of one axis, float64; every row sums to 1."""
    if convention == "dino":
        return _cubic(size, out, scale=(out + 0.1) / size)
    if convention == "hf":
        return _cubic(size, out, scale=out / size)
    if convention in ("dinov2_registers", "timm"):
        return _cubic_antialiased(size, out)
    if convention == "jax_zoom":
        return _linear_corners(size, out)
    raise ValueError(f"position convention {convention!r} has no table to resize.")


def _keys_kernel(x: np.ndarray, a: float) -> np.ndarray:
    """Cubic convolution kernel of Keys (1981) with free parameter a."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _cubic(size: int, out: int, scale: float) -> np.ndarray:
    """Four-tap bicubic weights at half-pixel centres, indices clamped at the border."""
    centre = (np.arange(out) + 0.5) / scale - 0.5
    first = np.floor(centre).astype(int)
    matrix = np.zeros((out, size))
    for tap in range(-1, 3):
        weight = _keys_kernel(centre - (first + tap), -0.75)
        np.add.at(matrix, (np.arange(out), np.clip(first + tap, 0, size - 1)), weight)
    return matrix


def _cubic_antialiased(size: int, out: int) -> np.ndarray:
    """Bicubic weights whose support widens when shrinking; taps outside are dropped and rows renormalised."""
    ratio = size / out
    stretch = max(ratio, 1.0)
    centre = ratio * (np.arange(out)[:, None] + 0.5)
    pixel = np.arange(size)[None, :]
    low = np.maximum((centre - 2.0 * stretch + 0.5).astype(int), 0)
    high = np.minimum((centre + 2.0 * stretch + 0.5).astype(int), size)
    weight = _keys_kernel((pixel - centre + 0.5) / stretch, -0.5)
    weight = np.where((pixel >= low) & (pixel < high), weight, 0.0)
    return weight / weight.sum(1, keepdims=True)


def _linear_corners(size: int, out: int) -> np.ndarray:
    """Linear weights with the first and last samples aligned."""
    centre = np.arange(out) * ((size - 1) / (out - 1) if out > 1 else 1.0)
    return np.maximum(0.0, 1.0 - np.abs(centre[:, None] - np.arange(size)[None, :]))
