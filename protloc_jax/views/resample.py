"""Crop boxes, and cutting and resizing a crop: a separable interpolation with static shapes.

Along each axis an output pixel is a weighted sum of a few neighbouring source pixels, its taps. How many there can be
depends on the largest possible crop, which is static; which ones they are depends on the drawn box. Rows are gathered
and summed (contiguous, fused into one pass); columns are one small matrix product with the taps spread into a
matrix. On a TPU, where gathers are slow, both are matrix products. Flips reverse the taps' order.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Interpolation = Literal["bilinear", "bicubic"]
TRIES = 10
BOX_NUMBERS = 2 * TRIES + 2


class Box(NamedTuple):
    """A crop in pixels of the source, int32: rows top .. top + height, columns left .. left + width."""

    top: jax.Array | int
    left: jax.Array | int
    height: jax.Array | int
    width: jax.Array | int


class Taps(NamedTuple):
    """Source positions [out, T] and weights [out, T] of every output position along one axis."""

    at: jax.Array
    weight: jax.Array


def draw_box(
    uniform: jax.Array, height: int, width: int, *, scale: tuple[float, float], ratio: tuple[float, float]
) -> Box:
    """The crop box that `BOX_NUMBERS` uniform float32 numbers stand for, as torchvision's RandomResizedCrop draws it.

    scale  range of the crop's area as a share of the image; ratio  range of width / height, drawn log-uniformly.
    Ten tries, the first that fits the image wins; if none does, the largest centred box within the ratio limits.
    """
    target = (height * width) * (scale[0] + (scale[1] - scale[0]) * uniform[:TRIES])
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    shape = jnp.exp(log_low + (log_high - log_low) * uniform[TRIES : 2 * TRIES])
    widths = jnp.round(jnp.sqrt(target * shape)).astype(jnp.int32)
    heights = jnp.round(jnp.sqrt(target / shape)).astype(jnp.int32)
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    found, first = jnp.any(fits), jnp.argmax(fits)
    centred = _centred(height, width, ratio)
    h = jnp.where(found, heights[first], centred.height)
    w = jnp.where(found, widths[first], centred.width)
    top = jnp.minimum(jnp.floor(uniform[-2] * (height - h + 1)).astype(jnp.int32), height - h)
    left = jnp.minimum(jnp.floor(uniform[-1] * (width - w + 1)).astype(jnp.int32), width - w)
    return Box(jnp.where(found, top, centred.top), jnp.where(found, left, centred.left), h, w)


def _centred(height: int, width: int, ratio: tuple[float, float]) -> Box:
    h, w = height, width
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return Box((height - h) // 2, (width - w) // 2, h, w)


def longest(height: int, width: int, *, scale: tuple[float, float], ratio: tuple[float, float]) -> tuple[int, int]:
    """Largest (height, width) that `draw_box` can return; static, so that the number of taps is."""
    centred = _centred(height, width, ratio)
    tallest = min(height, math.ceil(math.sqrt(scale[1] * height * width / ratio[0])) + 1)
    widest = min(width, math.ceil(math.sqrt(scale[1] * height * width * ratio[1])) + 1)
    return max(tallest, int(centred.height)), max(widest, int(centred.width))


def taps(
    start: jax.Array | int,
    length: jax.Array | int,
    *,
    longest: int,
    out: int,
    interpolation: Interpolation,
    antialias: bool,
    flip: jax.Array | bool = False,
    dtype=jnp.float32,
) -> Taps:
    """Taps that resize positions start .. start + length (length <= `longest`, static) to `out` positions.

    Half-pixel centres; nothing outside the crop is read. Without antialias: bilinear, or bicubic with a = -0.75,
    borders replicated, as torch's `interpolate(align_corners=False)`. With antialias: the kernel is widened when the
    crop is reduced and its weights are normalised over the pixels inside, bicubic with a = -0.5, as Pillow's `resize`.
    `flip` reverses the output.
    """
    place = jnp.arange(out)
    place = jnp.where(flip, out - 1 - place, place).astype(dtype)[:, None]
    length = jnp.asarray(length, jnp.int32)
    step = length.astype(dtype) / out
    if antialias:
        half = 1.0 if interpolation == "bilinear" else 2.0
        count = math.ceil(2.0 * half * max(longest / out, 1.0)) + 1
        width = jnp.maximum(step, 1.0)
        centre = step * (place + 0.5)
        first = jnp.maximum(jnp.floor(centre - half * width + 0.5), 0.0).astype(jnp.int32)
        at = first + jnp.arange(count)[None, :]
        distance = (at.astype(dtype) + 0.5 - centre) / width
        kernel = _triangle(distance) if interpolation == "bilinear" else _cubic(distance, -0.5)
        weight = jnp.where(at < length, kernel, 0.0)
        weight = weight / jnp.sum(weight, axis=1, keepdims=True)
    else:
        centre = step * (place + 0.5) - 0.5
        if interpolation == "bilinear":
            centre = jnp.clip(centre, 0.0, length.astype(dtype) - 1)
        below = jnp.floor(centre)
        offset = jnp.arange(2)[None, :] if interpolation == "bilinear" else jnp.arange(-1, 3)[None, :]
        distance = centre - below - offset.astype(dtype)
        weight = _triangle(distance) if interpolation == "bilinear" else _cubic(distance, -0.75)
        at = below.astype(jnp.int32) + offset
    return Taps(jnp.asarray(start, jnp.int32) + jnp.clip(at, 0, length - 1), weight)


def matrix(of: Taps, source: int) -> jax.Array:
    """The taps spread into weights [out, source]; taps at the same position add up."""
    position = jnp.arange(source)[None, :]
    spread = [jnp.where(of.at[:, t, None] == position, of.weight[:, t, None], 0.0) for t in range(of.at.shape[1])]
    return sum(spread[1:], spread[0])


def cut(x: jax.Array, rows: Taps, columns: Taps, *, gather: bool, unit: float = 1.0) -> jax.Array:
    """Cut and resize an image [H, C, W] of any type, times `unit` -> [rows, C, columns] in the precision of the taps.

    With the channels in the middle, either product is a plain matrix product without a transposition. `gather` sums
    gathered rows instead of multiplying by a mostly empty matrix: some twenty times faster on a CPU, where reading
    integers and converting them on the way also saves most of the memory traffic.
    """
    weight = rows.weight * unit
    if gather:
        read = [
            x.at[rows.at[:, t]].get(mode="promise_in_bounds", wrap_negative_indices=False)
            for t in range(weight.shape[1])
        ]
        parts = [weight[:, t, None, None] * pixels.astype(weight.dtype) for t, pixels in enumerate(read)]
        y = sum(parts[1:], parts[0])
    else:
        spread = matrix(Taps(rows.at, weight), x.shape[0])
        y = jnp.einsum("sh,hcw->scw", spread, x.astype(weight.dtype), precision=lax.Precision.HIGHEST)
    return jnp.einsum("scw,tw->sct", y, matrix(columns, x.shape[2]), precision=lax.Precision.HIGHEST)


def resize(
    x: jax.Array, out: tuple[int, int], *, interpolation: Interpolation, antialias: bool, gather: bool
) -> jax.Array:
    """Resize a whole image [H, C, W] to `out` (rows, columns), kept within [0, 1] where the kernel overshoots."""

    def along(length: int, size: int) -> Taps:
        return taps(
            0, length, longest=length, out=size, interpolation=interpolation, antialias=antialias, dtype=x.dtype
        )

    y = cut(x, along(x.shape[0], out[0]), along(x.shape[2], out[1]), gather=gather)
    return jnp.clip(y, 0.0, 1.0) if interpolation == "bicubic" else y


def shorter_side(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) after the shorter side is brought to `size`, the other in proportion, rounded down."""
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


def _triangle(distance: jax.Array) -> jax.Array:
    return jnp.maximum(1.0 - jnp.abs(distance), 0.0)


def _cubic(distance: jax.Array, a: float) -> jax.Array:
    x = jnp.abs(distance)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    return jnp.where(x < 1.0, near, jnp.where(x < 2.0, far, 0.0))
