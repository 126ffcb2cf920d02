"""The full check of a folder of records: every byte against its digest, naming damaged shards and records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from protloc_jax.data import codec
from protloc_jax.data import info as info_file
from protloc_jax.data import manifest as manifest_file
from protloc_jax.data.durable import sha256
from protloc_jax.data.info import RecordsError, RecordsInfo, Shard
from protloc_jax.data.manifest import capped
from protloc_jax.data.packing_progress import Progress
from protloc_jax.data.read import DamagedShard, ShardReader


@dataclass(frozen=True)
class Report:
    """The result of `verify`: `problems` is empty when every file has the bytes that were written."""

    info: RecordsInfo
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def constant(self) -> tuple[str, ...]:
        """The listed images with a channel of one single value, as 'record 3 (id): channel names'."""
        return tuple(f"record {i} ({name}): {', '.join(chs)}" for i, name, chs in self.info.constant["listed"])

    def lines(self) -> list[str]:
        """The report as text, one fact a line."""
        info, count = self.info, self.info.constant["count"]
        lines = [f"{info.name}: {info.n:,} records in {len(info.shards)} shards, {info.bytes:,} bytes"]
        if count:
            more = f" ... and {count - 10} more" if count > 10 else ""
            lines.append(f"{count} images have a constant channel: {'; '.join(self.constant[:10])}{more}")
        return [*lines, *(self.problems or ("every digest agrees.",))]


def verify(directory: str | Path, *, progress: bool = False) -> Report:
    """Compare every shard and the manifest with the digests of dataset.json.

    Where a shard differs its records are read one by one to name the damaged ones. Raises FileNotFoundError or
    RecordsError only where there is no usable dataset.json; everything else is in the report.
    """
    directory = Path(directory)
    info = info_file.load(directory)
    problems: list[str] = []
    ids = _check_manifest(directory, info, problems)
    with Progress(progress, f"verify {info.name}", 0, info.n) as bar:
        first = 0
        for shard in info.shards:
            problems += _check_shard(directory, shard, first, ids)
            first += shard.n
            bar.advance(shard.n)
    if first != info.n:
        problems.append(f"{directory / info_file.FILE}: {info.n} records, but its shards hold {first}.")
    known = {shard.file for shard in info.shards}
    strays = sorted(path.name for path in directory.glob("shard-*.array_record") if path.name not in known)
    if strays:
        problems.append(f"{directory}: shards that dataset.json does not name: {capped(strays)}.")
    return Report(info, tuple(problems))


def _check_manifest(directory: Path, info: RecordsInfo, problems: list[str]) -> tuple[str, ...]:
    """Ids of the manifest, empty where it cannot be read."""
    path = directory / info_file.MANIFEST_FILE
    if not path.is_file():
        problems.append(f"{path}: missing.")
        return ()
    if sha256(path) != info.manifest_sha256:
        problems.append(f"{path}: not the manifest that was written with these records (SHA-256 differs).")
    try:
        manifest = manifest_file.read(path)
    except (ValueError, OSError) as error:
        problems.append(f"{path}: {error}")
        return ()
    if manifest.n != info.n:
        problems.append(f"{path}: {manifest.n} rows for {info.n} records.")
    return manifest.ids


def _check_shard(directory: Path, shard: Shard, first: int, ids: tuple[str, ...]) -> list[str]:
    path = directory / shard.file
    if not path.is_file():
        return [f"{path}: missing; records {first} to {first + shard.n - 1} are lost."]
    size = path.stat().st_size
    if size == shard.bytes and sha256(path) == shard.sha256:
        return []
    what = "SHA-256 differs" if size == shard.bytes else f"{size:,} bytes where {shard.bytes:,} were written"
    reader = ShardReader(directory, (shard,))
    damaged = []
    try:
        for position in range(shard.n):
            index = first + position
            try:
                codec.decode(reader.read(position), index=index)
            except DamagedShard:
                return [f"{path}: {what}; none of its {shard.n} records can be read."]
            except (codec.RecordError, RecordsError):
                damaged.append(f"{index} ({ids[index]})" if index < len(ids) else str(index))
    finally:
        reader.close()
    if not damaged:
        return [f"{path}: {what}; every record still decodes, so the damage lies between records."]
    return [f"{path}: {what}; damaged records: {capped(damaged)}."]
