"""Perspective warp of a whole image: one corner moves inwards, the other three stay."""

from __future__ import annotations

import jax
import jax.numpy as jnp

REACH = 0.25  # the corner moves by up to this share of the shorter side along each axis (DINO4Cells)
WARP_NUMBERS = 4


def draw_corner(uniform: jax.Array, height: int, width: int, probability: float) -> tuple[jax.Array, ...]:
    """(corner is at the right, corner is at the bottom, shift in x, shift in y) from `WARP_NUMBERS` uniform numbers.

    Shifts are in pixels, inwards, and 0 where the warp is not drawn.
    """
    corner = jnp.floor(uniform[1] * 4).astype(jnp.int32)
    reach = jnp.where(uniform[0] < probability, REACH * min(height, width), 0.0)
    return corner % 2 == 1, corner >= 2, reach * uniform[2], reach * uniform[3]


def warp(x: jax.Array, right: jax.Array, bottom: jax.Array, dx: jax.Array, dy: jax.Array) -> jax.Array:
    """Move one corner of an image [H, W, C] inwards by (dx, dy) pixels; what the image no longer covers is zero.

    Corners are the centres of the corner pixels. Every output pixel is mapped back and sampled bilinearly, with zeros
    around the image. In coordinates where the moved corner is (1, 1) and the opposite one (0, 0), the projective map
    that sends (1, 1) to (p, q) and fixes the other three corners is (x, y) -> ((1 + g) x, (1 + h) y) / (1 + g x + h y)
    with 1 + g = p s, 1 + h = q s, s = 1 / (p + q - 1); its inverse is in closed form.
    """
    height, width = x.shape[:2]
    tall, wide = max(height - 1, 1), max(width - 1, 1)
    p, q = 1.0 - dx.astype(x.dtype) / wide, 1.0 - dy.astype(x.dtype) / tall
    s = 1.0 / (p + q - 1.0)
    a, b = p * s, q * s
    column = jnp.arange(width, dtype=x.dtype)[None, :] / wide
    row = jnp.arange(height, dtype=x.dtype)[:, None] / tall
    u = jnp.where(right, column, 1.0 - column)
    v = jnp.where(bottom, row, 1.0 - row)
    depth = 1.0 / (1.0 - (a - 1.0) / a * u - (b - 1.0) / b * v)
    u, v = u * depth / a, v * depth / b
    moved = bilinear(x, jnp.where(bottom, v, 1.0 - v) * tall, jnp.where(right, u, 1.0 - u) * wide)
    # Unmoved, every position is an integer up to rounding, and a compiler that computes it twice in two ways may take
    # the weights of one pixel and the values of its neighbour.
    return jnp.where((dx == 0) & (dy == 0), x, moved)


def bilinear(x: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Sample an image [H, W, C] at fractional positions [...]; zeros lie around it. Returns [..., C]."""
    top, left = jnp.floor(rows), jnp.floor(columns)
    out = jnp.zeros((), x.dtype)
    for down in (0, 1):
        for along in (0, 1):
            r, c = top + down, left + along
            weight = (1.0 - jnp.abs(rows - r)) * (1.0 - jnp.abs(columns - c))
            inside = (r >= 0) & (r < x.shape[0]) & (c >= 0) & (c < x.shape[1])
            pixel = x[
                jnp.clip(r, 0, x.shape[0] - 1).astype(jnp.int32), jnp.clip(c, 0, x.shape[1] - 1).astype(jnp.int32)
            ]
            out = out + jnp.where(inside, weight, 0.0)[..., None] * pixel
    return out
