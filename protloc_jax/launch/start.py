"""Joining the other processes of a run, with jax's distributed runtime as the engine."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

import protloc_jax
from protloc_jax.launch import leaving
from protloc_jax.launch.peers import Peers, RendezvousFailed
from protloc_jax.launch.place import Place, find_place, host_and_port, whole_number

# A cold restart of many hosts, images pulled and all, takes longer than jax's default of 300 s.
RENDEZVOUS_SECONDS = 1800
HEARTBEAT_SECONDS = 100
# Of these all processes need the same: other versions compile other programs, whose collectives do not fit together.
COMPARED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint")

__all__ = ["RendezvousFailed", "start_up", "versions"]

_roll: subprocess.Popen[str] | None = None


def versions() -> dict[str, str]:
    """What this process runs, by name: Python, this package, and the packages that all processes must share."""
    found = {"python": ".".join(platform.python_version_tuple()[:2]), "protloc_jax": protloc_jax.__version__}
    return found | {name: importlib.metadata.version(name) for name in COMPARED}


def start_up(environ: Mapping[str, str] = os.environ) -> Place:
    """Join the other processes of the run, when the environment says that there are any. Call before any other jax use.

    See `find_place` for how the environment says so. `PROTLOC_RENDEZVOUS_SECONDS` (1800) is how long to wait for all of
    them, `PROTLOC_HEARTBEAT_SECONDS` (100) how long one may be silent before it counts as lost: the others then name it
    and end with status 69. Does nothing when the processes are joined already.

    Raises ValueError for variables that are missing or malformed and for processes that do not fit together (numbers,
    versions), RendezvousFailed when not all come in time.
    """
    wait = whole_number(environ, "PROTLOC_RENDEZVOUS_SECONDS", RENDEZVOUS_SECONDS, least=1)
    limit = whole_number(environ, "PROTLOC_HEARTBEAT_SECONDS", HEARTBEAT_SECONDS, least=1)
    if jax.distributed.is_initialized():
        return Place(jax.process_index(), jax.process_count(), how="joined before")
    place = find_place(environ)
    if place.processes == 1:
        return place
    _spare_from_proxies(place)
    if place.process == 0:
        _start_roll(place, wait, limit)
    peers = Peers(place, limit=limit, versions=versions())
    address = peers.meet(wait)
    with _service_elsewhere(peers):
        jax.distributed.initialize(
            address,
            place.processes,
            place.process,
            local_device_ids=place.devices,
            # Else jax asks Slurm and Open MPI for the devices all the same.
            cluster_detection_method="deactivate",
            heartbeat_timeout_seconds=limit * 3 + 60,
        )
    leaving.set_up(peers)
    return place


def _start_roll(place: Place, wait: int, limit: int) -> None:
    """The program that keeps the roll, beside this process; it ends by itself after the last process has left."""
    global _roll
    _, port = host_and_port(place.coordinator)
    package = str(Path(protloc_jax.__file__).parent.parent)
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "protloc_jax.launch.roll", str(port), str(place.processes), str(wait), str(limit)]
    _roll = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # What jax's service has to say about those who left, the roll has said before, by name.
        env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert _roll.stdout is not None
    answer = json.loads(_roll.stdout.readline() or '{"taken": "its program did not start"}')
    if "taken" in answer:
        raise ValueError(
            f"PROTLOC_COORDINATOR={place.coordinator}: process 0 cannot listen on port {port} ({answer['taken']}); "
            "another run may use it, take another one (PROTLOC_PORT)."
        )


class _Service:
    """What jax in process 0 holds in place of its coordination service, which runs beside the roll."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    def shutdown(self) -> None:
        """Wait a moment for the roll to see everybody off, so that nothing of the run is left behind."""
        self._peers.close()
        if _roll is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                _roll.wait(5.0)


@contextlib.contextmanager
def _service_elsewhere(peers: Peers) -> Iterator[None]:
    """Keep jax from starting its coordination service inside process 0; see `roll` for why."""
    jaxlib: Any = importlib.import_module("jax._src.lib")._jax

    def elsewhere(*args: Any, **options: Any) -> Any:
        return _Service(peers)

    before, jaxlib.get_distributed_runtime_service = jaxlib.get_distributed_runtime_service, elsewhere
    try:
        yield
    finally:
        jaxlib.get_distributed_runtime_service = before


def _spare_from_proxies(place: Place) -> None:
    """gRPC would send what the processes tell one another through the web proxy of the environment, and hang."""
    lower = {name.lower(): value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    if any(lower.get(name) for name in ("http_proxy", "https_proxy", "grpc_proxy")):
        host, _ = host_and_port(place.coordinator)
        spared = lower.get("no_grpc_proxy") or lower.get("no_proxy", "")
        os.environ["no_grpc_proxy"] = ",".join(filter(None, [spared, host]))  # noqa: SIM112 - gRPC reads this case
