"""Worker processes and threads: same batches, named deaths, nothing left behind; and what importing loads."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_records import pack

from protloc_jax.data.config import DataConfig
from protloc_jax.data.loader import Loader


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    return DataConfig(records=str(pack(tmp_path_factory.mktemp("records") / "set")), seed=3, weak_label="plate")


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


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code), *arguments], capture_output=True, text=True)


def test_importing_and_reading_leave_jax_unloaded(config: DataConfig) -> None:
    found = run(
        """
        import sys
        import protloc_jax.data, protloc_jax.data.loader, protloc_jax.data.records, protloc_jax.data.sequential
        from protloc_jax.data import records
        from protloc_jax.data.loader import Loader
        from protloc_jax.data.config import DataConfig
        found = records.open(sys.argv[1])
        found[3]
        assert records.verify(sys.argv[1]).ok
        loader = Loader(DataConfig(records=sys.argv[1]), global_batch=4)
        print([name for name in ("jax", "jaxlib", "grain", "torch", "tensorflow") if name in sys.modules])
        """,
        config.records,
    )
    assert found.stdout.strip() == "[]", found.stderr


def test_iterating_loads_jax_with_grain_but_starts_no_device(config: DataConfig) -> None:
    """Grain itself imports jax; no backend may be started by it, or a worker would take hold of the accelerator."""
    found = run(
        """
        import sys
        from protloc_jax.data.loader import Loader
        from protloc_jax.data.config import DataConfig
        with Loader(DataConfig(records=sys.argv[1]), global_batch=4) as loader:
            next(loader)
        from jax._src import xla_bridge
        print(xla_bridge.backends_are_initialized())
        """,
        config.records,
    )
    assert found.stdout.strip() == "False", found.stderr


def test_worker_processes_give_the_same_batches_and_leave_nothing(config: DataConfig) -> None:
    shared = set(os.listdir("/dev/shm"))
    with Loader(config, global_batch=6, start=40) as loader:
        reference = [next(loader) for _ in range(9)]
    with Loader(replace(config, workers=2, threads=1), global_batch=6, start=40) as loader:
        found = [next(loader) for _ in range(9)]
        assert loader.position == 40 + 54
        assert len(multiprocessing.active_children()) == 2
    for first, second in zip(reference, found, strict=True):
        for a, b in zip(first, second, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert type(b) is np.ndarray
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)
    assert wait_until(lambda: not multiprocessing.active_children(), 10)
    assert nothing_left(shared)


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


def test_fifty_loaders_leave_no_thread_and_no_open_file(config: DataConfig) -> None:
    with Loader(config, global_batch=5) as loader:
        next(loader)
    wait_until(lambda: threading.active_count() == 1, 1)
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for number in range(50):
        loader = Loader(replace(config, threads=3), global_batch=5, start=number)
        for _ in range(number % 4):
            next(loader)
        loader.close()
        loader.close()
        del loader
    assert wait_until(lambda: threading.active_count() <= threads, 10)
    assert wait_until(lambda: len(os.listdir("/proc/self/fd")) <= files + 4, 10)


STREAM = """
import sys, time
from protloc_jax.data.loader import Loader
from protloc_jax.data.config import DataConfig
if __name__ == "__main__":
    with Loader(DataConfig(records=sys.argv[1], workers=2), global_batch=4) as loader:
        next(loader)
        import multiprocessing
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        for batch in loader:
            time.sleep(0.05)  # as a training step does; in a tight loop jax's garbage collector hook eats the interrupt
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "what", ["a worker killed", pytest.param("ctrl-c", marks=SLOW), pytest.param("killed", marks=SLOW)]
)
def test_ctrl_c_and_kill_leave_no_orphans(config: DataConfig, tmp_path: Path, what: str) -> None:
    """The process ends within ten seconds and says why; neither processes nor shared memory outlive it."""
    shared = set(os.listdir("/dev/shm"))
    script = tmp_path / "stream.py"
    script.write_text(STREAM)
    command = [sys.executable, str(script), config.records]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert len(workers) == 2
        if what == "ctrl-c":
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
        elif what == "killed":
            process.kill()
        else:
            os.kill(workers[0], signal.SIGKILL)
        ended = wait_until(lambda: process.poll() is not None, 10)
        process.kill()
        assert ended
        assert process.returncode != 0
        assert process.stderr is not None
        cause = {
            "ctrl-c": "KeyboardInterrupt",
            "killed": "",
            "a worker killed": "exit code -9): killed, or out of memory? Fewer",
        }[what]
        assert cause in process.stderr.read().decode()
        assert wait_until(lambda: not any(alive(pid) for pid in workers), 10)
        assert nothing_left(shared, spare=1 if what == "a worker killed" else 0)
