"""Opening the files of every row before packing: sizes, bit depths, channels, damage, constant images."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from protloc_jax.data.packing_progress import Progress
from protloc_jax.datasets.folder_config import FolderConfig
from protloc_jax.datasets.gathered import Gathered
from protloc_jax.datasets.problems import Problems
from protloc_jax.datasets.row_images import Seen, look

MIXED_SIZES = "mixed sizes (sizes=crop, pad or resize brings them to one)"
DROPPABLE = (
    *("missing files", "missing channels", "unreadable images", "constant images"),
    *("number of channels", "mixed bit depths", MIXED_SIZES),
)
_AT_ONCE = 4096


def inspect(
    config: FolderConfig, found: Gathered, problems: Problems, *, workers: int, progress: bool
) -> list[Seen | None]:
    """Open the files of every row with threads; None for rows with a problem, which is added to `problems`."""
    total = len(found.paths)
    tasks = ((config, paths, mask) for paths, mask in zip(found.paths, found.masks, strict=True))
    seen: list[Seen | None] = []
    with Progress(progress, "checking", 0, total) as bar:
        for number, (result, kind, text) in enumerate(_map(look, tasks, workers)):
            seen.append(result)
            if kind:
                problems.add(kind, f"{found.rows[number]}: {text}", number)
            bar.advance(1)
    _compare(config, found, seen, problems)
    return seen


def _map(function: Callable[[Any], Any], tasks: Iterable[Any], workers: int) -> Iterator[Any]:
    """Ordered map over threads that never holds more than a few thousand results."""
    if workers <= 1:
        yield from map(function, tasks)
        return
    tasks = iter(tasks)
    with ThreadPoolExecutor(workers) as pool:
        while batch := list(itertools.islice(tasks, _AT_ONCE)):
            yield from pool.map(function, batch)


def _compare(config: FolderConfig, found: Gathered, seen: Sequence[Seen | None], problems: Problems) -> None:
    """What only shows between files: numbers of channels, bit depths, sizes. The most common counts as meant."""
    named = len(config.channel_set)
    every = zip(range(len(seen)), found.rows, found.paths, seen, strict=True)
    good = [(number, row, paths, s) for number, row, paths, s in every if s and paths]
    counts = Counter(s.shape[2] for *_, s in good)
    if len(counts) == 1 and named not in counts:
        problems.add(
            "number of channels",
            f"every file has {next(iter(counts))} channels (the first is {good[0][2][0]}), but {named} are named: "
            f"{', '.join(config.channel_set.names)}",
        )
    else:
        for number, row, paths, s in good:
            if s.shape[2] != named:
                which = ", ".join(config.channel_set.names)
                text = f"{row}: {paths[0]} has {s.shape[2]} where {named} are named ({which})"
                problems.add("number of channels", text, number)
    kinds = Counter(s.dtype for *_, s in good)
    if len(kinds) > 1:
        usual = kinds.most_common(1)[0][0]
        for number, row, paths, s in good:
            if s.dtype != usual:
                text = f"{row}: {paths[0]} is {s.dtype} where {kinds[usual]} are {usual}"
                problems.add("mixed bit depths", text, number)
    sizes = Counter(s.shape[:2] for *_, s in good)
    if len(sizes) > 1 and config.sizes == "error":
        usual = sorted(sizes, key=lambda z: (-sizes[z], z))[0]
        for number, row, paths, s in good:
            if s.shape[:2] != usual:
                text = f"{row}: {paths[0]} is {s.shape[0]} x {s.shape[1]}, {sizes[usual]} are {usual[0]} x {usual[1]}"
                problems.add(MIXED_SIZES, text, number)


def default_workers() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
