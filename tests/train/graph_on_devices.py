"""The graph term on one and on eight devices: each form's loss and gradient, and steps of training with it.

Prints one JSON object. A program of its own, because the number of devices is fixed when jax starts.
"""

from __future__ import annotations

import json
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from small_graph import GRAPH_BATCHES, guided
from small_step import CHANNELS, as_float64

from protloc_jax.devices import batch_sharding, host_to_global, make_mesh
from protloc_jax.objective.graph import graph_loss, node_means, usable_weights
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.state import init_state
from protloc_jax.train.step import make_step, state_sharding


def forms():
    """Loss and gradient of features that lie on one device and on eight."""
    rng = np.random.default_rng(3)
    f, ids = rng.standard_normal((32, 5)), rng.integers(-1, 9, 32)
    w = rng.random((9, 9)) * (rng.random((9, 9)) < 0.5)
    w = jnp.asarray(usable_weights(np.triu(w, 1) + np.triu(w, 1).T))
    found = {}
    for kind in ("laplacian", "contrastive"):
        for form in ("paper", "released", "submission"):

            def loss(f, ids, kind=kind, form=form):
                return graph_loss(node_means(f, ids, 9), w, kind=kind, form=form)

            both = jax.value_and_grad(loss)
            one = jax.jit(both)(f, ids)
            lying = batch_sharding(make_mesh())
            eight = jax.jit(both, in_shardings=lying)(*jax.device_put((f, ids), lying))
            found[f"{kind} {form}"] = [[float(v), np.asarray(g).ravel().tolist()] for v, g in (one, eight)]
    return found


def steps(file, many):
    """Losses and parameters of three steps with the term and a memory."""
    experiment = guided(file, weight=0.5, memory="epoch")
    mesh = make_mesh() if many else None
    state = as_float64(jax.jit(lambda: init_state(experiment, CHANNELS, jax.random.key(0)))())
    place = (lambda b: b) if mesh is None else partial(host_to_global, mesh=mesh)
    if mesh is not None:
        state = jax.device_put(state, state_sharding(experiment, CHANNELS, mesh))
    step = make_step(experiment, CHANNELS, Schedules(experiment, 2), mesh)
    losses, terms = [], []
    for batch in GRAPH_BATCHES[:3]:
        state, metrics = step(state, place(batch))
        losses.append(float(metrics["loss"]))
        terms.append(float(metrics["graph_term"]))
    leaves = jax.tree.leaves(jax.device_get((state.params, state.buffers)))
    flat = np.concatenate([np.ravel(np.asarray(x, float)) for x in leaves])
    return {"losses": losses, "terms": terms, "state": flat.tolist()}


if __name__ == "__main__":
    with jax.enable_x64(True):
        print(json.dumps({"forms": forms(), "one": steps(sys.argv[1], False), "eight": steps(sys.argv[1], True)}))
