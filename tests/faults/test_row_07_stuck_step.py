"""A process that is alive and does not move: the watchdog fires, writes the stacks, and every process ends non-zero."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from quick_compilation import forced_devices

PROGRAM = Path(__file__).parent / "stuck_run.py"
LIMIT = 2.0


def start(out: Path, **place: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(PROGRAM), str(out), f"run.watchdog_seconds={LIMIT:g}"]
    environ = forced_devices(1) | place
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_step_that_sleeps_ends_the_run_with_its_stacks(tmp_path):
    with start(tmp_path / "run") as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            lines = iter(process.stdout.readline, "")
            assert any(line == "asleep\n" for line in lines), process.stderr.read()
            began = time.monotonic()
            assert process.wait(120) == 79
            took, said = time.monotonic() - began, process.stderr.read()
        finally:
            process.kill()
    # Steps before it took 0.1 s or so, so that the limit is that of the settings. The rest is a busy machine's.
    assert LIMIT - 1 < took < LIMIT + 20
    stacks = tmp_path / "run" / "stuck" / "0-6.txt"
    assert "in sleep_in_the_step" in stacks.read_text()
    assert said.count("process 0: step 6 has taken") == 1 and str(stacks) in said


@pytest.mark.slow  # two processes that join and compile
def test_all_of_two_processes_end_when_one_is_stuck(tmp_path):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    shared = {"PROTLOC_COORDINATOR": f"localhost:{port}", "PROTLOC_PROCESSES": "2"}
    started = [start(tmp_path / "run", **shared, PROTLOC_PROCESS=str(index)) for index in range(2)]
    try:
        outputs = [process.communicate(timeout=300) for process in started]
    finally:
        for process in started:
            process.kill()
    assert started[1].returncode == 79 and started[0].returncode != 0, outputs
    assert "in sleep_in_the_step" in (tmp_path / "run" / "stuck" / "1-6.txt").read_text()
