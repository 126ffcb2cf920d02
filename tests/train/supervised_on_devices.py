"""A few supervised steps on one, eight and four times two devices; prints losses and parameters as one JSON object."""

from __future__ import annotations

import json
from functools import partial

import jax
import numpy as np
from small_step import CHANNELS, as_float64, changed
from small_supervised import batch_number, experiment

import protloc_jax.train.step as step_module
from protloc_jax.devices import host_to_global, make_mesh, params_sharding
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.state import init_state
from protloc_jax.train.step import make_step, state_sharding

# The parameters of a test are small; without this floor none would be split.
step_module.params_sharding = partial(params_sharding, min_elements=64)
CONFIG = experiment(train="last_n", last_n=1, ema=0.9)
# One cheap crop: that views do not depend on devices is shown elsewhere.
CONFIG = changed(CONFIG, views={"recipe": "dino", "interpolation": "bilinear", "jitter": 0.0, "blur": 0.0})


def run(fsdp):
    mesh = None if fsdp is None else make_mesh(fsdp=fsdp)
    state = as_float64(jax.jit(lambda: init_state(CONFIG, CHANNELS, jax.random.key(0)))())
    if mesh is not None:
        state = jax.device_put(state, state_sharding(CONFIG, CHANNELS, mesh))
    step = make_step(CONFIG, CHANNELS, Schedules(CONFIG, 4), mesh)
    losses = []
    for number in range(4):
        batch = batch_number(number, empty=(3, 4))
        state, metrics = step(state, batch if mesh is None else host_to_global(batch, mesh))
        losses.append(float(metrics["loss"]))
    split = sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state.params))
    leaves = jax.tree.leaves(jax.device_get((state.params, state.teacher)))
    return {"losses": losses, "params": np.concatenate([np.ravel(x) for x in leaves]).tolist(), "split": split}


if __name__ == "__main__":
    with jax.enable_x64(True):
        print(json.dumps({name: run(fsdp) for name, fsdp in (("one", None), ("eight", 1), ("fsdp", 2))}))
