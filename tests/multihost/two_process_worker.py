"""One of the processes of a run over `jax.distributed`; everything about its place comes from the environment.

Each has its slice of every batch and a share of the devices. Prints one JSON object: losses by precision, and the
example addresses that the global arrays hold.
"""

from __future__ import annotations

import json

import jax
import numpy as np
from jax.experimental import multihost_utils
from small_step import BATCH, CHANNELS, EXPERIMENT, STEPS_PER_EPOCH, as_float64, batch_number

from protloc_jax.devices import host_to_global, make_mesh
from protloc_jax.launch.start import start_up
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.state import examples_seen, init_state
from protloc_jax.train.step import make_step, state_sharding


def my_slice(number):
    index, count = jax.process_index(), jax.process_count()
    rows = slice(index * BATCH // count, (index + 1) * BATCH // count)
    return jax.tree.map(lambda x: x[rows], batch_number(number))


def run(steps, double):
    mesh = make_mesh()
    held = state_sharding(EXPERIMENT, CHANNELS, mesh)

    def start():
        state = init_state(EXPERIMENT, CHANNELS, jax.random.key(0))
        return as_float64(state) if double else state

    state = jax.jit(start, out_shardings=held)()
    step = make_step(EXPERIMENT, CHANNELS, Schedules(EXPERIMENT, STEPS_PER_EPOCH), mesh)
    losses, seen = [], []
    for number in range(steps):
        batch = host_to_global(my_slice(number), mesh)
        assert batch.image.shape[0] == BATCH
        seen.append(np.asarray(multihost_utils.process_allgather(batch.example, tiled=True)).tolist())
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    return {"losses": losses, "examples": seen, "position": examples_seen(state)}


if __name__ == "__main__":
    start_up()
    assert (jax.process_count(), jax.device_count()) == (2, 8)
    with jax.enable_x64(True):
        result = {"float64": run(20, double=True)}
    print(json.dumps(result | {"float32": run(5, double=False)}))
