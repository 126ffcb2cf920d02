"""Fault row 27: Ctrl-C and killed data workers end the parent soon, by name; no process or shared memory is left."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "train"))
sys.path.append(str(Path(__file__).parent.parent / "data"))
import tiny_training as tiny
from left_behind import alive, nothing_left, wait_until
from small_records import pack

from protloc_jax.data.config import DataConfig
from protloc_jax.data.loader import Loader
from protloc_jax.train.experiment import RunConfig


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    return DataConfig(records=str(pack(tmp_path_factory.mktemp("records") / "set")), seed=3, weak_label="plate")


def start_and_stop(config: DataConfig, cycles: int) -> None:
    """Worker processes closed in the middle, forgotten, and closed before they gave anything."""
    config = replace(config, workers=1, threads=1)
    for number in range(cycles):
        loader = Loader(config, global_batch=6, start=number)
        if number % 3 < 2:
            next(loader)
        if number % 3 == 1:
            del loader
            gc.collect()
        else:
            loader.close()


@pytest.mark.parametrize("cycles", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_starting_and_stopping_leaves_no_process_and_no_shared_memory(config: DataConfig, cycles: int) -> None:
    shared = set(os.listdir("/dev/shm"))
    start_and_stop(config, cycles)
    assert wait_until(lambda: not multiprocessing.active_children(), 10)
    assert nothing_left(shared)


STREAM = """
import sys, time
from protloc_jax.data.loader import Loader
from protloc_jax.data.config import DataConfig
if __name__ == "__main__":
    with Loader(DataConfig(records=sys.argv[1], workers=2), global_batch=4) as loader:
        next(loader)
        print("begun", flush=True)
        for batch in loader:
            time.sleep(0.05)  # as a training step does; in a tight loop jax's garbage collector hook eats the interrupt
"""


PRETRAIN = """
import sys
from protloc_jax.cli.main import main
if __name__ == "__main__":
    sys.exit(main(["pretrain", *sys.argv[2:], f"data.records={sys.argv[1]}"]))
"""
TINY = (*tiny.SETTINGS, "optim.steps=1000000", "run.checkpoint_every=0", "data.workers=2")


def workers_of(parent: int) -> list[int]:
    """Process numbers of the data workers that a process has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            of = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if of == parent and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def lines(file: Path) -> int:
    return file.read_text().count("\n") if file.exists() else 0


CASES = [
    ("pretrain", "a worker killed", 71, "exit code -9): killed, or out of memory? Fewer"),
    ("pretrain", "ctrl-c", 75, ""),
    ("loader", "a worker killed", 1, "exit code -9): killed, or out of memory? Fewer"),
    ("loader", "ctrl-c", -signal.SIGINT, "KeyboardInterrupt"),
    ("loader", "killed", -signal.SIGKILL, ""),
]


@pytest.mark.parametrize(
    ("program", "what", "status", "cause"),
    [CASES[0], *(pytest.param(*case, marks=pytest.mark.slow) for case in CASES[1:])],
    ids=lambda value: str(value).replace(" ", "-") if isinstance(value, str) and len(value) < 20 else "",
)
def test_ctrl_c_and_kill_leave_no_orphans(
    config: DataConfig, tmp_path: Path, program: str, what: str, status: int, cause: str
) -> None:
    """The process ends within ten seconds and says why; neither processes nor shared memory outlive it."""
    shared = set(os.listdir("/dev/shm"))
    script, run = tmp_path / "stream.py", tmp_path / "run"
    script.write_text(STREAM if program == "loader" else PRETRAIN)
    command = [sys.executable, str(script), config.records, *([] if program == "loader" else [*TINY, f"run.out={run}"])]
    with (
        open(tmp_path / "said", "w") as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True) as process,
    ):
        assert process.stdout is not None
        begun = process.stdout.readline  # the loader's program says that it has begun
        if program == "pretrain":
            reader = threading.Thread(target=process.stdout.read, daemon=True)
            reader.start()
            assert wait_until(lambda: lines(run / "metrics.jsonl") >= 2 or process.poll() is not None, 300)
        else:
            begun()
        workers = workers_of(process.pid)
        assert len(workers) == 2, (tmp_path / "said").read_text()
        if what == "ctrl-c":
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
        elif what == "killed":
            process.kill()
        else:
            os.kill(workers[0], signal.SIGKILL)
        # A run that is asked to stop saves first, for which it has its own time.
        saving = RunConfig().grace_seconds if (program, what) == ("pretrain", "ctrl-c") else 0
        ended = wait_until(lambda: process.poll() is not None, 10 + saving)
        process.kill()
        assert ended
        assert process.returncode == status
    assert cause in (tmp_path / "said").read_text()
    assert wait_until(lambda: not any(alive(pid) for pid in workers), 10)
    assert nothing_left(shared, spare=1 if what == "a worker killed" else 0)
