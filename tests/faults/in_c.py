"""A main thread that sits in C, as in a compiler or a device's runtime: it runs no bytecode, whatever comes."""

from __future__ import annotations

import ctypes
import threading


def sit_in_c(seconds: float) -> None:
    """Return after so many seconds, in which signals cannot reach the calling thread's Python code."""
    mutex, c = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    c.pthread_mutex_lock(mutex)
    threading.Timer(seconds, lambda: c.pthread_mutex_unlock(mutex)).start()
    c.pthread_mutex_lock(mutex)
