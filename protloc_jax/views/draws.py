"""Random numbers of the views, each addressed by (example, purpose, view number)."""

from __future__ import annotations

import enum
from typing import NamedTuple

import jax
import jax.numpy as jnp

FIRST_LOCAL = 1000  # view number of the first local crop: more global crops never change the local ones
NUMBERS = 64  # uniform numbers per purpose; enough for every operation that does not draw per pixel
PIXELS = 1 << 20  # folded in for draws per pixel; beyond every place in the table


class Purpose(enum.IntEnum):
    """What a random draw is for. The numbers are part of every run's identity: append, never renumber."""

    BOX = 0
    FLIP = 1
    WARP = 2
    DROP = 3
    RESCALE = 4
    GAMMA = 5
    JITTER = 6
    BRIGHTNESS = 7
    CONTRAST = 8
    GREY = 9
    BLUR = 10
    NOISE = 11
    SOLARISE = 12
    GAIN = 13
    BACKGROUND = 14
    CELL_BOX = 15
    ROTATE = 16
    CHANNEL_GAIN = 17
    CHANNEL_OFFSET = 18
    CHANNEL_CONTRAST = 19


class Draws(NamedTuple):
    """The draws of one view: uniform numbers [purposes, NUMBERS], and the key of what is drawn per pixel."""

    table: jax.Array
    pixels: jax.Array

    def uniform(self, purpose: Purpose, count: int) -> jax.Array:
        """`count` numbers in [0, 1), float32 whatever the precision of the pixels."""
        if count > NUMBERS:
            raise ValueError(f"{purpose.name.lower()} needs {count} random numbers a view; {NUMBERS} are drawn.")
        return self.table[purpose, :count]

    def normal(self, purpose: Purpose, count: int) -> jax.Array:
        """`count` standard normal numbers, float32, by inversion of the uniform ones."""
        uniform = jnp.maximum(self.uniform(purpose, count), 2.0**-25)  # zero would be minus infinity
        return jnp.sqrt(jnp.float32(2.0)) * jax.lax.erf_inv(2.0 * uniform - 1.0)


def draw(key: jax.Array, views: jax.Array) -> Draws:
    """Draws of an example (typed key) for view numbers [V], with a leading view axis.

    The generator is counter-based: a number depends on the key folded with the view and on its place in the table
    alone, so a purpose appended later changes nothing. Drawing the whole table costs one hash program instead of one
    per operation, which saves seconds of compilation.
    """

    def of(view: jax.Array) -> Draws:
        own = jax.random.fold_in(key, view)
        table = jax.random.uniform(own, (len(Purpose), NUMBERS), jnp.float32)
        return Draws(table, jax.random.fold_in(own, PIXELS))

    return jax.vmap(of)(views)
