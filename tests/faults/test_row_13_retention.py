"""A checkpoint that is never older than so many minutes, after a damaged resume as well; and where a run comes from."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_training as tiny
from small_checkpoints import flip
from storage_faults import Crash, compiled_once, dying, wait_for_saves

from protloc_jax.devices import make_mesh
from protloc_jax.train.checkpoint import Progress, load_weights
from protloc_jax.train.checkpoint_files import read_meta
from protloc_jax.train.exits import Exit
from protloc_jax.train.resume import ResumeRefused
from protloc_jax.train.save_times import SaveTimes

SHORT = ("optim.steps=7", "optim.warmup_epochs=0.5")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory) -> Iterator[Path]:
    with compiled_once(tmp_path_factory) as folder:
        yield folder


class Storage:
    """A model of checkpoints on a storage that takes `seconds()` a save, by a clock of its own."""

    def __init__(self, seconds, *, fails=lambda number: False):
        self.now, self.refused, self.begun, self.failures = 0.0, False, [], []
        self.seconds, self.fails = seconds, fails
        self.complete = [(0.0, 0.0, 0.0)]  # a run begins with a state that it need not compute again
        self.under_way: tuple[float, float, bool] | None = None
        self.progress = Progress()

    @property
    def busy(self) -> bool:
        return self.under_way is not None

    def advance(self, seconds: float) -> None:
        self.now += seconds
        if self.under_way is None:
            return
        taken, ends, fails = self.under_way
        if ends <= self.now:
            self.under_way = None
            if fails:
                self.failures.append(ends)
                self.progress = self.progress._replace(taken=self.complete[-1][0] or -math.inf, failed=ends)
            else:
                self.complete.append((taken, ends, ends - taken))
                self.progress = self.progress._replace(taken=taken, seconds=ends - taken)

    def save(self) -> None:
        self.refused = self.busy
        if not self.busy:
            self.under_way = (self.now, self.now + self.seconds(), self.fails(len(self.begun)))
            self.begun.append(self.now)
            self.progress = self.progress._replace(taken=self.now)

    def oldest(self) -> float:
        """The greatest age that the newest complete checkpoint ever had."""
        return max(ends - taken for (taken, _, _), (_, ends, _) in itertools.pairwise(self.complete))


def simulate(storage: Storage, step_seconds, *, minutes: float, hours: float = 10, every: int = 0) -> Storage:
    saves = SaveTimes(storage, minutes=minutes, now=lambda: storage.now)
    for step in itertools.count(1):
        if storage.now > 3600 * hours:
            return storage
        storage.advance(step_seconds())
        if saves.due(every > 0 and step % every == 0):
            storage.save()
    raise AssertionError


@pytest.mark.parametrize("seed", range(12))
def test_the_newest_checkpoint_never_gets_older(seed):
    """Steps of up to a minute, saves of any length up to a third of the interval, steady to a minute or so."""
    rng = random.Random(seed)
    step, save = 10 ** rng.uniform(0.5, math.log10(60)), 10 ** rng.uniform(0, 3)
    minutes = max(60.0, 3 * save / 60)
    storage = simulate(
        Storage(lambda: save + rng.uniform(0, 60)), lambda: step * rng.uniform(0.5, 1), minutes=minutes, hours=24
    )
    assert storage.oldest() <= 60 * minutes
    # Nor are there many more of them than that takes.
    assert len(storage.begun) <= 1 + 24 * 3600 / (60 * minutes / 2)


def test_saves_by_steps_put_the_clock_back():
    storage = simulate(Storage(lambda: 10.0), lambda: 1.0, minutes=30, hours=10, every=600)
    assert storage.begun == [600.0 * n for n in range(1, 61)]
    assert simulate(Storage(lambda: 10.0), lambda: 1.0, minutes=0, hours=10).begun == []


def test_a_storage_that_is_too_slow_is_kept_busy_and_no_more():
    storage = simulate(Storage(lambda: 1500.0), lambda: 1.0, minutes=30)
    between = [b - a for a, b in itertools.pairwise(storage.begun)]
    assert all(1500 <= gap <= 1502 for gap in between[1:])


def test_a_failed_save_is_tried_again_soon_but_not_at_once():
    storage = simulate(Storage(lambda: 10.0, fails=lambda n: n in (3, 4)), lambda: 1.0, minutes=30, hours=5)
    assert len(storage.failures) == 2
    after = [min(b for b in storage.begun if b > failed) - failed for failed in storage.failures]
    assert all(450 <= seconds <= 452 for seconds in after)


def test_the_first_clock_is_agreed_upon_one_step_later():
    """The way between processes, with one: what is heard was said a step before, and is acted upon once."""
    storage = Storage(lambda: 100.0)
    saves = SaveTimes(storage, minutes=10, now=lambda: storage.now)
    saves._mesh = make_mesh()
    due = []
    for _ in range(40):
        storage.advance(30.0)
        due.append(saves.due(False))
        if due[-1]:
            storage.save()
    # Half of the interval has passed after step 10; begun at 330 s and complete in 100, the next is due from 800 s on.
    assert [n for n, save in enumerate(due, 1) if save] == [11, 28]


def test_a_save_that_was_left_out_is_made_up_for_when_all_know_that_the_storage_is_free():
    storage = Storage(lambda: 100.0)
    saves = SaveTimes(storage, minutes=0, now=lambda: storage.now)
    saves._mesh = make_mesh()
    due = []
    for step in range(1, 13):
        storage.advance(30.0)
        due.append(saves.due(step in (2, 4)))
        if due[-1]:
            storage.save()
    # Begun at 2, refused at 4, free at 6, which is heard of at 7.
    assert [n for n, save in enumerate(due, 1) if save] == [2, 4, 7]


def test_a_run_saves_by_the_clock(tmp_path, monkeypatch):
    saved = wait_for_saves(monkeypatch)
    for minutes, expected in ((0, [7]), (1e-9, [1, 2, 3, 4, 5, 6, 7]), (1e6, [7])):
        saved.clear()
        tiny.train(tmp_path / f"{minutes}", *SHORT, "run.checkpoint_every=0", f"run.checkpoint_minutes={minutes}")
        assert saved == expected


def test_after_a_damaged_resume_as_well(tmp_path, monkeypatch):
    saved = wait_for_saves(monkeypatch)
    with pytest.raises(Crash):
        tiny.train(tmp_path, *SHORT, "run.checkpoint_every=2", step=dying(5))
    assert saved == [2, 4]
    flip(tmp_path / "checkpoints" / "4")
    saved.clear()
    tiny.train(tmp_path, *SHORT, "run.checkpoint_every=0", "run.checkpoint_minutes=1e-9")
    # From step 2 on again; step 4 is written anew beside the damaged one.
    assert saved == [3, 4, 5, 6, 7]
    assert (tmp_path / "checkpoints" / "4.corrupt-1").is_dir()


def test_changed_settings_are_written_down_with_the_digest_gone_on_from(tmp_path, monkeypatch):
    wait_for_saves(monkeypatch)
    for last in (7, 10):  # the second start changes nothing that counts, and leaves no trace
        with pytest.raises(Crash):
            tiny.train(tmp_path, f"run.log_every={last}", step=dying(last))
    lineage, from_ = tmp_path / "lineage.jsonl", read_meta(tmp_path / "checkpoints" / "9")
    with pytest.raises(ResumeRefused, match=r"optim.lr: 0.0005 -> 0.001"):
        tiny.train(tmp_path, "optim.lr=1e-3")
    assert not lineage.exists() and "lineage" not in from_
    with pytest.raises(Crash):
        tiny.train(tmp_path, "optim.lr=1e-3", "run.seed=1", step=dying(13), force_resume=True)
    (entry,) = map(json.loads, lineage.read_text().splitlines())
    assert entry["changes"] == ["optim.lr: 0.0005 -> 0.001", "run.seed: 0 -> 1"]
    assert (entry["step"], entry["examples_seen"], entry["passed_over"]) == (9, 36, [])
    assert entry["seal"] == from_["seal"] and len(entry["seal"]) == 64
    # Its descendants tell of it, those of a plain restart too.
    assert tiny.train(tmp_path, "optim.lr=1e-3", "run.seed=1").exit is Exit.DONE
    assert load_weights(tmp_path)[1]["lineage"] == [entry]
    assert lineage.read_text().count("\n") == 1
