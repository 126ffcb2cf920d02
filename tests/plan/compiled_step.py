"""Compiles the small step on forced host devices and prints what each program exchanges, as one JSON object.

A program of its own, because the number of devices of a process is fixed when jax starts:
`compiled_step.py FSDP:MICROBATCHES:DTYPE[:SIZE] ...`. With PROTLOC_TOPOLOGY=v5e:4x4 the programs are compiled for that
slice, which libtpu describes, and no TPU is needed. Views are made before: that they exchange nothing is shown
elsewhere.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial

import jax
import jax.numpy as jnp
from small_step import CHANNELS, EXPERIMENT, changed

import protloc_jax.train.step as step_module
from protloc_jax.data.batch import Batch
from protloc_jax.devices import batch_sharding, make_mesh, params_sharding, replicated
from protloc_jax.plan.traffic import collectives
from protloc_jax.train.experiment import DinoConfig
from protloc_jax.train.methods import make_method
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.state import init_state
from protloc_jax.train.step import step_function
from protloc_jax.views.multicrop import Views

# The parameters of the small step are small; without this floor none would be split.
FLOOR = 64


def experiment_of(layout: str):
    """(experiment, fsdp, floor) of a layout; SIZE is a transformer of real size with its head."""
    fsdp, accumulation, dtype, *size = layout.split(":")
    experiment = changed(EXPERIMENT, optim={"accumulation": int(accumulation), "batch": 128}, model={"dtype": dtype})
    if size:
        model = {"size": size[0], "dim": 0, "depth": 0, "heads": 0, "patch": 16, "image_size": 224}
        experiment = changed(experiment, model=model, views={"global_size": 224, "local_size": 96, "n_local": 8})
        experiment = changed(
            experiment, method={f: getattr(DinoConfig(), f) for f in ("out_dim", "hidden", "bottleneck", "layers")}
        )
    return experiment, int(fsdp), None if size else FLOOR


def described_devices():
    name = os.environ.get("PROTLOC_TOPOLOGY")
    if not name:
        return jax.devices()
    from jax.experimental.topologies import get_topology_desc

    return get_topology_desc(platform="tpu", topology_name=name).devices


def compiled(layout: str) -> str:
    experiment, fsdp, floor = experiment_of(layout)
    place = params_sharding if floor is None else partial(params_sharding, min_elements=floor)
    step_module.params_sharding = place
    mesh, views, rows = make_mesh(fsdp=fsdp, devices=described_devices()), experiment.views, experiment.optim.batch
    method = make_method(experiment, CHANNELS)
    step = step_function(experiment, method, Schedules(experiment, 4), lambda batch, *_: batch.image, mesh)
    state = jax.eval_shape(lambda: init_state(experiment, CHANNELS, jax.random.key(0)))
    held = place(mesh, state)

    def crops(number: int, size: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, number, size, size, 2), jnp.float32)

    shown = Views(crops(views.n_global, views.global_size), crops(views.n_local, views.local_size))
    batch = Batch(shown, jax.ShapeDtypeStruct((rows, 2), jnp.int32))
    jitted = jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(held, batch_sharding(mesh)),
        out_shardings=(held, replicated(mesh)),
    )
    return jitted.lower(state, batch).compile().as_text()


if __name__ == "__main__":
    print(json.dumps({layout: collectives(compiled(layout)) for layout in sys.argv[1:]}))
