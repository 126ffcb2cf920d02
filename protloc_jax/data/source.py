"""From example numbers to batches: what Grain pulls, thread by thread, and the pipeline around it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from protloc_jax.data.batch import Batch
from protloc_jax.data.cell_vectors import CellsOfRecords
from protloc_jax.data.codec import DTYPES
from protloc_jax.data.damage import NOTHING, Damage, Role
from protloc_jax.data.follow_parent import follow_parent, outlive_sigterm
from protloc_jax.data.manifest import Manifest
from protloc_jax.data.read import DamagedRecord, Records, ShardReader, read_mask, read_pixels

ENDLESS = 2**40  # batches; beyond the life of any run, and small enough for Grain's own arithmetic


class Picks(NamedTuple):
    """Which records make one batch: record [B], example [B, 2] (epoch, offset) int32; partner and donor [B] or None."""

    record: np.ndarray
    partner: np.ndarray | None
    example: np.ndarray
    donor: np.ndarray | None = None


class Order(Protocol):
    """The batches of a run: how many, of what size, and what is in each. A pure function of the batch's number."""

    size: int

    def __len__(self) -> int: ...

    def picks(self, number: int) -> Picks: ...


class StandIns(Protocol):
    """Which records to try where those of a place of a batch are damaged, best first. Pure like the order itself."""

    def substitutes(self, number: int, place: int) -> Iterator[int]: ...

    def partners(self, number: int, place: int, record: int) -> Iterator[int]: ...

    def donors(self, number: int, place: int) -> Iterator[int]: ...


class Delivered(NamedTuple):
    """A batch, and the damaged records met in it, by place."""

    batch: Batch
    damage: tuple[Damage, ...]


@dataclass(frozen=True)
class Tables:
    """What stands beside the images: labels [N, L] float32, group ids [N, G] int32, cell-line vectors; or None."""

    labels: np.ndarray | None
    groups: np.ndarray | None
    group_names: dict[str, tuple[str, ...]]
    cells: CellsOfRecords | None = None

    @classmethod
    def of(cls, manifest: Manifest, cells: CellsOfRecords | None = None) -> Tables:
        labels = manifest.multi_hot() if manifest.label_names else None
        columns = {column: manifest.group_ids(column) for column in manifest.group_columns}
        groups = np.stack([ids for ids, _ in columns.values()], axis=1).astype(np.int32) if columns else None
        return cls(labels, groups, {column: names for column, (_, names) in columns.items()}, cells)


class _Filling:
    """A batch being filled: its examples are decoded straight into its arrays, by any thread, in any order."""

    def __init__(self, picks: Picks, shape: tuple[int, int, int], dtype: np.dtype, mask: bool, substituting: bool):
        size = len(picks.record)
        self.picks = picks
        self.taken = 0
        self.image = np.empty((size, *shape), dtype)
        self.partner = np.empty_like(self.image) if picks.partner is not None else None
        self.donor = np.empty_like(self.image) if picks.donor is not None else None
        self.mask = np.empty((size, *shape[:2]), np.uint8) if mask else None
        self.substituted = np.zeros(size, bool) if substituting else None
        self.damage: list[Damage] = []


class ExampleSource:
    """Random access to the examples of an order; element k is example k % B of batch k // B, decoded into that batch.

    A damaged record is replaced by the first of its stand-ins that can be read; without stand-ins its place is zero.
    Either way it comes along in `Delivered.damage`, for whoever takes the batch to judge. Every element is asked for
    once, as Grain does. Pickles without its open files and unfinished batches.
    """

    def __init__(
        self,
        records: Records,
        order: Order,
        tables: Tables,
        channels: Sequence[int],
        *,
        mask: bool,
        stand_ins: StandIns | None = None,
    ):
        info = records.info
        self.shards = ShardReader(records.directory, info.shards)
        self.order, self.tables, self.mask, self.stand_ins = order, tables, mask, stand_ins
        self.channels = None if tuple(channels) == tuple(range(len(info.channels))) else tuple(channels)
        self.shape = (info.height, info.width, len(channels))
        self.dtype = DTYPES[info.dtype]
        self._bad: dict[tuple[int, Role], str] = {}
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
        drawn = int(picks.record[place])
        others = () if self.stand_ins is None else self.stand_ins.substitutes(number, place)
        record = self._first_good(filling, place, "image", (drawn,), others)
        if record == NOTHING:
            filling.image[place] = 0
        else:
            picks.record[place] = record
        if picks.partner is not None and record != NOTHING:
            # Whoever stands in for the image brings a partner of its own group.
            first = (int(picks.partner[place]),) if record == drawn else ()
            others = () if self.stand_ins is None else self.stand_ins.partners(number, place, record)
            self._first_good(filling, place, "partner", first, others, image=record)
        if picks.donor is not None and record != NOTHING:
            others = () if self.stand_ins is None else self.stand_ins.donors(number, place)
            self._first_good(filling, place, "donor", (int(picks.donor[place]),), others, image=record)
        return filling, self.tables

    def why_unreadable(self, record: int) -> str:
        """Why a record cannot be an image of this source, or '' where it can."""
        scratch = np.empty(self.shape, self.dtype)
        return self._read(record, "image", scratch, np.empty(self.shape[:2], np.uint8) if self.mask else None)

    def _first_good(
        self,
        filling: _Filling,
        place: int,
        role: Role,
        first: Iterable[int],
        others: Iterable[int],
        *,
        image: int = NOTHING,
    ) -> int:
        """Fill a place of the batch from the first record that can be read, and note those that cannot."""
        met: dict[int, str] = {}
        found = NOTHING
        for record in itertools.chain(first, others):
            if record in met:
                continue
            why = self._place(filling, place, role, record, image)
            if not why:
                found = record
                break
            met[record] = why
        if met:
            filling.damage += [Damage(place, role, record, found, why) for record, why in met.items()]
            if filling.substituted is not None:
                filling.substituted[place] = True
        return found

    def _place(self, filling: _Filling, place: int, role: Role, record: int, image: int) -> str:
        if role == "image":
            return self._read(record, role, filling.image[place], None if filling.mask is None else filling.mask[place])
        pixels = filling.partner if role == "partner" else filling.donor
        assert pixels is not None
        if record != image:
            return self._read(record, role, pixels[place], None)
        pixels[place] = filling.image[place]
        return ""

    def _read(self, record: int, role: Role, pixels: np.ndarray, mask: np.ndarray | None) -> str:
        """Why a record is damaged, or '' where its pixels, and its mask where wanted, are now in the arrays."""
        why = self._bad.get((record, role), "")
        if why:
            return why
        for _ in range(2):  # what does not happen twice is the file system's fault, not the record's
            try:
                read_pixels(self.shards, record, self.channels, pixels)
                if mask is not None:
                    mask[...] = read_mask(self.shards, record)
                return ""
            except DamagedRecord as error:
                why = error.reason
        self._bad[record, role] = why
        return why

    def _take(self, number: int) -> _Filling:
        with self._lock:
            filling = self._fillings.get(number)
            if filling is None:
                filling = _Filling(
                    self.order.picks(number), self.shape, self.dtype, self.mask, self.stand_ins is not None
                )
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


def finished(elements: Sequence[tuple[_Filling, Tables]]) -> Delivered:
    """The batch that all its elements have been decoded into."""
    filling, tables = elements[0]
    if any(other is not filling for other, _ in elements):
        raise AssertionError("elements of different batches came together.")
    record = filling.picks.record
    batch = Batch(
        image=filling.image,
        example=filling.picks.example,
        labels=None if tables.labels is None else tables.labels[record],
        group=None if tables.groups is None else tables.groups[record],
        partner=filling.partner,
        donor=filling.donor,
        mask=filling.mask,
        cell_line=None if tables.cells is None else tables.cells.at(record),
        substituted=filling.substituted,
    )
    return Delivered(batch, tuple(sorted(filling.damage)))


def pipeline(source: ExampleSource, *, threads: int, workers: int, prefetch: int):
    """A Grain iterator of the batches of `source` in order, as `Delivered`; close it after use.

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
    outlive_sigterm()
