"""Hands one training state through checkpoints from one set of devices to another; needs eight devices."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from protloc_jax.devices import make_mesh, params_sharding
from protloc_jax.train.checkpoint import Checkpointer
from protloc_jax.train.checkpoint_files import read_meta
from protloc_jax.train.digest import named_leaves
from protloc_jax.train.resume import with_shardings


def values() -> dict[str, dict[str, jax.Array]]:
    kernel = jax.random.normal(jax.random.key(1), (4, 64, 512))
    return {"params": {"kernel": kernel, "bias": jnp.arange(7.0)}, "counters": {"step": jnp.int32(5)}}


def hand_over(folder: str, count: int, fsdp: int) -> None:
    """Restore the newest checkpoint on so many devices, check it, and save it as the next step."""
    mesh = make_mesh(fsdp=fsdp, devices=jax.devices()[:count])
    expected = values()
    held = params_sharding(mesh, expected)
    keeper = Checkpointer(Path(folder), keep_last=1)
    restored = keeper.restore(with_shardings(jax.eval_shape(lambda: expected), held))
    items = jax.device_put(expected, held) if restored is None else restored.items
    for name, leaf in named_leaves(items).items():
        assert np.asarray(leaf).tobytes() == np.asarray(named_leaves(expected)[name]).tobytes()
        assert leaf.sharding == named_leaves(held)[name]
    assert items["params"]["kernel"].addressable_shards[0].data.size == 4 * 64 * 512 // fsdp
    step = 1 if restored is None else restored.step + 1
    assert keeper.save(step, items, {"devices": count}, wait=True)
    pieces = read_meta(keeper.directory / str(step))["items"]["params"]["kernel"]["pieces"]
    assert len(pieces) == fsdp
    assert keeper.close()
    # The arrays belong to the run: a donating step on all devices must not disturb copies on the others.
    double = jax.jit(lambda x: x * 2, donate_argnums=0)
    for leaf in named_leaves(items).values():
        want = np.array(leaf) * 4
        for shard in double(double(leaf)).addressable_shards:
            np.testing.assert_array_equal(shard.data, want[shard.index])


if __name__ == "__main__":
    for devices, over in ((8, 4), (4, 2), (2, 1), (1, 1), (8, 2)):
        hand_over(sys.argv[1], devices, over)
