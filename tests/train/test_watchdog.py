"""The watchdog by a clock that the test sets: what is stuck, what is not, and what it leaves behind."""

from __future__ import annotations

import os
import threading

import pytest

from protloc_jax.train.watchdog import Watchdog


class Time:
    """A clock that stands still unless told, and a watchdog that looks at it twice a second."""

    def __init__(self, out, **settings) -> None:
        self.at, self.left = 1000.0, []
        settings = {"step_seconds": 60.0, "pause_seconds": 300.0, **settings}
        self.dog = Watchdog(out, leave=self.left.append, now=lambda: self.at, **settings)

    def passes(self, seconds: float) -> bool:
        """Whether the watchdog fires on the way."""
        end = self.at + seconds
        while self.at < end and not self.left:
            self.at = min(end, self.at + 0.5)
            self.dog.check()
        return bool(self.left)

    def steps(self, first: int, count: int, seconds: float) -> None:
        for number in range(first, first + count):
            self.dog.step(number)
            assert not self.passes(seconds)


def test_a_step_longer_than_the_limit(tmp_path, capfd):
    time = Time(tmp_path, process_index=3)
    time.steps(2, 5, 1.0)
    time.dog.step(7)
    assert not time.passes(60.0)
    assert time.passes(0.5) and time.left == [79]
    said = capfd.readouterr().err
    assert "process 3: step 7 has taken 1 min 00 s, longer than run.watchdog_seconds=60: stuck" in said
    assert str(tmp_path / "stuck" / "3-7.txt") in said and "status 79" in said
    assert "in test_a_step_longer_than_the_limit" in (tmp_path / "stuck" / "3-7.txt").read_text()


def test_slow_steps_get_ten_times_the_usual(tmp_path, capfd):
    """The median of 40 s: a stray long step does not stretch it."""
    time = Time(tmp_path)
    time.steps(2, 4, 40.0)
    time.steps(6, 1, 390.0)
    time.dog.step(7)
    assert not time.passes(400.0)
    assert time.passes(0.5)
    assert "step 7 has taken 6 min 40 s, longer than 10 times the usual 40 s: stuck" in capfd.readouterr().err


def test_the_start_and_pauses_have_a_limit_of_their_own(tmp_path, capfd):
    time = Time(tmp_path)
    assert not time.passes(299.0)
    time.dog.step(2)
    with time.dog.pause("the evaluation of step 1"):
        assert not time.passes(300.0)
        assert time.passes(0.5)
    assert "the evaluation of step 1 has taken 5 min 00 s, longer than run.watchdog_pause_seconds=300" in (
        capfd.readouterr().err
    )
    slow = Time(tmp_path)
    assert not slow.passes(300.0)
    assert slow.passes(0.5)
    assert "the start, compilation included, has taken" in capfd.readouterr().err


def test_pauses_are_no_part_of_the_step_around_them(tmp_path):
    time = Time(tmp_path)
    for number in range(2, 7):
        time.dog.step(number)
        with time.dog.pause("the checkpoint"):
            assert not time.passes(200.0)
        assert not time.passes(1.0)
    time.dog.step(7)
    assert not time.passes(30.0)
    with time.dog.pause("the checkpoint"):
        assert not time.passes(299.0)
    assert not time.passes(30.0)
    assert time.passes(0.5)


def test_a_job_that_was_suspended_is_not_stuck(tmp_path):
    time = Time(tmp_path)
    for begin in (lambda: None, lambda: time.dog.step(2)):
        begin()
        assert not time.passes(5.0)
        time.at += 10_000.0
        time.dog.check()
        assert time.left == []
    assert not time.passes(55.0)
    assert time.passes(0.5)


@pytest.mark.parametrize("zero", ["step_seconds", "pause_seconds"])
def test_zero_means_never(tmp_path, zero):
    time = Time(tmp_path, **{zero: 0.0})
    if zero == "step_seconds":
        time.steps(2, 3, 1.0)
        time.dog.step(5)
    assert not time.passes(5000.0)


def test_no_thread_where_nothing_is_watched(tmp_path):
    before = threading.active_count()
    with Watchdog(tmp_path, step_seconds=0, pause_seconds=0):
        assert threading.active_count() == before
    with Watchdog(tmp_path, step_seconds=5, pause_seconds=0):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_stacks_go_to_stderr_where_the_directory_cannot_be_written(tmp_path, capfd):
    (tmp_path / "stuck").write_text("a file where the folder should be")
    time = Time(tmp_path)
    assert time.passes(301.0) and time.left == [79]
    said = capfd.readouterr().err
    assert "in test_stacks_go_to_stderr" in said and "all threads: above" in said


def test_a_directory_that_hangs_does_not_hold_it_up(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("protloc_jax.train.watchdog.WRITE_SECONDS", 0.2)
    os.mkdir(tmp_path / "stuck")
    os.mkfifo(tmp_path / "stuck" / "0-0.txt")  # opened for writing, it waits for a reader
    time = Time(tmp_path)
    assert time.passes(301.0) and time.left == [79]
    assert "all threads: above" in capfd.readouterr().err
    os.close(os.open(tmp_path / "stuck" / "0-0.txt", os.O_RDONLY | os.O_NONBLOCK))
