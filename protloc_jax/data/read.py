"""Random access to a folder of records."""

from __future__ import annotations

import operator
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from protloc_jax.data import codec
from protloc_jax.data import info as info_file
from protloc_jax.data import manifest as manifest_file
from protloc_jax.data.durable import sha256
from protloc_jax.data.info import RecordsError, RecordsInfo
from protloc_jax.data.manifest import Manifest, listed

# Random access: read-ahead would fetch neighbours that nobody asked for.
_OPTIONS = {"options": "readahead_buffer_size:0", "file_reader_buffer_size": 32768}


class DamagedRecord(RecordsError):
    """A record cannot be read or is not what it should be; `reason` says why, without naming it."""

    def __init__(self, text: str, reason: str = ""):
        super().__init__(text)
        self.reason = reason


class DamagedShard(DamagedRecord):
    """None of a shard's records can be read: the file is missing, cut, or its index is damaged."""


class ShardReader:
    """Bytes of record i across the shards. Safe to use from several threads; pickles without its open files."""

    def __init__(self, directory: Path, shards: Sequence[info_file.Shard]):
        self.directory = Path(directory)
        self.shards = tuple(shards)
        self.ends = np.cumsum([shard.n for shard in self.shards])
        self._open: list[Any] = [None] * len(self.shards)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def locate(self, index: int) -> tuple[int, int]:
        """(shard, position in it) of record `index`; IndexError where there is none."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.directory}: record {index} of {len(self)}.")
        shard = int(np.searchsorted(self.ends, index, side="right"))
        return shard, index - int(self.ends[shard] - self.shards[shard].n)

    def read(self, index: int) -> bytes:
        """The bytes of a record. DamagedRecord names the shard and the record when they cannot be read."""
        shard, position = self.locate(index)
        try:
            return self._reader(shard).read([position])[0]
        except RuntimeError as error:
            reason = f"cannot be read: {' '.join(str(error).split())}"
            raise DamagedRecord(f"{self.where(index)} {reason}", reason) from error

    def lost(self) -> dict[int, DamagedShard]:
        """The shards that cannot be opened, with why; opens those that can be."""
        found = {}
        for shard in range(len(self.shards)):
            try:
                self._reader(shard)
            except DamagedShard as error:
                found[shard] = error
        return found

    def rows_in(self, shard: int, rows: np.ndarray) -> list[int]:
        """Those of the records `rows` that lie in a shard."""
        return rows[np.searchsorted(self.ends, rows, side="right") == shard].tolist()

    def where(self, index: int) -> str:
        shard, position = self.locate(index)
        return f"{self.directory / self.shards[shard].file}: record {index} (number {position} in the shard)"

    def close(self) -> None:
        with self._lock:
            for reader in self._open:
                if reader is not None:
                    reader.close()
            self._open = [None] * len(self.shards)

    def _reader(self, shard: int) -> ArrayRecordReader:
        reader = self._open[shard]
        if reader is None:
            with self._lock:
                reader = self._open[shard]
                if reader is None:
                    reader = self._checked(shard)
                    self._open[shard] = reader
        return reader

    def _checked(self, shard: int) -> ArrayRecordReader:
        # The reader of a missing or cut file reports no records instead of raising.
        path, expected = self.directory / self.shards[shard].file, self.shards[shard].n
        reader = ArrayRecordReader(str(path), **_OPTIONS)
        if not reader.ok() or reader.num_records() != expected:
            found = reader.num_records() if path.is_file() else "no file"
            text = f"{expected} records expected, {found} found; the shard is missing or damaged."
            raise DamagedShard(f"{path}: {text}", text)
        return reader

    def __getstate__(self) -> dict[str, Any]:
        return {"directory": self.directory, "shards": self.shards}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["directory"], state["shards"])


class Records:
    """An opened folder of records: `records[i]` is the image [H, W, C] of row i of `records.manifest`.

    Use as a context manager, or call `close`. Reads are thread-safe and checksummed.
    """

    def __init__(self, directory: Path, info: RecordsInfo, manifest: Manifest):
        self.directory = directory
        self.info = info
        self.manifest = manifest
        self.shards = ShardReader(directory, info.shards)

    @property
    def n(self) -> int:
        return self.info.n

    def __len__(self) -> int:
        return self.info.n

    def __getitem__(self, index: int) -> np.ndarray:
        return self.read(index)

    def read(self, index: int, channels: Sequence[int] | None = None, *, out: np.ndarray | None = None) -> np.ndarray:
        """Image [H, W, C] of record `index`, or the chosen channels of it, written to `out` where given.

        IndexError for a record that does not exist; DamagedRecord naming shard, record and id when it is damaged.
        """
        try:
            return read_pixels(self.shards, operator.index(index), channels, out)
        except DamagedRecord as error:
            name = self.manifest.ids[index]
            raise DamagedRecord(f"{self.shards.where(index)}, id '{name}': {error.reason}", error.reason) from error

    def mask(self, index: int) -> np.ndarray:
        """Mask [H, W] uint8 of record `index`; RecordsError where the records have none."""
        if not self.info.has_mask:
            raise RecordsError(f"{self.directory}: these records have no masks.")
        return read_mask(self.shards, operator.index(index))

    def close(self) -> None:
        self.shards.close()

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_pixels(
    shards: ShardReader, index: int, channels: Sequence[int] | None = None, out: np.ndarray | None = None
) -> np.ndarray:
    """Decode record `index`; DamagedRecord says where it lies when its bytes are damaged."""
    try:
        return codec.decode(shards.read(index), channels, index=index, out=out)
    except codec.RecordError as error:
        raise DamagedRecord(f"{shards.where(index)} {error}", str(error)) from error


def read_mask(shards: ShardReader, index: int) -> np.ndarray:
    """Decode the mask of record `index`; DamagedRecord says where it lies when its bytes are damaged."""
    try:
        return codec.decode_mask(shards.read(index), index=index)
    except codec.RecordError as error:
        raise DamagedRecord(f"{shards.where(index)} {error}", str(error)) from error


def open(directory: str | Path, *, tolerant: bool = False) -> Records:
    """Open a folder of records after a quick check: format version, the manifest by its digest, each shard by its size.

    tolerant   open although shards are missing or of another size; their records are damaged ones when read

    Raises FileNotFoundError where there are none, RecordsError listing every missing or wrongly sized file at once, or
    for a manifest that is not the one packed. Contents are checked record by record when read, as a whole by `verify`.
    """
    directory = Path(directory)
    info = info_file.load(directory)
    problems = [] if tolerant else shard_problems(directory, info)
    problems += count_problems(directory, info)
    if problems:
        raise RecordsError(listed(problems))
    path = directory / info_file.MANIFEST_FILE
    manifest = manifest_file.read(path)
    if manifest.n != info.n:
        raise RecordsError(f"{directory}: the manifest has {manifest.n} rows, the records are {info.n}.")
    if sha256(path) != info.manifest_sha256:
        raise RecordsError(f"{path}: not the manifest that was written with these records (SHA-256 differs).")
    return Records(directory, info, manifest)


def count_problems(directory: Path, info: RecordsInfo) -> list[str]:
    """What is wrong with the number of records that the shards of a dataset.json add up to; empty when nothing is."""
    count = sum(shard.n for shard in info.shards)
    if count == info.n:
        return []
    return [f"{directory / info_file.FILE}: {info.n} records, but its shards hold {count}."]


def shard_problems(directory: Path, info: RecordsInfo) -> list[str]:
    """What is wrong with the presence and the sizes of a folder's shards; empty when nothing is."""
    problems = []
    for shard in info.shards:
        path = directory / shard.file
        if not path.is_file():
            problems.append(f"{path}: missing ({shard.n} records).")
        elif path.stat().st_size != shard.bytes:
            found = path.stat().st_size
            problems.append(f"{path}: {found:,} bytes where {shard.bytes:,} were written; cut or overwritten.")
    return problems
