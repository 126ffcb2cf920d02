"""What a training step exchanges between devices, from shapes alone; compiled programs are held against it in tests."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType

from protloc_jax.channels import ChannelSet
from protloc_jax.data.batch import Batch
from protloc_jax.devices import AXES, MIN_SHARDED_ELEMENTS, leaf_path, partition
from protloc_jax.train.dino_config import DinoConfig
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.method import Method
from protloc_jax.train.methods import make_method
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.state import state_shapes
from protloc_jax.train.step import devices_apart
from protloc_jax.views.multicrop import Views

Kind = Literal["all-gather", "reduce-scatter", "all-reduce"]


class Volume(NamedTuple):
    """One exchange: what, how, along which axis of the mesh, and the bytes of the whole tensors.

    `own_program`: not part of the step; the vote on stopping, a program of its own between several processes.
    """

    what: str
    kind: Kind
    axis: Literal["data", "fsdp", "all"]
    bytes: int
    own_program: bool = False


def refuse_unmodelled(experiment: Experiment, method: Method) -> None:
    """Raise ValueError, with the reason, for a step whose traffic and exchanges are not modelled."""
    config, reason = experiment.method, ""
    if not isinstance(config, DinoConfig) or config.name != "dino":
        reason = f"method.name={config.name}: only dino is modelled"
    elif experiment.graph.used:
        reason = "a graph term is not modelled"
    elif not method.splits_over_micro_batches:
        reason = "centring=sinkhorn and koleo exchange inside the loss, which is not modelled"
    if reason:
        flops = method.flops(method.views(experiment.views))
        raise ValueError(
            f"--topology: {reason}: its memory traffic and its exchanges between devices are unknown here. Without "
            f"--topology its {flops / 1e9:,.4g} GFLOP an image and the hours at --mfu are told."
        )


def step_volumes(
    experiment: Experiment,
    channels: ChannelSet,
    *,
    data: int,
    fsdp: int,
    min_elements: int = MIN_SHARDED_ELEMENTS,
) -> list[Volume]:
    """The exchanges of one step on a mesh of data x fsdp devices; none on one device.

    Each device sums the gradient of its own examples, over crops of both sizes and micro-batches, and exchanges it
    once, in float32. Where parameters are split, student and teacher are gathered before their use, and a gradient is
    scattered along fsdp before its shares are summed along data. ValueError for methods that are not modelled.
    """
    # What is exchanged does not depend on the kernel, which the machine at hand may lack.
    experiment = dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, attention="xla"))
    method = make_method(experiment, channels)
    refuse_unmodelled(experiment, method)
    mesh = AbstractMesh((data, fsdp), AXES, axis_types=(AxisType.Auto,) * 2)
    if not devices_apart(method, mesh):  # type: ignore[arg-type]
        return []
    state = state_shapes(experiment, channels)

    def split(path: tuple[Any, ...], leaf: Any) -> bool:
        spec = partition(leaf_path(path), leaf.shape, fsdp, min_elements=min_elements)
        return "fsdp" in spec

    kinds = {"split": 0, "whole": 0, "gathered": 0, "squares": 0}
    for tree in (state.params, state.teacher, state.buffers):
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            kinds["gathered"] += _bytes(leaf) if split(path, leaf) else 0
    for path, leaf in jax.tree_util.tree_flatten_with_path(state.params)[0]:
        name, over = leaf_path(path), split(path, leaf)
        if over:
            kinds["squares"] += 4 * (leaf.shape[0] if "blocks" in name.split("/") else 1)
        if method.group(name) != "fixed":  # the gains of the prototypes: their gradient is 0 wherever it is taken
            kinds["split" if over else "whole"] += _bytes(leaf)
    means = sum(_bytes(leaf) for leaf in jax.tree.leaves(_means(experiment, channels, method, state)))
    centre = split((jax.tree_util.DictKey("centre"),), state.buffers["centre"])
    volumes = [
        Volume("parameters of student, teacher and centre", "all-gather", "fsdp", kinds["gathered"]),
        Volume("gradients of split parameters", "reduce-scatter", "fsdp", kinds["split"]),
        Volume("shares of those gradients", "all-reduce", "data", kinds["split"] // fsdp),
        Volume("gradients", "all-reduce", "all", kinds["whole"]),
        Volume("loss, centre and means to log", "all-reduce", "all", means),
        Volume("norms of split gradients", "all-reduce", "fsdp", kinds["squares"]),
        # Whether the split centre is finite (a boolean), and its norm.
        Volume("checks of the centre", "all-reduce", "fsdp", 5 if centre else 0),
        Volume("vote on stopping", "all-reduce", "all", 4, own_program=True),
    ]
    ways = {"data": data, "fsdp": fsdp, "all": data * fsdp}
    return [v for v in volumes if v.bytes and ways[v.axis] > 1]


def _means(experiment: Experiment, channels: ChannelSet, method: Method, state: Any) -> Any:
    """Shapes of the loss and of what else is averaged over the batch."""
    views, model = method.views(experiment.views), experiment.model
    schedules = Schedules(experiment, 1000)

    def traced(params: Any, teacher: Any, buffers: Any) -> Any:
        def crops(count: int, size: int) -> jax.Array:
            return jnp.zeros((1, count, size, size, len(channels)), jnp.float32)

        shown = Views(crops(views.n_global, views.global_size), crops(views.n_local, views.local_size))
        lines = jnp.zeros((1, model.cell_dim)) if model.cell_tokens else None
        batch = Batch(None, jnp.zeros((1, 2), jnp.int32), cell_line=lines)  # type: ignore[arg-type]
        keys = jax.random.split(jax.random.key(0), 1)
        scalars = schedules(jnp.zeros((), jnp.int32))
        output = method.loss(params, teacher, buffers, shown, batch=batch, keys=keys, scalars=scalars)
        return output.loss, output.means

    return jax.eval_shape(traced, state.params, state.teacher, state.buffers)


def _bytes(leaf: Any) -> int:
    return math.prod(leaf.shape) * leaf.dtype.itemsize
