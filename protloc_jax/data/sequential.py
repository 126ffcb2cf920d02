"""Records in a given order, once, in batches of one size: what embedding reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from protloc_jax.data.batch import Batch
from protloc_jax.data.cell_vectors import CellsOfRecords
from protloc_jax.data.damage import named
from protloc_jax.data.info import RecordsError
from protloc_jax.data.manifest import capped, listed
from protloc_jax.data.read import Records
from protloc_jax.data.source import ExampleSource, Picks, Tables, pipeline


def sequential(
    records: Records,
    rows: Sequence[int] | np.ndarray,
    batch: int,
    *,
    channels: Sequence[str] = (),
    mask: bool = False,
    cells: CellsOfRecords | None = None,
    threads: int = 2,
    prefetch: int = 2,
    on_bad: Callable[[int, str], None] | None = None,
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Batches of the records `rows`, in that order, each once, with a bool array [batch] that is False for padding.

    The last batch is filled up by repeating the last row, so that every batch has one shape; `example` is
    (0, record), `cell_line` the vector that `cells` has for the record. Closing the iterator stops its threads. A
    damaged record raises RecordsError naming shard, row and id;
    with `on_bad`, that is called instead with (record, reason) and the place is zero and False like padding: nothing
    ever stands in for it. Raises RecordsError for rows that do not exist, ValueError for unknown channels.
    """
    rows = np.asarray(rows, np.int64)
    bad = rows[(rows < 0) | (rows >= records.n)]
    if len(bad):
        raise RecordsError(f"{records.directory}: no rows {capped([str(r) for r in bad])}; there are {records.n}.")
    if batch < 1:
        raise ValueError(f"batch={batch}: must be 1 or more.")
    chosen = records.info.channel_set.select(channels) if channels else range(len(records.info.channels))
    if mask and not records.info.has_mask:
        raise RecordsError(f"{records.directory}: these records have no masks.")
    return _batches(records, _Rows(rows, batch), chosen, mask, cells, threads, prefetch, on_bad)


def _batches(
    records: Records,
    order: _Rows,
    chosen: Sequence[int],
    mask: bool,
    cells: CellsOfRecords | None,
    threads: int,
    prefetch: int,
    on_bad: Callable[[int, str], None] | None,
) -> Iterator[tuple[Batch, np.ndarray]]:
    if not len(order):
        return
    source = ExampleSource(records, order, Tables.of(records.manifest, cells), chosen, mask=mask)
    iterator = pipeline(source, threads=threads, workers=0, prefetch=prefetch)
    try:
        for number, (found, damage) in enumerate(iterator):
            valid = order.valid(number)
            reasons = {one.record: one.reason for one in damage}
            if reasons and on_bad is None:
                raise RecordsError(listed(named(source.shards, records.manifest, reasons)))
            for one in damage:
                if on_bad is not None and valid[one.place]:
                    on_bad(one.record, one.reason)
                valid[one.place] = False
            yield found, valid
    finally:
        iterator.close()


class _Rows:
    """The rows cut into batches, the last one padded with its last row."""

    def __init__(self, rows: np.ndarray, size: int):
        self.rows, self.size = rows, size

    def __len__(self) -> int:
        return -(-len(self.rows) // self.size)

    def picks(self, number: int) -> Picks:
        index = self.rows[np.minimum(self._places(number), len(self.rows) - 1)]
        return Picks(index, None, np.stack([np.zeros_like(index), index], axis=1).astype(np.int32))

    def valid(self, number: int) -> np.ndarray:
        return self._places(number) < len(self.rows)

    def _places(self, number: int) -> np.ndarray:
        return number * self.size + np.arange(self.size)
