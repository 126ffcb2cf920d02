"""What a run will need, from shapes alone: parameters, memory, arithmetic, sharding and hours. Nothing is trained."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import AbstractMesh, AxisType

from protloc_jax.channels import ChannelSet
from protloc_jax.devices import AXES, leaf_path, params_sharding
from protloc_jax.model.flops import Crops, activation_bytes, count_parameters
from protloc_jax.model.vocabulary import with_vocabulary
from protloc_jax.telemetry.clock import PEAK_TFLOPS
from protloc_jax.train.channel_passes import trained_plan
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.initial import refuse_misfits
from protloc_jax.train.initial_model import beginning
from protloc_jax.train.methods import make_method
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.state import state_shapes

# Small vision transformers reach 15 to 30 % of the bf16 peak of recent chips in published runs.
ASSUMED_MFU = 0.25
CHIPS = ("H200", "A100", "TPU v5 lite", "TPU v6")


class Held(NamedTuple):
    """One part of the training state: where its bytes are."""

    part: str
    numbers: int
    bytes: int
    bytes_a_device: int


class Plan(NamedTuple):
    """The forecast of a run; bytes are per device where the name says so, hours are by chip."""

    devices: int
    mesh: tuple[int, int]
    steps: int
    steps_per_epoch: int
    images: int
    parameters: dict[str, int]
    held: list[Held]
    sharding: list[tuple[str, str, str]]
    activations_a_device: int
    gradients_a_device: int
    batch_bytes: int
    flops_per_image: int
    hours: dict[str, float]
    peak_lr: float

    @property
    def bytes_a_device(self) -> int:
        """State, gradients and kept activations of one device; programs need some more."""
        return sum(h.bytes_a_device for h in self.held) + self.gradients_a_device + self.activations_a_device


def plan(
    experiment: Experiment,
    channels: ChannelSet,
    examples: int,
    *,
    devices: int = 1,
    image_shape: tuple[int, int] = (512, 512),
    image_bytes: int = 1,
    mfu: float = ASSUMED_MFU,
) -> Plan:
    """Forecast a run on `devices` accelerators over `examples` training images.

    Activations are the estimate of `activation_bytes` (right within about a factor of two). Hours assume `mfu` of each
    chip's bf16 peak. Raises ValueError where devices, mesh and batch do not fit together.
    """
    through = trained_plan(experiment, channels)
    passes = len(through.passes) if through else 1
    if through is None:  # else the model keeps the slots of the weights
        model = dataclasses.replace(experiment.model, channels=len(channels))
        experiment = dataclasses.replace(experiment, model=model)
    run, optim = experiment.run, experiment.optim
    experiment = dataclasses.replace(experiment, model=with_vocabulary(experiment.model, channels))
    method = make_method(experiment, channels)
    views = method.views(experiment.views)
    data = _data_axis(devices, run.mesh_data, run.mesh_fsdp)
    mesh = AbstractMesh((data, run.mesh_fsdp), AXES, axis_types=(AxisType.Auto,) * 2)
    share = devices * optim.accumulation
    each, over = divmod(optim.batch, share)
    if over:
        raise ValueError(
            f"optim.batch={optim.batch} does not divide over {devices} devices x {optim.accumulation} micro-batches; "
            f"the nearest that does is {max(1, round(optim.batch / share)) * share}."
        )
    schedules = Schedules(experiment, examples // optim.batch)
    state = state_shapes(experiment, channels)
    shardings = params_sharding(mesh, state)  # type: ignore[arg-type]
    held = []
    for name in ("params", "teacher", "opt_state", "buffers"):
        leaves = jax.tree.leaves(getattr(state, name))
        split = jax.tree.leaves(getattr(shardings, name), is_leaf=lambda s: hasattr(s, "spec"))
        total = sum(_bytes(x) for x in leaves)
        own = sum(_bytes(x) // _ways(s, mesh) for x, s in zip(leaves, split, strict=True))
        held.append(Held(name, sum(math.prod(x.shape) for x in leaves), total, own))
    crops = (Crops(views.n_global, views.global_size), Crops(views.n_local, views.local_size))
    flops = method.flops(views)
    width = 2 if experiment.model.dtype == "bfloat16" else 4
    images_each = 1 + bool(experiment.data.weak_label) + (experiment.data.donor != "none")  # a partner, a donor
    logits = each * method.head_numbers(views) * width
    images = schedules.total * optim.batch
    return Plan(
        devices=devices,
        mesh=(data, run.mesh_fsdp),
        steps=schedules.total,
        steps_per_epoch=examples // optim.batch,
        images=images,
        parameters={name: count_parameters(tree) for name, tree in state.params.items()},
        held=held,
        sharding=_table(state.params, shardings.params),
        activations_a_device=sum(activation_bytes(experiment.model, c, each * passes) for c in crops if c.views)
        + logits,
        gradients_a_device=held[0].bytes,
        batch_bytes=optim.batch * math.prod(image_shape) * len(channels) * image_bytes * images_each,
        flops_per_image=flops,
        hours={chip: images * flops / (peak * 1e12 * mfu * devices) / 3600 for chip, peak in _peaks()},
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


def _peaks() -> list[tuple[str, float]]:
    found = []
    for chip in CHIPS:
        found.append((chip, next(peak for pattern, peak in PEAK_TFLOPS if re.search(pattern, chip))))
    return found


def _data_axis(devices: int, data: int, fsdp: int) -> int:
    wanted = devices // fsdp if data == -1 else data
    if wanted < 1 or wanted * fsdp != devices:
        raise ValueError(f"run.mesh_data={data} x run.mesh_fsdp={fsdp} does not cover {devices} devices.")
    return wanted


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


def _ways(sharding: Any, mesh: AbstractMesh) -> int:
    """Over how many devices a leaf is split."""
    names = [
        n for entry in sharding.spec if entry is not None for n in (entry if isinstance(entry, tuple) else (entry,))
    ]
    return math.prod(mesh.shape[name] for name in names)


def _bytes(leaf: Any) -> int:
    return math.prod(leaf.shape) * leaf.dtype.itemsize
