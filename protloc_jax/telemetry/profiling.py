"""Profiles of a few steps of a run, written by jax's profiler where xprof and Perfetto find them."""

from __future__ import annotations

import re
import socket
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

DIRECTORY = "profile"
HOW_TO_OPEN = (
    "open it with `pip install xprof && xprof --logdir {directory}`, or drop a *.trace.json.gz of it on "
    "https://ui.perfetto.dev"
)


def span(text: str) -> tuple[int, int] | None:
    """The steps START to STOP - 1 that "START:STOP" means, counted from 1; None for an empty text.

    Raises ValueError unless 1 <= START < STOP.
    """
    if not text:
        return None
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if found is None or not 1 <= int(found[1]) < int(found[2]):
        raise ValueError(f"profile={text}: must be START:STOP with 1 <= START < STOP, such as 20:25.")
    return int(found[1]), int(found[2])


def first_on_host() -> bool:
    """Whether this process has the lowest number of those on its host. Every process must call it at the same place."""
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return True
    host = zlib.crc32(socket.gethostname().encode())
    hosts = multihost_utils.process_allgather(np.asarray([host], np.uint32)).reshape(-1)
    return not (hosts[: jax.process_index()] == host).any()


class Profiler:
    """Takes the steps of a run, and profiles those of `steps` ("START:STOP", see `span`).

    The trace lies in `directory`; process 0 of each host writes one, for the processes of a host would write to the
    same file. A run that goes on behind STOP profiles nothing; one that begins between START and STOP, the rest. A
    profiler that cannot start or write is told by `warn` and stops no training.
    """

    def __init__(
        self,
        steps: str,
        directory: Path,
        *,
        say: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self.span, self.directory = span(steps), directory
        self._say, self._warn = say, warn
        self._running = False
        if self.span is not None and not first_on_host():
            self.span = None

    def run(self, number: int, step: Callable[..., Any], *arguments: Any) -> Any:
        """`step(*arguments)`, the step `number` (from 1) of the run; within the span it is profiled."""
        if self.span is None:
            return step(*arguments)
        import jax

        start, stop = self.span
        if start <= number < stop and not self._running:
            self._start()
        if not self._running:
            return step(*arguments)
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            result = step(*arguments)
        if number + 1 >= stop:
            # The device is still at work on these steps.
            jax.block_until_ready(result)
            self.close()
        return result

    def close(self) -> None:
        """End a profile that is being taken and say where it lies; safe to call again."""
        if not self._running:
            return
        import jax

        self._running, self.span = False, None
        try:
            jax.profiler.stop_trace()
        except (RuntimeError, OSError, ValueError) as error:
            self._warn(f"the profile in {self.directory} was not written: {error}")
            return
        self._say(f"profile in {self.directory}; {HOW_TO_OPEN.format(directory=self.directory)}")

    def _start(self) -> None:
        import jax

        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            jax.profiler.start_trace(str(self.directory))
            self._running = True
        except (RuntimeError, OSError, ValueError) as error:
            self._warn(f"no profile is taken: {error}")
            self.span = None
