"""Operations of the `rxrx` recipes on one crop [rows, channels, columns]: a turn by any angle, and channels jittered.

Numbers are not clipped to [0, 1] here, as the pixels of the published pipeline are not. Gain, offset and contrast about
the mean are affine in a channel; where the view ends in self-normalisation of the channel that undoes them, and only
the corners that the turn left at zero, and a blur after them, tell that they were there. They stand here because the
recipe has them.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from protloc_jax.views.draws import Draws, Purpose
from protloc_jax.views.recipes import Strengths

GAINS = (0.8, 1.2)  # of a channel
CONTRASTS = (0.8, 1.3)  # factors about a channel's mean
SHARES = (0.5, 1.5)  # of a channel in the added level


def rotate(x: jax.Array, degrees: jax.Array) -> jax.Array:
    """A crop [S, C, S] turned counter-clockwise about its centre: the nearest pixel, zeros beyond the border.

    As torchvision's `rotate` does it without expanding: every output pixel's centre is turned back.
    """
    size = x.shape[0]
    angle = degrees.astype(x.dtype) * (math.pi / 180)
    place = jnp.arange(size, dtype=x.dtype) - (size - 1) / 2
    down, along = place[:, None], place[None, :]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    rows = jnp.round(cos * down + sin * along + (size - 1) / 2).astype(jnp.int32)
    columns = jnp.round(cos * along - sin * down + (size - 1) / 2).astype(jnp.int32)
    inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    turned = x[jnp.clip(rows, 0, size - 1), :, jnp.clip(columns, 0, size - 1)]
    return jnp.swapaxes(jnp.where(inside[..., None], turned, 0), 1, 2)


def drawn_turn(x: jax.Array, draws: Draws, how: Strengths) -> jax.Array:
    """The crop turned by an angle that is uniform over +- `rotate` degrees."""
    return rotate(x, how.rotate * (2.0 * draws.uniform(Purpose.ROTATE, 1)[0] - 1.0))


def jittered(x: jax.Array, draws: Draws, how: Strengths) -> jax.Array:
    """The crop with its channels' gain, offset and contrast changed, in this order; what has strength 0 is left out."""
    count = x.shape[1]
    if how.channel_gain > 0:
        u = draws.uniform(Purpose.CHANNEL_GAIN, 1 + count)
        x = x * jnp.where(u[0] < how.channel_gain, _between(GAINS, u[1:]), 1.0).astype(x.dtype)[:, None]
    if how.channel_offset > 0:
        u = draws.uniform(Purpose.CHANNEL_OFFSET, 2 + count)
        level = jnp.where(u[0] < how.channel_offset, _between(how.offset_level, u[1]), 0.0)
        x = x + (level * _between(SHARES, u[2:])).astype(x.dtype)[:, None]
    if how.channel_contrast > 0:
        u = draws.uniform(Purpose.CHANNEL_CONTRAST, 1 + 2 * count)
        on = (u[0] < how.channel_contrast) & (u[1 : 1 + count] < 0.5)
        factor = jnp.where(on, _between(CONTRASTS, u[1 + count :]), 1.0).astype(x.dtype)[:, None]
        mean = jnp.mean(x, axis=(0, 2), keepdims=True)
        x = mean + factor * (x - mean)
    return x


def _between(ends: tuple[float, float], u: jax.Array) -> jax.Array:
    return ends[0] + (ends[1] - ends[0]) * u
