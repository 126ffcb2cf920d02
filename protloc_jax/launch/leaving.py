"""How a process of several leaves: done, on an error of its own, or because another was lost."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import re
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from protloc_jax.launch.peers import Peers

# Exit status where another process of the run was lost (`protloc_jax.train.exits.Exit.LOST`).
LOST = 69
# Statuses that all processes have agreed on: done, and stopped on a signal.
AGREED = (0, 75)
# How collectives and the coordination service fail when a process at the other end is gone.
BETWEEN_PROCESSES = re.compile(
    r"gloo|nccl|connection (closed|reset|refused)|broken pipe|socket closed|coordination ?service|UNAVAILABLE"
    r"|DEADLINE_EXCEEDED|heartbeat|barrier",
    re.IGNORECASE,
)

_peers: Peers | None = None
_failed = ""
_undo: list[Callable[[], object]] = []


def set_up(peers: Peers) -> None:
    """From now on this process leaves with a word to its peers, and ends when one of them is lost."""
    global _peers
    _peers = peers
    sys.excepthook = _hook(sys.excepthook)
    # Hooks run in reverse order of their registration: this one before jax's, which waits for everybody.
    atexit.register(_at_exit)
    peers.watch(leave_lost)


def before_leaving(undo: Callable[[], object]) -> None:
    """Have `undo` called where the process leaves at once and no `finally` runs; it must not wait for the others."""
    _undo.append(undo)


def leave_lost(words: str) -> NoReturn:
    """Name the process that was lost and end this one with status 69, whatever its main thread is waiting for."""
    # Not print: the main thread may hold the lock of the stream. A progress bar may have hidden the cursor.
    shown = "\x1b[?25h" if os.isatty(2) else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{shown}\nprotloc: {words} (status {LOST}).\n".encode())
    _end_at_once(LOST)


def on_error(error: BaseException) -> None:
    """Call with an exception that ends the process, before it is told to anybody.

    Does not return where the loss of another process explains it. Else the others are told, and it returns.
    """
    global _failed
    if _peers is None or _failed:
        return
    if _between_processes(error):
        _peers.explain(_peers.limit * 1.5)
    _failed = f"{type(error).__name__}: {error}".splitlines()[0][:500]
    _peers.part(_failed)


def leave(status: int) -> int:
    """Call with the status that the process will end with. Returns it where all processes end alike.

    Where this one ends on its own, the others are told, and the process ends here: jax would first wait for them.
    """
    if _peers is None or (status in AGREED and not _failed):
        return status
    end(status)


def end(status: int) -> NoReturn:
    """End this process now, from whichever thread, with a word to the others: they get time for their own endings.

    For those who cannot wait for the main thread: it may be stuck, or compiling.
    """
    if _peers is not None and not _failed:
        _peers.part(f"status {status}")
    _end_at_once(status)


def _between_processes(error: BaseException | None) -> bool:
    seen = 0
    while error is not None and seen < 20:
        if BETWEEN_PROCESSES.search(f"{type(error).__name__}: {error}"):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


def _hook(before):
    def hook(kind, error, trace) -> None:
        if not isinstance(error, KeyboardInterrupt):
            on_error(error)
        before(kind, error, trace)

    return hook


def _at_exit() -> None:
    assert _peers is not None
    if _failed or isinstance(getattr(sys, "last_value", None), BaseException):
        if not _failed:
            _peers.part(f"{type(sys.last_value).__name__}")
        _end_at_once(1)
    _peers.part()


def _end_at_once(status: int) -> NoReturn:
    """End without Python's and jax's clean-up, which would wait for the other processes; own children end too."""
    for undo in _undo:
        with contextlib.suppress(Exception):
            undo()
    for child in multiprocessing.active_children():
        with contextlib.suppress(Exception):
            child.kill()
    # The main thread may be in the middle of a write, holding the lock.
    try:
        flushing = threading.Thread(target=_flush, daemon=True)
        flushing.start()
        flushing.join(1.0)
    except RuntimeError:  # at the interpreter's end no thread starts any more, and none holds the lock
        _flush()
    os._exit(status)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
