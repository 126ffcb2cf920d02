"""Runs the equivalence worker once for a whole test session, however many pytest processes ask for it."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

from quick_compilation import forced_devices

from protloc_jax.xla_flags import append_cpu_flags

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def environment(*, devices):
    """The environment of a worker: forced host devices; this package and these helpers importable."""
    kept = {k: v for k, v in forced_devices(devices).items() if k != "JAX_ENABLE_X64"}
    kept["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(HERE), kept.get("PYTHONPATH", "")])
    append_cpu_flags(kept)
    return kept


def last_line_of(process_output):
    """The JSON object that a worker printed last."""
    return json.loads(process_output.splitlines()[-1])


def runs(tmp_path_factory, precision):
    """What `equivalence_worker.py` prints for "float32" or "float64"."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return _runs(shared, precision)


@functools.cache
def _runs(shared, precision):
    result = shared / f"equivalence-{precision}.json"
    with open(shared / f"equivalence-{precision}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.exists():
            command = [sys.executable, "-W", "error", str(HERE / "equivalence_worker.py"), precision]
            done = subprocess.run(command, capture_output=True, text=True, env=environment(devices=8), check=False)
            assert done.returncode == 0, done.stderr[-4000:]
            result.write_text(json.dumps(last_line_of(done.stdout)))
    return json.loads(result.read_text())
