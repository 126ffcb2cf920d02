"""A copied run directory goes on; one that cannot be written is refused at the start, and can still be read."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_training as tiny
from small_checkpoints import items, same, two_saved
from storage_faults import Crash, compiled_once, dying, wait_for_saves

from protloc_jax.train.checkpoint import Checkpointer, load_weights
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


def test_unwritable_directories_fail_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"run directory .*file cannot be written"):
        Checkpointer(tmp_path / "file" / "checkpoints")
    with pytest.raises(ValueError, match="cannot be written"):
        Checkpointer(Path("/proc/protloc/checkpoints"))


def test_weights_are_read_from_a_copy_that_cannot_be_written(tmp_path, saved):
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "checkpoints", copy)
    paths = [copy, *copy.rglob("*")]
    before = {p: p.stat().st_mtime_ns for p in paths}
    for p in paths:
        p.chmod(0o555 if p.is_dir() else 0o444)
    try:
        weights, _ = load_weights(copy)
    finally:
        for p in paths:
            p.chmod(0o755 if p.is_dir() else 0o644)
    assert same(weights, items(2)["teacher"])
    # The tests may run as root, whom modes do not stop: nothing was touched either.
    assert {p: p.stat().st_mtime_ns for p in [copy, *copy.rglob("*")]} == before


def never(state, batch):
    raise AssertionError("a step was taken")


@pytest.fixture
def mount_read_only() -> Iterator[Callable[[Path], None]]:
    """Makes a folder read-only for everyone, root included."""
    mounted: list[Path] = []

    def mount(folder: Path) -> None:
        for options in (["--bind", str(folder), str(folder)], ["-o", "remount,ro,bind", str(folder)]):
            done = subprocess.run(["mount", *options], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"mounts need root: {done.stderr.strip()}")
            mounted.append(folder) if folder not in mounted else None

    yield mount
    for folder in reversed(mounted):
        subprocess.run(["umount", str(folder)], check=True)


def test_a_read_only_mount_is_read_and_refused_at_the_start(tmp_path, monkeypatch, mount_read_only):
    saved = wait_for_saves(monkeypatch)
    run, other = tmp_path / "run", tmp_path / "other"
    with pytest.raises(Crash):
        tiny.train(run, step=dying(4))
    (other / "checkpoints").mkdir(parents=True)
    mount_read_only(run)
    mount_read_only(other / "checkpoints")
    assert saved == [3] and load_weights(run)[1]["step"] == 3
    with pytest.raises(ValueError, match=rf"run directory {run} cannot be written: .*Read-only file system"):
        tiny.train(run, step=never)
    with pytest.raises(ValueError, match=rf"run directory {other} cannot be written: .*Read-only file system"):
        tiny.train(other, step=never)
    # A copy of what is read-only goes on, as any copy does.
    shutil.copytree(run, tmp_path / "copy")
    assert tiny.train(tmp_path / "copy").exit is Exit.DONE


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_a_folder_that_takes_no_bytes_is_refused_at_the_start(tmp_path, monkeypatch, number):
    """The same where mounts cannot be made; a full disk and a quota would also let an empty file pass."""
    write = Path.write_bytes

    def refuse(self: Path, data: bytes) -> int:
        if self.parent == tmp_path / "checkpoints" and data:
            raise OSError(number, "no")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(ValueError, match=rf"run directory {tmp_path} cannot be written: .*no"):
        tiny.train(tmp_path, step=never)


def test_a_copied_run_goes_on_to_the_bit(tmp_path, monkeypatch):
    wait_for_saves(monkeypatch)
    whole, run, copy = tiny.train(tmp_path / "whole"), tmp_path / "run", tmp_path / "elsewhere" / "copy"
    with pytest.raises(Crash):
        tiny.train(run, step=dying(7))
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("commit_success.txt", "*.guard"))
    shutil.rmtree(run)
    outcome = tiny.train(copy)
    assert tiny.bits(outcome.state) == tiny.bits(whole.state)
    assert tiny.losses(copy) == tiny.losses(tmp_path / "whole")
