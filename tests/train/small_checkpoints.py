"""Two small checkpoints to be saved, restored and damaged."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from protloc_jax.train.checkpoint import Checkpointer
from protloc_jax.train.digest import named_leaves


def items(seed: int = 0, size: int = 300) -> dict[str, object]:
    """Arrays of the kinds that a training state holds; `buffers` is empty, as for methods without any."""
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {
        "backbone": {"blocks": {"kernel": jax.random.normal(keys[0], (2, 8, size))}, "cls": jnp.ones((1, 1, 8))},
        "head": {"v": jax.random.normal(keys[1], (8, 16)).astype(jnp.bfloat16)},
    }
    return {
        "params": params,
        "teacher": jax.tree.map(lambda x: x + 1, params),
        "buffers": {},
        "counters": {"step": jnp.int32(seed), "examples": jnp.asarray([0, 2**32 - 1], jnp.uint32)},
    }


def target(tree: object) -> object:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def same(a: object, b: object) -> bool:
    left, right = named_leaves(a), named_leaves(b)
    return left.keys() == right.keys() and all(
        x.dtype == right[n].dtype and np.asarray(x).tobytes() == np.asarray(right[n]).tobytes() for n, x in left.items()
    )


def two_saved(folder: Path, notes: list[str]) -> Checkpointer:
    """Two good checkpoints, of steps 1 and 2, under `folder`; warnings go to `notes`."""
    keeper = Checkpointer(folder / "checkpoints", warn=notes.append)
    for step in (1, 2):
        assert keeper.save(step, items(step), {"examples_seen": 10 * step}, wait=True)
    return keeper


def data_file(step: Path) -> Path:
    """The largest file of the step: array data."""
    return max((p for p in (step / "params").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncate(step: Path) -> None:
    file = data_file(step)
    os.truncate(file, file.stat().st_size // 2)


def delete(step: Path) -> None:
    data_file(step).unlink()


def flip(step: Path) -> None:
    file = data_file(step)
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 0x10
    file.write_bytes(content)


def zero_page(step: Path) -> None:
    file = data_file(step)
    content = bytearray(file.read_bytes())
    content[1024:5120] = bytes(4096)
    file.write_bytes(content)


def swap_with_the_other_step(step: Path) -> None:
    """Valid files with valid checksums of their own, but of another step: only our digests can tell."""
    shutil.rmtree(step / "params")
    shutil.copytree(step.parent / "1" / "params", step / "params")


def remove_item(step: Path) -> None:
    shutil.rmtree(step / "teacher")


def remove_record(step: Path) -> None:
    (step / "meta" / "metadata").unlink()


def break_record(step: Path) -> None:
    file = step / "meta" / "metadata"
    file.write_text(file.read_text()[:-20])


def change_record(step: Path) -> None:
    file = step / "meta" / "metadata"
    record = json.loads(file.read_text())
    record["examples_seen"] += 1
    file.write_text(json.dumps(record))


def break_item_record(step: Path) -> None:
    """Half of the JSON in which Orbax lists the arrays of an item."""
    file = step / "params" / "_METADATA"
    os.truncate(file, file.stat().st_size // 2)
