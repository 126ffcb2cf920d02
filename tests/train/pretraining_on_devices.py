"""A few steps of SimCLR and MoCo v3 on one, eight and four times two devices; prints losses and parameters as JSON."""

from __future__ import annotations

import dataclasses
import json
from functools import partial

import jax
import numpy as np
from small_step import CHANNELS, EXPERIMENT, as_float64, batch_number, changed

import protloc_jax.train.step as step_module
from protloc_jax.devices import host_to_global, make_mesh, params_sharding
from protloc_jax.train.moco_config import MocoConfig
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.simclr_config import SimclrConfig
from protloc_jax.train.state import init_state
from protloc_jax.train.step import make_step, state_sharding

# The parameters of a test are small; without this floor none would be split.
step_module.params_sharding = partial(params_sharding, min_elements=64)
# Cheap crops: that views do not depend on devices is shown elsewhere.
SMALL = changed(
    EXPERIMENT,
    model={"depth": 1, "dim": 16},
    views={"recipe": "dino", "interpolation": "bilinear", "jitter": 0.0, "blur": 0.0, "n_local": 0},
    optim={"clip": 0.5},
)
KINDS = {"simclr": SimclrConfig(hidden=16, out_dim=8), "moco": MocoConfig(hidden=16, out_dim=8, momentum=0.9)}


def run(name, fsdp):
    config = dataclasses.replace(SMALL, method=KINDS[name])
    mesh = None if fsdp is None else make_mesh(fsdp=fsdp)
    state = as_float64(jax.jit(lambda: init_state(config, CHANNELS, jax.random.key(0)))())
    if mesh is not None:
        state = jax.device_put(state, state_sharding(config, CHANNELS, mesh))
    step = make_step(config, CHANNELS, Schedules(config, 4), mesh)
    losses = []
    for number in range(3):
        batch = batch_number(number)
        state, metrics = step(state, batch if mesh is None else host_to_global(batch, mesh))
        losses.append(float(metrics["loss"]))
    split = sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state.params))
    leaves = jax.tree.leaves(jax.device_get((state.params, state.teacher)))
    return {"losses": losses, "params": np.concatenate([np.ravel(x) for x in leaves]).tolist(), "split": split}


if __name__ == "__main__":
    layouts = {"one": None, "eight": 1, "fsdp": 2}
    with jax.enable_x64(True):
        print(json.dumps({name: {k: run(name, fsdp) for k, fsdp in layouts.items()} for name in KINDS}))
