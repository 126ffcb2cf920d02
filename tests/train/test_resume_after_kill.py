"""SIGTERM to a real training process, and another loop around the same steps: the run equals the undisturbed one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_training as tiny

from protloc_jax.train.checkpoint import load_weights

PROGRAM = Path(__file__).parent / "tiny_training.py"
ITEMS = ("params", "teacher", "buffers", "opt_state", "counters")
# Long enough for a signal to fall between any two things the loop does, short enough for a test.
SECONDS_A_BATCH = 0.1


def start(out: Path, cache: Path, *overrides: str) -> subprocess.Popen[str]:
    """A training process of its own, in its own process group; its output goes to a file beside the run."""
    environ = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    with open(out.with_suffix(".log"), "a") as log:  # the process has its own copy
        return subprocess.Popen(
            [sys.executable, str(PROGRAM), str(out), str(cache), str(SECONDS_A_BATCH), *tiny.SETTINGS, *overrides],
            env=environ,
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )


def finish(out: Path, cache: Path, *overrides: str) -> None:
    process = start(out, cache, *overrides)
    assert process.wait(600) == 0, out.with_suffix(".log").read_text()


def lines(out: Path) -> int:
    file = out / "metrics.jsonl"
    return file.read_text().count("\n") if file.exists() else 0


def wait_for(process: subprocess.Popen[str], condition, seconds: float = 600) -> bool:
    """Poll until the condition holds; False when the process ended first."""
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < end, "the run hangs"
        time.sleep(0.005)
    return True


def state(out: Path) -> list[bytes]:
    """Every bit of the newest checkpoint: parameters, teacher, centre, moments, counters, key."""
    return [data for item in ITEMS for data in tiny.bits(load_weights(out, item)[0])]


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache) -> Path:
    """The uninterrupted run of 20 steps."""
    out = tmp_path_factory.mktemp("whole") / "run"
    finish(out, cache)
    assert load_weights(out)[1]["step"] == 20
    return out


def check_equal(out: Path, whole: Path) -> None:
    assert tiny.losses(out) == tiny.losses(whole)
    assert sorted(tiny.losses(out)) == list(range(1, 21))
    assert state(out) == state(whole)
    names = {p.name for p in (out / "checkpoints").iterdir()}
    assert all(name.isdecimal() for name in names), f"left behind: {names}"


def test_sigterm_saves_and_the_run_goes_on(tmp_path, whole, cache):
    out = tmp_path / "run"
    process = start(out, cache, "run.checkpoint_every=0")
    wait_for(process, lambda: lines(out) >= 4)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(120) == 75, out.with_suffix(".log").read_text()
    step = load_weights(out)[1]["step"]
    assert 4 <= step < 20
    finish(out, cache)
    check_equal(out, whole)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0])
def test_sigterm_at_any_time_from_the_start(tmp_path, whole, cache, seconds):
    """During start-up, compilation and data warm-up too: it ends by its own means, and the run can go on."""
    out = tmp_path / "run"
    process = start(out, cache)
    wait_for(process, lambda: (out / "run.lock").exists())
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(120) in (0, 75), out.with_suffix(".log").read_text()
    finish(out, cache)
    check_equal(out, whole)


def test_two_fresh_runs_agree_whatever_the_loop_around_the_step(tmp_path, whole, cache):
    """Equal seed, equal bits; how often is logged, saved and evaluated changes nothing."""
    out = tmp_path / "run"
    finish(out, cache, "run.log_every=7", "run.checkpoint_every=0", "run.keep_last=1")
    assert tiny.losses(out) == tiny.losses(whole)
    assert state(out) == state(whole)
