"""The doctor's look at storage: the run directory, the records, the cache of compiled programs."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import jax

from protloc_jax.data.durable import move_into_place, size_text, sync_file
from protloc_jax.data.loader import open_split
from protloc_jax.devices import set_up_compilation_cache
from protloc_jax.plan.doctor import Check, Wanted, clock_of_files
from protloc_jax.train.experiment import Experiment

PROBE_BYTES = 32 * 2**20
SLOW = 20e6  # bytes a second
# A checkpoint is written beside those that are kept, and the file system needs room to work in.
MARGIN = 1.2
CACHE_BYTES = 10**9


def run_directory(directory: Path, wanted: Wanted) -> Iterator[Check]:
    """Whether checkpoints can be written where the run will: safely, fast enough, and all that are to be kept."""
    probe = directory / f".doctor-{os.getpid()}-{jax.process_index()}"
    try:
        yield from _written(probe)
    finally:
        for path in directory.glob(f"{probe.name}*"):
            path.unlink(missing_ok=True)
    yield _room(directory, wanted)


def _written(probe: Path) -> Iterator[Check]:
    text = os.urandom(1 << 20)
    began, before = time.monotonic(), time.time()
    with probe.open("wb") as file:
        for _ in range(PROBE_BYTES >> 20):
            file.write(text)
        file.flush()
        os.fsync(file.fileno())
    speed = PROBE_BYTES / max(time.monotonic() - began, 1e-9)
    yield clock_of_files(probe.stat().st_mtime, (before + time.time()) / 2)
    old = probe.with_name(probe.name + ".old")
    old.write_bytes(b"old")
    sync_file(old)
    move_into_place(probe, old)
    whole = old.stat().st_size == PROBE_BYTES and not probe.exists()
    with old.open("rb") as file:
        whole = whole and file.read(len(text)) == text
    if not whole:
        advice = "checkpoints need a file system that renames at once: not a mounted bucket, use run.checkpoints"
        yield Check("storage", "FAILED", f"{probe.parent}: a file renamed over another is not whole", advice)
        return
    words = f"{probe.parent}: written and synced at {size_text(speed)}/s, renamed over another file"
    yield Check("storage", "ok" if speed > SLOW else "warning", words, "" if speed > SLOW else "saves will take long")


def _room(directory: Path, wanted: Wanted) -> Check:
    free = shutil.disk_usage(directory).free
    if not wanted.checkpoint_bytes:
        return Check("free space", "ok", f"{size_text(free)}")
    need = int(wanted.checkpoint_bytes * (wanted.kept + 1) * MARGIN)
    words = (
        f"{size_text(free)} free, {size_text(need)} needed for {wanted.kept} checkpoints of "
        f"{size_text(wanted.checkpoint_bytes)} and one being written"
    )
    if free >= need:
        return Check("free space", "ok", words)
    return Check("free space", "FAILED", words, "make room, or keep fewer (run.keep_last, run.keep_best)")


def shared(directory: Path) -> Iterator[Check]:
    """Whether all processes, who write parts of one checkpoint, see the same directory. All must call it."""
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    meant, seen = directory / ".doctor-shared", False
    if jax.process_index() == 0:
        with contextlib.suppress(OSError):  # told by `run_directory`; the others wait here
            meant.write_text("seen")
            sync_file(meant)
    multihost_utils.sync_global_devices("protloc doctor: shared directory")
    for _ in range(20):  # network file systems remember for a moment what was not there
        with contextlib.suppress(OSError):
            os.listdir(directory)
        if seen := meant.exists():
            break
        time.sleep(0.25)
    multihost_utils.sync_global_devices("protloc doctor: seen")
    if jax.process_index() == 0:
        meant.unlink(missing_ok=True)
    if seen:
        yield Check("shared", "ok", "what process 0 writes, this process sees")
    else:
        advice = "put run.out on storage that all hosts share"
        yield Check("shared", "FAILED", f"{directory}: not the directory that process 0 has", advice)


@contextlib.contextmanager
def existing(directory: Path) -> Iterator[None]:
    """The directory, made where it is missing (as far as it can be), and then taken away again with its parents."""
    missing = [p for p in (directory, *directory.parents) if not p.exists()]
    with contextlib.suppress(OSError):  # told by `run_directory`, which cannot write there
        directory.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for path in missing:
            with contextlib.suppress(OSError):  # another process may have been the one
                path.rmdir()


def records(experiment: Experiment) -> Iterator[Check]:
    """Whether the records are there and can be read; the first, the last and some between are decoded."""
    with open_split(experiment.data)[0] as held:
        rows = held.manifest.rows(experiment.data.split)
        some = sorted({int(rows[i * (len(rows) - 1) // 7]) for i in range(8)})
        began = time.monotonic()
        for row in some:
            held.read(row)
        each = (time.monotonic() - began) / len(some)
        words = f"{len(rows):,} images in split '{experiment.data.split}', {len(some)} read at {1 / each:,.0f} a second"
        yield Check("records", "ok", f"{experiment.data.records}: {words}")


def compilation_cache(wanted: Wanted) -> Iterator[Check]:
    """Whether compiled programs can be kept, which every restart and every study saves minutes by."""
    path = set_up_compilation_cache(wanted.cache)
    if path is None:
        yield Check("compiled", "warning", "no cache (run.compilation_cache=none)", "restarts compile again")
        return
    probe = path / f".doctor-{os.getpid()}"
    try:
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        yield Check("compiled", "FAILED", f"{path}: {error}", "name another one: run.compilation_cache=DIR or none")
        return
    free = shutil.disk_usage(path).free
    level = "ok" if free > CACHE_BYTES else "warning"
    yield Check("compiled", level, f"{path}, {size_text(free)} free")
