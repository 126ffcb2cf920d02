"""Prototypes that stay split over devices while they are used, instead of being gathered like other parameters.

The last layer of a DINO head is the one parameter that is larger than what passes through it: 65,536 x 256 numbers
against the features of a few hundred views. So the features go to the prototypes: each group of `fsdp` devices gathers
the features of its examples, every device computes the logits of its own prototypes, and softmax and loss add up over
the group. Compiled for 8 devices, fsdp=8, 16,384 prototypes and 8 images a device, one step gathers 14.5 MB (47.3 MB
with the prototypes), adds up 4.8 MB (21.1 MB) and makes 608 MB a device (659 MB), for four more all-reduces of
a few numbers a view.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from protloc_jax.devices import AXES

PATH = "head/last/v"
DATA, FSDP = AXES
SPLIT = PartitionSpec(None, FSDP)
# The mesh that a step is being traced for, where prototypes are split on it. Modules are pure functions of parameters
# and images and know no devices; this is the one place where one asks.
_MESH: ContextVar[Mesh | None] = ContextVar("mesh of split prototypes", default=None)


def are_split(shardings: Any) -> bool:
    """Whether a tree of parameters, lying as `shardings` say, has prototypes [bottleneck, K] whose K is split."""
    tree = shardings
    for name in PATH.split("/"):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree is not None and tree.spec == SPLIT


@contextlib.contextmanager
def split_over(mesh: Mesh | None) -> Iterator[None]:
    """While a step is traced: heads leave their prototypes where they are on `mesh`; None = as on one device."""
    token = _MESH.set(mesh)
    try:
        yield
    finally:
        _MESH.reset(token)


def gathered_features(x: jax.Array) -> jax.Array:
    """Features [B, ..., D], examples split over `data` alone: each device has those of its whole group."""
    return _placed(x, DATA)


def split_logits(x: jax.Array) -> jax.Array:
    """Logits [B, ..., K], examples split over `data` and prototypes over `fsdp`."""
    return _placed(x, DATA, *[None] * (x.ndim - 2), FSDP)


def _placed(x: jax.Array, *axes: str | None) -> jax.Array:
    mesh = _MESH.get()
    if mesh is None or x.ndim < 3:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*axes)))
