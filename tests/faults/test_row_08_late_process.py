"""A process that comes late is waited for; one that never comes is named, and the others end with a clear message."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

from protloc_jax.train.exits import Exit

JOIN = """
import sys, time
time.sleep(float(sys.argv[1]))
from protloc_jax.launch.start import start_up
print(start_up().words, flush=True)
import numpy as np
from jax.experimental import multihost_utils
import jax
print("sum", int(multihost_utils.process_allgather(np.asarray([jax.process_index() + 1])).sum()), flush=True)
"""


def environ(process: int, port: int, **more: str) -> dict[str, str]:
    place = {"PROTLOC_COORDINATOR": f"localhost:{port}", "PROTLOC_PROCESSES": "2", "PROTLOC_PROCESS": str(process)}
    return {**os.environ, "JAX_PLATFORMS": "cpu", **place, **more}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def start(command: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_the_late_one_is_waited_for():
    port, late = free_port(), 4.0
    began = time.monotonic()
    # Each of the two is the late one once: the others wait for process 0 in another way than it for them.
    for delays in ((0.0, late), (late, 0.0)):
        runs = [start([sys.executable, "-c", JOIN, str(delays[i])], environ(i, port)) for i in range(2)]
        outputs = [run.communicate(timeout=300)[0] for run in runs]
        for index, (run, output) in enumerate(zip(runs, outputs, strict=True)):
            assert run.returncode == 0, output
            assert f"process {index} of 2, meeting at localhost:{port}" in output and "sum 3" in output
    assert time.monotonic() - began > 2 * late


def test_the_one_that_never_comes_is_named_by_a_command(tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "protloc_jax.cli.main", "pretrain", f"run.out={tmp_path / 'run'}"]
    for process, words in (
        (0, "waited 3 s in vain for process(es) 1 of 2 (here are: 0 on "),
        (1, f"waited 3 s for process 0, and nobody answers at localhost:{port}"),
    ):
        with start(command, environ(process, port, PROTLOC_RENDEZVOUS_SECONDS="3")) as run:
            output = run.communicate(timeout=300)[0]
        assert run.returncode == Exit.LOST, output
        lines = output.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("protloc pretrain: "), output
        assert words in lines[0] and "PROTLOC_RENDEZVOUS_SECONDS" in lines[0]
    assert not (tmp_path / "run").exists()
