"""Everything a training step reads and writes, as one plain pytree, and the integer that is a run's position."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from protloc_jax.channels import ChannelSet
from protloc_jax.train.experiment import Experiment, RunConfig
from protloc_jax.train.methods import make_method
from protloc_jax.train.optimizer import OptState, init_optimizer


class TrainState(NamedTuple):
    """State of a run. Every leaf is an array of its own (the step donates them all).

    params     optimised trees by name: {"backbone", "head", ...auxiliary ones of the method}
    teacher    {"backbone", "head"} or whatever the method's moving average follows; {} without a teacher
    buffers    method state that no gradient reaches: {"centre": [K]}, queues
    opt_state  Adam moments and update counts
    step       int32, optimiser steps taken, the skipped ones included
    examples   uint32 [2] (high, low): images consumed over all hosts, the run's position in the data
    bad_steps  int32, non-finite steps in a row up to now
    key        uint32 key data (`jax.random.key_data`), never advanced: draws are addressed by example
    """

    params: Any
    teacher: Any
    buffers: Any
    opt_state: OptState
    step: jax.Array
    examples: jax.Array
    bad_steps: jax.Array
    key: jax.Array


def init_state(experiment: Experiment, channels: ChannelSet, key: jax.Array) -> TrainState:
    """The state before step 0. `key` is a typed random key; the same key gives the same state on any devices.

    Pure, so `jax.eval_shape(init_state, ...)` and jit with output shardings work (the first two arguments are static).
    """
    method = make_method(experiment, channels)
    params, teacher, buffers = method.init(jax.random.fold_in(key, 0))
    return TrainState(
        params=params,
        teacher=teacher,
        buffers=buffers,
        opt_state=init_optimizer(
            params,
            group=method.group,
            frozen_blocks=method.frozen_blocks,
            freezes_backbone=experiment.init.freeze_backbone_epochs > 0,
        ),
        step=jnp.zeros((), jnp.int32),
        examples=jnp.zeros((2,), jnp.uint32),
        bad_steps=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(key),
    )


def initialiser(experiment: Experiment, channels: ChannelSet) -> Callable[[jax.typing.ArrayLike], TrainState]:
    """`init_state` of an experiment as a function of key data, uint32 [2]: the same function each time it is asked for.

    JAX therefore traces it once in a process, for shapes, placement and the state itself, whatever the seed and the
    run directory.
    """
    return _initialiser(dataclasses.replace(experiment, run=RunConfig()), channels)


@functools.lru_cache(maxsize=16)
def _initialiser(experiment: Experiment, channels: ChannelSet) -> Callable[[jax.typing.ArrayLike], TrainState]:
    return lambda key_data: init_state(experiment, channels, jax.random.wrap_key_data(jnp.asarray(key_data)))


def state_shapes(experiment: Experiment, channels: ChannelSet) -> TrainState:
    """The state as `jax.ShapeDtypeStruct`s."""
    return jax.eval_shape(initialiser(experiment, channels), jax.ShapeDtypeStruct((2,), np.uint32))


def examples_seen(state: TrainState) -> int:
    """The run's position: images consumed so far, as a Python integer."""
    high, low = (int(v) for v in np.asarray(jax.device_get(state.examples)))
    return (high << 32) | low


def add_examples(examples: jax.Array, count: int) -> jax.Array:
    """`examples` uint32 [2] plus `count` < 2**32, with the carry that a 32-bit machine needs."""
    low = examples[1] + jnp.uint32(count)
    high = examples[0] + (low < examples[1]).astype(jnp.uint32)
    return jnp.stack([high, low])
