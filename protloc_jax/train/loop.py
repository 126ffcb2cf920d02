"""A training run from its beginning, or from wherever its directory stands, to its end; `steps` has the loop itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from protloc_jax.config import to_json
from protloc_jax.devices import Preemption, make_mesh
from protloc_jax.launch.signals import Signals
from protloc_jax.telemetry.clock import Clock
from protloc_jax.telemetry.console import Console, make_console
from protloc_jax.telemetry.profiling import DIRECTORY, Profiler
from protloc_jax.telemetry.writers import METRICS_FILE, Tracker, make_writers, read_metrics
from protloc_jax.train.bad_steps import Describe
from protloc_jax.train.checkpoint import Checkpointer, StorageFailed
from protloc_jax.train.checkpoint_files import CHECKPOINTS, load_meta, steps_in
from protloc_jax.train.exits import Exit
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.feed import Feed, LoaderFactory
from protloc_jax.train.initial import Begin, begin_with, compare_source, first_state
from protloc_jax.train.jumps import JUMPS_FILE, Jumps
from protloc_jax.train.lineage import LINEAGE_FILE, descent
from protloc_jax.train.mirror import CLOSE_SECONDS, Mirror, any_copies, fetch_missing
from protloc_jax.train.reporter import Reporter
from protloc_jax.train.resume import (
    DataFacts,
    describe_run,
    pack,
    refuse_changes,
    unpack,
    with_shardings,
    without_new_items,
)
from protloc_jax.train.run_lock import hold_directory
from protloc_jax.train.save_times import SaveTimes
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.spike_watch import SpikeWatch
from protloc_jax.train.state import examples_seen, first_window, state_shapes
from protloc_jax.train.step import make_step, state_sharding
from protloc_jax.train.steps import Evaluate, Outcome, StepFunction, Steps
from protloc_jax.train.store import open_store
from protloc_jax.train.watchdog import Watchdog

CONFIG_FILE = "config.json"


def fit(
    experiment: Experiment,
    loader_factory: LoaderFactory,
    data: DataFacts,
    *,
    initial: Begin = None,
    evaluate: Evaluate | None = None,
    step: StepFunction | None = None,
    describe: Describe | None = None,
    flops_per_image: float = 0.0,
    trackers: Iterable[Tracker] = (),
    console: Console | None = None,
    mesh: Mesh | None = None,
    signals: Signals | None = None,
    force_resume: bool = False,
) -> Outcome:
    """Train to the end of the schedule, or until a signal, from wherever the run directory `run.out` stands.

    loader_factory  batches of NumPy from an example number on: this process's slices, endless
    initial         weights that a run begins with (or what makes them, called only then) in place of those that
                    `init.weights` names; a run that goes on never reads them
    evaluate        called every `run.eval_every` steps, before the first and after the last, by all processes
    step            in place of `make_step(experiment, ...)` (tests, instruments)
    describe        what the data know about an example number, for the records of bad steps
    flops_per_image model FLOPs of one image's step, for MFU; 0 = not shown
    signals         listens already for SIGTERM and SIGINT; otherwise the run does, as long as it lasts
    force_resume    go on although settings changed

    Raises ValueError for what does not fit (batch and devices, changed settings, an unwritable or occupied directory,
    checkpoints or initial weights of another model), always before the first step.
    """
    run, out = experiment.run, Path(experiment.run.out)
    first = jax.process_index() == 0
    mesh = make_mesh(run.mesh_data, run.mesh_fsdp) if mesh is None else mesh
    own_console = make_console(process_index=jax.process_index()) if console is None else None
    console = own_console or console
    assert console is not None
    schedules = Schedules(experiment, data.examples // experiment.optim.batch)
    take_step: StepFunction = make_step(experiment, data.channels, schedules, mesh) if step is None else step
    held = state_sharding(experiment, data.channels, mesh)
    shapes = state_shapes(experiment, data.channels)
    about = describe_run(experiment, data)
    begin = partial(
        begin_with, initial, experiment.init, shapes, data.channels, model=experiment.model, warn=console.warn
    )
    store = open_store(run.checkpoints) if run.checkpoints and first else None
    # Read before anything is written or compiled; not at all by a run that goes on.
    copied = bool(run.checkpoints) and any_copies(store, out / CHECKPOINTS)
    begins = None if copied or steps_in(out / CHECKPOINTS) else begin()

    watchdog = Watchdog(
        out,
        step_seconds=run.watchdog_seconds,
        pause_seconds=run.watchdog_pause_seconds,
        process_index=jax.process_index(),
    )
    listening = Signals(grace_seconds=run.grace_seconds) if signals is None else contextlib.nullcontext(signals)

    with listening as heard, Preemption(mesh, heard) as preemption, hold_directory(out, say=console.line), watchdog:
        if run.checkpoints:
            fetch_missing(store, out / CHECKPOINTS, say=console.line)
        keep = {"keep_last": run.keep_last, "keep_best": run.keep_best if evaluate else 0}
        checkpoints = Checkpointer(out / CHECKPOINTS, **keep, warn=console.warn)

        def check(meta: Mapping[str, Any]) -> None:
            refuse_changes(meta, about, where=str(out))
            if meta.get("init") and (note := compare_source(meta["init"])):
                console.line(note)

        target = pack(with_shardings(shapes, held))
        if force_resume and steps_in(out / CHECKPOINTS):
            target = without_new_items(target, load_meta(out))
        restored = checkpoints.restore(target, check=None if force_resume else check)
        if restored is None:
            begins = begins or begin()
            state = first_state(experiment, data.channels, held, begins)
            begun, seconds = 0, 0.0
            about |= {"init": begins.record} if begins is not None else {}
        else:
            state, begun, seconds = unpack(restored.items), restored.step, restored.meta["seconds"]
            lineage = descent(restored, about, out=out)
            if state.spikes is None and held.spikes is not None:
                window = jax.jit(lambda: first_window(experiment.optim), out_shardings=held.spikes)()
                state = state._replace(spikes=window)
            about |= {"init": restored.meta["init"]} if "init" in restored.meta else {}
            about |= lineage
            console.line(f"resumed from {checkpoints.directory / str(begun)} ({examples_seen(state)} images seen)")
            if lineage:
                console.line(f"not from one beginning to the end: see {out / LINEAGE_FILE}")
        del begins  # copies on the host, not needed any more
        jumps = Jumps.read(out, restored.meta.get("jumps", ()) if restored else ())
        if jumps:
            console.line(f"{len(jumps)} jump(s) over images that brought a spike of the loss, see {out / JUMPS_FILE}")
        if first:
            _write_whole(out / CONFIG_FILE, to_json(experiment))
        writers = make_writers(
            out,
            step=begun,
            process_index=jax.process_index(),
            tensorboard=run.tensorboard,
            extra=tuple(trackers),
            warn=console.warn,
        )
        clock = Clock(
            total_steps=schedules.total,
            global_batch=experiment.optim.batch,
            devices=mesh.size,
            flops_per_image=flops_per_image,
            device_kind=mesh.devices.flat[0].device_kind,
            seconds_before=seconds,
        )
        feed = Feed(
            loader_factory,
            mesh,
            experiment.optim.batch,
            give_up=lambda: jax.process_count() == 1 and preemption.flagged,
        )
        profiler = Profiler(run.profile, out / DIRECTORY, say=console.line, warn=console.warn)
        loop = Steps(
            experiment=experiment,
            about=about,
            schedules=schedules,
            step=take_step,
            profiler=profiler,
            evaluate=evaluate,
            console=console,
            preemption=preemption,
            checkpoints=checkpoints,
            watchdog=watchdog,
            saves=SaveTimes(checkpoints, minutes=run.checkpoint_minutes, mesh=mesh),
            restore=lambda: checkpoints.restore(pack(with_shardings(shapes, held))),
            feed=feed,
            jumps=jumps,
            reporter=Reporter(
                experiment,
                schedules,
                examples=data.examples,
                console=console,
                writers=writers,
                clock=clock,
                describe=describe,
                spikes=SpikeWatch(experiment.optim, before=read_metrics(out / METRICS_FILE) if first and begun else ()),
            ),
        )
        mirror = Mirror(store, checkpoints.directory, **keep, warn=console.warn) if store is not None else None
        try:
            return loop.run(state, begun)
        except StorageFailed as error:
            console.warn(f"stopped: {error}")
            return Outcome(loop.state, loop.done, Exit.STORAGE)
        except jax.errors.JaxRuntimeError:
            checkpoints.wait()  # a device that fails takes no checkpoint with it
            raise
        finally:
            profiler.close()
            feed.close()
            if mirror is not None:
                mirror.close(run.grace_seconds if preemption.flagged else CLOSE_SECONDS)
            writers.close()
            if own_console is not None:
                own_console.close()


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)
