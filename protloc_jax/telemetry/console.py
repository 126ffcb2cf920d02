"""Lines and a progress bar for people; plain lines where the output is a file."""

from __future__ import annotations

import sys
from typing import Protocol, TextIO


class Console(Protocol):
    """Where messages for people go."""

    def line(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def progress(self, step: int, total: int, text: str) -> None: ...

    def close(self) -> None: ...


class SilentConsole:
    """Says nothing: all processes but the first."""

    def line(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def progress(self, step: int, total: int, text: str) -> None:
        pass

    def close(self) -> None:
        pass


class PlainConsole:
    """One line a message, flushed, for log files. Warnings carry the word "warning"."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def line(self, text: str) -> None:
        print(text, file=self._stream or sys.stdout, flush=True)

    def warn(self, text: str) -> None:
        self.line(f"warning: {text}")

    def progress(self, step: int, total: int, text: str) -> None:
        self.line(f"step {step}/{total} | {text}")

    def close(self) -> None:
        pass


class BarConsole:
    """A live bar at the bottom of a terminal (rich), messages above it."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (TextColumn("step {task.completed:.0f}/{task.total:.0f}"), BarColumn(bar_width=20))
        self._bar = Progress(*columns, TextColumn("{task.description}", markup=False))
        self._task = None

    def line(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False)

    def warn(self, text: str) -> None:
        self._bar.console.print(f"warning: {text}", style="yellow", markup=False, highlight=False)

    def progress(self, step: int, total: int, text: str) -> None:
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task("", total=total)
        self._bar.update(self._task, completed=step, total=total, description=text)

    def close(self) -> None:
        self._bar.stop()


def make_console(*, process_index: int = 0) -> Console:
    """The console that fits: silent except on process 0, a bar on a terminal, else plain lines."""
    if process_index != 0:
        return SilentConsole()
    return BarConsole() if sys.stdout.isatty() else PlainConsole()
