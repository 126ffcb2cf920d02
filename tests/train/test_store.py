"""Copies of checkpoints in an object store, held against fsspec's own memory and file systems."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
import tiny_training as tiny
from fsspec.implementations.memory import MemoryFileSystem

from protloc_jax.config import ConfigError
from protloc_jax.train import loop as loop_module
from protloc_jax.train.checkpoint import Checkpointer, StorageFailed, load_weights
from protloc_jax.train.checkpoint_files import steps_in
from protloc_jax.train.mirror import Mirror, fetch_newest
from protloc_jax.train.retention import kept_steps
from protloc_jax.train.store import Store, StoreFailed, open_store

pytestmark = pytest.mark.usefixtures("compiled_once")


class Unsteady(MemoryFileSystem):
    """A store whose `refuse` calls of a method fail as an overloaded service does."""

    cachable = False
    store: dict = {}  # noqa: RUF012 - the base class keeps its files in a class attribute, shared by all tests otherwise
    pseudo_dirs = [""]  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.store, self.pseudo_dirs = {}, [""]
        self.refuse: dict[str, int] = {}
        self.calls: list[tuple[str, str]] = []

    def _met(self, method, path):
        self.calls.append((method, path))
        if self.refuse.get(method, 0) > 0:
            self.refuse[method] -= 1
            raise OSError("503 Slow Down")

    def put_file(self, lpath, rpath, **more):
        self._met("put_file", rpath)
        return super().put_file(lpath, rpath, **more)

    def pipe_file(self, path, value, **more):
        self._met("pipe_file", path)
        return super().pipe_file(path, value, **more)

    def ls(self, path, detail=True, **more):
        self._met("ls", path)
        return super().ls(path, detail=detail, **more)


@pytest.fixture
def fs():
    return Unsteady()


@pytest.fixture
def store(fs):
    pauses = []
    made = Store(fs, "/bucket/run", sleep=pauses.append)
    made.pauses = pauses
    return made


def checkpoint(directory: Path, step: int, *, score: float | None = None, value: float = 1.0) -> Path:
    """A real checkpoint."""
    keeper = Checkpointer(directory, keep_last=100)
    items = {"params": {"kernel": np.full((3, 4), value * step, np.float32)}}
    assert keeper.save(step, items, {"config": {}}, score=score, wait=True)
    keeper.close()
    return directory / str(step)


def settled(mirror: Mirror) -> None:
    assert mirror.close(60)


def test_a_copy_comes_back_as_it_was(tmp_path, store, fs):
    folder = checkpoint(tmp_path / "here", 7)
    store.put(7, folder)
    assert store.steps() == [7]
    # The marker is the last thing that is written.
    written = [path for method, path in fs.calls if method in ("put_file", "pipe_file")]
    assert written[-1] == "/bucket/run/7.complete" and len(written) > 3
    assert fetch_newest(store, tmp_path / "there") == 7
    names = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    for name in names:
        assert (tmp_path / "there" / "7" / name).read_bytes() == (folder / name).read_bytes()
    np.testing.assert_array_equal(load_weights(tmp_path / "there", "params")[0]["kernel"], np.full((3, 4), 7.0))


def test_the_file_system_of_this_machine_serves_too(tmp_path):
    folder = checkpoint(tmp_path / "here", 3)
    fs, root = fsspec.core.url_to_fs(f"file://{tmp_path}/far/run")
    store = Store(fs, root)
    assert store.steps() == []
    store.put(3, folder)
    (tmp_path / "far" / "run" / "3" / "left-over").write_text("of an upload that was cut off")
    store.put(3, folder)
    assert not (tmp_path / "far" / "run" / "3" / "left-over").exists()
    assert fetch_newest(store, tmp_path / "there") == 3
    store.remove(3)
    assert store.steps() == [] and list((tmp_path / "far" / "run").iterdir()) == []


def test_a_copy_without_marker_is_no_copy(tmp_path, store, fs):
    store.put(1, checkpoint(tmp_path / "here", 1))
    store.put(2, checkpoint(tmp_path / "here", 2))
    fs.rm("/bucket/run/2.complete")
    assert store.steps() == [1]
    assert fetch_newest(store, tmp_path / "there") == 1


@pytest.mark.parametrize("harm", ["byte", "missing", "marker"])
def test_a_damaged_copy_is_passed_over_and_told(tmp_path, store, fs, harm):
    for step in (1, 2):
        store.put(step, checkpoint(tmp_path / "here", step))
    name = next(p for p in sorted(fs.find("/bucket/run/2")) if p.endswith("metadata"))
    if harm == "byte":
        data = bytearray(fs.cat_file(name))
        data[5] ^= 1
        fs.pipe_file(name, bytes(data))
    elif harm == "missing":
        fs.rm(name)
    else:
        fs.pipe_file("/bucket/run/2.complete", b"{")
    said = []
    assert fetch_newest(store, tmp_path / "there", say=said.append) == 1
    assert "step 2" in said[0] and "damaged" in said[0]
    assert steps_in(tmp_path / "there") == [1]
    assert [p.name for p in (tmp_path / "there").iterdir()] == ["1"]
    store.remove(1)
    with pytest.raises(ValueError, match="no copy is good"):
        fetch_newest(store, tmp_path / "elsewhere", say=said.append)


def test_a_marker_cannot_write_outside_the_folder(tmp_path, store, fs):
    fs.pipe_file("/bucket/run/1/x", b"x")
    fs.pipe_file(
        "/bucket/run/1.complete", json.dumps({"files": {"../../x": [1, ""]}, "seal": "", "score": None}).encode()
    )
    with pytest.raises(ValueError, match="outside the step"):
        fetch_newest(store, tmp_path / "there", say=lambda _: None)
    assert not (tmp_path / "x").exists()


def test_a_busy_store_is_asked_again_with_growing_pauses_that_jitter(tmp_path, store, fs):
    fs.refuse = {"put_file": 5}
    store.put(1, checkpoint(tmp_path / "here", 1))
    assert store.steps() == [1]
    assert len(store.pauses) == 5
    assert all(0 <= pause <= bound for pause, bound in zip(store.pauses, (1, 2, 4, 8, 16), strict=True))
    fs.refuse = {"ls": 6}
    with pytest.raises(StoreFailed, match=r"/bucket/run: could not list in 6 attempts: 503 Slow Down"):
        store.steps()


def test_new_checkpoints_are_copied_and_old_copies_removed_by_the_same_rule(tmp_path, store):
    here = tmp_path / "here"
    checkpoint(here, 1, score=0.9)
    mirror = Mirror(store, here, keep_last=2, keep_best=1, poll_seconds=0.01)
    for step, score in ((2, 0.2), (3, 0.3), (4, 0.4)):
        checkpoint(here, step, score=score)
        wait_until(lambda step=step: step in store.steps())
    settled(mirror)
    assert store.steps() == [1, 3, 4] == sorted(kept_steps([1, 2, 3, 4], {1: 0.9, 2: 0.2}, keep_last=2, keep_best=1))
    assert steps_in(here) == [1, 2, 3, 4] and [p.name for p in here.iterdir() if "held" in p.name] == []


def test_a_checkpoint_that_is_removed_while_it_is_copied_is_copied_whole(tmp_path, store, fs):
    folder, reached, go_on = checkpoint(tmp_path / "here", 1), threading.Event(), threading.Event()
    put = fs.put_file

    def slow(*args, **more):
        reached.set()
        assert go_on.wait(60)
        put(*args, **more)

    fs.put_file = slow
    mirror = Mirror(store, tmp_path / "here", keep_last=2, keep_best=0, poll_seconds=0.01)
    assert reached.wait(60)
    shutil.rmtree(folder)
    go_on.set()
    settled(mirror)
    assert fetch_newest(store, tmp_path / "there") == 1


def test_another_checkpoint_of_the_same_step_replaces_the_copy(tmp_path, store):
    store.put(1, checkpoint(tmp_path / "old", 1))
    checkpoint(tmp_path / "here", 1, value=2.0)
    settled(Mirror(store, tmp_path / "here", keep_last=2, keep_best=0, poll_seconds=0.01))
    assert fetch_newest(store, tmp_path / "there") == 1
    assert load_weights(tmp_path / "there", "params")[0]["kernel"][0, 0] == 2.0


def test_a_store_that_is_down_costs_a_warning_a_checkpoint_and_nothing_else(tmp_path, store, fs):
    fs.refuse = {"put_file": 10**9}
    said = []
    mirror = Mirror(store, tmp_path / "here", keep_last=2, keep_best=0, warn=said.append, poll_seconds=0.01)
    for step in (1, 2):
        checkpoint(tmp_path / "here", step)
        wait_until(lambda step=step: len(said) == step)
    assert "checkpoint 1 was not copied" in said[0] and "503 Slow Down" in said[0]
    time.sleep(0.1)
    assert len(said) == 2
    fs.refuse = {}
    checkpoint(tmp_path / "here", 3)
    settled(mirror)
    assert store.steps() == [2, 3]


def wait_until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_run_on_a_new_machine_goes_on_from_the_store(tmp_path, monkeypatch, store, fs):
    """Local folder lost: the run fetches the newest copy, and what comes after equals the run that lost nothing."""
    monkeypatch.setattr(loop_module, "open_store", lambda address: store)
    key = "run.checkpoints=gs://bucket/run"
    tiny.train(tmp_path / "whole")
    assert tiny.train(tmp_path / "run", key).step == 20
    before, last = store.steps()
    assert last == 20 and steps_in(tmp_path / "run" / "checkpoints") == [before, last]
    store.remove(last)
    shutil.rmtree(tmp_path / "run")
    assert tiny.train(tmp_path / "run", key).step == 20
    whole = tiny.losses(tmp_path / "whole")
    assert tiny.losses(tmp_path / "run") == {step: whole[step] for step in range(before + 1, 21)}
    assert store.steps()[-1] == 20 and len(store.steps()) == 2
    # Where the store cannot be read, the run does not begin anew.
    shutil.rmtree(tmp_path / "run")
    fs.refuse = {"ls": 10**9}
    with pytest.raises(StorageFailed, match="could not list"):
        tiny.train(tmp_path / "run", key)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_addresses_are_checked_before_anything_runs(tmp_path):
    def refused(key, match):
        with pytest.raises(ConfigError, match=match):
            tiny.experiment(tmp_path, key)

    refused("run.checkpoints=gcs://bucket/run", r"gcs:// is not supported, gs:// and s3:// are")
    refused("run.checkpoints=s4://bucket/run", r"s4:// is not supported.*Did you mean.*s3")
    refused("run.checkpoints=runs/copy", "not an address of an object store")
    refused("run.checkpoints=gs://bucket", "name a folder in the bucket, such as gs://bucket/run")
    refused("run.out=gs://bucket/run", r"a run directory is local.*run\.checkpoints=gs://bucket/run copies")
    assert tiny.experiment(tmp_path, "run.checkpoints=s3://bucket/run").run.checkpoints == "s3://bucket/run"


@pytest.mark.parametrize(("address", "package"), [("gs://b/r", "gcsfs"), ("s3://b/r", "s3fs")])
def test_a_missing_client_is_named_with_what_to_install(monkeypatch, address, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=rf"needs {package}.*pip install 'protloc-jax\[remote\]'"):
        open_store(address)
