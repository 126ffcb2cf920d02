"""One optimisation step, `(state, batch) -> (state, metrics)`: the only place where training arithmetic is composed.

Order, as facebookresearch/dino: schedules, loss, check for non-finite numbers (and for a spike of the loss, where
steps are undone for it), clip per tensor, drop the frozen last layer's gradients, AdamW, moving average of the teacher
over all parameters, centre. Training, benchmarks and replay call the same step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from protloc_jax.channels import ChannelSet
from protloc_jax.data.batch import Batch
from protloc_jax.devices import AXES, batch_sharding, check_divides, params_sharding, replicated
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.method import VIEWS, LossOutput, Method, Tree
from protloc_jax.train.methods import make_method
from protloc_jax.train.optimizer import (
    Leaf,
    apply_updates,
    clip_factors,
    moving_average,
    plan_updates,
    square_norms,
    with_own_backbone,
    without_frozen_gradients,
)
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.spikes import limit, with_loss
from protloc_jax.train.state import TrainState, add_examples, state_shapes
from protloc_jax.views.multicrop import make_views

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]
# (batch, example keys, dtype) -> views; every array of the arguments and the result leads with the example axis.
ViewMaker = Callable[[Batch, jax.Array, Any], Any]
SHOWN = ("image", "partner", "donor", "mask")  # fields of a batch that views are made from


def make_step(experiment: Experiment, channels: ChannelSet, schedules: Schedules, mesh: Mesh | None = None) -> Any:
    """The jitted step of an experiment: `step(state, batch) -> (state, metrics)`; `state` is donated.

    `batch` is the global batch (its size is `optim.batch`), split over all devices of `mesh` on its leading axis; the
    state lies as `state_sharding` says. `metrics` are scalars on the device: loss, grad_norm, finite (1 or 0),
    bad_steps, every schedule, the method's own; where steps are undone for their loss, `spike` (1 or 0) and
    `spike_limit` (the largest loss that is none, infinite at first); and with tolerant data `substituted`, examples of
    the batch that hold a substitute for a damaged record.
    Raises ValueError where batch, mesh, accumulation, views and method do not fit together.
    """
    method = make_method(experiment, channels)
    accumulation = experiment.optim.accumulation
    if accumulation > 1 and not method.splits_over_micro_batches:
        raise ValueError(
            f"optim.accumulation={accumulation}: the loss of method '{experiment.method.name}' compares the examples "
            "of a batch with one another and does not split over micro-batches; use 1."
        )
    if mesh is not None:
        check_divides(experiment.optim.batch, mesh, accumulation)
    apart = mesh is not None and devices_apart(method, mesh)
    views = view_maker(experiment, channels, method, None if apart else mesh)
    step = step_function(experiment, method, schedules, views, mesh)
    if mesh is None:
        return jax.jit(step, donate_argnums=0)
    held = state_sharding(experiment, channels, mesh)
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(held, batch_sharding(mesh)),
        out_shardings=(held, replicated(mesh)),
    )


def state_sharding(experiment: Experiment, channels: ChannelSet, mesh: Mesh) -> TrainState:
    """Where every leaf of the state lies: a TrainState of NamedShardings."""
    return params_sharding(mesh, state_shapes(experiment, channels))


def view_maker(experiment: Experiment, channels: ChannelSet, method: Method, mesh: Mesh | None) -> ViewMaker:
    """The experiment's views; on a mesh every device makes those of its own examples, without any exchange."""
    config = method.views(experiment.views)

    def views(batch: Batch, keys: jax.Array, dtype: Any) -> Any:
        def local(shown: dict[str, Any], key_data: jax.Array) -> Any:
            of_views = jax.vmap(jax.random.fold_in, in_axes=(0, None))
            make = make_views(config, channels, dtype=dtype)
            image = shown.pop("image")
            return make(image, of_views(jax.random.wrap_key_data(key_data), VIEWS), **shown)

        shown = {name: x for name in SHOWN if (x := getattr(batch, name)) is not None}
        arguments = (shown, jax.random.key_data(keys))
        if mesh is None:
            return local(*arguments)
        by_example = PartitionSpec(AXES)
        split = jax.shard_map(local, mesh=mesh, in_specs=by_example, out_specs=by_example, check_vma=False)
        return split(*arguments)

    return views


def example_keys(key_data: jax.Array, example: jax.Array) -> jax.Array:
    """Typed keys [B], one an example, from the run's key data and addresses [B, 2] (epoch, offset)."""
    key = jax.random.wrap_key_data(key_data)
    return jax.vmap(lambda at: jax.random.fold_in(jax.random.fold_in(key, at[0]), at[1]))(example)


def without_images(batch: Batch) -> Batch:
    """The batch as a method's loss gets it beside the views."""
    return batch._replace(image=None, partner=None, donor=None)


def step_function(
    experiment: Experiment, method: Method, schedules: Schedules, views: ViewMaker, mesh: Mesh | None = None
) -> Step:
    """The pure, unjitted step. `views` may be anything that turns a batch's images into what the method's loss takes.

    `batch.image` can then be any tree of arrays that lead with the example axis. Where `devices_apart`, `views` is
    called on each device for that device's examples.
    """
    optim = experiment.optim
    group = with_own_backbone(method.group) if experiment.init.freeze_backbone_epochs else method.group

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        size = batch.example.shape[0]
        if size % optim.accumulation:
            raise ValueError(f"a batch of {size} does not split into optim.accumulation={optim.accumulation}.")
        scalars = schedules(state.step)
        params, teacher = (_whole(tree, mesh) for tree in (state.params, state.teacher))
        plan = plan_updates(params, group, optim, frozen_blocks=method.frozen_blocks)
        dtype = jnp.promote_types(jax.tree.leaves(params["backbone"])[0].dtype, jnp.float32)

        def loss_of(params: Tree, micro: Batch, given: Tree) -> tuple[jax.Array, LossOutput]:
            teacher, buffers, key, scalars = given
            keys = example_keys(key, micro.example)
            seen = jax.lax.stop_gradient(views(micro, keys, dtype))
            rest = without_images(micro)
            learning = without_frozen_gradients(params, plan)
            output = method.loss(learning, teacher, buffers, seen, batch=rest, keys=keys, scalars=scalars)
            # Features are for those who add to the loss; as rows of a batch they would be kept or summed for nothing.
            return output.loss, output._replace(features=None)

        given = (teacher, state.buffers, state.key, scalars)
        if mesh is not None and devices_apart(method, mesh):
            grads, output = _gradients_apart(loss_of, params, batch, given, optim.accumulation, mesh, plan)
        else:
            grads, output = _gradients(loss_of, params, batch, given, optim.accumulation, mesh)
        freeze_backbone = scalars.get("freeze_backbone")
        squares = square_norms(grads, plan)
        buffers = method.update_buffers(state.buffers, output, scalars)
        total_square = sum(s.sum() for s in jax.tree.leaves(squares))
        # A sum of squares is finite only where every gradient is (and none overflows, which is as bad).
        finite = jnp.isfinite(output.loss) & jnp.isfinite(total_square) & _all_finite(buffers)
        good, spikes, judged = finite, state.spikes, {}
        if spikes is not None:
            highest = limit(spikes, optim.spike_factor)
            spike = finite & (output.loss > highest)
            good = finite & ~spike
            spikes = with_loss(spikes, output.loss, good)
            judged = {"spike": spike.astype(jnp.int32), "spike_limit": highest}

        new_params, opt_state = apply_updates(
            state.params,
            grads,
            state.opt_state,
            plan=plan,
            factors=clip_factors(squares, optim.clip),
            lr=scalars["lr"],
            weight_decay=scalars["weight_decay"],
            freeze_last=scalars["freeze_last_layer"],
            good=good,
            config=optim,
            freeze_backbone=freeze_backbone,
        )
        new_teacher = state.teacher
        if method.ema:
            new_teacher = moving_average(
                state.teacher,
                new_params,
                method.ema,
                momentum=scalars["momentum"],
                good=good,
                plan=plan,
                freeze_backbone=freeze_backbone,
            )
        kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), buffers, state.buffers)
        bad_steps = jnp.where(good, 0, state.bad_steps + 1).astype(jnp.int32)
        new_state = TrainState(
            params=new_params,
            teacher=new_teacher,
            buffers=kept,
            opt_state=opt_state,
            step=state.step + 1,
            examples=add_examples(state.examples, size),
            bad_steps=bad_steps,
            key=state.key,
            spikes=spikes,
        )
        metrics = {
            "loss": output.loss,
            "grad_norm": jnp.sqrt(total_square),
            "finite": finite.astype(jnp.int32),
            "bad_steps": bad_steps,
            **judged,
            **{name: jnp.asarray(value) for name, value in scalars.items()},
            **method.metrics(kept, output),
        }
        if batch.substituted is not None:
            metrics["substituted"] = batch.substituted.sum(dtype=jnp.int32)
        return new_state, metrics

    return step


LossOf = Callable[[Tree, Batch, Tree], tuple[jax.Array, LossOutput]]


def devices_apart(method: Method, mesh: Mesh) -> bool:
    """Whether each device takes the gradient of its own examples by itself, so that they are summed once a step.

    The loss of a batch must be the mean of its parts' losses, as for micro-batches. Left to the compiler, the backward
    pass of every block would end in an all-reduce inside the loop over blocks, once for each resolution of crops and
    micro-batch, of gradients as wide as the products are computed: half precision, in a model that computes in it.
    """
    return mesh.size > 1 and method.splits_over_micro_batches


def _gradients_apart(
    loss_of: LossOf, params: Tree, batch: Batch, given: Tree, accumulation: int, mesh: Mesh, plan: Tree
) -> tuple[Tree, LossOutput]:
    """Gradients and loss output of the whole batch from those of each device's examples, exchanged once.

    A gradient leaves as its parameter lies: summed over all devices, or where that is split over `fsdp`, scattered
    over that axis first, so that only its share goes over the other one.
    """
    specs = jax.tree.map(lambda held: held.spec, params_sharding(mesh, params))

    def total(leaf: Leaf, grad: jax.Array, spec: PartitionSpec) -> jax.Array:
        if leaf.group == "frozen":  # nothing but zeros
            return _own_share(grad, spec, mesh)
        if "fsdp" in spec:
            grad = jax.lax.psum_scatter(grad, "fsdp", scatter_dimension=spec.index("fsdp"), tiled=True)
        return jax.lax.psum(grad, "data" if "fsdp" in spec else AXES) / mesh.size

    def local(params: Tree, given: Tree, batch: Batch) -> tuple[Tree, LossOutput]:
        grads, output = _gradients(loss_of, params, batch, given, accumulation, None)
        grads = jax.tree.map(total, plan, grads, specs, is_leaf=lambda x: isinstance(x, Leaf))
        loss, means = jax.lax.pmean((output.loss, output.means), AXES)
        return grads, output._replace(loss=loss, means=means)

    whole, by_example = PartitionSpec(), PartitionSpec(AXES)
    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(whole, whole, by_example),
        out_specs=(specs, LossOutput(loss=whole, means=whole, rows=by_example)),  # type: ignore[arg-type]
        check_vma=False,
    )(params, given, batch)


def _own_share(whole: jax.Array, spec: PartitionSpec, mesh: Mesh) -> jax.Array:
    """The part of a tensor that this device keeps, inside a `shard_map`."""
    if "fsdp" not in spec:
        return whole
    axis, ways = spec.index("fsdp"), mesh.shape["fsdp"]
    size = whole.shape[axis] // ways
    return jax.lax.dynamic_slice_in_dim(whole, jax.lax.axis_index("fsdp") * size, size, axis)


def _gradients(
    loss_of: LossOf, params: Tree, batch: Batch, given: Tree, accumulation: int, mesh: Mesh | None
) -> tuple[Tree, LossOutput]:
    """Gradients and loss output of the whole batch; with accumulation one micro-batch at a time.

    Micro-batch i is every accumulation-th example from i on, so that each device works on its own examples only.
    """
    grad = jax.grad(loss_of, has_aux=True)
    if accumulation == 1:
        return grad(params, batch, given)

    def strided(x: jax.Array) -> jax.Array:
        return _by_example(x.reshape(x.shape[0] // accumulation, accumulation, *x.shape[1:]), mesh)

    stacked = jax.tree.map(strided, batch)

    def add(total: tuple[Tree, LossOutput], i: jax.Array) -> tuple[tuple[Tree, LossOutput], dict[str, jax.Array]]:
        micro = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, axis=1, keepdims=False), stacked)
        grads, output = grad(params, micro, given)
        summed = jax.tree.map(jnp.add, total, (grads, output._replace(rows={})))
        return summed, output.rows

    shapes = jax.eval_shape(lambda: grad(params, jax.tree.map(lambda x: x[:, 0], stacked), given))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (shapes[0], shapes[1]._replace(rows={})))
    (grads, output), rows = jax.lax.scan(add, zeros, jnp.arange(accumulation))
    grads, output = jax.tree.map(lambda x: x / accumulation, (grads, output))
    # Rows come stacked by micro-batch [A, B/A, ...]; back in the order of the batch.
    rows = jax.tree.map(lambda r: jnp.swapaxes(r, 0, 1).reshape(-1, *r.shape[2:]), rows)
    return grads, output._replace(rows=rows)


def _whole(params: Tree, mesh: Mesh | None) -> Tree:
    """Parameters gathered for use; said here, lest the compiler move activations to sharded weights instead."""
    if mesh is None or mesh.shape["fsdp"] == 1:
        return params
    return jax.lax.with_sharding_constraint(params, replicated(mesh))


def _by_example(x: jax.Array, mesh: Mesh | None) -> jax.Array:
    if mesh is None:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(AXES)))


def _all_finite(tree: Tree) -> jax.Array:
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.asarray([jnp.isfinite(x).all() for x in floats] or [True]))
