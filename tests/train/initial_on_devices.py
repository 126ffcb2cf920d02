"""A run over four data and two fsdp devices that begins with given trees, some of them split; needs eight devices."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import tiny_training as tiny

from protloc_jax.devices import make_mesh
from protloc_jax.train.exits import Exit
from protloc_jax.train.initial import Initial
from protloc_jax.train.loop import fit
from protloc_jax.train.state import init_state
from protloc_jax.train.step import state_sharding

# Prototypes [8, 8192] are just large enough to be split.
SETTINGS = ("method.out_dim=8192", "optim.batch=8", "optim.steps=2", "optim.warmup_epochs=0", "run.checkpoint_every=0")


def begin(folder: Path) -> None:
    """Begin with random trees, student and teacher apart; look at every leaf before the first step; go on."""
    mesh = make_mesh(fsdp=2)
    experiment = tiny.experiment(folder, *SETTINGS)
    shapes = jax.eval_shape(lambda: init_state(experiment, tiny.CHANNELS, jax.random.key(0)))
    held = state_sharding(experiment, tiny.CHANNELS, mesh)
    rng = np.random.default_rng(0)

    def drawn(tree):
        return jax.tree.map(lambda s: rng.standard_normal(s.shape).astype(s.dtype), tree)

    trees = {name: drawn(getattr(shapes, name)) for name in ("params", "teacher", "buffers")}
    step, seen = tiny.cheap_step(), []

    def looking(state, batch):
        if not seen:
            seen.append(1)
            for name, tree in trees.items():
                assert tiny.bits(getattr(state, name)) == tiny.bits(tree)
            assert jax.tree.map(lambda leaf: leaf.sharding, state) == held
            leaves = jax.tree.leaves(state.teacher)
            assert any(x.addressable_shards[0].data.size < x.size for x in leaves), "nothing is split: an empty check"
        return step(state, batch)

    initial = Initial(**trees, channels=tiny.CHANNELS, record={})
    batches = partial(tiny.batches, size=8)
    outcome = fit(experiment, batches, tiny.facts(), initial=initial, step=looking, mesh=mesh)
    assert outcome.exit is Exit.DONE and seen


if __name__ == "__main__":
    begin(Path(sys.argv[1]))
