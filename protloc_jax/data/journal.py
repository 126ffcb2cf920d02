"""The journal of a packing: which shards are done, made from what. A rerun goes on from it.

packing/plan.json        what the records are made from
packing/shard-00003.json written after the shard lies in its place: digest, size, histogram, constant images
packing/*.tmp            the shard being written; removed at the next start
packing/lock             held while a process packs; the system frees it when that process dies
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from protloc_jax.data import info as info_file
from protloc_jax.data.durable import sha256, sync_folder, write_whole
from protloc_jax.data.info import RecordsError, Shard

FOLDER = "packing"


@dataclass(frozen=True)
class Done:
    """A finished shard with its share of the data set's statistics."""

    shard: Shard
    counts: np.ndarray
    constant: list[tuple[int, tuple[int, ...]]]


class Journal:
    """Reads and extends the journal of the packing into `directory`."""

    def __init__(self, directory: Path, plan: dict[str, Any]):
        self.directory = directory
        self.folder = directory / FOLDER
        self.plan = plan

    def begin(self) -> None:
        """Start, or go on with the same plan; RecordsError lists what changed since the interrupted packing."""
        path = self.folder / "plan.json"
        if path.is_file():
            refuse_changes(self.directory, json.loads(path.read_text()), self.plan)
        else:
            write_whole(path, (json.dumps(self.plan, indent=1) + "\n").encode())
        for leftover in self.folder.glob("*.tmp"):
            leftover.unlink()

    def done(self, number: int, expected_file: str) -> Done | None:
        """The finished shard `number`, if it is journaled and its file still has the journaled bytes."""
        path = self._path(number)
        if not path.is_file():
            return None
        entry = json.loads(path.read_text())
        shard = Shard(**entry["shard"])
        file = self.directory / shard.file
        if shard.file != expected_file or not file.is_file() or file.stat().st_size != shard.bytes:
            return None
        if sha256(file) != shard.sha256:
            return None
        counts = np.frombuffer(zlib.decompress(base64.b64decode(entry["counts"])), np.int64)
        constant = [(int(index), tuple(channels)) for index, channels in entry["constant"]]
        return Done(shard, counts.reshape(entry["counts_shape"]), constant)

    def record(self, number: int, done: Done) -> None:
        """Note a shard that lies in its place."""
        entry = {
            "shard": asdict(done.shard),
            "constant": done.constant,
            "counts_shape": list(done.counts.shape),
            "counts": base64.b64encode(zlib.compress(done.counts.tobytes(), 1)).decode(),
        }
        write_whole(self._path(number), json.dumps(entry).encode())

    def temporary(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.tmp"

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.json"


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the folder for one packing at a time; RecordsError when another process holds it."""
    folder = directory / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RecordsError(f"{directory}: another process is packing into this folder.") from error
        yield


def refuse_changes(directory: Path, had: dict[str, Any], now: dict[str, Any]) -> None:
    """RecordsError naming every setting or input that differs between two packings into one folder."""
    changed = [
        f"{key}: {_short(had.get(key))} before, {_short(now.get(key))} now"
        for key in dict.fromkeys([*had, *now])
        if had.get(key) != now.get(key)
    ]
    if changed:
        raise RecordsError(
            f"{directory} holds records packed from something else:\n  "
            + "\n  ".join(changed)
            + "\n  Pack with restart to discard them, or into another folder."
        )


def discard(directory: Path) -> None:
    """Remove everything that a packing puts into `directory`, dataset.json first so that no half set is readable."""
    (directory / info_file.FILE).unlink(missing_ok=True)
    sync_folder(directory)
    others = (directory / name for name in (info_file.MANIFEST_FILE, info_file.PART_FILE))
    for path in [*directory.glob("shard-*.array_record"), *others]:
        path.unlink(missing_ok=True)
    for path in (directory / FOLDER).glob("*"):
        if path.name != "lock":
            path.unlink()


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else text[:12] + "..."
