"""A full disk: training goes on, the bytes needed are told, nothing is left behind, the next save works."""

from __future__ import annotations

import errno
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_training as tiny
from small_checkpoints import items, same, target, two_saved
from storage_faults import Lines, compiled_once, wait_for_saves

from protloc_jax.train import checkpoint
from protloc_jax.train.checkpoint import Checkpointer, StorageFailed, ocp
from protloc_jax.train.exits import Exit


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory) -> Iterator[Path]:
    with compiled_once(tmp_path_factory) as folder:
        yield folder


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def saved(tmp_path, notes) -> Checkpointer:
    return two_saved(tmp_path, notes)


@pytest.fixture
def file_size_limit():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_failed_write_costs_a_warning_and_the_next_save_works(tmp_path, saved, notes, file_size_limit):
    big = items(3, size=50_000)
    file_size_limit(100_000)
    assert not saved.save(3, big, {}, wait=True)
    assert len(notes) == 1
    assert "step 3 was not written (6.4" in notes[0] and "newest good one is step 2" in notes[0]
    assert "Training goes on (failure 1 of 3 in a row)" in notes[0]
    assert not list((tmp_path / "checkpoints").glob("3*"))
    file_size_limit(resource.RLIM_INFINITY)
    assert saved.save(4, big, {}, wait=True)
    assert saved.steps() == [2, 4]
    restored = saved.restore(target(big))
    assert restored is not None and same(restored.items, big)


def test_remains_that_late_writes_put_back_are_removed_too(tmp_path, saved, monkeypatch):
    """Writes of the failed save that are still under way put its folder back three times."""
    late = tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp"
    late.mkdir()
    removed, rmtree = [], shutil.rmtree

    def remove_and_put_back(path, **options):
        rmtree(path, **options)
        removed.append(path)
        if len(removed) <= 3:
            late.mkdir()

    monkeypatch.setattr(checkpoint.shutil, "rmtree", remove_and_put_back)
    saved._remove_remains("3.orbax-checkpoint-tmp*")
    assert removed == [late] * 4
    assert not late.exists()


def test_failures_in_the_background_are_noticed_and_three_in_a_row_end_it(tmp_path, saved, notes, file_size_limit):
    big = items(3, size=50_000)
    file_size_limit(100_000)
    for step in (3, 4):
        assert saved.save(step, big, {})
        while saved._pending is not None:
            saved.poll()
            time.sleep(0.01)
    assert len(notes) == 2 and "failure 2 of 3" in notes[1]
    with pytest.raises(StorageFailed, match=r"3 failures in a row: .*step 5.*newest good one is step 2"):
        saved.save(5, big, {}, wait=True)
    file_size_limit(resource.RLIM_INFINITY)
    assert saved.steps() == [1, 2]


def test_a_good_save_forgives_earlier_failures(saved, notes, file_size_limit):
    big = items(3, size=50_000)
    for step in (3, 5, 7):
        file_size_limit(100_000)
        assert not saved.save(step, big, {}, wait=True)
        file_size_limit(resource.RLIM_INFINITY)
        assert saved.save(step + 1, big, {}, wait=True)
    assert all("failure 1 of 3" in note for note in notes)


def test_a_full_disk_is_seen_before_writing(tmp_path, saved, notes, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert not saved.save(3, items(3), {}, wait=True)
    assert "0.00 MB free" in notes[0] and "not enough space" in notes[0]


def test_no_space_for_the_directory_itself(saved, notes, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(saved._orbax, "save", full)
    assert not saved.save(3, items(3), {}, wait=True)
    assert "No space left on device" in notes[0]


def test_checkpoints_that_cannot_be_written_stop_the_run_after_three(tmp_path, monkeypatch):
    from protloc_jax.train.checkpoint import ocp

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ocp.AsyncCheckpointer, "save", full)
    console = Lines()
    outcome = tiny.train(tmp_path, console=console)
    assert outcome.exit is Exit.STORAGE == 74 and outcome.step == 9
    assert len(console.warned) == 3 and "3 failures in a row" in console.warned[-1]
    assert sorted(tiny.losses(tmp_path)) == list(range(1, 10))


def test_a_last_checkpoint_that_fails_is_not_success(tmp_path, monkeypatch):
    from protloc_jax.train.checkpoint import ocp

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ocp.AsyncCheckpointer, "save", full)
    console = Lines()
    outcome = tiny.train(tmp_path, "run.checkpoint_every=0", console=console)
    assert outcome.exit is Exit.STORAGE and outcome.step == 20
    assert "the last checkpoint (step 20) was not written" in console.warned[-1]


def test_a_run_on_a_disk_that_is_full_for_a_while_is_the_same_run(tmp_path, monkeypatch):
    saved = wait_for_saves(monkeypatch)
    whole = tiny.train(tmp_path / "whole")
    save = ocp.AsyncCheckpointer.save

    def full_at_first(self, directory, **options):
        if Path(directory).name in ("6", "9"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(self, directory, **options)

    monkeypatch.setattr(ocp.AsyncCheckpointer, "save", full_at_first)
    saved.clear()
    console = Lines()
    outcome = tiny.train(tmp_path / "run", console=console)
    assert outcome.exit is Exit.DONE and tiny.bits(outcome.state) == tiny.bits(whole.state)
    # A save that failed waits for the next time: three steps in a row would use up all attempts at once.
    assert saved == [3, 12, 15, 18, 20]
    assert len(console.warned) == 2 and "failure 2 of 3 in a row" in console.warned[1]
    assert "newest good one is step 3" in console.warned[1]


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 24 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"mounts need root: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("foreseen", [True, False])
def test_a_full_file_system(small_disk, notes, monkeypatch, foreseen):
    """Seen before anything is written, or, where another job fills the disk meanwhile, by the write that fails."""
    keeper = two_saved(small_disk, notes)
    big = items(3, size=50_000)
    before = shutil.disk_usage(small_disk).free
    filler = small_disk / "filler"
    filler.write_bytes(bytes(before - 3_000_000))
    if not foreseen:
        monkeypatch.setattr(keeper, "_free", lambda: before)
    assert not keeper.save(3, big, {}, wait=True)
    assert len(notes) == 1 and "step 3 was not written (6.4" in notes[0]
    assert "not enough space" in notes[0] if foreseen else "not enough space" not in notes[0]
    assert not list(keeper.directory.glob("3*"))
    filler.unlink()
    assert shutil.disk_usage(small_disk).free >= before - 65_536
    restored = keeper.restore(target(items()))
    assert restored is not None and restored.step == 2 and same(restored.items, items(2))
    assert keeper.save(4, big, {}, wait=True)
    restored = keeper.restore(target(big))
    assert restored is not None and restored.step == 4 and same(restored.items, big)
