"""One recorded bad step again, tensor by tensor: where the first number that is not finite comes from.

The state before the step is rebuilt from a checkpoint of the run, exactly: from an earlier one by taking the steps in
between again, or from a later one when all steps since were bad (those changed nothing but counters). Nothing in the
run directory is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from protloc_jax.data.batch import Batch
from protloc_jax.devices import host_to_global
from protloc_jax.train.bad_steps import BAD_STEPS, read_bad_step
from protloc_jax.train.checkpoint import CheckpointDamaged, place_items
from protloc_jax.train.checkpoint_files import CHECKPOINTS, listed, read_meta, steps_in
from protloc_jax.train.digest import named_leaves
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.feed import LoaderFactory
from protloc_jax.train.initial import began_with, first_state, initial_of
from protloc_jax.train.jumps import Jumps
from protloc_jax.train.method import Method
from protloc_jax.train.methods import make_method
from protloc_jax.train.optimizer import plan_updates, without_frozen_gradients
from protloc_jax.train.resume import DataFacts, describe_run, pack, refuse_changes, unpack, with_shardings
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.state import TrainState, at_example, examples_seen, state_shapes
from protloc_jax.train.step import ViewMaker, example_keys, make_step, state_sharding, view_maker, without_images


class Tensor(NamedTuple):
    """What is in a tensor: its shape, how many values are NaN and infinite, the largest finite magnitude."""

    name: str
    shape: tuple[int, ...]
    nan: int
    inf: int
    largest: float


class Replay(NamedTuple):
    """A bad step seen again.

    metrics   of the step itself; `finite` 0, or `spike` 1, says that it is reproduced
    tensors   of the batch, views, loss, gradients, parameters, teacher, buffers, in the order in which they arise
    culprits  examples (as recorded) whose own views or own loss are not finite; None where the loss has no meaning
              for one example alone
    """

    step: int
    checkpoint: int
    steps_again: int
    metrics: dict[str, float]
    tensors: list[Tensor]
    culprits: list[dict[str, Any]] | None


def replay(
    path: Path,
    experiment: Experiment,
    loader_factory: LoaderFactory,
    data: DataFacts,
    *,
    mesh: Mesh,
    say: Callable[[str], None] = print,
) -> Replay:
    """Run the step recorded in `bad_steps/<step>.json` again. Raises ValueError where no checkpoint leads to it."""
    record, run = read_bad_step(path), path.absolute().parent.parent
    schedules = Schedules(experiment, data.examples // experiment.optim.batch)
    step = make_step(experiment, data.channels, schedules, mesh)
    shapes = state_shapes(experiment, data.channels)
    target = pack(with_shardings(shapes, state_sharding(experiment, data.channels, mesh)))

    from_step, meta = _nearest_checkpoint(run, record["step"])
    refuse_changes(meta, describe_run(experiment, data), where=str(run))
    if from_step is None:
        begins = initial_of(experiment.init, began_with(meta["init"]), experiment.model) if meta.get("init") else None
        state = first_state(experiment, data.channels, state_sharding(experiment, data.channels, mesh), begins)
    else:
        state = unpack(place_items(run / CHECKPOINTS / str(from_step), meta, target))
    before = record["step"] - 1
    done = from_step or 0
    again = max(0, before - done)
    if done > before:
        say(f"checkpoint {done}: every step since {record['step']} was bad and changed nothing but counters")
        state = _set_back(state, record)
        done = before
    start = record["first_example"] - again * experiment.optim.batch
    if Jumps.read(run).target(done, examples_seen(state)) == start:
        state = at_example(state, start)
    batches = loader_factory(examples_seen(state))
    try:
        iterator = iter(batches)
        if again:
            say(f"checkpoint {done}: taking {again} steps again up to step {record['step']}")
        for _ in range(again):
            state, _ = step(state, host_to_global(next(iterator), mesh))
        if examples_seen(state) != record["first_example"]:
            raise ValueError(f"{path} begins at example {record['first_example']}, the run at {examples_seen(state)}.")
        batch = host_to_global(next(iterator), mesh)
    finally:
        getattr(batches, "close", lambda: None)()
    tensors, fine = _examine(experiment, data, schedules, mesh, state, batch)
    _, metrics = step(state, batch)
    values = {name: value.item() for name, value in jax.device_get(metrics).items()}
    culprits = None if fine is None else [e for e, good in zip(record["examples"], fine, strict=True) if not good]
    return Replay(record["step"], from_step or 0, again, values, tensors, culprits)


def report(found: Replay) -> str:
    """A replay as text: whether it is reproduced, every tensor with values that are not finite, the examples."""
    finite = found.metrics.get("finite", np.isfinite(found.metrics["loss"]))
    verdict = "reproduced" if not finite else "NOT reproduced: the step is finite this time"
    if found.metrics.get("spike"):
        verdict = f"reproduced: a spike above {found.metrics['spike_limit']:.4g}"
    lines = [f"step {found.step}: {verdict} (loss {found.metrics['loss']}, grad_norm {found.metrics['grad_norm']})"]
    bad = [t for t in found.tensors if t.nan or t.inf]
    lines.append(f"{len(bad)} of {len(found.tensors)} tensors hold values that are not finite, in order of arising:")
    for t in bad:
        shape = "x".join(map(str, t.shape)) or "scalar"
        lines.append(f"  {t.name} [{shape}]: {t.nan} NaN, {t.inf} infinite, largest finite {t.largest:.3g}")
    large = sorted((t for t in found.tensors if not (t.nan or t.inf)), key=lambda t: -t.largest)[:3]
    lines.append("largest finite tensors: " + ", ".join(f"{t.name} {t.largest:.3g}" for t in large))
    if found.culprits is None:
        lines.append("this method's loss compares examples with one another; none is examined alone")
    else:
        shown = listed([", ".join(f"{k} {v}" for k, v in example.items()) for example in found.culprits])
        lines.append(f"{len(found.culprits)} examples are not finite on their own" + (f": {shown}" if shown else ""))
    return "\n".join(lines)


def _nearest_checkpoint(run: Path, step: int) -> tuple[int | None, dict[str, Any]]:
    """The checkpoint from which the state before `step` is reached soonest (None = the start), and its record."""
    directory = run / CHECKPOINTS
    good: dict[int, dict[str, Any]] = {}
    for number in steps_in(directory):
        try:
            good[number] = read_meta(directory / str(number))
        except CheckpointDamaged:
            continue
    if not good:
        raise ValueError(f"{directory} holds no good checkpoint, so the state before step {step} cannot be rebuilt.")
    # Later ones serve while every step up to them was bad, starting with this one.
    streak = step
    while (run / BAD_STEPS / f"{streak + 1}.json").exists():
        streak += 1
    later = [n for n in good if step <= n <= streak]
    if later:
        return min(later), good[min(later)]
    earlier = [n for n in good if n < step]
    return (max(earlier), good[max(earlier)]) if earlier else (None, next(iter(good.values())))


def _set_back(state: TrainState, record: Mapping[str, Any]) -> TrainState:
    """Only the counters move back: the bad steps since changed nothing else."""

    def like(old: jax.Array, new: Any) -> jax.Array:
        return jax.device_put(jnp.asarray(new, old.dtype), old.sharding)

    number = int(record["first_example"])
    examples = np.asarray([number >> 32, number & 0xFFFFFFFF], np.uint32)
    return state._replace(
        step=like(state.step, record["step"] - 1),
        examples=like(state.examples, examples),
        bad_steps=like(state.bad_steps, max(0, int(record.get("in_a_row", 1)) - 1)),
    )


def _examine(
    experiment: Experiment, data: DataFacts, schedules: Schedules, mesh: Mesh, state: TrainState, batch: Batch
) -> tuple[list[Tensor], np.ndarray | None]:
    """Every tensor of the step, and which examples are finite alone [B] (None where that has no meaning)."""
    method = make_method(experiment, data.channels)
    views = view_maker(experiment, data.channels, method, mesh)

    @jax.jit
    def look(state: TrainState, batch: Batch) -> dict[str, Any]:
        scalars = schedules(state.step)
        keys = example_keys(state.key, batch.example)
        seen = views(batch, keys, jnp.float32)
        rest = without_images(batch)
        plan = plan_updates(state.params, method.group, experiment.optim, frozen_blocks=method.frozen_blocks)

        def loss(params: Any) -> tuple[jax.Array, Any]:
            learning = without_frozen_gradients(params, plan)
            out = method.loss(learning, state.teacher, state.buffers, seen, batch=rest, keys=keys, scalars=scalars)
            return out.loss, out._replace(features=None)

        grads, out = jax.grad(loss, has_aux=True)(state.params)
        return {
            "params": state.params,
            "teacher": state.teacher,
            "buffers": state.buffers,
            "schedules": dict(scalars),
            "views": seen._asdict() if hasattr(seen, "_asdict") else seen,
            "loss": out.loss,
            "means": out.means,
            "new buffers": method.update_buffers(state.buffers, out, scalars),
            "grads": grads,
        }

    tree = look(state, batch)
    summaries = jax.device_get(jax.jit(lambda t: jax.tree.map(_summary, t))(tree))
    order = ("params", "teacher", "buffers", "schedules", "views", "loss", "means", "new buffers", "grads")
    tensors = []
    for part in order:
        shapes = {n: x.shape for n, x in named_leaves(tree[part]).items()}
        for name, shape in shapes.items():
            values = summaries[part]
            for key in filter(None, name.split("/")):
                values = values[key]
            nan, inf, largest = values
            tensors.append(Tensor(f"{part}/{name}".rstrip("/"), shape, int(nan), int(inf), float(largest)))
    if not method.splits_over_micro_batches:
        return tensors, None
    return tensors, np.asarray(_finite_alone(method, views, schedules, state, batch))


def _finite_alone(method: Method, views: ViewMaker, schedules: Schedules, state: TrainState, batch: Batch) -> jax.Array:
    """Whether each example's views and loss are finite with no other example in the batch, [B] bool."""

    @jax.jit
    def alone(state: TrainState, batch: Batch) -> jax.Array:
        scalars = schedules(state.step)
        keys = example_keys(state.key, batch.example)
        seen = views(batch, keys, jnp.float32)
        rest = without_images(batch)

        def one(part: tuple[Any, Batch, jax.Array]) -> jax.Array:
            seen, rest, key_data = jax.tree.map(lambda x: x[None], part)
            keys = jax.random.wrap_key_data(key_data)
            out = method.loss(state.params, state.teacher, state.buffers, seen, batch=rest, keys=keys, scalars=scalars)
            finite = [jnp.isfinite(x).all() for x in jax.tree.leaves(seen)]
            return jnp.isfinite(out.loss) & jnp.stack(finite).all()

        return jax.lax.map(one, (seen, rest, jax.random.key_data(keys)))

    return alone(state, batch)


def _summary(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.int32(0), jnp.int32(0), jnp.abs(x.astype(jnp.float32)).max(initial=0)
    finite = jnp.where(jnp.isfinite(x), jnp.abs(x), 0)
    return jnp.isnan(x).sum(), jnp.isinf(x).sum(), finite.max(initial=0).astype(jnp.float32)
