"""Work on many rows by threads, with results in order and few of them held at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def ordered_map(
    function: Callable[[Task], Result], tasks: Iterable[Task], workers: int, *, at_once: int
) -> Iterator[Result]:
    """Results of `function` in the order of `tasks`, by `workers` threads (up to 1: none), `at_once` held at most."""
    if workers <= 1:
        yield from map(function, tasks)
        return
    tasks = iter(tasks)
    with ThreadPoolExecutor(workers) as pool:
        while batch := list(itertools.islice(tasks, at_once)):
            yield from pool.map(function, batch)
