"""The training loader: an endless, exactly resumable stream of batches whose whole state is one integer."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from protloc_jax.config import ConfigError, nearest
from protloc_jax.data import read
from protloc_jax.data import split_file as split_files
from protloc_jax.data.batch import Batch
from protloc_jax.data.cell_vectors import CellsOfRecords, CellVectors, CellVectorsError, of_records
from protloc_jax.data.cell_vectors import read as read_cell_vectors
from protloc_jax.data.config import DataConfig
from protloc_jax.data.damage import NOTHING, Damage, Met, named, refuse_too_many
from protloc_jax.data.durable import sha256
from protloc_jax.data.info import RecordsError
from protloc_jax.data.manifest import listed
from protloc_jax.data.quarantine import FILE as QUARANTINE
from protloc_jax.data.quarantine import Quarantine
from protloc_jax.data.sampler import Sampler
from protloc_jax.data.source import ENDLESS, ExampleSource, Picks, Tables, owned, pipeline
from protloc_jax.data.weak_labels import WeakLabels, column_of, pairing_notes, weak_labels


class WorkerDied(RuntimeError):
    """A decoding process ended without having been asked to."""


class Loader:
    """Iterates over `Batch`es of NumPy arrays: this host's contiguous slice of every global batch.

    config          which records, in which order
    global_batch    examples a step over all hosts; must be a multiple of `process_count`
    process_index   this host, of `process_count`
    start           examples consumed before, over all hosts: `position` of an earlier loader goes on exactly there,
                    whatever the number of hosts, threads or workers and whatever the batch size
    repeat          False stops at the end of the epoch that `start` lies in; `dropped` examples that fill no whole
                    batch stay unseen
    quarantine      run directory in which the damaged records are listed, with config.tolerant; see `Quarantine`

    The stream runs on over the ends of epochs, so that every batch is full. Use as a context manager or call `close`;
    an error closes too. Raises ConfigError listing every bad key at once, FileNotFoundError or RecordsError for
    the records. Taking a batch raises RecordsError naming shard, row and id of each damaged record in it, with
    config.tolerant only once there are too many; WorkerDied where a decoding process was killed.
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
        quarantine: str | Path | None = None,
    ):
        if not config.records:
            raise ConfigError("data.records is empty; name a folder written by `protloc data pack`.")
        self._records, self.digest = open_split(config)
        records = self._records
        self.config, self.info, self.global_batch, self.start = config, records.info, global_batch, start
        self.cell_vectors = read_cell_vectors(config.cell_vectors) if config.cell_vectors else None
        self._chosen, rows, balance, weak, cells = _resolve(config, records, self.cell_vectors)
        _check_sizes(global_batch, process_index, process_count, start, len(rows), config)
        self._weak_labels = weak
        self.sampler = Sampler(
            len(rows),
            config.seed,
            rows=rows,
            balance=balance,
            groups=weak.table if weak else None,
            pool=config.partner_pool,
            apart=weak.apart if weak else None,
            fallback=config.partner_fallback,
        )
        self.channels = self.info.channel_set.subset(config.channels)
        tables = Tables.of(records.manifest, cells)
        self.group_names = tables.group_names
        left = self.n - start % self.n
        self.dropped = 0 if repeat else left % global_batch
        self._process = (process_index, process_count)
        order = self._order = _Stream(
            self.sampler,
            global_batch,
            process_index,
            process_count,
            start,
            ENDLESS if repeat else left // global_batch,
            donors=config.donor != "none",
        )
        self._source = ExampleSource(
            records, order, tables, self._chosen, mask=config.mask, stand_ins=order if config.tolerant else None
        )
        self._quarantine_in = Path(quarantine) if quarantine is not None and config.tolerant else None
        self._quarantine: Quarantine | None = None
        self._bad: dict[int, str] = {}
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
        """What the user should know about the sampling: examples that are never drawn, and what pairs there are."""
        notes: tuple[str, ...] = ()
        if self.sampler.undrawn:
            notes = (
                f"{self.sampler.undrawn} of {self.n} examples have no value in '{self.config.balance_column}' and are "
                "never drawn by balanced sampling.",
            )
        if self._weak_labels is not None:
            notes += pairing_notes(self.config, self.sampler, self._weak_labels, self._records.manifest)
        return notes

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> Batch:
        if self._closed:
            raise RuntimeError("this loader is closed.")
        config = self.config
        try:
            if self._iterator is None:
                self._begin()
                self._iterator = pipeline(
                    self._source, threads=config.threads, workers=config.workers, prefetch=config.prefetch
                )
            batch, damage = next(self._iterator)
            self._judge(damage)
        except StopIteration:
            raise
        except BaseException as error:
            self.close()
            if isinstance(error, RuntimeError) and "process was terminated" in str(error):
                raise WorkerDied(
                    f"a data worker process died ({str(error).partition('. ')[0]}): killed, or out of memory? Fewer "
                    f"data.workers (now {config.workers}) or data.prefetch (now {config.prefetch}) need less memory."
                ) from error
            raise
        self._given += 1
        return owned(batch) if config.workers else batch

    def record_of(self, number: int) -> int:
        """The record that example `number` shows: the sampler's, or where that is damaged its substitute."""
        drawn = self.sampler.index(number)
        if not self.config.tolerant:
            return drawn
        candidates = itertools.chain([drawn], self.sampler.substitutes(number))
        return next((record for record in candidates if not self._source.why_unreadable(record)), drawn)

    def close(self) -> None:
        """Stop all threads and worker processes; safe to call again."""
        self._closed = True
        iterator, self._iterator = self._iterator, None
        if iterator is not None:
            iterator.close()
        if self._quarantine is not None:
            self._quarantine.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> None:
        """What is checked before the first batch: each shard's index, and its digest where that is asked for."""
        config, shards = self.config, self._source.shards
        if self._quarantine_in is not None:
            pairs = (config.weak_label, config.partner_pool, config.partner_from, config.partner_fallback)
            choices = (
                config.split,
                config.seed,
                *pairs,
                config.donor,
                config.balance_column,
                config.mask,
                self._chosen,
            )
            self._quarantine = Quarantine(
                self._quarantine_in,
                shards,
                self._records.manifest,
                identity=hashlib.sha256(repr((self.info.digest, *choices)).encode()).hexdigest(),
                process=self._process,
                start=self.start,
            )
        lost = shards.lost()
        problems, bad = self._differing(lost) if config.verify == "open" else ([], {})
        if (lost or problems) and not config.tolerant:
            texts = [*map(str, lost.values()), *problems, *named(shards, self._records.manifest, bad)]
            raise RecordsError(listed(texts))
        bad |= {row: error.reason for shard, error in lost.items() for row in shards.rows_in(shard, self.sampler.rows)}
        self._note([Met(NOTHING, "image", record, NOTHING, why) for record, why in bad.items()])
        if config.workers:
            shards.close()

    def _differing(self, lost: Container[int]) -> tuple[list[str], dict[int, str]]:
        """The shards whose bytes are not those written, and the damaged records of the split in them.

        Each host reads every `process_count`-th shard.
        """
        problems: list[str] = []
        bad: dict[int, str] = {}
        process, processes = self._process
        shards = self._source.shards
        for number, shard in enumerate(self.info.shards):
            path = shards.directory / shard.file
            if number % processes == process and number not in lost and sha256(path) != shard.sha256:
                problems.append(f"{path}: SHA-256 differs.")
                rows = shards.rows_in(number, self.sampler.rows)
                bad |= {row: why for row in rows if (why := self._source.why_unreadable(row))}
        return problems, bad

    def _judge(self, damage: Sequence[Damage]) -> None:
        """Stop at damage, or count and list it while it is bearable."""
        if not damage:
            if self._quarantine is not None and self._quarantine.poll():
                self._note([])
            return
        reasons = {one.record: one.reason for one in damage}
        if not self.config.tolerant:
            hint = "`protloc data verify` finds all; data.tolerant=true replaces them."
            raise RecordsError(f"{listed(named(self._source.shards, self._records.manifest, reasons))}\n  {hint}")
        if any(one.substitute == NOTHING for one in damage):
            raise RecordsError(f"{self.config.records}: no record of the split can be read.")
        numbers = self._order.numbers(self._given)
        self._note([Met(int(numbers[d.place]), d.role, d.record, d.substitute, d.reason) for d in damage])

    def _note(self, met: list[Met]) -> None:
        self._bad |= {one.record: one.reason for one in met}
        if self._quarantine is not None:
            self._quarantine.note(met)
            self._bad |= self._quarantine.known
        manifest, n = self._records.manifest, self.n
        hint = "" if self._quarantine is None else f" All are listed in {self._quarantine.out / QUARANTINE}."
        refuse_too_many(self._source.shards, manifest, self._bad, max_bad=self.config.max_bad, n=n, hint=hint)


class _Stream:
    """Batch b of a host: examples start + b * global + host * size ... of the endless stream."""

    def __init__(
        self,
        sampler: Sampler,
        global_batch: int,
        process: int,
        processes: int,
        start: int,
        batches: int,
        *,
        donors: bool = False,
    ):
        self.sampler, self.global_batch, self.batches, self.with_donors = sampler, global_batch, batches, donors
        self.size = global_batch // processes
        self.first = start + process * self.size

    def __len__(self) -> int:
        return self.batches

    def numbers(self, number: int) -> np.ndarray:
        """Example numbers [size] of a batch."""
        return self.first + number * self.global_batch + np.arange(self.size, dtype=np.int64)

    def substitutes(self, number: int, place: int) -> Iterator[int]:
        yield from self.sampler.substitutes(int(self.numbers(number)[place]))

    def partners(self, number: int, place: int, record: int) -> Iterator[int]:
        yield from self.sampler.partners(int(self.numbers(number)[place]), record)

    def donors(self, number: int, place: int) -> Iterator[int]:
        yield from self.sampler.donors(int(self.numbers(number)[place]))

    def picks(self, number: int) -> Picks:
        numbers = self.numbers(number)
        epoch, offset = self.sampler.example(numbers)
        if epoch[-1] >= 2**31:
            raise RecordsError(f"example {numbers[-1]} is in epoch {epoch[-1]}; epochs are counted in 31 bits.")
        partner = self.sampler.partner(numbers) if self.sampler.has_partners else None
        donor = self.sampler.donor(numbers) if self.with_donors else None
        example = np.stack([epoch, offset], axis=1).astype(np.int32)
        return Picks(self.sampler.index(numbers), partner, example, donor)


def open_split(config: DataConfig) -> tuple[read.Records, str]:
    """The records of a config, their manifest with the parts of `split_file` where one is named, and a digest of both.

    Raises as `read.open` and `split_file.read` do, and SplitError for a split made for other data.
    """
    records = read.open(config.records, tolerant=config.tolerant)
    if not config.split_file:
        return records, records.info.digest
    split = split_files.read(config.split_file)
    try:
        records.manifest = split.applied(records.manifest, config.split_name)
    except split_files.SplitError as error:
        raise split_files.SplitError(f"{config.split_file}: {error}") from error
    return records, f"{records.info.digest} split {split.digest} {config.split_name}".rstrip()


def _resolve(config: DataConfig, records: read.Records, vectors: CellVectors | None):
    """(channel indices, rows of the split, balance table, weak labels, cell lines); ConfigError names every key that
    fits not."""
    manifest, problems = records.manifest, []
    chosen, rows = tuple(range(len(records.info.channels))), np.arange(0)
    balance: np.ndarray | None = None
    weak: WeakLabels | None = None
    cells: CellsOfRecords | None = None
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
    have = [*(["labels"] if manifest.label_names else []), *manifest.group_columns]
    asked = {"weak_label": config.weak_label, "partner_from": config.partner_from, "balance": config.balance}
    for key, column in asked.items():
        possible = list(manifest.group_columns) if key == "partner_from" else have
        if column and column not in possible and (key, column) != ("balance", "weak_label"):
            shown = ", ".join(possible) or "(none)"
            problems.append(f"data.{key}: no column '{column}'.{nearest(column, possible)} Columns: {shown}.")
    if config.mask and not records.info.has_mask:
        problems.append("data.mask: these records have no masks.")
    if not problems:
        if config.balance:
            balance = column_of(manifest, config.balance_column, rows)[0]
            if not (balance.any() if balance.ndim == 2 else (balance >= 0).any()):
                problems.append(f"data.balance: no example of the split has a value in '{config.balance_column}'.")
        weak, more = weak_labels(config, manifest, rows)
        problems += more
        if vectors is not None:
            try:
                cells = of_records(vectors, manifest, rows, column=config.cell_line, where=config.cell_vectors)
            except CellVectorsError as error:
                problems.append(f"data.cell_vectors: {error}")
    if problems:
        raise ConfigError(f"{config.records}: {listed(problems)}")
    return chosen, rows, balance, weak, cells


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
