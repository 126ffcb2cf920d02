"""SIGTERM and SIGINT heard at once, whatever the main thread does, and a process that ends within the grace time.

Python runs its signal handlers in the main thread, between two bytecodes: not while that sits in C++, compiling for
minutes or waiting for a device. The C half of every handler also writes the signal's number to a socket
(`signal.set_wakeup_fd`), and a thread listens there.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from protloc_jax.launch import leaving

HEARD = (signal.SIGTERM, signal.SIGINT)
GRACE_SECONDS = 25.0
# Where nothing would be lost, the main thread gets only so long to end by its own means.
SHORT_SECONDS = 3.0
# Launchers pass on what a scheduler or terminal sends to their children as well: that is one signal, not two.
ECHO_SECONDS = 0.5
# `Exit.PREEMPTED` of training: the same command goes on.
PREEMPTED = 75
# How often the clock is looked at once a signal has come.
TICK_SECONDS = 0.1


class Signals:
    """Hears the first signal for the main thread, and acts on what the main thread cannot.

    A context manager; handlers and thread are put in place on entry (in the main thread only: elsewhere, as in a
    notebook's worker, whoever owns it decides) and taken away on exit.

    flagged      a signal has come: whoever runs a loop should save and end
    at_stake     set by the loop: how many finished steps no checkpoint holds. Called from the listening thread
    ends_process the process ends after the context: threads that a blocked read keeps alive may not hold it up

    After the first signal the main thread has `grace_seconds` to come to its last save (`holding`), or `short_seconds`
    where nothing is at stake; then the process leaves with status 75 and says what is lost. A second signal ends it at
    once, with status 128 + signal, for whoever cannot wait for the save.
    """

    def __init__(
        self,
        *,
        grace_seconds: float = GRACE_SECONDS,
        short_seconds: float = SHORT_SECONDS,
        ends_process: bool = False,
        leave: Callable[[int], object] = leaving.end,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.grace_seconds, self.short_seconds = grace_seconds, short_seconds
        self.ends_process = ends_process
        self.flagged, self.name = False, ""
        self.at_stake: Callable[[], int] = lambda: 0
        self._leave, self._now = leave, now
        self._heard_at = self._released_at = -math.inf
        self._holds = 0
        self._said = False
        # Re-entrant: a handler may be interrupted by that of another signal, in the same thread.
        self._lock = threading.RLock()
        self._previous: dict[int, Any] = {}
        self._previous_fd = -1
        self._pipe: tuple[socket.socket, socket.socket] | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            reader, writer = self._pipe = socket.socketpair()
            writer.setblocking(False)
            self._previous_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            self._previous = {number: signal.getsignal(number) for number in HEARD}
            self.arm()
            self._thread = threading.Thread(target=self._listen, args=(reader,), name="signals", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._thread is None or self._pipe is None:
            return
        if self.flagged and self.ends_process:
            self._released_at = self._now()
            return
        signal.set_wakeup_fd(self._previous_fd)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        reader, writer = self._pipe
        writer.send(b"\0")
        self._thread.join()
        reader.close()
        writer.close()
        self._thread = self._pipe = None

    def arm(self) -> None:
        """Put the handlers in place, again where a library (jax's start-up of several processes) replaced them."""
        if self._pipe is not None:
            for number in HEARD:
                signal.signal(number, self._handle)

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """What is done inside, a save, may take as long as it needs."""
        self._holds += 1
        try:
            yield
        finally:
            self._released_at = self._now()
            self._holds -= 1

    def _handle(self, number: int, frame: object) -> None:
        # The main thread is free: it sees the flag before its next line. Counting is left to the listening thread.
        self._hear(number)

    def _hear(self, number: int) -> None:
        self.name = self.name or signal.Signals(number).name
        self.flagged = True
        with self._lock:
            if not self._said:
                self._said, self._heard_at = True, self._now()
                self._tell("stopping after the current step and saving; send it again to end at once.")

    def _tell(self, text: str) -> None:
        # Not print: the signal may have come in the middle of one, and buffered writers do not re-enter.
        with contextlib.suppress(OSError):
            os.write(2, f"\n{self.name}: {text}\n".encode())

    def _listen(self, reader: socket.socket) -> None:
        first: tuple[int, float] | None = None
        while True:
            ready, _, _ = select.select([reader], [], [], TICK_SECONDS if self.flagged else None)
            for number in reader.recv(64) if ready else b"":
                if number == 0:
                    return
                if number not in HEARD:
                    continue
                if first is None:
                    first = (number, self._now())
                    self._hear(number)
                elif number != first[0] or self._now() - first[1] >= ECHO_SECONDS:
                    self._leave(128 + number)
                    return
            if self.flagged and self._overdue():
                return self._give_up()

    def _overdue(self) -> bool:
        if self._holds:
            return False
        allowed = self.grace_seconds if self.at_stake() > 0 else min(self.short_seconds, self.grace_seconds)
        return self._now() >= max(self._heard_at + allowed, self._released_at + self.short_seconds)

    def _give_up(self) -> None:
        lost = self.at_stake()
        waited = f"run.grace_seconds={self.grace_seconds:g}"
        self._tell(
            f"{lost} step(s) since the last checkpoint are lost, as nothing could be saved within {waited}; "
            f"left with status {PREEMPTED}, the same command goes on."
            if lost > 0
            else f"nothing new was to be saved; left with status {PREEMPTED}, the same command goes on."
        )
        self._leave(PREEMPTED)
