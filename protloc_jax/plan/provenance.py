"""What a measurement was made of: commit, versions, processor, chip, date. A number without them is not kept."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
ACCELERATOR = ("jax-cuda12-plugin", "jax-cuda13-plugin", "libtpu", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13")


def commit(directory: Path | None = None) -> str:
    """The commit of the checkout that holds `directory` (this package's own by default), "+dirty" behind it where
    tracked files differ; empty where git or the checkout is missing."""
    where = directory or Path(__file__).parent
    head = _git(where, "rev-parse", "HEAD")
    if not head:
        return ""
    return head + ("+dirty" if _git(where, "status", "--porcelain", "--untracked-files=no") else "")


def versions(names: Iterable[str] = (*PACKAGES, *ACCELERATOR)) -> dict[str, str]:
    """Versions of Python and of those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def host() -> dict[str, Any]:
    """Cores that this process may use, processor, system, and how busy the machine is (1, 5, 15 minutes)."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        cores = os.cpu_count() or 1
    return {
        "cores": cores,
        "processor": processor(),
        "system": f"{platform.system()} {platform.release()}",
        "load_average": [round(x, 2) for x in os.getloadavg()],
    }


def graphics_card() -> str:
    """Name, driver, memory, power limit and clock of the NVIDIA cards, as nvidia-smi tells; empty without one."""
    query = "name,driver_version,memory.total,power.limit,clocks.max.sm"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return ""
    return "; ".join(dict.fromkeys(done.stdout.strip().splitlines()))


def devices() -> dict[str, Any]:
    """The devices that jax runs on: backend, kind, how many in how many processes, memory of one where it is told."""
    import jax

    first = jax.local_devices()[0]
    limit = (first.memory_stats() or {}).get("bytes_limit")
    found = {
        "backend": first.platform,
        "kind": first.device_kind,
        "count": jax.device_count(),
        "processes": jax.process_count(),
        "memory_bytes": limit,
    }
    card = graphics_card() if first.platform == "gpu" else ""
    return found | ({"card": card} if card else {})


def provenance() -> dict[str, Any]:
    """Date (UTC), commit, versions, host and compiler flags; `devices` beside it needs jax."""
    now = datetime.datetime.now(datetime.UTC)
    return {
        "date": now.isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": versions(),
        "host": host(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _git(directory: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=directory, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
