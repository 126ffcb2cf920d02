"""The shapes of schedules: pure functions of the step, in the conventions of facebookresearch/dino (`utils.py`).

They take Python numbers and a step (integer array or int) and return a scalar of the default floating type: float32,
or float64 where jax has it switched on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

Curve = Callable[[ArrayLike], jax.Array]


class Horizon(NamedTuple):
    """The length of a run: optimiser steps in an epoch and in all."""

    steps_per_epoch: int
    total: int


def constant(value: float) -> Curve:
    """The same value at every step."""
    return lambda step: jnp.asarray(value, float)


def cosine(start: float, end: float, total: int) -> Curve:
    """From `start` at step 0 towards `end`, which step `total` (one after the last) would reach."""
    return lambda step: _cosine(_real(step), start, end, 0, total)


def cosine_by_epoch(start: float, end: float, total: int, steps_per_epoch: int) -> Curve:
    """`cosine` as it stands at the first step of each epoch, for the whole of it."""
    return lambda step: _cosine(_real(jnp.asarray(step) // steps_per_epoch * steps_per_epoch), start, end, 0, total)


def warmup_cosine(peak: float, end: float, warmup: int, total: int, *, first: float = 0.0) -> Curve:
    """Linear from `first` * peak at step 0 to `peak` at step warmup - 1 (both included), then a cosine from `peak`."""

    def curve(step: ArrayLike) -> jax.Array:
        step = _real(step)
        rising = peak * step / max(warmup - 1, 1)
        if first:
            rising = peak * first + (1 - first) * rising
        return jnp.where(step < warmup, rising, _cosine(step, peak, end, warmup, total))

    return curve


def linear_by_epoch(start: float, end: float, epochs: int, steps_per_epoch: int) -> Curve:
    """Changes at epoch borders only: `start` in epoch 0, `end` from epoch epochs - 1 on (always when epochs is 0)."""

    def curve(step: ArrayLike) -> jax.Array:
        epoch = _real(jnp.asarray(step) // steps_per_epoch)
        rising = start + (end - start) * epoch / max(epochs - 1, 1)
        return jnp.where(epoch < epochs, rising, end)

    return curve


def _real(step: ArrayLike) -> jax.Array:
    return jnp.asarray(step, float)


def _cosine(step: jax.Array, start: float, end: float, begin: int, total: int) -> jax.Array:
    done = jnp.clip((step - begin) / max(total - begin, 1), 0, 1)
    return end + 0.5 * (start - end) * (1 + jnp.cos(math.pi * done))
