"""What one device of a mesh must hold: the training state as it is split there, batches, and what a step makes.

State and batches are counted from the very shardings that training uses, and are exact. What a step makes besides
(gradients, gathered parameters, activations, views, logits) is a model of the compiler's work; `plan.compiled` has the
compiler's own number. `BAND` says how far the two were apart.
"""

from __future__ import annotations

import dataclasses
import math
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh

from protloc_jax.channels import ChannelSet
from protloc_jax.chips import CHIPS
from protloc_jax.config import nearest
from protloc_jax.data.batch import Batch
from protloc_jax.devices import AXES, params_sharding
from protloc_jax.model.flops import Crops, activation_bytes
from protloc_jax.model.vocabulary import with_vocabulary
from protloc_jax.train.channel_passes import trained_plan
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.method import Method
from protloc_jax.train.methods import make_method
from protloc_jax.train.methods.mae import Mae
from protloc_jax.train.state import TrainState, state_shapes
from protloc_jax.views.config import ViewsConfig

GIB = 2**30
# Memory of one jax device in GiB, by the name of its chip.
MEMORY_GIB = {name: chip.memory.value for name, chip in CHIPS.items() if chip.memory is not None}
# jax takes this share of a GPU, and no more, unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
GPU_SHARE = 0.75
# Batches on the devices at once: one in use, two that wait for the device (steps.RUN_AHEAD), two fetched ahead.
BATCHES = 5
# Compiler's temporaries over those forecast. Measured in float32 with jaxlib 0.10 on simulated CPU devices: ViT-S/16
# 1.08 on one device, 0.81 with remat=block; a ViT of width 128 on eight 1.07, with fsdp=8 1.03; width 768 on two, with
# fsdp=2, two micro-batches and remat=block 0.93; ViT-B/16 on eight, fsdp=8, remat=selective 0.79. The margin beyond is
# for what was not measured: bfloat16 and the compilers of GPUs and TPUs. A model so small that images outweigh it is
# above (configs/smoke.py on four devices: 2.4 MB, forecast 0.9), where nothing depends on it.
BAND = (0.7, 1.3)


class Part(NamedTuple):
    """What one part takes on a device, in bytes; numbers and total are of the whole mesh, 0 = no such thing."""

    name: str
    bytes: int
    numbers: int = 0
    total: int = 0


class Memory(NamedTuple):
    """Forecast for one device: what stays between steps, and what a step makes while it runs."""

    held: tuple[Part, ...]
    made: tuple[Part, ...]
    batch: int  # bytes of one batch on a device; `held` counts BATCHES of them

    @property
    def state(self) -> int:
        """Bytes of the training state."""
        return sum(part.bytes for part in self.held) - BATCHES * self.batch

    @property
    def saved(self) -> int:
        """Bytes of a checkpoint: the state of the whole mesh."""
        return sum(part.total for part in self.held if part.name != "batches")

    @property
    def arguments(self) -> int:
        """Bytes of the step's arguments: state and one batch. Exact."""
        return self.state + self.batch

    @property
    def temporary(self) -> int:
        """Bytes that a step makes besides its arguments and its donated results."""
        return sum(part.bytes for part in self.made)

    @property
    def total(self) -> int:
        """All bytes of a device."""
        return sum(part.bytes for part in (*self.held, *self.made))


class Layout(NamedTuple):
    """What of a run does not change with batch, micro-batches, recomputation or mesh."""

    experiment: Experiment
    channels: ChannelSet
    shapes: TrainState
    image_shape: tuple[int, int]
    image_bytes: int
    labels: int
    groups: int


def layout(
    experiment: Experiment,
    channels: ChannelSet,
    *,
    image_shape: tuple[int, int] = (512, 512),
    image_bytes: int = 1,
    labels: int = 0,
    groups: int = 0,
) -> Layout:
    """Shapes of a run's state. image_bytes 1 or 2 a pixel; labels, groups: label names and group columns of records."""
    experiment = with_channels(experiment, channels)
    shapes = state_shapes(experiment, channels)
    return Layout(experiment, channels, shapes, image_shape, image_bytes, labels, groups)


def with_channels(experiment: Experiment, channels: ChannelSet) -> Experiment:
    """The experiment with the model that training makes for these channels."""
    if trained_plan(experiment, channels) is None:  # else the model keeps the slots of the weights
        model = dataclasses.replace(experiment.model, channels=len(channels))
        experiment = dataclasses.replace(experiment, model=model)
    return dataclasses.replace(experiment, model=with_vocabulary(experiment.model, channels))


def abstract_mesh(devices: int, data: int, fsdp: int) -> AbstractMesh:
    """The mesh of so many devices, of which none is needed. ValueError where data x fsdp does not cover them."""
    wanted = devices // fsdp if data == -1 else data
    if wanted < 1 or wanted * fsdp != devices:
        raise ValueError(f"run.mesh_data={data} x run.mesh_fsdp={fsdp} does not cover {devices} devices.")
    return AbstractMesh((wanted, fsdp), AXES, axis_types=(AxisType.Auto,) * 2)


def batch_shapes(of: Layout, experiment: Experiment | None = None) -> Batch:
    """The global batch of a run as shapes and dtypes."""
    experiment = of.experiment if experiment is None else experiment
    data, size = experiment.data, experiment.optim.batch
    pixel = np.uint8 if of.image_bytes == 1 else np.uint16
    image = jax.ShapeDtypeStruct((size, *of.image_shape, len(of.channels)), pixel)

    def rows(width: int, dtype: Any) -> Any:
        return jax.ShapeDtypeStruct((size, width), dtype) if width else None

    return Batch(
        image=image,
        example=rows(2, np.int32),
        labels=rows(of.labels, np.float32),
        group=rows(of.groups, np.int32),
        partner=image if data.weak_label else None,
        donor=image if data.donor != "none" else None,
        mask=jax.ShapeDtypeStruct((size, *of.image_shape), np.uint8) if data.mask else None,
        cell_line=rows(experiment.model.cell_dim if data.cell_vectors else 0, np.float32),
        substituted=jax.ShapeDtypeStruct((size,), np.bool_) if data.tolerant else None,
    )


def forecast(of: Layout, mesh: Mesh | AbstractMesh, experiment: Experiment | None = None) -> Memory:
    """Memory of one device of `mesh`; `experiment` may differ from the layout's in batch, accumulation, remat, mesh."""
    experiment = of.experiment if experiment is None else experiment
    method = make_method(experiment, of.channels)
    views = method.views(experiment.views)
    devices, accumulation = math.prod(mesh.shape.values()), experiment.optim.accumulation
    each = experiment.optim.batch / (devices * accumulation)
    shardings = params_sharding(mesh, of.shapes)  # type: ignore[arg-type]
    held = [_held(name, getattr(of.shapes, name), getattr(shardings, name), mesh) for name in _STATE]
    counters = [getattr(of.shapes, name) for name in ("step", "examples", "bad_steps", "key")]
    held.append(Part("counters", sum(map(_bytes, counters))))
    batch = sum(map(_bytes, jax.tree.leaves(batch_shapes(of, experiment)))) // devices
    held.append(Part("batches", BATCHES * batch, total=BATCHES * batch * devices))
    made = [Part("gradients", _gradients(of.shapes, accumulation))]
    if mesh.shape["fsdp"] > 1:
        made.append(Part("gathered parameters", _gathered(of.shapes, shardings, mesh)))
    made.append(Part("activations", _activations(experiment, of, method, each)))
    made.append(Part("views", _views(views, len(of.channels), each)))
    made.append(Part("logits", int(each * method.head_numbers(views) * 4)))
    return Memory(tuple(held), tuple(made), batch)


_STATE = ("params", "teacher", "opt_state", "buffers")


def _held(name: str, tree: Any, shardings: Any, mesh: Mesh | AbstractMesh) -> Part:
    leaves = jax.tree.leaves(tree)
    split = jax.tree.leaves(shardings, is_leaf=lambda s: hasattr(s, "spec"))
    own = sum(_bytes(x) // _ways(s, mesh) for x, s in zip(leaves, split, strict=True))
    return Part(name, own, sum(math.prod(x.shape) for x in leaves), sum(map(_bytes, leaves)))


def _gradients(shapes: TrainState, accumulation: int) -> int:
    """Whole on every device; with micro-batches the sum and the newest. What is frozen has moments of nothing."""
    return sum(map(_bytes, jax.tree.leaves(shapes.opt_state.mu))) * (2 if accumulation > 1 else 1)


def _gathered(shapes: TrainState, shardings: TrainState, mesh: Mesh | AbstractMesh) -> int:
    """Split parameters of student and teacher, whole."""
    leaves = jax.tree.leaves((shapes.params, shapes.teacher))
    split = jax.tree.leaves((shardings.params, shardings.teacher), is_leaf=lambda s: hasattr(s, "spec"))
    return sum(_bytes(x) for x, s in zip(leaves, split, strict=True) if _ways(s, mesh) > 1)


def _activations(experiment: Experiment, of: Layout, method: Method, each: float) -> int:
    views = method.views(experiment.views)
    inner = getattr(method, "inner", method)
    seen = inner.kept if isinstance(inner, Mae) else 0
    through = trained_plan(experiment, of.channels)
    passes = len(through.passes) if through else 1
    crops = (Crops(views.n_global, views.global_size), Crops(views.n_local, views.local_size))
    one = [activation_bytes(experiment.model, c, 1, kept_patches=seen) for c in crops if c.views]
    return int(each * passes * sum(one))


def _views(views: ViewsConfig, channels: int, each: float) -> int:
    pixels = views.n_global * views.global_size**2 + views.n_local * views.local_size**2
    return int(each * pixels * channels * jnp.dtype(jnp.float32).itemsize)


def _ways(sharding: Any, mesh: Mesh | AbstractMesh) -> int:
    """Over how many devices a leaf is split."""
    names = [n for entry in sharding.spec if entry for n in (entry if isinstance(entry, tuple) else (entry,))]
    return math.prod(mesh.shape[name] for name in names)


def _bytes(leaf: Any) -> int:
    return math.prod(leaf.shape) * leaf.dtype.itemsize


class Capacity(NamedTuple):
    """Memory of a device: what a program may take of it in bytes, and in words where that number is from."""

    bytes: int
    words: str


def capacity(text: str) -> Capacity:
    """Memory given as GiB ("80") or as the name of a chip ("h100"). ValueError with the nearest name."""
    try:
        gib = float(text)
    except ValueError:
        name = text.lower()
        if name not in MEMORY_GIB:
            known = ", ".join(MEMORY_GIB)
            raise ValueError(
                f"--memory {text}: neither a number of GiB nor one of {known}.{nearest(name, MEMORY_GIB)}"
            ) from None
        if CHIPS[name].family != "gpu":
            return Capacity(int(MEMORY_GIB[name] * GIB), f"{name}, {MEMORY_GIB[name]:g} GiB")
        variable = "XLA_PYTHON_CLIENT_MEM_FRACTION"
        share = float(os.environ.get(variable, GPU_SHARE))
        return Capacity(
            int(MEMORY_GIB[name] * share * GIB),
            f"{name}, {share:.0%} of {MEMORY_GIB[name]:g} GiB; {variable} changes what jax takes of a GPU",
        )
    if not gib > 0:
        raise ValueError(f"--memory {text}: must be above 0 GiB.")
    return Capacity(int(gib * GIB), f"{gib:g} GiB")


def read_mesh(experiment: Experiment, devices: int) -> AbstractMesh:
    """The mesh that a run of `experiment` makes on so many devices."""
    return abstract_mesh(devices, experiment.run.mesh_data, experiment.run.mesh_fsdp)


def splits(experiment: Experiment, of: Layout) -> bool:
    """Whether the method's loss allows micro-batches."""
    method: Method = make_method(experiment, of.channels)
    return method.splits_over_micro_batches
