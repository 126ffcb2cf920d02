"""The compiler's own account of the real step on a mesh: what it holds, what it makes, what it sends around."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from protloc_jax.devices import batch_sharding
from protloc_jax.plan.memory import Layout, batch_shapes
from protloc_jax.plan.traffic import KINDS, collectives
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.resume import with_shardings
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.step import make_step, state_sharding


class Exchanged(NamedTuple):
    """All exchanges of one kind in a step: how many, those in loops each time, and the bytes of their whole tensors."""

    kind: str
    operations: int
    bytes: int


class Compiled(NamedTuple):
    """Bytes of one device as the compiler accounts for them."""

    arguments: int
    outputs: int
    temporary: int
    aliased: int  # outputs that take the place of donated arguments
    exchanged: tuple[Exchanged, ...] | str  # or why they could not be counted
    seconds: float
    device: str

    @property
    def total(self) -> int:
        """What the program needs at its peak, its arguments and results included."""
        return self.arguments + self.outputs - self.aliased + self.temporary


def compile_step(of: Layout, mesh: Mesh, experiment: Experiment | None = None) -> Compiled:
    """Lower and compile the step that training runs, for the devices of `mesh`; nothing is allocated or run.

    Raises ValueError where the devices do not account for memory, or cannot compile the model's attention kernel.
    """
    experiment = of.experiment if experiment is None else experiment
    device = mesh.devices.flat[0]
    if experiment.model.attention == "cudnn" and device.platform != "gpu":
        raise ValueError(
            "model.attention='cudnn' compiles for NVIDIA GPUs only; compile with model.attention=xla, whose attention "
            "weights take memory that cudnn's do not."
        )
    step = make_step(experiment, of.channels, Schedules(experiment, 1000), mesh)
    state = with_shardings(of.shapes, state_sharding(experiment, of.channels, mesh))
    spread = batch_sharding(mesh)
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=spread), batch_shapes(of, experiment)
    )
    start = time.monotonic()
    # Nothing of it is ever run: the host's code need not be fast. Buffers are assigned before that.
    options = {"xla_backend_optimization_level": 0} if device.platform == "cpu" else None
    compiled = step.lower(state, batch).compile(options)
    seconds = time.monotonic() - start
    found: Any = compiled.memory_analysis()
    if found is None:
        raise ValueError(f"{device.device_kind}: its compiler does not account for memory.")
    return Compiled(
        arguments=found.argument_size_in_bytes,
        outputs=found.output_size_in_bytes,
        temporary=found.temp_size_in_bytes,
        aliased=found.alias_size_in_bytes,
        exchanged=exchanged(compiled.as_text()),
        seconds=seconds,
        device=f"{mesh.size} x {device.device_kind}",
    )


def exchanged(text: str) -> tuple[Exchanged, ...] | str:
    """The exchanges of a compiled program's text, by kind; or in words why they cannot be counted."""
    try:
        found = collectives(text)
    except ValueError as error:
        return str(error)
    counts: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for one in found:
        counts[one.kind] += one.times
        size[one.kind] += one.total
    return tuple(Exchanged(kind, counts[kind], size[kind]) for kind in KINDS if counts[kind])
