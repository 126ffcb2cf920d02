"""One DINO step with cell tokens on one and on eight devices, and with the lines turned round; prints JSON."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import tiny_training as tiny
from small_step import as_float64

from protloc_jax.devices import host_to_global, make_mesh
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.state import init_state
from protloc_jax.train.step import make_step, state_sharding

SETTINGS = ("model.cell_tokens=2", "model.cell_dim=3", "data.cell_vectors=unused", "optim.batch=8")
CHEAP = ("views.interpolation=bilinear", "views.jitter=0", "views.blur=0", "optim.warmup_epochs=0")
CONFIG = tiny.experiment(Path("unused"), *SETTINGS, *CHEAP)
LINES = np.random.default_rng(5).normal(size=(8, 3)).astype(np.float32) * 5


def run(mesh, *lines):
    step = make_step(CONFIG, tiny.CHANNELS, Schedules(CONFIG, 4), mesh)
    found = []
    for of_batch in lines:
        state = as_float64(jax.jit(lambda: init_state(CONFIG, tiny.CHANNELS, jax.random.key(0)))())
        batch = next(tiny.batches(0, size=8))._replace(cell_line=of_batch)
        if mesh is not None:
            state = jax.device_put(state, state_sharding(CONFIG, tiny.CHANNELS, mesh))
            batch = host_to_global(batch, mesh)
        before = np.asarray(state.params["backbone"]["cells"]["kernel"])
        state, metrics = step(state, batch)
        leaves = jax.tree.leaves(jax.device_get((state.params, state.teacher)))
        moved = np.abs(np.asarray(state.params["backbone"]["cells"]["kernel"]) - before).max()
        flat = np.concatenate([np.ravel(x) for x in leaves]).tolist()
        found.append({"loss": float(metrics["loss"]), "params": flat, "moved": float(moved)})
    return found


if __name__ == "__main__":
    with jax.enable_x64(True):
        one, turned = run(None, LINES, LINES[::-1].copy())
        (eight,) = run(make_mesh(), LINES)
        print(json.dumps({"one": one, "turned": turned, "eight": eight}))
