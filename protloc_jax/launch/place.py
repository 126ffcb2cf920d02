"""Where this process stands among those of its run, as far as the environment tells."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from protloc_jax.config import nearest

PLACE = ("PROTLOC_COORDINATOR", "PROTLOC_PROCESSES", "PROTLOC_PROCESS")
DISTRIBUTED = ("off", "auto")
# The last 4096 ports, as jax chooses them: systems hand out none of these by themselves.
FIRST_PORT, PORTS = 61440, 4096
# Slurm's pseudo-steps (batch script, interactive shell, ...) have the numbers above this one.
LAST_STEP = 0xFFFFFFF0


class Place(NamedTuple):
    """This process among the others: its number, how many there are, and where process 0 is found.

    `devices` are the accelerators of this host that are its own (None: all that it sees); `how` says what told.
    """

    process: int = 0
    processes: int = 1
    coordinator: str = ""  # host:port
    devices: tuple[int, ...] | None = None
    how: str = "alone"

    @property
    def words(self) -> str:
        """The place in one line."""
        if self.processes == 1:
            return f"one process ({self.how})"
        own = "" if self.devices is None else f", devices {','.join(map(str, self.devices))} of this host"
        return f"process {self.process} of {self.processes}, meeting at {self.coordinator} ({self.how}){own}"


def find_place(environ: Mapping[str, str] = os.environ, *, dev: Path = Path("/dev")) -> Place:
    """The place that the environment names; the first of these that says anything.

    `PROTLOC_COORDINATOR=host:port`, `PROTLOC_PROCESSES=n`, `PROTLOC_PROCESS=i` (all three); `PROTLOC_DISTRIBUTED=off`
    (alone); a Slurm step with several tasks (started by srun: the shell of sbatch or salloc is none); a TPU slice of
    several hosts; Open MPI's mpirun. With `PROTLOC_DISTRIBUTED=auto`, whatever else jax detects (Kubernetes), and it is
    an error when there is nothing. `PROTLOC_PORT` replaces the port that process 0 listens on under Slurm, Open MPI
    and TPU.

    Raises ValueError naming the variables that are missing or malformed.
    """
    given = [name for name in PLACE if environ.get(name)]
    if given:
        return _by_hand(environ, given)
    mode = environ.get("PROTLOC_DISTRIBUTED", "")
    if mode and mode not in DISTRIBUTED:
        raise ValueError(f"PROTLOC_DISTRIBUTED={mode}: must be 'off' or 'auto'.{nearest(mode, DISTRIBUTED)}")
    if mode == "off":
        return Place(how="PROTLOC_DISTRIBUTED=off")
    found = _slurm(environ, dev) or _tpu_slice(environ) or _open_mpi(environ, dev)
    if found is None and mode == "auto":
        found = _any_cluster(environ)
    return found or Place()


def whole_number(environ: Mapping[str, str], name: str, default: int, *, least: int = 0) -> int:
    """A variable as an integer of at least `least`; raises ValueError naming it."""
    text = environ.get(name, "")
    try:
        number = int(text) if text else default
    except ValueError:
        raise ValueError(f"{name}={text}: must be an integer.") from None
    if number < least:
        raise ValueError(f"{name}={number}: must be at least {least}.")
    return number


def host_and_port(address: str, name: str = PLACE[0]) -> tuple[str, int]:
    """`host:port` or `[v6 address]:port` in two; raises ValueError naming the variable."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{name}={address}: must be host:port, for example node001:12355.")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _by_hand(environ: Mapping[str, str], given: list[str]) -> Place:
    missing = [name for name in PLACE if name not in given]
    if missing:
        raise ValueError(f"{', '.join(given)} set without {', '.join(missing)}: several processes need all three.")
    count, index = whole_number(environ, PLACE[1], 0), whole_number(environ, PLACE[2], 0)
    if index >= count:
        raise ValueError(f"PROTLOC_PROCESS={index}: must be from 0 to PROTLOC_PROCESSES-1 = {count - 1}.")
    host_and_port(environ[PLACE[0]])
    return Place(index, count, environ[PLACE[0]], how="PROTLOC_PROCESS")


def _slurm(environ: Mapping[str, str], dev: Path) -> Place | None:
    step, index = environ.get("SLURM_STEP_ID", ""), environ.get("SLURM_PROCID", "")
    count = environ.get("SLURM_STEP_NUM_TASKS") or environ.get("SLURM_NTASKS", "")
    if not (step.isdigit() and index.isdigit() and count.isdigit()) or int(step) > LAST_STEP or int(count) < 2:
        return None
    # mpirun under Slurm starts its daemons as a step, whose numbers its own processes inherit.
    if environ.get("OMPI_COMM_WORLD_SIZE", count) != count:
        return None
    nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_NODELIST", "")
    if not nodes:
        raise ValueError("SLURM_STEP_NODELIST is not set in this Slurm step: set PROTLOC_COORDINATOR and the others.")
    job = environ.get("SLURM_JOB_ID", "0")
    port = whole_number(environ, "PROTLOC_PORT", FIRST_PORT + (int(job) + int(step)) % PORTS, least=1)
    local, together = int(environ.get("SLURM_LOCALID", "0")), _tasks_here(environ)
    bound = any(environ.get(f"SLURM_{name}") for name in ("GPUS_PER_TASK", "GPU_BIND", "TRES_PER_TASK"))
    devices = None if bound else _own_devices(environ, local, together, dev)
    return Place(int(index), int(count), f"{_first_node(nodes)}:{port}", devices, f"Slurm step {job}.{step}")


def _first_node(nodes: str) -> str:
    """The first host of Slurm's "node[001-004,9],other", whose first process is process 0."""
    first = re.match(r"(?:\[[^\]]*\]|[^,\[])+", nodes)
    assert first is not None
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first.group())


def _tasks_here(environ: Mapping[str, str]) -> int:
    """How many tasks of the step this node has: SLURM_STEP_TASKS_PER_NODE is "4(x2),3", nodes in order."""
    counts: list[int] = []
    for part in (environ.get("SLURM_STEP_TASKS_PER_NODE") or environ.get("SLURM_TASKS_PER_NODE", "")).split(","):
        if match := re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip()):
            counts += [int(match[1])] * int(match[2] or 1)
    node = int(environ.get("SLURM_NODEID", "0"))
    return counts[node] if node < len(counts) else max(counts, default=1)


def _own_devices(environ: Mapping[str, str], local: int, together: int, dev: Path) -> tuple[int, ...] | None:
    """The share of this host's GPUs of the `local`-th of `together` processes; None = all that it sees.

    jax itself would give every process one device, the `local`-th: a single process on a node with eight GPUs would
    leave seven of them idle, and one that Slurm has given a GPU of its own would look for another.
    """
    if together == 1:
        return None
    shown = next((environ[n] for n in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES") if environ.get(n)), None)
    gpus = len(shown.split(",")) if shown is not None else sum(1 for p in dev.glob("nvidia*") if p.name[6:].isdigit())
    if gpus <= 1:
        return None
    if gpus % together:
        raise ValueError(
            f"{gpus} GPUs on this host do not divide among its {together} processes; start one process a node, or one "
            "a GPU."
        )
    share = gpus // together
    return tuple(range(local * share, (local + 1) * share))


def _tpu_slice(environ: Mapping[str, str]) -> Place | None:
    """A slice of several hosts, or several slices; jax knows how to ask (GKE by variables, Compute Engine by HTTP)."""
    from jax._src import cloud_tpu_init

    if not cloud_tpu_init.running_in_cloud_tpu_vm:
        return None
    from jax._src.clusters import cloud_tpu_cluster as tpu

    for cluster in (tpu.GkeTpuCluster, tpu.GceTpuCluster):
        if cluster.is_env_present():
            return _as_jax_says(cluster, environ, "TPU slice")
    return None


def _any_cluster(environ: Mapping[str, str]) -> Place:
    from jax._src import clusters

    for cluster in clusters.ClusterEnv._cluster_types:
        # Slurm and Open MPI have been asked, and jax sees a cluster in the shell of a Slurm job.
        if cluster.name not in ("slurm", "ompi") and not cluster.opt_in_only_method and cluster.is_env_present():
            return _as_jax_says(cluster, environ, f"jax's {cluster.__name__}") or Place(how=cluster.__name__)
    raise ValueError(
        "PROTLOC_DISTRIBUTED=auto: this is no Slurm step of several tasks, TPU slice, Kubernetes job or Open MPI run. "
        f"Set {', '.join(PLACE)}, or leave PROTLOC_DISTRIBUTED away for a run of one process."
    )


def _as_jax_says(cluster, environ: Mapping[str, str], how: str) -> Place | None:
    if (count := cluster.get_process_count()) < 2:
        return None
    wait = whole_number(environ, "PROTLOC_RENDEZVOUS_SECONDS", 1800, least=1)
    address = cluster.get_coordinator_address(timeout_secs=wait, override_coordinator_port=environ.get("PROTLOC_PORT"))
    return Place(cluster.get_process_id(), count, address, how=how)


def _open_mpi(environ: Mapping[str, str], dev: Path) -> Place | None:
    count = whole_number(environ, "OMPI_COMM_WORLD_SIZE", 1)
    if count < 2:
        return None
    index = whole_number(environ, "OMPI_COMM_WORLD_RANK", 0)
    local = whole_number(environ, "OMPI_COMM_WORLD_LOCAL_RANK", 0)
    together = whole_number(environ, "OMPI_COMM_WORLD_LOCAL_SIZE", 1, least=1)
    run = next((environ[n] for n in ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid") if environ.get(n)), "")
    port = whole_number(environ, "PROTLOC_PORT", FIRST_PORT + zlib.crc32(run.encode()) % PORTS, least=1)
    launcher = re.search(r"tcp://([^,:]+)|tcp6://\[([^,\]]+)", environ.get("OMPI_MCA_orte_hnp_uri", ""))
    if together == count:
        host = "127.0.0.1"
    elif launcher:
        host = launcher[1] or f"[{launcher[2]}]"
    else:
        raise ValueError(
            "this Open MPI does not tell its processes where the first of them is: start them through "
            "sh -c 'PROTLOC_COORDINATOR=HOST:PORT PROTLOC_PROCESSES=$OMPI_COMM_WORLD_SIZE "
            "PROTLOC_PROCESS=$OMPI_COMM_WORLD_RANK exec protloc ...'."
        )
    return Place(index, count, f"{host}:{port}", _own_devices(environ, local, together, dev), "Open MPI")
