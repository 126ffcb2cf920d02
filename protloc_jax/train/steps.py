"""The steps of a run: evaluate, save, take a batch, step. In this order, so that position, weights and metrics agree.

A checkpoint of step n is taken after the evaluation of step n and before batch n is taken; whoever resumes it takes
exactly that batch. Nothing waits for the device except where metrics are written: every `log_every` steps, and before a
checkpoint (so that the metrics file is never behind it).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from protloc_jax.data.batch import Batch
from protloc_jax.devices import Preemption
from protloc_jax.telemetry.clock import words
from protloc_jax.telemetry.console import Console
from protloc_jax.telemetry.profiling import Profiler
from protloc_jax.train.bad_steps import BAD_STEPS
from protloc_jax.train.checkpoint import Checkpointer, Restored, StorageFailed
from protloc_jax.train.exits import Exit
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.feed import Feed
from protloc_jax.train.jumps import Jumps
from protloc_jax.train.reporter import Reporter
from protloc_jax.train.resume import pack, unpack
from protloc_jax.train.save_times import SaveTimes
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.state import TrainState, at_example, examples_seen
from protloc_jax.train.watchdog import Watchdog

# What may stand in for the step of `make_step`.
StepFunction = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]
# (state, steps done, whether to give up) -> scores by name; the first one ranks checkpoints for keep_best.
Evaluate = Callable[[TrainState, int, Callable[[], bool]], Mapping[str, float]]
# Steps that may wait for the device. Enough to keep it busy; more would only pile up batches in its memory.
RUN_AHEAD = 2


class Outcome(NamedTuple):
    """How a run ended: its state, the steps done, why it ended."""

    state: TrainState
    step: int
    exit: Exit


class Steps:
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
