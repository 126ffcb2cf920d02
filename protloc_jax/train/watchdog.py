"""A watchdog that ends a run whose step never does: with the stacks of all threads on disk, instead of silence.

A process that hangs without dying (a collective that another process never enters, a file system that is gone, a
device that stopped answering) raises nothing, and nothing in jax looks for it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from protloc_jax.launch import leaving
from protloc_jax.telemetry.clock import words
from protloc_jax.train.exits import Exit

FOLDER = "stuck"
# A step is stuck when it takes this many times the usual, and longer than the configured seconds.
TIMES_THE_USUAL = 10
# Steps whose median is the usual.
REMEMBERED = 101
INTERVAL_SECONDS = 0.5
# A watchdog that itself did not run for so long was stopped with its process (a suspended job): not counted.
STOPPED_SECONDS = 10.0
# The run directory may be what hangs: after so long the stacks go to stderr.
WRITE_SECONDS = 10.0


class _Phase(NamedTuple):
    what: str
    since: float
    is_step: bool


class Watchdog:
    """Watches from a thread of its own, as a context manager, that every step and every pause comes to its end.

    out            run directory; the stacks go to out/stuck/<process>-<step>.txt
    step_seconds   a step, from its beginning to the next one's, may take this long or ten times the median step,
                   whichever is more; 0 = any time
    pause_seconds  the same for whatever is no step: the start with its compilation, evaluations, saves; 0 = any time

    Several processes wait for each other in every step: where one is stuck the watchdog of each fires by itself. Ends
    the process with status 79 (`Exit.STUCK`) after one message on stderr.
    """

    def __init__(
        self,
        out: Path,
        *,
        step_seconds: float,
        pause_seconds: float,
        process_index: int = 0,
        leave: Callable[[int], object] = leaving.end,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._process = out / FOLDER, process_index
        self._step_seconds, self._pause_seconds = step_seconds, pause_seconds
        self._leave, self._now = leave, now
        self._step = 0
        self._paused = 0.0
        self._took: deque[float] = deque(maxlen=REMEMBERED)
        self._phase = _Phase("the start, compilation included,", now(), is_step=False)
        self._checked = now()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Watchdog:
        if self._step_seconds or self._pause_seconds:
            self._checked = self._now()
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def step(self, number: int) -> None:
        """Step `number` begins; the one before has ended."""
        now = self._now()
        if self._phase.is_step:
            self._took.append(now - self._phase.since - self._paused)
        self._step, self._paused = number, 0.0
        self._phase = _Phase(f"step {number}", now, is_step=True)

    @contextlib.contextmanager
    def pause(self, what: str) -> Iterator[None]:
        """What happens inside is no part of the step around it."""
        around, start = self._phase, self._now()
        self._phase = _Phase(what, start, is_step=False)
        try:
            yield
        finally:
            self._paused += self._now() - start
            self._phase = around

    def _limit(self, phase: _Phase) -> float:
        """Seconds that it may take; 0 = any time."""
        if not phase.is_step:
            return self._pause_seconds
        usual = statistics.median(self._took) if self._took else 0.0
        return self._step_seconds and max(self._step_seconds, TIMES_THE_USUAL * usual)

    def check(self) -> None:
        """Look once; the thread does so twice a second."""
        now, last = self._now(), self._checked
        self._checked = now
        phase = self._phase
        if now - last > STOPPED_SECONDS:
            self._phase = phase._replace(since=phase.since + now - last)
            return
        taken = now - phase.since - (self._paused if phase.is_step else 0.0)
        limit = self._limit(phase)
        if limit and taken > limit:
            self._stop(phase, taken, limit)

    def _watch(self) -> None:
        while not self._ended.wait(INTERVAL_SECONDS):
            self.check()

    def _stop(self, phase: _Phase, taken: float, limit: float) -> None:
        path = self._folder / f"{self._process}-{self._step}.txt"
        where = path if self._written(path) else "above"
        rule = f"run.watchdog_{'' if phase.is_step else 'pause_'}seconds={limit:g}"
        if phase.is_step and limit > self._step_seconds:
            rule = f"{TIMES_THE_USUAL} times the usual {limit / TIMES_THE_USUAL:.3g} s"
        text = (
            f"process {self._process}: {phase.what} has taken {words(taken)}, longer than {rule}: stuck. The stacks of "
            f"all threads: {where}. Left with status {int(Exit.STUCK)}; the same command goes on."
        )
        os.write(2, f"\n{text}\n".encode())
        self._leave(int(Exit.STUCK))

    def _written(self, path: Path) -> bool:
        """Whether the stacks are in the file; else they are on stderr."""
        done: list[bool] = []

        def write() -> None:
            with contextlib.suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "w") as file:
                    faulthandler.dump_traceback(file, all_threads=True)
                done.append(True)

        writer = threading.Thread(target=write, name="stacks", daemon=True)
        writer.start()
        writer.join(WRITE_SECONDS)
        if not done:
            faulthandler.dump_traceback(2, all_threads=True)  # type: ignore[arg-type]
        return bool(done)
