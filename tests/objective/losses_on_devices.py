"""The losses that compare a batch, behind a batch-normed head, on one and on eight devices; prints a JSON object."""

from __future__ import annotations

import json
import os
import sys

sys.path.insert(0, os.getcwd())

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from protloc_jax.model.projection import ProjectionHead
from protloc_jax.objective.byol import byol_loss
from protloc_jax.objective.contrastive import info_nce, nt_xent

HEAD = ProjectionHead(8, 4)
LOSSES = {
    "nt_xent": lambda z, _: nt_xent(z, temperature=0.1).loss,
    "info_nce": lambda q, k: info_nce(q, k, temperature=1.0).loss,
    "byol": byol_loss,
}


def run(split):
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(2, 16, 2, 6)))
    params = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), HEAD.init(jax.random.key(0), x)["params"])
    if split is not None:
        x, y = jax.device_put((x, y), split)
    made = {}
    for name, loss in LOSSES.items():
        of = lambda p, x, y, loss=loss: loss(HEAD.apply({"params": p}, x), HEAD.apply({"params": p}, y))  # noqa: E731
        value, (grads, back) = jax.jit(jax.value_and_grad(of, argnums=(0, 1)))(params, x, y)
        made[name] = np.concatenate([np.ravel(g) for g in (value, *jax.tree.leaves(grads), back)]).tolist()
    return made


if __name__ == "__main__":
    with jax.enable_x64(True):
        mesh = Mesh(np.array(jax.devices()), ("data",))
        one, eight = run(None), run(NamedSharding(mesh, PartitionSpec("data")))
    print(json.dumps({name: [one[name], eight[name]] for name in one} | {"devices": len(jax.devices())}))
