"""From images to encoded records, by threads or processes; the bytes do not depend on which or how many."""

from __future__ import annotations

import multiprocessing
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from protloc_jax.data import codec
from protloc_jax.data.follow_parent import follow_parent
from protloc_jax.data.info import RecordsError
from protloc_jax.data.intensity import Histogram, constant_channels

Parallel = Literal["threads", "processes"]
_CHUNK_BYTES, _CHUNK_RECORDS = 2**24, 64


class Chunk(NamedTuple):
    """Some consecutive records, encoded, with what the data set's statistics need of them."""

    start: int
    records: list[bytes]
    counts: np.ndarray
    constant: list[tuple[int, tuple[int, ...]]]
    problems: list[tuple[int, str]]


class Layout(NamedTuple):
    """What every image of a data set must be."""

    height: int
    width: int
    channels: int
    dtype: str
    has_mask: bool

    @property
    def bytes(self) -> int:
        return self.height * self.width * self.channels * codec.DTYPES[self.dtype].itemsize

    @property
    def text(self) -> str:
        return f"{self.height}x{self.width}x{self.channels} {self.dtype}"

    @property
    def chunk(self) -> int:
        """Records encoded by one task."""
        return max(1, min(_CHUNK_RECORDS, _CHUNK_BYTES // max(1, self.bytes)))


def layout_of(item: Any, channels: tuple[str, ...], masks: bool) -> Layout:
    """The layout that a data set's first image sets; RecordsError says what makes an image unusable."""
    pixels, mask = split_item(item)
    problem = pixel_problem(pixels)
    if problem is None and pixels.shape[-1] != len(channels):
        problem = f"has {pixels.shape[-1]} channels, the manifest names {len(channels)} ({', '.join(channels)})."
    if problem:
        raise RecordsError(problem)
    height, width, count = pixels.shape
    return Layout(height, width, count, str(pixels.dtype), masks or mask is not None)


def split_item(item: Any) -> tuple[Any, Any]:
    """(pixels, mask or None) of what an image source gave."""
    return item if isinstance(item, tuple) and len(item) == 2 else (item, None)


def pixel_problem(pixels: Any) -> str | None:
    """Why an array cannot be a record, or None."""
    if not isinstance(pixels, np.ndarray):
        return f"is a {type(pixels).__name__}, not a NumPy array."
    if pixels.ndim != 3 or 0 in pixels.shape:
        return f"has the shape {pixels.shape}; images are [height, width, channels] and not empty."
    if str(pixels.dtype) not in codec.DTYPES:
        bad = pixels.dtype.kind == "f" and int((~np.isfinite(pixels)).sum())
        extra = f" ({bad:,} of them NaN or infinite)" if bad else ""
        return f"has {pixels.dtype} pixels{extra}; records hold uint8 or uint16."
    return None


@dataclass(frozen=True)
class Encoder:
    """Makes the chunks. `images(i)` gives the array of record i, or the pair (array, mask)."""

    images: Callable[[int], Any] | None
    masks: Callable[[int], np.ndarray] | None
    layout: Layout
    counted: np.ndarray  # [N] bool: rows that enter the intensity statistics

    def encode(self, start: int, stop: int, items: list[Any] | None = None) -> Chunk:
        layout = self.layout
        histogram = Histogram(layout.channels, codec.DTYPES[layout.dtype])
        chunk = Chunk(start, [], histogram.counts, [], [])
        for index in range(start, stop):
            try:
                if items is not None:
                    item = items[index - start]
                else:
                    assert self.images is not None
                    item = self.images(index)
                pixels, mask = split_item(item)
                if mask is None and self.masks is not None:
                    mask = self.masks(index)
            except (ValueError, OSError) as error:
                chunk.problems.append((index, f"{type(error).__name__}: {error}"))
                continue
            problem = self._problem(pixels, mask)
            if problem:
                chunk.problems.append((index, problem))
                continue
            constant = constant_channels(pixels)
            if constant:
                chunk.constant.append((index, constant))
            # Channel after channel in memory: counting and compressing go plane by plane.
            pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1)).transpose(1, 2, 0)
            if self.counted[index]:
                histogram.add(pixels)
            chunk.records.append(codec.encode(pixels, index, None if mask is None else np.asarray(mask, np.uint8)))
        return chunk

    def _problem(self, pixels: Any, mask: Any) -> str | None:
        problem = pixel_problem(pixels)
        if problem:
            return problem
        height, width, channels = pixels.shape
        found = Layout(height, width, channels, str(pixels.dtype), self.layout.has_mask)
        if found != self.layout:
            return f"is {found.text}, the first image is {self.layout.text}."
        if (mask is not None) != self.layout.has_mask:
            return f"{'lacks' if mask is None else 'has'} a mask, unlike the first image."
        if mask is not None and (mask.shape != pixels.shape[:2] or mask.dtype not in (np.uint8, np.bool_)):
            return f"has a mask of {mask.shape} {mask.dtype}; masks are [height, width] uint8 like the image."
        return None


def encode_all(
    encoder: Encoder,
    spans: Iterable[tuple[int, int, list[Any] | None]],
    *,
    workers: int,
    parallel: Parallel,
) -> Iterator[Chunk]:
    """Chunks of `spans` (start, stop, items or None) in order, a bounded number of them in flight; workers=0 is inline.

    RecordsError when the images cannot be sent to processes, or when a worker process dies.
    """
    if workers == 0:
        for span in spans:
            yield encoder.encode(*span)
        return
    pool = _pool(encoder, workers, parallel)
    waiting: deque[Future[Chunk]] = deque()
    try:
        for span in spans:
            task = _encode_here if parallel == "processes" else encoder.encode
            waiting.append(pool.submit(task, *span))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise RecordsError(
            "a packing worker process died (killed, or out of memory?); run again to go on, with fewer workers "
            "if memory is short."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _pool(encoder: Encoder, workers: int, parallel: Parallel) -> Executor:
    if parallel == "threads":
        return ThreadPoolExecutor(workers, thread_name_prefix="protloc-pack")
    try:
        pickle.dumps(encoder)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise RecordsError(
            f"the images cannot be sent to worker processes ({error}); give a function defined in a module, "
            "or pack with parallel='threads'."
        ) from error
    # Spawned, not forked: the parent already runs threads (zstd, ArrayRecord).
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_install, initargs=(encoder,))


_encoder: Encoder | None = None


def _install(encoder: Encoder) -> None:
    global _encoder
    _encoder = encoder
    follow_parent()


def _encode_here(start: int, stop: int, items: list[Any] | None) -> Chunk:
    assert _encoder is not None
    return _encoder.encode(start, stop, items)
