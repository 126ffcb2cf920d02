"""Two processes joined by `jax.distributed` train the same run as one device: same examples, same losses."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "train"))
from equivalence_runs import environment, last_line_of  # noqa: E402
from equivalence_runs import runs as one_process_runs  # noqa: E402
from small_step import BATCH, batch_number  # noqa: E402


@pytest.fixture(scope="module")
def processes():
    """What each of the two processes printed."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    place = {"PROTLOC_COORDINATOR": f"localhost:{port}", "PROTLOC_PROCESSES": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, str(HERE / "two_process_worker.py")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(devices=4) | place | {"PROTLOC_PROCESS": str(index)},
        )
        for index in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=1500) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, errors) in zip(started, outputs, strict=True):
        assert process.returncode == 0, errors[-4000:]
    return [last_line_of(out) for out, _ in outputs]


def test_both_processes_report_the_same(processes):
    assert processes[0] == processes[1]


def test_the_global_batch_holds_the_same_examples_in_the_same_order(processes):
    expected = [batch_number(number).example.tolist() for number in range(20)]
    assert processes[0]["float64"]["examples"] == expected
    assert processes[0]["float64"]["position"] == 20 * BATCH


def test_losses_equal_those_of_one_device(processes, tmp_path_factory):
    one = {precision: one_process_runs(tmp_path_factory, precision)["one"] for precision in ("float32", "float64")}
    np.testing.assert_allclose(processes[0]["float64"]["losses"], one["float64"]["losses"], rtol=1e-8)
    difference = np.abs(np.divide(processes[0]["float32"]["losses"], one["float32"]["losses"][:5]) - 1)
    assert difference[0] < 1e-5
    assert difference.max() < 1e-4
