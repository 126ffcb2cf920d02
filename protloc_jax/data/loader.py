"""The training loader: an endless, exactly resumable stream of batches whose whole state is one integer."""

from __future__ import annotations

from typing import Any

import numpy as np

from protloc_jax.config import ConfigError, nearest
from protloc_jax.data import read
from protloc_jax.data import split_file as split_files
from protloc_jax.data.batch import Batch
from protloc_jax.data.config import DataConfig
from protloc_jax.data.info import RecordsError
from protloc_jax.data.manifest import Manifest, listed
from protloc_jax.data.sampler import Sampler
from protloc_jax.data.source import ENDLESS, ExampleSource, Picks, Tables, owned, pipeline


class Loader:
    """Iterates over `Batch`es of NumPy arrays: this host's contiguous slice of every global batch.

    config          which records, in which order
    global_batch    examples a step over all hosts; must be a multiple of `process_count`
    process_index   this host, of `process_count`
    start           examples consumed before, over all hosts: `position` of an earlier loader goes on exactly there,
                    whatever the number of hosts, threads or workers and whatever the batch size
    repeat          False stops at the end of the epoch that `start` lies in; `dropped` examples that fill no whole
                    batch stay unseen

    The stream runs on over the ends of epochs, so that every batch is full. Use as a context manager or call `close`;
    an error closes too. Raises ConfigError listing every bad key at once, FileNotFoundError or RecordsError for
    the records.
    """

    def __init__(
        self,
        config: DataConfig,
        *,
        global_batch: int,
        process_index: int = 0,
        process_count: int = 1,
        start: int = 0,
        repeat: bool = True,
    ):
        if not config.records:
            raise ConfigError("data.records is empty; name a folder written by `protloc data pack`.")
        records, self.digest = open_split(config)
        self.config, self.info, self.global_batch, self.start = config, records.info, global_batch, start
        self._chosen, rows, balance, groups = _resolve(config, records)
        _check_sizes(global_batch, process_index, process_count, start, len(rows), config)
        self.sampler = Sampler(len(rows), config.seed, rows=rows, balance=balance, groups=groups)
        self.channels = self.info.channel_set.subset(config.channels)
        tables = Tables.of(records.manifest)
        self.group_names = tables.group_names
        left = self.n - start % self.n
        self.dropped = 0 if repeat else left % global_batch
        order = _Stream(
            self.sampler, global_batch, process_index, process_count, start, ENDLESS if repeat else left // global_batch
        )
        self._source = ExampleSource(records, order, tables, self._chosen, mask=config.mask)
        self._iterator: Any = None
        self._given = 0
        self._closed = False

    @property
    def n(self) -> int:
        """Examples in the split, which is the length of an epoch."""
        return self.sampler.n

    @property
    def position(self) -> int:
        """Examples given out so far over all hosts, `start` included: all that is needed to go on."""
        return self.start + self._given * self.global_batch

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the sampling: examples that are never drawn, or have no partner."""
        notes = []
        if self.sampler.undrawn:
            notes.append(
                f"{self.sampler.undrawn} of {self.n} examples have no value in '{self.config.balance}' and are never "
                "drawn by balanced sampling."
            )
        if self.sampler.alone and self.config.partner:
            notes.append(
                f"{self.sampler.alone} of {self.n} examples are alone in their '{self.config.partner}' and are their "
                "own partner."
            )
        return tuple(notes)

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> Batch:
        if self._closed:
            raise RuntimeError("this loader is closed.")
        config = self.config
        try:
            if self._iterator is None:
                self._iterator = pipeline(
                    self._source, threads=config.threads, workers=config.workers, prefetch=config.prefetch
                )
            batch = next(self._iterator)
        except StopIteration:
            raise
        except BaseException:
            self.close()
            raise
        self._given += 1
        return owned(batch) if config.workers else batch

    def close(self) -> None:
        """Stop all threads and worker processes; safe to call again."""
        self._closed = True
        iterator, self._iterator = self._iterator, None
        if iterator is not None:
            iterator.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Stream:
    """Batch b of a host: examples start + b * global + host * size ... of the endless stream."""

    def __init__(self, sampler: Sampler, global_batch: int, process: int, processes: int, start: int, batches: int):
        self.sampler, self.global_batch, self.batches = sampler, global_batch, batches
        self.size = global_batch // processes
        self.first = start + process * self.size

    def __len__(self) -> int:
        return self.batches

    def picks(self, number: int) -> Picks:
        numbers = self.first + number * self.global_batch + np.arange(self.size, dtype=np.int64)
        epoch, offset = self.sampler.example(numbers)
        if epoch[-1] >= 2**31:
            raise RecordsError(f"example {numbers[-1]} is in epoch {epoch[-1]}; epochs are counted in 31 bits.")
        partner = self.sampler.partner(numbers) if self.sampler.has_partners else None
        return Picks(self.sampler.index(numbers), partner, np.stack([epoch, offset], axis=1).astype(np.int32))


def open_split(config: DataConfig) -> tuple[read.Records, str]:
    """The records of a config, their manifest with the parts of `split_file` where one is named, and a digest of both.

    Raises as `read.open` and `split_file.read` do, and SplitError for a split made for other data.
    """
    records = read.open(config.records)
    if not config.split_file:
        return records, records.info.digest
    split = split_files.read(config.split_file)
    try:
        records.manifest = split.applied(records.manifest, config.split_name)
    except split_files.SplitError as error:
        raise split_files.SplitError(f"{config.split_file}: {error}") from error
    return records, f"{records.info.digest} split {split.digest} {config.split_name}".rstrip()


def _resolve(config: DataConfig, records: read.Records):
    """(channel indices, rows of the split, balance table, group ids); ConfigError names every key that fits nothing."""
    manifest, problems = records.manifest, []
    chosen, rows = tuple(range(len(records.info.channels))), np.arange(0)
    balance = groups = None
    try:
        if config.channels:
            chosen = records.info.channel_set.select(config.channels)
    except ValueError as error:
        problems.append(f"data.channels: {error}")
    try:
        # Rows that a split file leaves unused belong to no part.
        rows = np.flatnonzero(manifest.table["split"] != "") if config.split == "all" else manifest.rows(config.split)
    except ValueError as error:
        problems.append(f"data.split: {error}")
    for key in ("partner", "balance"):
        column = getattr(config, key)
        if column and not _has_column(manifest, column):
            have = _columns(manifest)
            problems.append(
                f"data.{key}: no column '{column}'.{nearest(column, have)} Columns: {', '.join(have) or '(none)'}."
            )
    if config.mask and not records.info.has_mask:
        problems.append("data.mask: these records have no masks.")
    if not problems:
        if config.balance:
            table = manifest.multi_hot() if config.balance == "labels" else manifest.group_ids(config.balance)[0]
            balance = table[rows]
            if not (balance.any() if balance.ndim == 2 else (balance >= 0).any()):
                problems.append(f"data.balance: no example of the split has a value in '{config.balance}'.")
        if config.partner:
            groups = manifest.group_ids(config.partner)[0][rows]
    if problems:
        raise ConfigError(f"{config.records}: {listed(problems)}")
    return chosen, rows, balance, groups


def _columns(manifest: Manifest) -> list[str]:
    return [*(["labels"] if manifest.label_names else []), *manifest.group_columns]


def _has_column(manifest: Manifest, column: str) -> bool:
    return column in _columns(manifest)


def _check_sizes(
    global_batch: int, process_index: int, process_count: int, start: int, n: int, config: DataConfig
) -> None:
    if not 0 <= process_index < process_count:
        raise ConfigError(f"process {process_index} of {process_count}.")
    if global_batch < 1 or global_batch % process_count:
        below = global_batch - global_batch % process_count
        fits = f"; {below or process_count} or {below + process_count} would fit" if process_count > 1 else ""
        raise ConfigError(f"a global batch of {global_batch} does not divide over {process_count} hosts{fits}.")
    if global_batch > n:
        raise ConfigError(
            f"a global batch of {global_batch} is larger than the {n} examples of the split '{config.split}' "
            f"of {config.records}; the same image would come twice in it."
        )
    if not 0 <= start < 2**62:
        raise ConfigError(f"start={start}: must be 0 or more examples.")
