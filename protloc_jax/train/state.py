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
from protloc_jax.train.experiment import Experiment, OptimConfig, RunConfig
from protloc_jax.train.methods import make_method
from protloc_jax.train.optimizer import OptState, init_optimizer
from protloc_jax.train.spikes import Window, empty_window


class TrainState(NamedTuple):
    """State of a run. Every leaf is an array of its own (the step donates them all).

    params     optimised trees by name: {"backbone", "head", ...auxiliary ones of the method}
    teacher    {"backbone", "head"} or whatever the method's moving average follows; {} without a teacher
    buffers    method state that no gradient reaches: {"centre": [K]}, queues
    opt_state  Adam moments and update counts
    step       int32, optimiser steps taken, the skipped ones included
    examples   uint32 [2] (high, low): images consumed over all hosts, the run's position in the data
    bad_steps  int32, steps in a row up to now that changed nothing: not finite, or undone for their loss
    key        uint32 key data (`jax.random.key_data`), never advanced: draws are addressed by example
    spikes     the good losses by which the next one is judged; None where no step is undone for its loss
    """

    params: Any
    teacher: Any
    buffers: Any
    opt_state: OptState
    step: jax.Array
    examples: jax.Array
    bad_steps: jax.Array
    key: jax.Array
    spikes: Window | None = None


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
        spikes=first_window(experiment.optim),
    )


def first_window(optim: OptimConfig) -> Window | None:
    """The window of losses that a run begins with, where `optim.on_spike` says that its steps can be undone."""
    return None if optim.on_spike == "flag" else empty_window(optim.spike_window)


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
    """The state as `jax.ShapeDtypeStruct`s, also where the machine lacks what the model's attention runs on."""
    portable = dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, attention="xla"))
    return jax.eval_shape(initialiser(portable, channels), jax.ShapeDtypeStruct((2,), np.uint32))


def examples_seen(state: TrainState) -> int:
    """The run's position: images consumed so far, as a Python integer."""
    high, low = (int(v) for v in np.asarray(jax.device_get(state.examples)))
    return (high << 32) | low


def add_examples(examples: jax.Array, count: int) -> jax.Array:
    """`examples` uint32 [2] plus `count` < 2**32, with the carry that a 32-bit machine needs."""
    low = examples[1] + jnp.uint32(count)
    high = examples[0] + (low < examples[1]).astype(jnp.uint32)
    return jnp.stack([high, low])


def at_example(state: TrainState, number: int) -> TrainState:
    """The state with its position moved to another example, lying as it did."""
    examples = np.asarray([number >> 32, number & 0xFFFFFFFF], np.uint32)
    placed = jax.make_array_from_callback(examples.shape, state.examples.sharding, lambda index: examples[index])
    return state._replace(examples=placed)
