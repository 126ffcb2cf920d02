"""From example numbers to batches: what Grain pulls, thread by thread, and the pipeline around it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from protloc_jax.data.batch import Batch
from protloc_jax.data.codec import DTYPES
from protloc_jax.data.follow_parent import follow_parent
from protloc_jax.data.manifest import Manifest
from protloc_jax.data.read import Records, ShardReader, read_mask, read_pixels

ENDLESS = 2**40  # batches; beyond the life of any run, and small enough for Grain's own arithmetic


class Picks(NamedTuple):
    """Which records make one batch: record [B], partner [B] or None, example [B, 2] (epoch, offset) int32."""

    record: np.ndarray
    partner: np.ndarray | None
    example: np.ndarray


class Order(Protocol):
    """The batches of a run: how many, of what size, and what is in each. A pure function of the batch's number."""

    size: int

    def __len__(self) -> int: ...

    def picks(self, number: int) -> Picks: ...


@dataclass(frozen=True)
class Tables:
    """What the manifest adds to a batch: labels [N, L] float32 and group ids [N, G] int32, or None."""

    labels: np.ndarray | None
    groups: np.ndarray | None
    group_names: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, manifest: Manifest) -> Tables:
        labels = manifest.multi_hot() if manifest.label_names else None
        columns = {column: manifest.group_ids(column) for column in manifest.group_columns}
        groups = np.stack([ids for ids, _ in columns.values()], axis=1).astype(np.int32) if columns else None
        return cls(labels, groups, {column: names for column, (_, names) in columns.items()})


class _Filling:
    """A batch being filled: its examples are decoded straight into its arrays, by any thread, in any order."""

    def __init__(self, picks: Picks, shape: tuple[int, int, int], dtype: np.dtype, mask: bool):
        size = len(picks.record)
        self.picks = picks
        self.taken = 0
        self.image = np.empty((size, *shape), dtype)
        self.partner = np.empty_like(self.image) if picks.partner is not None else None
        self.mask = np.empty((size, *shape[:2]), np.uint8) if mask else None


class ExampleSource:
    """Random access to the examples of an order; element k is example k % B of batch k // B, decoded into that batch.

    Every element is asked for once, as Grain does. Pickles without its open files and unfinished batches.
    """

    def __init__(self, records: Records, order: Order, tables: Tables, channels: Sequence[int], *, mask: bool):
        info = records.info
        self.shards = ShardReader(records.directory, info.shards)
        self.order, self.tables, self.mask = order, tables, mask
        self.channels = None if tuple(channels) == tuple(range(len(info.channels))) else tuple(channels)
        self.shape = (info.height, info.width, len(channels))
        self.dtype = DTYPES[info.dtype]
        self._fillings: dict[int, _Filling] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.order) * self.order.size

    def __repr__(self) -> str:
        return f"ExampleSource({self.shards.directory})"

    def __getitem__(self, index: int) -> tuple[_Filling, Tables]:
        number, place = divmod(int(index), self.order.size)
        filling = self._take(number)
        picks = filling.picks
        record = int(picks.record[place])
        read_pixels(self.shards, record, self.channels, filling.image[place])
        if filling.partner is not None and picks.partner is not None:
            other = int(picks.partner[place])
            if other == record:
                filling.partner[place] = filling.image[place]
            else:
                read_pixels(self.shards, other, self.channels, filling.partner[place])
        if filling.mask is not None:
            filling.mask[place] = read_mask(self.shards, record)
        return filling, self.tables

    def _take(self, number: int) -> _Filling:
        with self._lock:
            filling = self._fillings.get(number)
            if filling is None:
                filling = _Filling(self.order.picks(number), self.shape, self.dtype, self.mask)
                self._fillings[number] = filling
            filling.taken += 1
            if filling.taken == self.order.size:
                del self._fillings[number]
            return filling

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_fillings", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._fillings, self._lock = {}, threading.Lock()


def finished(elements: Sequence[tuple[_Filling, Tables]]) -> Batch:
    """The batch that all its elements have been decoded into."""
    filling, tables = elements[0]
    if any(other is not filling for other, _ in elements):
        raise AssertionError("elements of different batches came together.")
    record = filling.picks.record
    return Batch(
        image=filling.image,
        example=filling.picks.example,
        labels=None if tables.labels is None else tables.labels[record],
        group=None if tables.groups is None else tables.groups[record],
        partner=filling.partner,
        mask=filling.mask,
    )


def pipeline(source: ExampleSource, *, threads: int, workers: int, prefetch: int):
    """A Grain iterator of the batches of `source` in order; close it after use.

    threads   decode single examples side by side, `prefetch` batches ahead
    workers   processes that each make every workers-th batch, `prefetch` ahead each; threads then count per process
    """
    # Grain imports jax; nothing here does, so that packing and reading records leave it unloaded.
    import grain

    size = source.order.size
    examples = grain.MapDataset.source(source)
    if not workers:
        read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(prefetch * size, threads))
        return iter(examples.to_iter_dataset(read).batch(size, batch_fn=finished))
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    batches = examples.batch(size, batch_fn=finished).to_iter_dataset(read)
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=prefetch)
    return iter(batches.mp_prefetch(options, worker_init_fn=_start_worker))


def owned(batch: Batch) -> Batch:
    """The batch in memory of its own, not in a shared block that a worker process lent."""
    return Batch(*(None if field is None else np.array(field) for field in batch))


def _start_worker(index: int, count: int) -> None:
    follow_parent()
