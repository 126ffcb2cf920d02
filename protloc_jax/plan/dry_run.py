"""What a run will need, from shapes alone: parameters, memory, arithmetic, sharding and hours. Nothing is trained."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import jax

from protloc_jax.channels import ChannelSet
from protloc_jax.chips import CHIPS
from protloc_jax.devices import leaf_path, params_sharding
from protloc_jax.model.flops import count_parameters
from protloc_jax.plan.memory import Layout, Memory, batch_shapes, forecast, layout, read_mesh
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.initial import refuse_misfits
from protloc_jax.train.initial_model import beginning
from protloc_jax.train.methods import make_method
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.state import state_shapes

# Small vision transformers reach 15 to 30 % of the bf16 peak of recent chips in published runs.
ASSUMED_MFU = 0.25
SHOWN = {"H200": "h200", "A100": "a100-40", "TPU v5 lite": "v5e", "TPU v6": "v6e"}
_PEAKS = {label: CHIPS[name].bf16.value for label, name in SHOWN.items()}


class Plan(NamedTuple):
    """The forecast of a run; bytes are per device where the name says so, hours are by chip."""

    devices: int
    mesh: tuple[int, int]
    steps: int
    steps_per_epoch: int
    images: int
    parameters: dict[str, int]
    memory: Memory
    sharding: list[tuple[str, str, str]]
    batch_bytes: int
    flops_per_image: int
    hours: dict[str, float]
    peak_lr: float

    @property
    def activations_a_device(self) -> int:
        """Bytes of a device that the backbone's blocks keep for the backward pass."""
        return next(part.bytes for part in self.memory.made if part.name == "activations")


def plan(
    experiment: Experiment,
    channels: ChannelSet,
    examples: int,
    *,
    devices: int = 1,
    image_shape: tuple[int, int] = (512, 512),
    image_bytes: int = 1,
    mfu: float = ASSUMED_MFU,
    of: Layout | None = None,
) -> Plan:
    """Forecast a run on `devices` accelerators over `examples` training images.

    Memory is that of `plan.memory`, `of` its layout where that is made already. Hours assume `mfu` of each chip's bf16
    peak. Raises ValueError where devices, mesh and batch do not fit together.
    """
    if of is None:
        of = layout(experiment, channels, image_shape=image_shape, image_bytes=image_bytes)
    experiment, state = of.experiment, of.shapes
    optim = experiment.optim
    method = make_method(experiment, channels)
    flops = method.flops(method.views(experiment.views))
    mesh = read_mesh(experiment, devices)
    share = devices * optim.accumulation
    if optim.batch % share:
        raise ValueError(
            f"optim.batch={optim.batch} does not divide over {devices} devices x {optim.accumulation} micro-batches; "
            f"the nearest that does is {max(1, round(optim.batch / share)) * share}."
        )
    schedules = Schedules(experiment, examples // optim.batch)
    memory = forecast(of, mesh)
    batch_bytes = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(batch_shapes(of)))
    images = schedules.total * optim.batch
    return Plan(
        devices=devices,
        mesh=(mesh.shape["data"], mesh.shape["fsdp"]),
        steps=schedules.total,
        steps_per_epoch=examples // optim.batch,
        images=images,
        parameters={name: count_parameters(tree) for name, tree in state.params.items()},
        memory=memory,
        sharding=_table(state.params, params_sharding(mesh, state.params)),  # type: ignore[arg-type]
        batch_bytes=batch_bytes,
        flops_per_image=flops,
        hours={chip: images * flops / (peak * mfu * devices) / 3600 for chip, peak in _PEAKS.items()},
        peak_lr=optim.peak_lr,
    )


def plan_beginning(
    experiment: Experiment, channels: ChannelSet, *, given: Collection[str] = ()
) -> tuple[Experiment, tuple[str, ...]]:
    """The experiment with the model of its initial weights, and what to tell about them; reads and compares them.

    Raises ValueError naming everything in which model, head or channels are not theirs.
    """
    experiment = dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, channels=len(channels)))
    begins = beginning(experiment, channels, given=given)
    if begins.initial is not None:
        state = state_shapes(begins.experiment, channels)
        refuse_misfits(begins.initial, state, channels)
    return begins.experiment, begins.words


def _table(params: Any, shardings: Any) -> list[tuple[str, str, str]]:
    """(path, shape, how it is split) of every parameter."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    split: Sequence[Any] = jax.tree.leaves(shardings, is_leaf=lambda s: hasattr(s, "spec"))
    rows = []
    for (path, leaf), sharding in zip(leaves, split, strict=True):
        axes = [str(name) for name in sharding.spec]
        how = "replicated" if all(a == "None" for a in axes) else "(" + ", ".join(axes) + ")"
        rows.append((leaf_path(path), "x".join(map(str, leaf.shape)), how))
    return rows
