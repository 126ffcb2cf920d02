"""The very step of training, timed: on a batch that lies on the devices, or fed by the loader as in a run."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from jax.sharding import Mesh

from protloc_jax.channels import ChannelSet
from protloc_jax.data.batch import Batch
from protloc_jax.devices import check_divides, host_to_global, prefetch
from protloc_jax.plan.bench import OutOfMemory, speed
from protloc_jax.plan.synthetic import Images, synthetic_batch
from protloc_jax.plan.timing import time_laps
from protloc_jax.telemetry.clock import peak_flops
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.methods import make_method
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.state import init_state
from protloc_jax.train.step import make_step, state_sharding

PEAK_SOURCE = "dense bf16 peak of the chip, by its vendor's data sheet (protloc_jax.chips)"
FLOPS_SOURCE = (
    "matrix products that the model needs, no recomputation (the method's own count, protloc_jax.model.flops)"
)
STEPS_PER_EPOCH = 1000  # of the schedules, which no step takes longer for


def prepared(experiment: Experiment, channels: ChannelSet) -> Experiment:
    """The experiment as training would resolve it: the model's channels and vocabulary, and that of its weights."""
    experiment = dataclasses.replace(
        experiment,
        model=dataclasses.replace(experiment.model, channels=len(channels)),
        data=dataclasses.replace(experiment.data, channels=channels.names),
        optim=dataclasses.replace(experiment.optim, steps=0),
    )
    if experiment.init.weights or experiment.model.cell_tokens or experiment.model.stem == "channels":
        from protloc_jax.train.initial_model import beginning

        experiment = beginning(experiment, channels).experiment
    return experiment


def time_step(
    experiment: Experiment,
    channels: ChannelSet,
    *,
    mesh: Mesh,
    steps: int,
    warmup: int,
    images: Images | None = None,
    batches: Callable[[], Iterable[Batch]] | None = None,
) -> dict[str, Any]:
    """A row of the benchmark: compile, warm up, time `steps` steps, each until the devices are done with it.

    images    a batch of noise of this size lies on the devices, always the same
    batches   instead: this process's slices from the loader, put on the devices ahead as in training

    Raises OutOfMemory where the compiled program would need more memory than a device has; ValueError where batch,
    devices and method do not fit together.
    """
    gc.collect()  # what the row before held is in the way
    experiment = prepared(experiment, channels)
    check_divides(experiment.optim.batch, mesh, experiment.optim.accumulation)
    method = make_method(experiment, channels)
    device = mesh.local_devices[0]
    before = _memory(device, "peak_bytes_in_use")
    with contextlib.ExitStack() as stack:
        feed = _feed(experiment, channels, mesh, images, batches, stack)
        step = make_step(experiment, channels, Schedules(experiment, STEPS_PER_EPOCH), mesh)
        held = state_sharding(experiment, channels, mesh)
        start_state = jax.jit(
            lambda: init_state(experiment, channels, jax.random.key(experiment.run.seed)), out_shardings=held
        )
        first = next(feed)
        with _uncached():
            began = time.perf_counter()
            compiled = step.lower(jax.eval_shape(start_state), first).compile()
            compile_seconds = time.perf_counter() - began
        planned = _planned(compiled)
        limit = _memory(device, "bytes_limit")
        if planned and limit and planned > limit:
            raise OutOfMemory(f"the program needs {planned / 1e9:.1f} GB a device, which has {limit / 1e9:.1f} GB")
        state = start_state()
        metrics: dict[str, jax.Array] = {}

        def work(batch: Batch) -> Any:
            nonlocal state, metrics
            state, metrics = compiled(state, batch)
            return state, metrics

        source = itertools.chain([first], feed)
        laps = time_laps(lambda: next(source), work, warmup=warmup, steps=steps)
        loss = float(metrics["loss"])
    row = speed(laps, experiment.optim.batch, mesh.size, by="median" if batches is None else "total")
    peak, after = peak_flops(device.device_kind), _memory(device, "peak_bytes_in_use")
    flops = method.flops(method.views(experiment.views))
    if batches is None:
        row["data_wait_share"] = None  # nothing is waited for
    # An allocator's peak is that of the process: where an earlier row's was higher, this row's is not known.
    return row | {
        "gflop_per_image": flops / 1e9,
        "tflop_per_second_per_chip": row["images_per_second_per_chip"] * flops / 1e12,
        "peak_tflop_per_second": peak and peak / 1e12,
        "mfu": peak and row["images_per_second_per_chip"] * flops / peak,
        "compile_seconds": compile_seconds,
        "planned_bytes": planned,
        "peak_bytes": after if after and after > (before or 0) else None,
        "last_loss": loss,
    }


def _feed(
    experiment: Experiment,
    channels: ChannelSet,
    mesh: Mesh,
    images: Images | None,
    batches: Callable[[], Iterable[Batch]] | None,
    stack: contextlib.ExitStack,
) -> Iterator[Batch]:
    if batches is None:
        return itertools.repeat(synthetic_batch(experiment, channels, images or Images(), mesh))
    loader = batches()
    stack.callback(getattr(loader, "close", lambda: None))
    return prefetch(iter(loader), lambda batch: host_to_global(batch, mesh))


@contextlib.contextmanager
def _uncached() -> Iterator[None]:
    """Compiling inside is compiling, whatever programs are kept on disk."""
    before = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    jax.config.update("jax_enable_compilation_cache", False)
    reset_cache()  # jax looks at the setting once
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        reset_cache()


def _planned(compiled: Any) -> int | None:
    """Bytes of a device that the program holds, arguments and results included; None where XLA tells nothing."""
    told = compiled.memory_analysis()
    if told is None:
        return None
    parts = (told.argument_size_in_bytes, told.output_size_in_bytes, told.temp_size_in_bytes)
    return sum(parts) - told.alias_size_in_bytes


def _memory(device: Any, key: str) -> int | None:
    return (device.memory_stats() or {}).get(key)
