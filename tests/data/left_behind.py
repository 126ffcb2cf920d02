"""What processes and shared memory are still there; tests of loaders share it."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path


def wait_until(done, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.02)
    return done()


def in_use_elsewhere() -> set[str]:
    """Shared memory that other living processes map: the loaders of tests that run beside this one."""
    names: set[str] = set()
    for folder in Path("/proc").glob("[0-9]*"):
        if folder.name != str(os.getpid()):
            with contextlib.suppress(OSError):  # it ended, or is not ours
                lines = (folder / "maps").read_text().splitlines()
                names |= {Path(line.split()[-1]).name for line in lines if "/dev/shm/" in line}
    return names


def nothing_left(before: set[str], spare: int = 0) -> bool:
    """Whether the shared memory that has come since goes away, apart from what other living processes use.

    spare: pieces that may stay: Python tells its resource tracker of a piece only after having made it, and a worker
    that is killed between the two leaves that one piece behind.
    """
    left = set(os.listdir("/dev/shm")) - before
    return wait_until(lambda: len(left & set(os.listdir("/dev/shm")) - in_use_elsewhere()) <= spare, 15)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
