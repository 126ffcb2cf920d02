"""Trains the small step in several layouts on 8 forced host devices and prints what came out, as one JSON object.

A program of its own, because the number of devices of a process is fixed when jax starts:
`equivalence_worker.py float32|float64`.
"""

from __future__ import annotations

import json
import re
import sys
from functools import partial

import jax
import numpy as np
from small_step import BATCH, CHANNELS, EXPERIMENT, STEPS_PER_EPOCH, as_float64, batch_number, changed

import protloc_jax.train.step as step_module
from protloc_jax.devices import host_to_global, make_mesh, params_sharding
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.state import init_state
from protloc_jax.train.step import make_step, state_sharding

# The parameters of a test are small; without this floor none would be split.
step_module.params_sharding = partial(params_sharding, min_elements=64)

STEPS = 20
COLLECTIVE = re.compile(r"= (.*?) (all-gather|all-to-all|collective-permute|all-reduce|reduce-scatter)(?:-start)?\(")
# name -> (fsdp devices, or None for one device without a mesh; micro-batches)
LAYOUTS = {"one": (None, 1), "eight": (1, 1), "accumulated": (None, 8), "fsdp": (4, 2)}


def first_state(double):
    state = jax.jit(lambda: init_state(EXPERIMENT, CHANNELS, jax.random.key(0)))()
    return as_float64(state) if double else state


def run(name, double, steps=STEPS):
    fsdp, accumulation = LAYOUTS[name]
    experiment = changed(EXPERIMENT, optim={"accumulation": accumulation})
    mesh = None if fsdp is None else make_mesh(fsdp=fsdp)
    state = first_state(double)
    if mesh is not None:
        state = jax.device_put(state, state_sharding(experiment, CHANNELS, mesh))
    step = make_step(experiment, CHANNELS, Schedules(experiment, STEPS_PER_EPOCH), mesh)
    place = (lambda b: b) if mesh is None else partial(host_to_global, mesh=mesh)
    compiled = step.lower(state, place(batch_number(0))).compile()
    losses, entropies = [], []
    for number in range(steps):
        state, metrics = compiled(state, place(batch_number(number)))
        losses.append(float(metrics["loss"]))
        entropies.append(float(metrics["teacher_entropy"]))
    split = sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state.params))
    flat = np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(jax.device_get(state.params))])
    collectives = sorted(
        {
            (kind, dtype, shape)
            for result, kind in COLLECTIVE.findall(compiled.as_text())
            for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", result)
        }
    )
    return {
        "losses": losses,
        "entropies": entropies,
        "params": flat.tolist(),
        "position": np.asarray(state.examples).tolist(),
        "split_leaves": split,
        "collectives": collectives,
        "dtype": str(jax.tree.leaves(state.params)[0].dtype),
        "batch": BATCH,
    }


if __name__ == "__main__":
    double = sys.argv[1] == "float64"
    # Sharded parameters need no second proof in float32.
    names = [name for name in LAYOUTS if double or name != "fsdp"]
    with jax.enable_x64(double):
        print(json.dumps({name: run(name, double) for name in names}))
