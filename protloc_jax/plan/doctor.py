"""What may keep a run from starting, or from ending well, found in a minute instead of after hours."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from protloc_jax.data.durable import size_text
from protloc_jax.devices import host_to_global, make_mesh, replicated
from protloc_jax.launch.peers import RendezvousFailed
from protloc_jax.launch.place import Place, find_place, host_and_port
from protloc_jax.launch.roll import listen
from protloc_jax.launch.start import start_up, versions

Level = Literal["ok", "warning", "FAILED"]
LEVELS: tuple[Level, ...] = ("ok", "warning", "FAILED")
LONGEST = 65536  # bytes of one host's findings, as they travel
OPEN_FILES = 4096
SHARED_BYTES = 10**9
# The lock of a run directory is trusted for 150 s, and files are dated by two clocks.
CLOCK_WARNING, CLOCK_FAILED = 2.0, 30.0


class Check(NamedTuple):
    """One finding: what was looked at, how it is, and (where it is not well) what to do."""

    name: str
    level: Level
    words: str
    advice: str = ""
    host: str = ""

    @property
    def line(self) -> str:
        """The finding in one line."""
        where = f"{self.host}: " if self.host else ""
        return f"{self.level:<8} {self.name:<14} {where}{self.words}" + (f"; {self.advice}" if self.advice else "")


def guarded(name: str, check: Callable[[], Iterable[Check]]) -> list[Check]:
    """The findings of a check; whatever it raises is a finding too."""
    found: list[Check] = []
    try:
        found.extend(check())
    except Exception as error:
        text = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        found.append(Check(name, "FAILED", f"{type(error).__name__}: {text}"))
    return found


def software() -> Iterator[Check]:
    """The versions that all processes must share."""
    yield Check("software", "ok", ", ".join(f"{name} {version}" for name, version in versions().items()))


def meeting() -> Iterator[Check]:
    """Join the other processes of the run, if there are any."""
    began = time.monotonic()
    try:
        place = start_up()
    except RendezvousFailed as error:
        yield Check("processes", "FAILED", str(error))
        return
    except ValueError as error:
        yield Check("processes", "FAILED", str(error), "set the variables right, or PROTLOC_DISTRIBUTED=off")
        return
    together = f"; all here after {time.monotonic() - began:.1f} s" if place.processes > 1 else ""
    yield Check("processes", "ok", place.words + together)


def coordinator() -> Iterator[Check]:
    """Whether the place where processes meet can be had (process 0) or reached (the others), without meeting there."""
    place = find_place()
    if place.processes == 1:
        yield Check("coordinator", "ok", f"{place.words}: there is nobody to meet")
        return
    host, port = host_and_port(place.coordinator)
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0]
    except OSError as error:
        yield Check("coordinator", "FAILED", f"{host}: {error}", "name a host that all processes can look up")
        return
    yield _reached(place, host, port, str(address))


def _reached(place: Place, host: str, port: int, address: str) -> Check:
    if place.process == 0:
        try:
            listen(port, seconds=0).close()
        except OSError as error:
            return Check("coordinator", "FAILED", f"cannot listen on port {port} ({error})", "take another port")
        return Check("coordinator", "ok", f"{place.words}: port {port} is free")
    try:
        socket.create_connection((address, port), timeout=10).close()
    except ConnectionRefusedError:
        return Check("coordinator", "ok", f"{place.words}: {host} ({address}) answers, nobody listens there yet")
    except OSError as error:
        return Check("coordinator", "FAILED", f"{host} ({address}) port {port}: {error}", "is a firewall between?")
    return Check("coordinator", "ok", f"{place.words}: process 0 listens")


def devices() -> Iterator[Check]:
    """The accelerators of this process: seen, with memory, and able to multiply."""
    local = jax.local_devices()
    platform, kind = local[0].platform, local[0].device_kind
    limits = [(d.memory_stats() or {}).get("bytes_limit", 0) for d in local]
    memory = f", {size_text(min(limits))} each" if all(limits) else ""
    words = f"{len(local)} x {kind} ({platform}){memory}, {jax.device_count()} in all"
    there = [str(p) for p in (Path("/dev/nvidia0"), Path("/dev/kfd"), Path("/dev/accel0")) if p.exists()]
    if platform == "cpu" and there and "cpu" not in os.environ.get("JAX_PLATFORMS", ""):
        advice = "install jax for it: protloc-jax[cuda12], [cuda13] or [tpu], and look at the driver's version"
        yield Check("devices", "FAILED", f"{words}, although this host has {there[0]}", advice)
    else:
        yield Check("devices", "ok", words)
    yield from _multiply(local)


def _multiply(local: list[Any]) -> Iterator[Check]:
    """Small whole numbers, whose products every precision gets exactly right."""
    rng = np.random.default_rng(0)
    left, right = (rng.integers(-4, 5, (256, 256)).astype(np.float32) for _ in range(2))
    expected, wrong, slowest = left @ right, [], 0.0
    product = jax.jit(lambda a, b: a @ b)
    for device in local:
        began = time.monotonic()
        got = np.asarray(product(jax.device_put(left, device), jax.device_put(right, device)))
        slowest = max(slowest, time.monotonic() - began)
        if not np.array_equal(got, expected):
            wrong.append(str(device))
    if wrong:
        yield Check("arithmetic", "FAILED", f"wrong products on {', '.join(wrong)}", "take this device out of use")
    else:
        yield Check("arithmetic", "ok", f"exact on all {len(local)} (slowest {slowest:.1f} s with compilation)")


def limits(*, workers: int) -> Iterator[Check]:
    """Open files and shared memory, which data workers need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES and soft != resource.RLIM_INFINITY:
        yield Check("open files", "warning", f"at most {soft}", f"ulimit -n {min(hard, OPEN_FILES * 4)}")
    else:
        yield Check("open files", "ok", f"at most {soft}")
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        if free < SHARED_BYTES and workers:
            advice = "docker run --shm-size, a larger emptyDir, or data.workers=0"
            yield Check("shared memory", "warning", f"{size_text(free)} free for {workers} data workers", advice)
        else:
            yield Check("shared memory", "ok", f"{size_text(free)} free")


def gathered(own: list[Check]) -> list[list[Check]]:
    """Every process's findings, in the order of the processes. Blocks; every process must call it."""
    if jax.process_count() == 1:
        return [own]
    from jax.experimental import multihost_utils

    text = json.dumps([tuple(c) for c in own]).encode()[:LONGEST].ljust(LONGEST)
    everybody = np.asarray(multihost_utils.process_allgather(np.frombuffer(text, np.uint8)))
    return [[Check(*fields) for fields in json.loads(row.tobytes())] for row in everybody]


def between_hosts() -> Iterator[Check]:
    """Whether the hosts add up, have the same devices, and the same time."""
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    n, mesh = jax.process_count(), make_mesh()
    # Every device holds its process's number.
    numbers = host_to_global(np.full(jax.local_device_count(), jax.process_index(), np.int32), mesh)
    total = int(jax.jit(lambda x: x.sum(), out_shardings=replicated(mesh))(numbers))
    expected = sum(d.process_index for d in jax.devices())
    level: Level = "ok" if total == expected else "FAILED"
    yield Check("all-reduce", level, f"{jax.device_count()} devices of {n} processes add up to {total} of {expected}")
    kinds: dict[tuple[str, int], list[int]] = {}
    for process in range(n):
        held = [d for d in jax.devices() if d.process_index == process]
        kinds.setdefault((held[0].device_kind, len(held)), []).append(process)
    if len(kinds) > 1:
        shown = "; ".join(f"{count} x {kind} in {_some(who)}" for (kind, count), who in kinds.items())
        yield Check("same devices", "FAILED", shown, "all processes need as many devices of one kind")
    else:
        yield Check("same devices", "ok", "all processes have the same")
    multihost_utils.sync_global_devices("protloc doctor: clocks")
    now = time.time()
    clocks = np.asarray(multihost_utils.process_allgather(_halves(now))).astype(np.int64)
    seconds = clocks[:, 0] + clocks[:, 1] / 1e6
    yield _clock("clocks", float(np.ptp(seconds)), "between the hosts (to within their last meeting)")


def _halves(now: float) -> np.ndarray:
    # A float32, which is all that jax takes by default, holds the time of day to two minutes.
    return np.asarray([int(now), int(now % 1 * 1e6)], np.int32)


def _clock(name: str, apart: float, words: str) -> Check:
    level: Level = "FAILED" if apart > CLOCK_FAILED else "warning" if apart > CLOCK_WARNING else "ok"
    return Check(name, level, f"{apart:.2f} s {words}", "" if level == "ok" else "have NTP or chrony set the clocks")


def clock_of_files(modified: float, now: float) -> Check:
    """The file system's clock beside this host's."""
    return _clock("file clock", abs(modified - now), "between this host and its file system")


def merged(everybody: list[list[Check]], hosts: list[str]) -> list[Check]:
    """One finding a check: that of the first process, and of every other process where it is not well."""
    found = []
    for process, checks in enumerate(everybody):
        for check in checks:
            if process == 0 and len(everybody) == 1:
                found.append(check)
            elif process == 0 or check.level != "ok":
                found.append(check._replace(host=f"process {process} ({hosts[process]})"))
    return found


def report(checks: list[Check]) -> dict[str, Any]:
    """The findings for programs."""
    counts = {level: sum(c.level == level for c in checks) for level in LEVELS}
    return {"counts": counts, "checks": [c._asdict() for c in checks]}


def _some(processes: list[int]) -> str:
    return f"process {', '.join(map(str, processes[:5]))}" + (" ..." if len(processes) > 5 else "")


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a run needs of its surroundings, as far as a config says."""

    directory: Path | None = None
    checkpoint_bytes: int = 0
    kept: int = 0
    workers: int = 0
    cache: str = ""
