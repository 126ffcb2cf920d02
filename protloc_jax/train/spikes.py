"""Which losses are spikes: those far above the usual range, by the window of the good losses before them.

A loss is a spike when it lies more than `factor` standard deviations above the mean of the window (OLMo and MaxText
skip such steps with a factor of 6 and a window of 128). Nothing is judged before the window is full. Only good losses
enter it, finite ones that were no spikes, so that a spike does not hide the next one.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Share of the mean that the standard deviation never goes below: equal losses must not spike by their rounding.
FLOOR = 1e-5


class Window(NamedTuple):
    """The last good losses: a ring, part of the training state so that a resumed run judges as before.

    losses  float32 [W]; slot `number` mod W is the next to be overwritten
    number  int32, good losses so far
    """

    losses: jax.Array
    number: jax.Array


def empty_window(size: int) -> Window:
    """A window of `size` losses that holds none yet."""
    return Window(jnp.zeros((size,), jnp.float32), jnp.zeros((), jnp.int32))


def limit(window: Window, factor: float) -> jax.Array:
    """The largest loss that is no spike, float32 scalar; infinite while the window is not full."""
    losses = window.losses
    mean = losses.mean()
    deviation = jnp.sqrt(jnp.square(losses - mean).mean())
    above = mean + factor * jnp.maximum(deviation, FLOOR * jnp.abs(mean))
    return jnp.where(window.number >= losses.shape[0], above, jnp.inf)


def with_loss(window: Window, loss: jax.Array, good: jax.Array) -> Window:
    """The window after a step: with its loss where that was `good` (bool scalar), else as it was."""
    at = window.number % window.losses.shape[0]
    kept = jnp.where(good, loss.astype(window.losses.dtype), window.losses[at])
    return Window(window.losses.at[at].set(kept), window.number + good.astype(window.number.dtype))
