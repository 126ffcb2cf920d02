"""Batches fetched by a second thread: the same ones, one at a time, and a wait that can be given up."""

from __future__ import annotations

import threading
import time

import pytest

from protloc_jax.train.waiting import Waiting


def test_the_same_items_none_fetched_before_it_is_asked_for():
    fetched = []

    def items():
        for number in range(5):
            fetched.append((number, threading.current_thread().name))
            yield number

    waiting = Waiting(items())
    time.sleep(0.02)
    assert fetched == []
    for number in range(5):
        assert next(waiting) == number
        assert fetched == [(n, "next-batch") for n in range(number + 1)]
    assert next(waiting, "end") == "end" == next(waiting, "end")
    waiting.close()


def test_errors_come_where_the_item_was_wanted():
    def items():
        yield 1
        raise OSError("no such record")

    waiting = Waiting(items())
    assert next(waiting) == 1
    with pytest.raises(OSError, match="no such record"):
        next(waiting)
    assert next(waiting, "end") == "end"
    waiting.close()


class Blocked:
    """Gives one item and blocks on the next until it is let go; then it raises, as a reader of a killed worker does."""

    def __init__(self) -> None:
        self.release, self.given, self.closed = threading.Event(), 0, threading.Event()

    def __iter__(self):
        return self

    def __next__(self) -> int:
        self.given += 1
        if self.given > 1:
            self.release.wait(60)
            raise RuntimeError("killed")
        return 0

    def close(self) -> None:
        self.closed.set()


def test_a_blocked_reader_is_left_and_closed_when_it_comes_back(monkeypatch):
    monkeypatch.setattr("protloc_jax.train.waiting.CLOSE_SECONDS", 0.1)
    reader, flag = Blocked(), threading.Event()
    waiting = Waiting(reader, flag.is_set)
    assert next(waiting) == 0
    threading.Timer(0.2, flag.set).start()
    began = time.monotonic()
    assert next(waiting, "end") == "end"
    waiting.close()
    assert 0.2 <= time.monotonic() - began < 10
    assert not reader.closed.is_set()
    reader.release.set()
    assert reader.closed.wait(10)


def test_what_fails_after_the_flag_is_no_error():
    """A signal to a whole process group kills the workers too."""
    reader, flag = Blocked(), threading.Event()
    waiting = Waiting(reader, flag.is_set)
    assert next(waiting) == 0
    flag.set()
    reader.release.set()
    assert next(waiting, "end") == "end"
    waiting.close()
    assert reader.closed.is_set()


def test_closing_before_anything_was_asked_for():
    reader = Blocked()
    Waiting(reader).close()
    assert reader.closed.is_set() and reader.given == 0
    Waiting([1, 2]).close()
