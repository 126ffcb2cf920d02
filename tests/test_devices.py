"""Mesh, shardings, batches, start-up and preemption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from quick_compilation import forced_devices

from protloc_jax.devices import (
    Preemption,
    any_process,
    make_mesh,
    params_sharding,
    partition,
    set_up_compilation_cache,
)

HERE = Path(__file__).parent


def test_eight_devices():
    done = subprocess.run(
        [sys.executable, "-W", "error", str(HERE / "eight_devices.py")],
        env=forced_devices(8),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("passed check_") == 5


@pytest.mark.parametrize(
    ("path", "shape", "spec"),
    [
        ("backbone/blocks/mlp/fc1/kernel", (12, 384, 1536), P(None, None, "fsdp")),
        ("opt_state/mu/backbone/blocks/mlp/fc2/kernel", (12, 1536, 384), P(None, "fsdp")),
        # The depth axis is the longest here, and is never split.
        ("backbone/blocks/norm1/scale", (4096, 62, 62), P()),
        ("blocks/norm1/scale", (4096, 64, 62), P(None, "fsdp")),
        ("head/last/v", (256, 65536), P(None, "fsdp")),
        ("backbone/pos", (1, 197, 384), P(None, None, "fsdp")),
        ("head/mlp_0/bias", (2048,), P()),
        ("step", (), P()),
        ("odd", (1023, 1023), P()),
        ("square", (512, 512), P(None, "fsdp")),
    ],
)
def test_partition_of_leaves_over_four_devices(path, shape, spec):
    assert partition(path, shape, 4) == spec


def test_nothing_is_split_without_an_fsdp_axis():
    assert partition("head/last/v", (256, 65536), 1) == P()
    tree = {"a": jax.ShapeDtypeStruct((512, 512), np.float32)}
    assert params_sharding(make_mesh(), tree)["a"].spec == P()


def test_own_rules_and_thresholds():
    assert partition("a/b", (8, 8), 4, min_elements=1) == P(None, "fsdp")
    assert partition("a/b", (8, 8), 4, min_elements=1, rules=((r"b$", "replicated"), (r".", "fsdp"))) == P()
    assert partition("c", (8, 8), 4, min_elements=1, rules=((r"b$", "fsdp"),)) == P()


@pytest.fixture
def jax_config():
    names = (
        "jax_compilation_cache_dir",
        "jax_enable_compilation_cache",
        "jax_persistent_cache_min_compile_time_secs",
    )
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.usefixtures("jax_config")
def test_compilation_cache(tmp_path, monkeypatch):
    assert set_up_compilation_cache(str(tmp_path / "mine")) == tmp_path / "mine"
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    assert set_up_compilation_cache() == tmp_path / "protloc_jax" / "compiled"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "theirs"))
    assert set_up_compilation_cache() == tmp_path / "theirs"
    assert set_up_compilation_cache("none") is None
    assert not jax.config.jax_enable_compilation_cache
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"compilation_cache=.*file/x"):
        set_up_compilation_cache(str(tmp_path / "file" / "x"))


def test_first_signal_raises_the_flag_and_handlers_come_back(capfd):
    before = signal.getsignal(signal.SIGTERM)
    with Preemption() as preemption:
        assert not preemption.agreed()
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.agreed()
        assert preemption.signal_name == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before
    assert "SIGTERM: stopping after the current step" in capfd.readouterr().err
    assert any_process(True) and not any_process(False)


def test_second_signal_ends_the_process():
    program = (
        "import time; from protloc_jax.devices import Preemption\n"
        "with Preemption():\n    print('ready', flush=True)\n    time.sleep(60)\n    time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        while "SIGINT" not in process.stderr.readline():
            pass
        assert process.poll() is None
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
        assert time.monotonic() - start < 20
    finally:
        process.kill()
        process.communicate()
