"""A tracker behind a bounded queue: whatever it does, the training loop only ever puts lines into a list.

A tracker speaks to a service or a disk that may be slow, down or raising. It runs in a thread of its own; when it
cannot keep up, lines are dropped and counted. What went wrong is kept as `notes`, for the loop's thread to tell.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

LINES = 1024
CLOSE_SECONDS = 5.0


class Tracker(Protocol):
    """Something that takes metrics. It may raise or hang; one that has `rewind(step)` is told when a run goes back."""

    def write(self, step: int, values: Mapping[str, Any], kind: str) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class Queued:
    """`tracker` in a thread. No method but `close` waits for it, and none raises what it raises.

    lines: how many calls may wait for it; dropped: how many were not taken because of that.
    """

    def __init__(self, tracker: Tracker, *, lines: int = LINES) -> None:
        self.name = type(tracker).__name__
        self.dropped = 0
        self._tracker, self._most = tracker, lines
        self._waiting: deque[tuple[str, tuple[Any, ...]]] = deque()
        self._changed = threading.Condition()
        self._notes: deque[str] = deque()
        self._closing = self._failed = False
        # A daemon: a tracker that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=f"tracker-{self.name}", daemon=True)
        self._thread.start()

    def write(self, step: int, values: Mapping[str, Any], kind: str) -> None:
        self._put("write", step, dict(values), kind)

    def flush(self) -> None:
        self._put("flush")

    def rewind(self, step: int) -> None:
        if hasattr(self._tracker, "rewind"):
            self._put("rewind", step)

    def finish(self) -> None:
        """No more lines: let the tracker have what waits, and close it; nothing is waited for."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """`finish`, and wait for it; leave the tracker behind after so many seconds."""
        self.finish()
        self._thread.join(seconds)
        if self._thread.is_alive():
            with self._changed:
                left = len(self._waiting)
                self._waiting.clear()
            self._notes.append(f"{self.name} did not finish in time; {left} lines never reached it.")
        if self.dropped:
            self._notes.append(f"{self.name} was too slow: {self.dropped} lines were dropped in all.")

    def notes(self) -> list[str]:
        """What there is to tell since the last time; call from any one thread."""
        found = []
        while self._notes:
            found.append(self._notes.popleft())
        return found

    def _put(self, method: str, *arguments: Any) -> None:
        with self._changed:
            if len(self._waiting) < self._most:
                self._waiting.append((method, arguments))
                self._changed.notify()
                return
            self.dropped += 1
            first = self.dropped == 1
        if first:
            self._notes.append(
                f"{self.name} is too slow: {self._most} lines wait for it, and further ones are dropped; training goes "
                "on without waiting for it."
            )

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                method, arguments = self._waiting.popleft() if self._waiting else ("close", ())
            try:
                getattr(self._tracker, method)(*arguments)
            except Exception as error:
                if not self._failed:
                    self._failed = True
                    self._notes.append(failure(self.name, error))
            if method == "close":
                return


def failure(name: str, error: Exception) -> str:
    """What is told, once, of a tracker that raises."""
    return f"{name} failed ({type(error).__name__}: {error}); training goes on without waiting for it."
