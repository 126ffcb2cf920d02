"""Waiting for the next batch in a way that can be given up."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
# How often a waiting main thread asks whether to give up.
TICK_SECONDS = 0.1
# How long closing waits for a read that is under way.
CLOSE_SECONDS = 2.0


class Waiting(Generic[T]):
    """The items of an iterable, each fetched by a second thread when it is asked for; an iterator.

    give_up: asked while an item is not there yet. Once it says yes the items end, whatever the fetching does or raises:
    a reader that a hanging file system blocks holds nobody up. Otherwise errors are raised where the item was wanted.
    """

    def __init__(self, items: Iterable[T], give_up: Callable[[], bool] = lambda: False) -> None:
        self._items, self._give_up = items, give_up
        self._asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._given: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._under_way = self._ended = False

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._ended:
            raise StopIteration
        if self._thread is None:
            # A daemon: one that is blocked for ever may not keep the process.
            self._thread = threading.Thread(target=self._fetch, name="next-batch", daemon=True)
            self._thread.start()
        self._under_way = True
        self._asked.put(True)
        kind, value = self._wait()
        if kind == "item":
            return value
        self._ended = True
        # Workers get the signal too where it goes to a whole group of processes; that they died of it is no news.
        if kind == "error" and not self._give_up():
            raise value
        raise StopIteration

    def _wait(self) -> tuple[str, Any]:
        while True:
            with contextlib.suppress(queue.Empty):
                given = self._given.get(timeout=TICK_SECONDS)
                self._under_way = False
                return given
            if self._give_up():
                return "end", None

    def close(self) -> None:
        """Close the iterable, in its own thread; where a read is under way that has been given up, without waiting."""
        self._ended = True
        if self._thread is None:
            getattr(self._items, "close", lambda: None)()
            return
        self._asked.put(False)
        self._thread.join(CLOSE_SECONDS if self._under_way else None)

    def _fetch(self) -> None:
        iterator: Iterator[T] | None = None
        while self._asked.get():
            try:
                iterator = iter(self._items) if iterator is None else iterator
                self._given.put(("item", next(iterator)))
            except StopIteration:
                self._given.put(("end", None))
            except BaseException as error:
                self._given.put(("error", error))
        getattr(self._items, "close", lambda: None)()
