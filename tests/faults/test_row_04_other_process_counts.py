"""A run of two processes starts, saves and stops on one's signal; two, four or one alone go on from it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from quick_compilation import forced_devices

sys.path.append(str(Path(__file__).parent.parent / "train"))
import tiny_training as tiny

from protloc_jax.train.checkpoint import load_weights
from protloc_jax.train.checkpoint_files import steps_in
from protloc_jax.train.digest import named_leaves

PROGRAM = Path(__file__).parent.parent / "train" / "two_processes.py"


def run(out: Path, *overrides: str, processes: int, devices: int, signal_at: int = -1) -> list[tuple[int, str]]:
    """Exit status and output of every process."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    started = []
    for index in range(processes):
        environ = forced_devices(devices)
        if processes > 1:
            environ |= {
                "PROTLOC_COORDINATOR": f"localhost:{port}",
                "PROTLOC_PROCESSES": str(processes),
                "PROTLOC_PROCESS": str(index),
            }
        command = [sys.executable, str(PROGRAM), str(out), str(signal_at), *overrides]
        started.append(
            subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    try:
        outputs = [p.communicate(timeout=600)[0] for p in started]
    finally:
        for p in started:
            p.kill()
    return [(p.returncode, text) for p, text in zip(started, outputs, strict=True)]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """A run of two processes that stopped because the second got a signal."""
    out = tmp_path_factory.mktemp("two") / "run"
    # Tiny leaves are split too, so that both processes own parts of the state.
    results = run(out, processes=2, devices=2, signal_at=7)
    text = "\n".join(text for _, text in results)
    assert [code for code, _ in results] == [75, 75], text
    ended = {line for _, t in results for line in t.splitlines() if line.startswith("ended")}
    assert len(ended) == 1, f"the processes stopped at different steps: {ended}"
    step = int(ended.pop().split()[1])
    assert 8 <= step <= 10
    assert load_weights(out)[1]["step"] == step
    # Process 0 alone writes for people and files.
    assert "step 0 of 20" in results[0][1] and "step 0 of 20" not in results[1][1]
    assert sorted(tiny.losses(out)) == list(range(1, step + 1))
    return out


def check_against_one_process(out: Path, tmp_path: Path) -> None:
    """The same samples, and the same numbers up to the order of a sum over devices."""
    tiny.train(tmp_path / "alone")
    alone, together = tiny.losses(tmp_path / "alone"), tiny.losses(out)
    assert sorted(together) == list(range(1, 21))
    np.testing.assert_allclose([together[s] for s in alone], list(alone.values()), rtol=1e-5)
    ours, theirs = load_weights(out)[0], load_weights(tmp_path / "alone")[0]
    for name, leaf in named_leaves(ours).items():
        np.testing.assert_allclose(leaf, named_leaves(theirs)[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("processes", "devices"), [(1, 4), (4, 1), pytest.param(2, 2, marks=pytest.mark.slow)])
def test_goes_on_with_other_numbers_of_processes(tmp_path, stopped, processes, devices):
    out = tmp_path / "run"
    shutil.copytree(stopped, out)
    begun = steps_in(out / "checkpoints")[-1]
    # Saved by the first process's clock alone, whose interval is over after every step.
    clock = ("run.checkpoint_every=0", "run.checkpoint_minutes=1e-6")
    results = run(out, *clock, processes=processes, devices=devices)
    assert [code for code, _ in results] == [0] * processes, "\n".join(text for _, text in results)
    saved, last = steps_in(out / "checkpoints")
    assert begun < saved < last == 20
    assert "resumed from" in results[0][1]
    check_against_one_process(out, tmp_path)


def test_a_directory_in_use_is_refused_by_all(tmp_path):
    (tmp_path / "run").mkdir()
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from protloc_jax.train.run_lock import RunLock\n"
            "with RunLock(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)",
            str(tmp_path / "run"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        results = run(tmp_path / "run", processes=2, devices=1, signal_at=-1)
    finally:
        holder.kill()
        holder.communicate()
    assert all(code != 0 for code, _ in results)
    assert f"in use by another job (process {holder.pid}" in results[0][1]
    assert "the first process could not use run directory" in results[1][1]


@pytest.mark.slow
@pytest.mark.parametrize("counts", [(2, 4, 1), (4, 1, 2, 4)])
def test_one_number_of_processes_after_another(tmp_path, counts):
    """Four devices in all, each part but the last stopped on the way. Slow: seven and eleven processes start."""
    out = tmp_path / "run"
    for number, processes in enumerate(counts, 1):
        last = number == len(counts)
        stop = -1 if last else 20 * number // (len(counts) + 1)
        results = run(out, processes=processes, devices=4 // processes, signal_at=stop)
        text = "\n".join(text for _, text in results)
        assert [code for code, _ in results] == [0 if last else 75] * processes, text
        assert ("resumed from" in results[0][1]) == (number > 1)
        # One process of one device reads what they wrote, every digest checked.
        assert load_weights(out)[1]["step"] == len(tiny.losses(out))
    check_against_one_process(out, tmp_path)
