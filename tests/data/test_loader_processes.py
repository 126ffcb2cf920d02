"""Worker processes and threads: same batches, named deaths, nothing left behind; and what importing loads."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace

import numpy as np
import pytest
from left_behind import nothing_left, wait_until
from small_records import pack

from protloc_jax.data.config import DataConfig
from protloc_jax.data.loader import Loader


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    return DataConfig(records=str(pack(tmp_path_factory.mktemp("records") / "set")), seed=3, weak_label="plate")


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
