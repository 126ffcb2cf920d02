"""What a run says of its steps: metrics to the writers, a line to the console, records of bad steps, a last word."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from protloc_jax.data.quarantine import FILE as QUARANTINE
from protloc_jax.objective.diagnostics import JUDGED, judge
from protloc_jax.telemetry.clock import Clock, words
from protloc_jax.telemetry.console import Console
from protloc_jax.telemetry.writers import Writers
from protloc_jax.train.bad_steps import Describe, write_bad_step
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.spike_watch import Spike, SpikeWatch


class Reporter:
    """Keeps the metrics of steps on the device until they are asked for, then tells them to everyone.

    last           the newest step's values that were brought back
    bad_in_a_row   steps without a good one between them that changed nothing, up to the last report: not finite, or
                   undone for a spike of their loss
    too_many_bad   whether that ever reached `run.stop_after_bad`
    spikes         counts spikes; where the run goes back for one, a report ends with it
    """

    def __init__(
        self,
        experiment: Experiment,
        schedules: Schedules,
        *,
        examples: int,
        console: Console,
        writers: Writers,
        clock: Clock,
        describe: Describe | None,
        spikes: SpikeWatch,
    ) -> None:
        self.out, self.batch_size = Path(experiment.run.out), experiment.optim.batch
        self.stop_after_bad, self.examples = experiment.run.stop_after_bad, examples
        self.out_dim = getattr(experiment.method, "out_dim", 0)
        self.schedules, self.describe = schedules, describe
        self.console, self.writers, self.clock = console, writers, clock
        self.window: list[tuple[int, int, dict[str, jax.Array]]] = []
        self.last: dict[str, Any] = {}
        self.bad_in_a_row, self.too_many_bad = 0, False
        self.substituted = 0
        self.verdict = ""
        self.spikes = spikes

    def add(self, step: int, position: int, metrics: dict[str, jax.Array]) -> None:
        """Take the metrics of a step (from 1) that began at example `position`; nothing waits for the device."""
        self.window.append((step, position, metrics))

    def wait_for(self, ahead: int) -> None:
        """Return when at most `ahead` of the steps taken are still being computed."""
        if len(self.window) > ahead:
            jax.block_until_ready(self.window[-1 - ahead][2])

    def report(self) -> None:
        """Bring the metrics of all steps since the last time to the host and write them."""
        window, self.window = self.window, []
        if not window:
            return
        fetched = jax.device_get([metrics for _, _, metrics in window])
        newest, position = window[-1][0], window[-1][1] + self.batch_size
        lap = self.clock.lap(newest)
        for number, ((step, start, _), values) in enumerate(zip(window, fetched, strict=True)):
            values = {name: value.item() for name, value in values.items()}
            bad = not values.get("finite", math.isfinite(values["loss"]))
            spike = self.spikes.judge(step, start, values)
            undone = bad or (spike is not None and self.spikes.undoes)
            self.bad_in_a_row = self.bad_in_a_row + 1 if undone else 0
            seen = start + self.batch_size
            record = {"examples": seen, "epoch": round(seen / self.examples, 6), **values}
            record |= {"spike": int(spike is not None)}
            if not math.isfinite(record.get("spike_limit", 0)):
                del record["spike_limit"]  # nothing is judged yet
            if undone:
                self._note_bad(step, start, record, spike)
            elif spike is not None:
                self.console.warn(f"step {step}: {spike.words}, number {self.spikes.count} of this run")
            if values.get("substituted") and not self.substituted:
                self.console.warn(
                    f"step {step}: damaged records are replaced; they are listed in {self.out / QUARANTINE}"
                )
            self.substituted += values.get("substituted", 0)
            if step == newest:
                self.last = values
                record |= {**lap, **self._judge(step, values)}
            self.writers.write(step, record)
            if self.spikes.found is not None:
                # What follows will not have been; or is told next time, where there is no way back.
                self.window = window[number + 1 :]
                break
        self.console.progress(newest, self.schedules.total, self._line(position, lap))

    def forget(self) -> None:
        """The run goes back: steps that were not told yet never will be."""
        self.window, self.bad_in_a_row = [], 0

    def _note_bad(self, step: int, position: int, record: Mapping[str, Any], spike: Spike | None) -> None:
        n, most = self.bad_in_a_row, self.stop_after_bad
        self.too_many_bad = self.too_many_bad or n >= most
        path = None
        if jax.process_index() == 0:
            try:
                path = write_bad_step(
                    self.out,
                    step,
                    first_example=position,
                    batch=self.batch_size,
                    metrics=record,
                    in_a_row=n,
                    why="not finite" if spike is None else spike.words,
                    describe=self.describe,
                )
            except OSError as error:
                self.console.warn(f"the record of bad step {step} was not written: {error}")
        where = f"; protloc pretrain --replay {path}" if path else ""
        why = f"step {step} was not finite and" if spike is None else f"step {step}: {spike.words}, and"
        self.console.warn(f"{why} changed nothing ({n} in a row, stopping at {most}){where}")

    def _judge(self, step: int, values: Mapping[str, float]) -> dict[str, str]:
        if not self.out_dim or not all(name in values for name in JUDGED):
            return {}
        frozen = max(self.schedules.frozen_steps, self.schedules.frozen_backbone_steps)
        warmup = max(self.schedules.warmup, frozen)
        verdict = judge(values, out_dim=self.out_dim, step=step, warmup=warmup)
        if verdict.state != self.verdict and (verdict.alarm or self.verdict):
            tell = self.console.warn if verdict.alarm else self.console.line
            tell(f"step {step}, {verdict.state}: {verdict.words}")
        self.verdict = verdict.state
        return {"verdict": verdict.state}

    def _line(self, position: int, lap: dict[str, float]) -> str:
        shown = [f"epoch {position / self.examples:.2f}"]
        shown += [f"{name} {self.last[name]:.4g}" for name in ("loss", "lr", "grad_norm") if name in self.last]
        if self.substituted:
            shown.append(f"substituted {self.substituted}")
        return " | ".join([*shown, *filter(None, [self.clock.line(lap)])])

    def summary(self, why: str, *, step: int, position: int, checkpoint: Path) -> None:
        """The run's last line: why it ended, how far it came, where its checkpoint and metrics are."""
        loss = f", loss {self.last['loss']:.4f}" if "loss" in self.last else ""
        self.console.line(
            f"{why}: {step} of {self.schedules.total} steps, {position} images in {words(self.clock.seconds)}{loss}; "
            f"checkpoint {checkpoint}, metrics {self.out / 'metrics.jsonl'}"
        )
