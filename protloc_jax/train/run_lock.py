"""One job at a time in a run directory.

The lock is a small JSON file: host, process, when that process started, and a token. Its holder touches it every half
minute. It is stale, and taken over, when its process is gone (same host) or has not touched it for the lease (another
host, whose processes cannot be seen).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from protloc_jax.devices import any_process
from protloc_jax.launch.leaving import before_leaving

LOCK_FILE = "run.lock"
LEASE_SECONDS = 150.0
TOUCH_SECONDS = 30.0
# How often a job that waits for a lease to run out looks at it.
LOOK_SECONDS = 1.0


class RunDirectoryInUse(ValueError):
    """Another job works in this run directory; the message names its host and process."""


class LeaseRuns(RunDirectoryInUse):
    """A job on another host holds the run directory, or died there a moment ago; `sign` is new at each sign of life."""

    def __init__(self, message: str, *, seconds: float, sign: tuple[object, float]) -> None:
        super().__init__(message)
        self.seconds, self.sign = seconds, sign


class RunLock:
    """Holds a run directory for this process; a context manager.

    Raises RunDirectoryInUse when a live job has it. `note` says what was taken over from a dead one ("" = nothing).
    """

    def __init__(self, directory: Path, *, lease: float = LEASE_SECONDS) -> None:
        self.path = directory / LOCK_FILE
        self.note = ""
        self._lease = lease
        self._token = uuid.uuid4().hex
        self._released = threading.Event()

    def __enter__(self) -> RunLock:
        with _guard(self.path.with_suffix(".guard")):
            holder = _read(self.path)
            if holder is not None:
                self._judge(holder)
            temporary = self.path.with_suffix(f".{self._token[:8]}")
            temporary.write_text(json.dumps(_me(self._token)))
            temporary.replace(self.path)
        threading.Thread(target=self._keep_touching, name="run-lock", daemon=True).start()
        # The next attempt may start on another host, where it could only wait for the lease to end.
        before_leaving(self._release)
        return self

    def __exit__(self, *exception: object) -> None:
        self._release()

    def _release(self) -> None:
        self._released.set()
        if (_read(self.path) or {}).get("token") == self._token:
            self.path.unlink(missing_ok=True)

    def _judge(self, holder: dict[str, Any]) -> None:
        who = f"process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"
        if holder.get("host") == socket.gethostname():
            if _alive(holder):
                raise RunDirectoryInUse(f"{self.path.parent} is in use by another job ({who}).")
            self.note = f"took over the lock of a job that has ended ({who})"
            return
        try:
            age, touched = _age(self.path), self.path.stat().st_mtime
        except FileNotFoundError:  # released in this moment
            return
        if age < self._lease:
            raise LeaseRuns(
                f"{self.path.parent} is in use by a job on another host ({who}), last heard of {age:.0f} s ago. If it "
                f"is dead, start again in {self._lease - age:.0f} s or delete {self.path}.",
                seconds=self._lease - age,
                sign=(holder.get("token"), touched),
            )
        self.note = f"took over the lock of a job not heard of for {age:.0f} s ({who})"

    def _keep_touching(self) -> None:
        while not self._released.wait(TOUCH_SECONDS):
            # Gone or unreachable for a moment: the next touch may work, and a run is not stopped for this.
            with contextlib.suppress(OSError):
                if (_read(self.path) or {}).get("token") == self._token:
                    os.utime(self.path)


@contextlib.contextmanager
def hold_directory(out: Path, *, say: Callable[[str], None]) -> Iterator[None]:
    """A run directory, made and locked by the first process for all of them. Every process calls it.

    Where a job on another host holds it, that job is given the time of its lease to show that it lives: a job that is
    started again after its host died waits, and then goes on. Raises ValueError (RunDirectoryInUse) on all processes
    where the directory cannot be written or is in use.
    """
    first = jax.process_index() == 0
    lock = RunLock(out)
    lease: LeaseRuns | None = None
    while True:
        error: Exception | None = None
        waits = False
        if first:
            try:
                out.mkdir(parents=True, exist_ok=True)
                lock.__enter__()
            except OSError as raised:
                error = ValueError(f"run directory {out} cannot be written: {raised}")
            except LeaseRuns as raised:
                waits = lease is None or raised.sign == lease.sign
                error = None if waits else raised
                if lease is None:
                    say(f"{raised} Waiting for a sign of life, at most {raised.seconds:.0f} s.")
                lease = lease or raised
            except ValueError as raised:
                error = raised
        if any_process(error is not None):
            raise error or ValueError(f"the first process could not use run directory {out}.")
        # All of them come back here every second or so: nobody sits in a collective until its time-out.
        if not any_process(waits):
            break
        time.sleep(LOOK_SECONDS)
    if lock.note:
        say(lock.note)
    try:
        yield
    finally:
        if first:
            lock.__exit__()


@contextlib.contextmanager
def _guard(path: Path) -> Iterator[None]:
    """Makes look-and-take one action among processes of this host (and others, where the file system locks)."""
    with open(path, "w") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _me(token: str) -> dict[str, Any]:
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "started": _started(pid),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "token": token,
    }


def _read(path: Path) -> dict[str, Any] | None:
    """The holder, or None when there is no lock. A lock that does not parse counts as one of a dead process."""
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        return {"host": socket.gethostname(), "pid": 0}
    return record if isinstance(record, dict) else {"host": socket.gethostname(), "pid": 0}


def _alive(holder: dict[str, Any]) -> bool:
    pid = holder.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    started = _started(pid)
    # The number may have been given to a new process since (always so for 1 or 7 in a container).
    return started is None or holder.get("started") is None or started == holder["started"]


def _started(pid: int) -> str | None:
    """Boot and clock tick at which a process started, or None where /proc does not tell; "ended" for a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return "ended" if fields[0] in "ZX" else f"{boot}/{fields[19]}"


def _age(path: Path) -> float:
    """Seconds since the file was touched, by the clock of the file system that holds it."""
    probe = path.with_suffix(f".clock{os.getpid()}")
    try:
        probe.touch()
        return max(0.0, probe.stat().st_mtime - path.stat().st_mtime)
    finally:
        probe.unlink(missing_ok=True)
