"""The training loop: evaluate, save, take a batch, step. In this order, so that position, weights and metrics agree.

A checkpoint of step n is taken after the evaluation of step n and before batch n is taken; whoever resumes it takes
exactly that batch. The loop never waits for the device except where it writes metrics: every `log_every` steps, and
before a checkpoint (so that the metrics file is never behind it).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from protloc_jax.config import to_json
from protloc_jax.data.batch import Batch
from protloc_jax.devices import Preemption, host_to_global, make_mesh, prefetch
from protloc_jax.telemetry.clock import Clock, words
from protloc_jax.telemetry.console import Console, make_console
from protloc_jax.telemetry.writers import Tracker, make_writers
from protloc_jax.train.bad_steps import BAD_STEPS, Describe
from protloc_jax.train.checkpoint import Checkpointer, StorageFailed
from protloc_jax.train.checkpoint_files import CHECKPOINTS, steps_in
from protloc_jax.train.exits import Exit
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.initial import Begin, begin_with, compare_source, first_state
from protloc_jax.train.reporter import Reporter
from protloc_jax.train.resume import DataFacts, describe_run, pack, refuse_changes, unpack, with_shardings
from protloc_jax.train.run_lock import hold_directory
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.state import TrainState, examples_seen, state_shapes
from protloc_jax.train.step import make_step, state_sharding

# From an example number (images consumed before) to this host's batches from there on.
LoaderFactory = Callable[[int], Iterable[Batch]]
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
    # Read before anything is written or compiled; not at all by a run that goes on.
    begins = None if steps_in(out / CHECKPOINTS) else begin()

    with Preemption(mesh) as preemption, hold_directory(out, say=console.line):
        checkpoints = Checkpointer(
            out / CHECKPOINTS, keep_last=run.keep_last, keep_best=run.keep_best if evaluate else 0, warn=console.warn
        )

        def check(meta: Mapping[str, Any]) -> None:
            refuse_changes(meta, about, where=str(out))
            if meta.get("init") and (note := compare_source(meta["init"])):
                console.line(note)

        target = pack(with_shardings(shapes, held))
        restored = checkpoints.restore(target, check=None if force_resume else check)
        if restored is None:
            begins = begins or begin()
            state = first_state(experiment, data.channels, held, begins)
            begun, seconds = 0, 0.0
            about |= {"init": begins.record} if begins is not None else {}
        else:
            state, begun, seconds = unpack(restored.items), restored.step, restored.meta["seconds"]
            about |= {"init": restored.meta["init"]} if "init" in restored.meta else {}
            console.line(f"resumed from {checkpoints.directory / str(begun)} ({examples_seen(state)} images seen)")
        del begins  # copies on the host, not needed any more
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
        loop = _Loop(
            experiment=experiment,
            about=about,
            schedules=schedules,
            step=take_step,
            evaluate=evaluate,
            console=console,
            preemption=preemption,
            checkpoints=checkpoints,
            reporter=Reporter(
                experiment,
                schedules,
                examples=data.examples,
                console=console,
                writers=writers,
                clock=clock,
                describe=describe,
            ),
        )
        batches = loader_factory(examples_seen(state))
        try:
            return loop.run(state, begun, prefetch(iter(batches), lambda batch: host_to_global(batch, mesh)))
        except StorageFailed as error:
            console.warn(f"stopped: {error}")
            return Outcome(loop.state, loop.done, Exit.STORAGE)
        finally:
            getattr(batches, "close", lambda: None)()
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
        evaluate: Evaluate | None,
        console: Console,
        preemption: Preemption,
        checkpoints: Checkpointer,
        reporter: Reporter,
    ) -> None:
        self.run_config, self.batch_size = experiment.run, experiment.optim.batch
        self.about, self.step, self.evaluate = about, step, evaluate
        self.console, self.preemption, self.checkpoints = console, preemption, checkpoints
        self.reporter, self.writers, self.clock = reporter, reporter.writers, reporter.clock
        self.total = schedules.total
        self.state: TrainState
        self.begun = self.done = self.position = 0
        self.score: tuple[int, float] | None = None

    def run(self, state: TrainState, begun: int, batches: Iterator[Batch]) -> Outcome:
        """Evaluate, save, take a batch, step; until the schedule ends or something ends it."""
        self.state, self.done, self.begun, self.position = state, begun, begun, examples_seen(state)
        # A run that stopped on bad steps and is started again gets the whole allowance again.
        in_state = int(np.asarray(state.bad_steps))
        self.reporter.bad_in_a_row = in_state if in_state < self.run_config.stop_after_bad else 0
        shown = f"{self.batch_size} images a step, on {self.clock.devices} device(s)"
        self.console.line(f"step {begun} of {self.total}, {shown}")
        while True:
            stopping = self.preemption.agreed()
            if self.evaluate is not None and self._due(self.run_config.eval_every) and not stopping:
                self._evaluate(self.evaluate)
            ending = self._ending(stopping)
            if self.done > begun and (ending is not None or self._due(self.run_config.checkpoint_every)):
                self._save(last=ending is not None)
            if ending is not None:
                break
            self._step(self._take(batches))
            if self.done == begun + 1 or any(
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
        if self.reporter.too_many_bad:
            return Exit.BAD_STEPS
        if self.done >= self.total:
            return Exit.DONE
        return Exit.PREEMPTED if stopping or self._give_up() else None

    def _why(self, ending: Exit) -> str:
        bad = self.reporter.bad_in_a_row
        return {
            Exit.DONE: "done",
            Exit.PREEMPTED: f"stopped by {self.preemption.signal_name or 'a signal'}; the same command goes on",
            Exit.BAD_STEPS: f"stopped: {bad} steps in a row were not finite, see {self.reporter.out / BAD_STEPS}",
        }[ending]

    def _give_up(self) -> bool:
        # Between processes only `agreed` decides: an evaluation left by some would have the others wait for ever.
        return jax.process_count() == 1 and self.preemption.flagged

    def _take(self, batches: Iterator[Batch]) -> Batch:
        with self.clock.waiting():
            batch = next(batches, None)
        if batch is None:
            raise ValueError(f"the loader ended after {self.done} of {self.total} steps; it must be endless.")
        return batch

    def _step(self, batch: Batch) -> None:
        start = time.monotonic()
        self.state, metrics = self.step(self.state, batch)
        self.reporter.add(self.done + 1, self.position, metrics)
        self.done += 1
        self.position += self.batch_size
        if self.done == self.begun + 1:
            jax.block_until_ready(metrics)
            self.clock.begin(self.done)
            self.console.line(f"first step after {words(time.monotonic() - start)}, compilation included")
        else:
            self.reporter.wait_for(RUN_AHEAD)

    def _evaluate(self, evaluate: Evaluate) -> None:
        with self.clock.pausing():
            start = time.monotonic()
            scores = {name: float(v) for name, v in evaluate(self.state, self.done, self._give_up).items()}
        if scores:
            self.score = (self.done, next(iter(scores.values())))
            self.writers.write(self.done, scores, kind="eval")
            shown = " | ".join(f"{name} {value:.4f}" for name, value in scores.items())
            self.console.line(f"step {self.done}: {shown} ({words(time.monotonic() - start)})")

    def _save(self, *, last: bool) -> None:
        self.reporter.report()
        with self.clock.pausing():
            self.writers.flush()
            score = self.score[1] if self.score is not None and self.score[0] == self.done else None
            meta = {**self.about, "examples_seen": self.position, "seconds": self.clock.seconds}
            saved = self.checkpoints.save(self.done, pack(self.state), meta, score=score, wait=last)
        if last and not saved:
            raise StorageFailed(f"the last checkpoint (step {self.done}) was not written")


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)
