"""Worker processes that never outlive the process that started them."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading


def follow_parent() -> None:
    """Call in a worker: it ends when its parent dies, even by kill -9, and leaves Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait_for_parent, name="follow-parent", daemon=True).start()


def _wait_for_parent() -> None:
    # A killed parent closes no queue, so a worker blocked on one would stay for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
