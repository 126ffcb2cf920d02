"""One job a run directory: a second one is refused; the locks of the dead are taken over, and waited for."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import tiny_training as tiny

from protloc_jax.train import run_lock
from protloc_jax.train.run_lock import LEASE_SECONDS, LOCK_FILE, RunDirectoryInUse, RunLock, hold_directory

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


def die_elsewhere(directory, *, seconds_left):
    """The lock of a job on another host, whose lease has so many seconds left."""
    write(directory, host="elsewhere", pid=1)
    touched = time.time() - LEASE_SECONDS + seconds_left
    os.utime(directory / LOCK_FILE, (touched, touched))


def test_a_job_started_again_waits_out_the_lease_of_a_dead_host(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "LOOK_SECONDS", 0.02)
    die_elsewhere(tmp_path, seconds_left=1.0)
    said: list[str] = []
    begun = time.monotonic()
    with hold_directory(tmp_path, say=said.append):
        assert time.monotonic() - begun > 0.5
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert len(said) == 2 and "job on another host (process 1 on elsewhere" in said[0]
    assert "Waiting for a sign of life, at most 1 s." in said[0]
    assert "took over the lock of a job not heard of for 150 s" in said[1]


@pytest.mark.parametrize("sign", ["touched", "taken over", "released"])
def test_a_sign_of_life_ends_the_waiting(tmp_path, monkeypatch, sign):
    monkeypatch.setattr(run_lock, "LOOK_SECONDS", 0.02)
    die_elsewhere(tmp_path, seconds_left=100.0)

    def live(text):
        said.append(text)
        if len(said) > 1:
            return
        if sign == "touched":
            os.utime(tmp_path / LOCK_FILE)
        elif sign == "taken over":
            write(tmp_path, host="a third one", token="another")
        else:
            (tmp_path / LOCK_FILE).unlink()

    said: list[str] = []
    begun = time.monotonic()
    if sign == "released":
        with hold_directory(tmp_path, say=live):
            assert said[1:] == []
    else:
        with pytest.raises(RunDirectoryInUse, match="in use by a job on another host"):
            hold_directory(tmp_path, say=live).__enter__()
        assert (tmp_path / LOCK_FILE).exists()
    assert len(said) == 1 and time.monotonic() - begun < 60


def test_a_lock_of_another_is_not_kept_alive(tmp_path, monkeypatch):
    """A job that was suspended for longer than its lease must not speak for the one that took its place."""
    monkeypatch.setattr(run_lock, "TOUCH_SECONDS", 0.01)
    with RunLock(tmp_path):
        write(tmp_path, host="elsewhere")
        # One touch may have been under way.
        time.sleep(0.1)
        os.utime(tmp_path / LOCK_FILE, (0, 0))
        time.sleep(0.2)
        assert (tmp_path / LOCK_FILE).stat().st_mtime == 0


def test_a_second_job_is_refused_while_the_first_runs(tmp_path):
    refused = []

    def evaluate(state, done, give_up):
        if done == 3:
            with pytest.raises(ValueError, match=f"in use by another job .process {os.getpid()} on "):
                tiny.train(tmp_path)
            refused.append(done)
        return {"f1": 0.0}

    tiny.train(tmp_path, "run.eval_every=3", "optim.steps=4", "optim.warmup_epochs=0", evaluate=evaluate)
    assert refused == [3]
    assert not (tmp_path / "run.lock").exists()
