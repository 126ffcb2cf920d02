"""Packing: images and a manifest become a folder of records. Kill it anywhere: the same call goes on from there."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from protloc_jax.data import codec, parts
from protloc_jax.data import info as info_file
from protloc_jax.data import manifest as manifest_file
from protloc_jax.data.disk_space import Space
from protloc_jax.data.durable import move_into_place, sha256, sync_file
from protloc_jax.data.encoding import Chunk, Encoder, Parallel, encode_all, layout_of
from protloc_jax.data.info import RecordsError, RecordsInfo, Shard
from protloc_jax.data.intensity import Histogram
from protloc_jax.data.journal import Done, Journal, discard, locked, refuse_changes
from protloc_jax.data.local_path import local_folder
from protloc_jax.data.manifest import CORE_COLUMNS, Manifest, listed
from protloc_jax.data.packing_progress import Progress
from protloc_jax.data.read import count_problems, shard_problems

_FEWEST_A_SHARD, _MOST_SHARDS = 256, 256


def write(
    directory: str | Path,
    manifest: Manifest,
    images: Callable[[int], Any] | Iterable[Any],
    *,
    masks: Callable[[int], np.ndarray] | None = None,
    name: str = "",
    shard_size: int = 0,
    workers: int | None = None,
    parallel: Parallel = "threads",
    progress: bool = False,
    source: str = "",
    restart: bool = False,
) -> RecordsInfo:
    """Pack the images of a manifest into ArrayRecord shards, with digests and intensity statistics.

    images      function of the row number, or an iterable in row order, giving [H, W, C] uint8 or uint16, or the pair
                (image, mask [H, W] uint8). All of one shape and type; C follows `manifest.channels`
    masks       function of the row number giving the mask, where the images do not bring it
    shard_size  records a file; 0 = chosen (256, or more so that there are at most 256 files)
    workers     encoding threads or processes; None = one a core, 0 = the calling thread
    parallel    "processes" where making an image is Python work (needs a picklable function and a __main__ guard)
    source      any text that changes when `images` would give other pixels (crop size, raw file digests, ...)
    restart     discard what the folder holds instead of going on

    Every shard is written aside, synced and renamed; `dataset.json` comes last, so that no half set can be opened. The
    same call after an interruption goes on with the missing shards and ends with the same bytes; when the manifest
    or a setting changed since, or the folder holds other records, it refuses. Inside `parts.only(part)` it writes that
    part's shards alone, for `parts.join`, and returns what they hold. Raises RecordsError naming each bad image
    with row, id and source, and OSError (ENOSPC) with the bytes needed when the disk is, or will be, full.
    """
    directory = local_folder(directory)
    manifest.validate()
    if not callable(images) and parallel == "processes":
        raise RecordsError("an iterable of images cannot be packed by processes; pass a function of the row number.")
    directory.mkdir(parents=True, exist_ok=True)
    part = parts.current()
    packing = _Packing(directory, manifest, images, masks, name, shard_size, source, part)
    count = _cores() if workers is None else workers
    with locked(directory):
        finished = packing.begin(restart)
        if finished is None:
            for number, done in packing.shards(count, parallel, progress):
                packing.journal.record(number, done)
            finished = packing.finish()
        if part is None:
            packing.journal.remove()
    return finished


class _Packing:
    """One packing: the plan, and the way from images to finished shards."""

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        images: Callable[[int], Any] | Iterable[Any],
        masks: Callable[[int], np.ndarray] | None,
        name: str,
        shard_size: int,
        source: str,
        part: parts.Part | None,
    ):
        self.directory, self.manifest, self.part = directory, manifest, part
        self.name, self.named = name or directory.resolve().name, bool(name)
        self.stream: Iterator[Any] | None = None
        train = (manifest.table["split"] == "train").to_numpy()
        self.intensity_split = "train" if train.any() else "all"
        first = self._first(images)
        try:
            self.layout = layout_of(first, manifest.channels.names, masks is not None)
        except RecordsError as error:
            raise RecordsError(f"{self._row(0)} {error}") from error
        self.encoder = Encoder(
            None if self.stream is not None else images,  # type: ignore[arg-type]
            masks,
            self.layout,
            train if train.any() else np.ones(manifest.n, bool),
        )
        self.shard_size = shard_size or max(_FEWEST_A_SHARD, -(-manifest.n // _MOST_SHARDS))
        self.n_shards = -(-manifest.n // self.shard_size)
        self.plan = {
            "manifest": content_digest(manifest),
            "n": manifest.n,
            "image": self.layout.text,
            "masks": self.layout.has_mask,
            "shard_size": self.shard_size,
            "codec": codec.CODECS[self.layout.dtype],
            "source": source,
        }
        self.own = [number for number in range(self.n_shards) if part is None or part.has(number)]
        self.rows = sum(stop - start for start, stop in map(self._bounds, self.own))
        self.journal = Journal(directory, self.plan)
        self.ready: dict[int, Done] = {}

    def begin(self, restart: bool) -> RecordsInfo | None:
        """Look at what the folder holds: the finished records if this packing has been done, else None."""
        if restart:
            discard(self.directory)
        if (self.directory / info_file.FILE).is_file():
            info = info_file.load(self.directory)
            refuse_changes(self.directory, info.packing, self.plan)
            problems = shard_problems(self.directory, info) + count_problems(self.directory, info)
            if problems:
                raise RecordsError(listed([*problems, "Pack with restart to write them again."]))
            return info
        parts.refuse_another(self.directory, self.part)
        self.journal.begin()
        for number in self.own:
            done = self.journal.done(number, self._file(number))
            if done is not None:
                self.ready[number] = done
        return None

    def shards(self, workers: int, parallel: Parallel, progress: bool) -> Iterator[tuple[int, Done]]:
        """Write the missing shards, giving each once it lies in its place."""
        missing = [number for number in self.own if number not in self.ready]
        packed = sum(done.shard.n for done in self.ready.values())
        space = Space(self.directory, self.rows - packed)
        chunks = encode_all(self.encoder, self._spans(missing), workers=workers, parallel=parallel)
        with Progress(progress, self.name, packed, self.rows) as bar:
            try:
                for number in missing:
                    start, stop = self._bounds(number)
                    self.ready[number] = self._shard(number, stop - start, chunks, space, bar)
                    yield number, self.ready[number]
            finally:
                chunks.close()  # type: ignore[attr-defined]
            if self.stream is not None and self.part is None and next(self.stream, None) is not None:
                raise RecordsError(f"more images than the {self.manifest.n} rows of the manifest.")

    def finish(self) -> RecordsInfo:
        """Write the manifest and, last of all, dataset.json (of a part: part.json)."""
        temporary = self.journal.folder / "manifest.tmp"
        manifest_file.write(self.manifest, temporary)
        sync_file(temporary)
        manifest_sha256 = sha256(temporary)
        move_into_place(temporary, self.directory / info_file.MANIFEST_FILE)
        every = [self.ready[number] for number in self.own]
        histogram = Histogram(self.layout.channels, codec.DTYPES[self.layout.dtype])
        for done in every:
            histogram.merge(done.counts)
        names, ids = self.manifest.channels.names, self.manifest.ids
        constant = [entry for done in every for entry in done.constant]
        info = RecordsInfo(
            name=self.name,
            channels=tuple((channel.name, channel.role) for channel in self.manifest.channels),
            um_per_pixel=self.manifest.um_per_pixel,
            dtype=self.layout.dtype,
            height=self.layout.height,
            width=self.layout.width,
            n=self.manifest.n,
            codec=codec.CODECS[self.layout.dtype],
            has_mask=self.layout.has_mask,
            label_names=self.manifest.label_names,
            label_kind=self.manifest.label_kind,
            group_columns=tuple(str(c) for c in self.manifest.table.columns if c not in CORE_COLUMNS),
            shards=tuple(done.shard for done in every),
            manifest_sha256=manifest_sha256,
            intensity=histogram.summary(names),
            intensity_split=self.intensity_split,
            constant={
                "count": len(constant),
                "listed": [
                    [i, ids[i], [names[c] for c in channels]] for i, channels in constant[: parts.LISTED_CONSTANT]
                ],
            },
            packing=self.plan,
        )
        if self.part is not None:
            parts.note(self.directory, self.part, info, shards=self.n_shards, named=self.named)
            return info
        info_file.save(info, self.directory)
        return info_file.load(self.directory)

    def _shard(self, number: int, n: int, chunks: Iterator[Chunk], space: Space, bar: Progress) -> Done:
        path, temporary = self.directory / self._file(number), self.journal.temporary(number)
        histogram = Histogram(self.layout.channels, codec.DTYPES[self.layout.dtype])
        constant: list[tuple[int, tuple[int, ...]]] = []
        try:
            writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")
            try:
                written = 0
                while written < n:
                    chunk = next(chunks)
                    if chunk.problems:
                        raise RecordsError(listed([f"{self._row(i)} {text}" for i, text in chunk.problems]))
                    space.check(chunk)
                    for record in chunk.records:
                        writer.write(record)
                    histogram.merge(chunk.counts)
                    constant += chunk.constant
                    written += len(chunk.records)
                    bar.advance(len(chunk.records))
            finally:
                space.translate(writer.close)
            reader = ArrayRecordReader(str(temporary))
            found = reader.num_records() if reader.ok() else -1
            reader.close()
            if found != n:
                raise OSError(errno.EIO, f"{found} of {n} records arrived", str(temporary))
            sync_file(temporary)
            shard = Shard(path.name, n, sha256(temporary), temporary.stat().st_size)
            move_into_place(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        return Done(shard, histogram.counts, constant)

    def _spans(self, missing: list[int]) -> Iterator[tuple[int, int, list[Any] | None]]:
        """(start, stop, items) of the chunks of the missing shards; a chunk never crosses into the next shard."""
        position = 0
        for number in missing:
            start, stop = self._bounds(number)
            if self.stream is not None:
                for _ in itertools.islice(self.stream, start - position):
                    pass
            for low in range(start, stop, self.layout.chunk):
                high = min(low + self.layout.chunk, stop)
                items = None
                if self.stream is not None:
                    items = list(itertools.islice(self.stream, high - low))
                    if len(items) < high - low:
                        raise RecordsError(f"{low + len(items)} images for the {self.manifest.n} rows of the manifest.")
                yield low, high, items
            position = stop

    def _first(self, images: Callable[[int], Any] | Iterable[Any]) -> Any:
        try:
            if callable(images):
                return images(0)
            stream = iter(images)
            first = next(stream, None)
            if first is None:
                raise RecordsError(f"no images for the {self.manifest.n} rows of the manifest.")
            self.stream = itertools.chain([first], stream)
            return first
        except RecordsError:
            raise
        except (ValueError, OSError) as error:
            raise RecordsError(f"{self._row(0)} {type(error).__name__}: {error}") from error

    def _bounds(self, number: int) -> tuple[int, int]:
        return number * self.shard_size, min((number + 1) * self.shard_size, self.manifest.n)

    def _file(self, number: int) -> str:
        return f"shard-{number:05d}-of-{self.n_shards:05d}.array_record"

    def _row(self, index: int) -> str:
        row = self.manifest.table.iloc[index]
        source = f", {row['source']}" if row["source"] else ""
        return f"row {index} ({row['id']}{source}):"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def content_digest(manifest: Manifest) -> str:
    """SHA-256 of what a manifest says, whatever library versions wrote it."""
    digest = hashlib.sha256()
    head = [list(map(list, manifest.channels)), manifest.label_names, manifest.label_kind, manifest.um_per_pixel]
    digest.update(json.dumps(head).encode())
    for column in manifest.table.columns:
        digest.update(json.dumps([str(column), manifest.table[column].tolist()], default=str).encode())
    return digest.hexdigest()
