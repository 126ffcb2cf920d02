"""Worker processes that never outlive the process that started them."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading

# For how long a worker outlives a SIGTERM: longer than its parent needs to save.
OUTLIVE_SECONDS = 90


def follow_parent() -> None:
    """Call in a worker: it ends when its parent dies, even by kill -9, and leaves Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait_for_parent, name="follow-parent", daemon=True).start()


def outlive_sigterm() -> None:
    """Call in a worker that feeds a loop: its parent, which a scheduler signals as well, ends the work and then it."""
    # An alarm without a handler ends the process, so that nobody who means this worker alone waits for ever.
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(OUTLIVE_SECONDS))


def _wait_for_parent() -> None:
    # A killed parent closes no queue, so a worker blocked on one would stay for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
