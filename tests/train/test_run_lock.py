"""One job a run directory; the locks of the dead are no obstacle."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from protloc_jax.train import run_lock
from protloc_jax.train.run_lock import LOCK_FILE, RunDirectoryInUse, RunLock

HOLD = """
import sys, time
from pathlib import Path
from protloc_jax.train.run_lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_refused_while_held_and_free_after_a_kill(tmp_path, holder):
    with pytest.raises(
        RunDirectoryInUse, match=rf"{tmp_path} is in use .*process {holder.pid} on {socket.gethostname()}"
    ):
        RunLock(tmp_path).__enter__()
    os.kill(holder.pid, signal.SIGKILL)
    # Not yet waited for: a zombie still has its number, and is dead all the same.
    end = time.monotonic() + 20
    while run_lock._started(holder.pid) != "ended" and time.monotonic() < end:
        time.sleep(0.01)
    with RunLock(tmp_path) as lock:
        assert f"process {holder.pid}" in lock.note and "took over" in lock.note
        with pytest.raises(RunDirectoryInUse):
            RunLock(tmp_path).__enter__()
    assert not (tmp_path / LOCK_FILE).exists()
    with RunLock(tmp_path) as lock:
        assert lock.note == ""


def write(directory, **changes):
    record = {**run_lock._me("someone"), **changes}
    (directory / LOCK_FILE).write_text(json.dumps(record))


def test_a_reused_process_number_is_not_the_holder(tmp_path):
    write(tmp_path, started="another boot/123")
    with RunLock(tmp_path) as lock:
        assert "has ended" in lock.note


def test_another_host_is_believed_for_the_lease(tmp_path):
    write(tmp_path, host="elsewhere", pid=1)
    with pytest.raises(RunDirectoryInUse, match=r"another host .*elsewhere.*start again in 1[45]\d s or delete"):
        RunLock(tmp_path).__enter__()
    old = time.time() - 200
    os.utime(tmp_path / LOCK_FILE, (old, old))
    with RunLock(tmp_path) as lock:
        assert "not heard of for 200 s" in lock.note


def test_the_holder_is_heard_of(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "TOUCH_SECONDS", 0.02)
    with RunLock(tmp_path):
        os.utime(tmp_path / LOCK_FILE, (0, 0))
        end = time.monotonic() + 20
        while (tmp_path / LOCK_FILE).stat().st_mtime == 0:
            assert time.monotonic() < end
            time.sleep(0.01)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}'])
def test_a_broken_lock_file_is_taken_over(tmp_path, text):
    (tmp_path / LOCK_FILE).write_text(text)
    if text == '{"pid": "x"}':
        os.utime(tmp_path / LOCK_FILE, (0, 0))
    with RunLock(tmp_path) as lock:
        assert "took over" in lock.note


def test_a_lock_lost_to_another_is_not_removed(tmp_path):
    with RunLock(tmp_path):
        write(tmp_path)
    assert (tmp_path / LOCK_FILE).exists()


def test_of_many_at_once_one_wins(tmp_path):
    """Four processes race for the lock of a dead one."""
    write(tmp_path, pid=2**22 + 1)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        for _ in range(4)
    ]
    try:
        end = time.monotonic() + 120
        while sum(p.poll() is not None for p in racers) < 3:
            assert time.monotonic() < end
            time.sleep(0.02)
        (winner,) = [p for p in racers if p.poll() is None]
        assert winner.stdout is not None and winner.stdout.readline() == "held\n"
    finally:
        for p in racers:
            p.kill()
            p.communicate()
