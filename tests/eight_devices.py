"""Checks that need eight devices; run as a program by test_devices.py, which sets XLA_FLAGS before jax starts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from protloc_jax.data.batch import Batch
from protloc_jax.devices import (
    batch_sharding,
    check_divides,
    host_to_global,
    make_mesh,
    params_sharding,
    prefetch,
    replicated,
)


def check_mesh() -> None:
    assert dict(make_mesh().shape) == {"data": 8, "fsdp": 1}
    assert dict(make_mesh(fsdp=4).shape) == {"data": 2, "fsdp": 4}
    assert dict(make_mesh(2, 4).shape) == {"data": 2, "fsdp": 4}
    assert all(kind == jax.sharding.AxisType.Auto for kind in make_mesh().axis_types)
    with pytest.raises(ValueError, match=r"mesh_data=-1 x mesh_fsdp=3 .* 8 devices .*1, 2, 4, 8"):
        make_mesh(fsdp=3)
    with pytest.raises(ValueError, match="mesh_data=3 x mesh_fsdp=2"):
        make_mesh(3, 2)


def check_batches() -> None:
    mesh = make_mesh(fsdp=2)
    image = np.arange(16 * 2 * 2 * 1, dtype=np.uint8).reshape(16, 2, 2, 1)
    batch = host_to_global(Batch(image=image, example=np.arange(32, dtype=np.int32).reshape(16, 2)), mesh)
    assert batch.labels is None and batch.image.dtype == jnp.uint8
    assert batch.image.sharding == batch_sharding(mesh)
    # Contiguous slices, in the order of the mesh's devices.
    for i, device in enumerate(mesh.devices.flat):
        (shard,) = [s for s in batch.image.addressable_shards if s.device == device]
        np.testing.assert_array_equal(shard.data, image[2 * i : 2 * i + 2])


def check_sharded_state() -> None:
    mesh = make_mesh(fsdp=4)
    tree = {"blocks": {"qkv": jnp.ones((4, 128, 384))}, "head": jnp.ones((256, 1024)), "bias": jnp.ones(1024)}
    held = params_sharding(mesh, tree)
    specs = jax.tree.map(lambda s: s.spec, held)
    assert specs == {"blocks": {"qkv": P(None, None, "fsdp")}, "head": P(None, "fsdp"), "bias": P()}
    placed = jax.device_put(tree, held)
    assert placed["head"].addressable_shards[0].data.shape == (256, 256)
    total = jax.jit(lambda t: sum(x.sum() for x in jax.tree.leaves(t)), out_shardings=replicated(mesh))(placed)
    assert float(total) == 4 * 128 * 384 + 256 * 1024 + 1024


def check_division() -> None:
    mesh = make_mesh()
    check_divides(16, mesh)
    check_divides(32, mesh, 4)
    with pytest.raises(ValueError, match=r"optim.batch=30 is not divisible by 8 devices; .*: 24 or 32"):
        check_divides(30, mesh)
    with pytest.raises(ValueError, match=r"optim.batch=40 .* 8 devices x 2 micro-batches = 16; .*: 32 or 48"):
        check_divides(40, mesh, 2)
    with pytest.raises(ValueError, match=r"optim.batch=4 .* that is: 8\."):
        check_divides(4, mesh)


def check_prefetch_places_ahead() -> None:
    mesh, placed = make_mesh(), []

    def place(batch: Batch) -> Batch:
        placed.append(int(batch.example[0, 0]))
        return host_to_global(batch, mesh)

    source = (Batch(np.zeros((8, 1, 1, 1), np.uint8), np.full((8, 2), i, np.int32)) for i in range(6))
    stream = prefetch(source, place, depth=2)
    assert int(next(stream).example[0, 0]) == 0
    assert placed == [0, 1, 2]
    assert [int(b.example[0, 0]) for b in stream] == [1, 2, 3, 4, 5]


if __name__ == "__main__":
    assert len(jax.devices()) == 8
    for name, check in list(globals().items()):
        if name.startswith("check_") and check.__module__ == "__main__":
            check()
            print("passed", name)
