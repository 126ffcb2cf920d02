"""The training loop: evaluate, save, take a batch, step. In this order, so that position, weights and metrics agree.

A checkpoint of step n is taken after the evaluation of step n and before batch n is taken; whoever resumes it takes
exactly that batch. The loop never waits for the device except where it writes metrics: every `log_every` steps, and
before a checkpoint (so that the metrics file is never behind it).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from protloc_jax.config import to_json
from protloc_jax.data.batch import Batch
from protloc_jax.devices import Preemption, make_mesh
from protloc_jax.launch.signals import Signals
from protloc_jax.telemetry.clock import Clock, words
from protloc_jax.telemetry.console import Console, make_console
from protloc_jax.telemetry.profiling import DIRECTORY, Profiler
from protloc_jax.telemetry.writers import METRICS_FILE, Tracker, make_writers, read_metrics
from protloc_jax.train.bad_steps import BAD_STEPS, Describe
from protloc_jax.train.checkpoint import Checkpointer, Restored, StorageFailed
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
from protloc_jax.train.state import TrainState, at_example, examples_seen, first_window, state_shapes
from protloc_jax.train.step import make_step, state_sharding
from protloc_jax.train.store import open_store
from protloc_jax.train.watchdog import Watchdog

# What may stand in for the step of `make_step`.
StepFunction = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]
# (state, steps done, whether to give up) -> scores by name; the first one ranks checkpoints for keep_best.
Evaluate = Callable[[TrainState, int, Callable[[], bool]], Mapping[str, float]]
CONFIG_FILE = "config.json"
# Steps that may wait for the device. Enough to keep it busy; more would only pile up batches in its memory.
RUN_AHEAD = 2


class Outcome(NamedTuple):
    """How a run ended: its state, the steps done, why it ended."""

    state: TrainState
    step: int
    exit: Exit


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
        loop = _Loop(
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


class _Loop:
    """One run's loop and what it remembers between steps."""

    def __init__(
        self,
        *,
        experiment: Experiment,
        about: dict[str, Any],
        schedules: Schedules,
        step: StepFunction,
        profiler: Profiler,
        evaluate: Evaluate | None,
        console: Console,
        preemption: Preemption,
        checkpoints: Checkpointer,
        watchdog: Watchdog,
        saves: SaveTimes,
        restore: Callable[[], Restored | None],
        feed: Feed,
        jumps: Jumps,
        reporter: Reporter,
    ) -> None:
        self.run_config, self.batch_size = experiment.run, experiment.optim.batch
        self.about, self.step, self.evaluate, self.profiler = about, step, evaluate, profiler
        self.console, self.preemption, self.checkpoints, self.watchdog = console, preemption, checkpoints, watchdog
        self.saves = saves
        self.restore, self.feed, self.jumps = restore, feed, jumps
        self.reporter, self.writers, self.clock = reporter, reporter.writers, reporter.clock
        self.compiled = self.spike_returned = False
        self.total = schedules.total
        self.state: TrainState
        self.begun = self.done = self.position = 0
        self.score: tuple[int, float] | None = None

    def run(self, state: TrainState, begun: int) -> Outcome:
        """Evaluate, save, take a batch, step; until the schedule ends or something ends it."""
        self.state, self.done, self.begun, self.position = state, begun, begun, examples_seen(state)
        # A run that stopped on bad steps and is started again gets the whole allowance again.
        in_state = int(np.asarray(state.bad_steps))
        self.reporter.bad_in_a_row = in_state if in_state < self.run_config.stop_after_bad else 0
        shown = f"{self.batch_size} images a step, on {self.clock.devices} device(s)"
        self.console.line(f"step {begun} of {self.total}, {shown}")
        self.preemption.signals.at_stake = lambda: max(0, self.done - max(self.begun, self.checkpoints.newest))
        while True:
            if self.done > self.begun:
                self.watchdog.step(self.done + 1)
            stopping = self.preemption.agreed()
            if self.reporter.spikes.goes_back and (stopping or self.done >= self.total):
                self.reporter.report()
            if self.reporter.spikes.found is not None:
                self._go_back()
            if self.evaluate is not None and self._due(self.run_config.eval_every) and not stopping:
                self._evaluate(self.evaluate)
            ending = self._ending(stopping)
            save = self.saves.due(self._due(self.run_config.checkpoint_every))
            if self.done > self.begun and (ending is not None or save):
                self._save(last=ending is not None)
            if ending is not None:
                break
            batch = self._take()
            if batch is None:
                continue  # a signal came in the meantime
            self._step(batch)
            if self.done == self.begun + 1 or any(
                map(self._due, (self.run_config.log_every, self.run_config.checkpoint_every))
            ):
                self.reporter.report()
            self.checkpoints.poll()
        self.checkpoints.close()
        self.reporter.summary(
            self._why(ending),
            step=self.done,
            position=self.position,
            checkpoint=self.checkpoints.directory / str(self.done),
        )
        return Outcome(self.state, self.done, ending)

    def _due(self, every: int) -> bool:
        """Whether something done every so many steps is due: also at the end, but not where an earlier run did it."""
        fresh = self.done > self.begun or self.done == 0
        return every > 0 and fresh and (self.done % every == 0 or self.done >= self.total)

    def _ending(self, stopping: bool) -> Exit | None:
        if self.reporter.too_many_bad or self.spike_returned:
            return Exit.BAD_STEPS
        if self.done >= self.total:
            return Exit.DONE
        return Exit.PREEMPTED if stopping or self.give_up() else None

    def _why(self, ending: Exit) -> str:
        bad = f"{self.reporter.bad_in_a_row} steps in a row were not finite"
        if self.reporter.spikes.undoes:
            bad += " or undone for their loss"
        if self.spike_returned:
            bad = "the spike of the loss came back"
        return {
            Exit.DONE: "done",
            Exit.PREEMPTED: f"stopped by {self.preemption.signal_name or 'a signal'}; the same command goes on",
            Exit.BAD_STEPS: f"stopped: {bad}, see {self.reporter.out / BAD_STEPS}",
        }[ending]

    def give_up(self) -> bool:
        """Whether to leave an evaluation, or the wait for a batch, and come to the save."""
        # Between processes only `agreed` decides: an evaluation left by some would have the others wait for ever.
        return jax.process_count() == 1 and self.preemption.flagged

    def _take(self) -> Batch | None:
        position = self.jumps.target(self.done, self.position)
        if position != self.position:
            self.state, self.position = at_example(self.state, position), position
        with self.clock.waiting():
            batch = self.feed.at(position)
        if batch is None and not self.give_up():
            raise ValueError(f"the loader ended after {self.done} of {self.total} steps; it must be endless.")
        return batch

    def _step(self, batch: Batch) -> None:
        start = time.monotonic()
        self.state, metrics = self.profiler.run(self.done + 1, self.step, self.state, batch)
        self.reporter.add(self.done + 1, self.position, metrics)
        self.done += 1
        self.position += self.batch_size
        if not self.compiled:
            self.compiled = True
            jax.block_until_ready(metrics)
            self.clock.begin(self.done)
            self.console.line(f"first step after {words(time.monotonic() - start)}, compilation included")
        else:
            self.reporter.wait_for(RUN_AHEAD)

    def _evaluate(self, evaluate: Evaluate) -> None:
        with self.clock.pausing(), self.watchdog.pause(f"the evaluation of step {self.done}"):
            start = time.monotonic()
            scores = {name: float(v) for name, v in evaluate(self.state, self.done, self.give_up).items()}
        if scores:
            self.score = (self.done, next(iter(scores.values())))
            self.writers.write(self.done, scores, kind="eval")
            shown = " | ".join(f"{name} {value:.4f}" for name, value in scores.items())
            self.console.line(f"step {self.done}: {shown} ({words(time.monotonic() - start)})")

    def _go_back(self) -> None:
        """For a spike: to the newest checkpoint, and past all images since, those of the spike included."""
        spikes, found = self.reporter.spikes, self.reporter.spikes.found
        assert found is not None
        spikes.settled()
        self.checkpoints.settle()
        if not self.checkpoints.steps():
            self.console.warn(f"step {found.step}: there is no checkpoint to go back to; the step was left out")
            return
        with self.clock.pausing(), self.watchdog.pause(f"going back from step {found.step}"):
            self.state = None  # type: ignore[assignment]  # two states at once may be more than the memory holds
            restored = self.restore()
            assert restored is not None
            self.state, self.done = unpack(restored.items), restored.step
            self.begun, self.position = self.done, examples_seen(self.state)
            self.reporter.forget()
            self.writers.rewind(self.done)
        new = self.jumps.add(found, step=self.done, first=self.position, batch=self.batch_size)
        self.spike_returned = not new
        if not new:
            self.console.warn(f"step {found.step}: {found.words} again; the run has gone back to {self.done} before")
            return
        if jax.process_index() == 0:
            self.jumps.write(self.reporter.out)
        self.clock.begin(self.done)
        to = self.jumps.target(self.done, self.position)
        self.console.line(f"back to step {self.done}; examples {self.position} to {to - 1} are jumped over")

    def _save(self, *, last: bool) -> None:
        self.reporter.report()
        if self.reporter.spikes.found is not None:
            return  # the run goes back before this step
        saving = self.watchdog.pause(f"the checkpoint of step {self.done}")
        with self.clock.pausing(), saving, self.preemption.signals.holding():
            self.writers.flush()
            score = self.score[1] if self.score is not None and self.score[0] == self.done else None
            meta = {**self.about, "examples_seen": self.position, "seconds": self.clock.seconds}
            meta |= {"jumps": self.jumps.listed()} if self.jumps else {}
            saved = self.checkpoints.save(self.done, pack(self.state), meta, score=score, wait=last)
        if last and not saved:
            raise StorageFailed(f"the last checkpoint (step {self.done}) was not written")


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)
