"""Checkpoints: what is kept, what happens to damaged ones, to a full disk, and where one may be restored."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_compilation import forced_devices

from protloc_jax.train import checkpoint, checkpoint_files
from protloc_jax.train.checkpoint import CheckpointDamaged, Checkpointer, StorageFailed, load_weights
from protloc_jax.train.checkpoint_files import read_meta
from protloc_jax.train.digest import content_digest, leaf_table, named_leaves, nested, seal_holds, sealed


def items(seed: int = 0, size: int = 300) -> dict[str, object]:
    """Arrays of the kinds that a training state holds; `buffers` is empty, as for methods without any."""
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {
        "backbone": {"blocks": {"kernel": jax.random.normal(keys[0], (2, 8, size))}, "cls": jnp.ones((1, 1, 8))},
        "head": {"v": jax.random.normal(keys[1], (8, 16)).astype(jnp.bfloat16)},
    }
    return {
        "params": params,
        "teacher": jax.tree.map(lambda x: x + 1, params),
        "buffers": {},
        "counters": {"step": jnp.int32(seed), "examples": jnp.asarray([0, 2**32 - 1], jnp.uint32)},
    }


def target(tree: object) -> object:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def same(a: object, b: object) -> bool:
    left, right = named_leaves(a), named_leaves(b)
    return left.keys() == right.keys() and all(
        x.dtype == right[n].dtype and np.asarray(x).tobytes() == np.asarray(right[n]).tobytes() for n, x in left.items()
    )


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def saved(tmp_path, notes) -> Checkpointer:
    """Two good checkpoints, of steps 1 and 2."""
    keeper = Checkpointer(tmp_path / "checkpoints", warn=notes.append)
    for step in (1, 2):
        assert keeper.save(step, items(step), {"examples_seen": 10 * step}, wait=True)
    return keeper


def test_what_is_saved_comes_back_bit_for_bit(saved):
    restored = saved.restore(target(items()))
    assert restored is not None and restored.step == 2
    assert same(restored.items, items(2))
    assert restored.meta["examples_seen"] == 20
    assert restored.items["buffers"] == {}


def test_the_arrays_may_be_donated_at_once(tmp_path):
    keeper = Checkpointer(tmp_path)
    state = items(3)
    before = jax.tree.map(lambda x: np.array(x), state)
    destroy = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0, tree), donate_argnums=0)
    assert keeper.save(3, state, {})
    for _ in range(3):
        state = destroy(state)
    assert keeper.close()
    restored = keeper.restore(target(items()))
    assert restored is not None and same(restored.items, before)


def test_restored_arrays_are_independent_and_can_be_donated(saved):
    restored = saved.restore(target(items()))
    assert restored is not None
    pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(restored.items)]
    assert len(set(pointers)) == len(pointers)
    double = jax.jit(lambda tree: jax.tree.map(lambda x: x * 2, tree), donate_argnums=0)
    twice = double(double(restored.items["params"]))
    assert same(twice, jax.tree.map(lambda x: x * 2 * 2, items(2)["params"]))


def test_nothing_there_is_not_an_error(tmp_path):
    assert Checkpointer(tmp_path / "new").restore(target(items())) is None


def test_last_and_best_are_kept(tmp_path):
    keeper = Checkpointer(tmp_path, keep_last=2, keep_best=1)
    scores = {1: 0.2, 2: 0.9, 3: 0.5, 4: 0.4, 5: None, 6: 0.1}
    for step, score in scores.items():
        assert keeper.save(step, items(step), {}, score=score, wait=True)
    assert keeper.steps() == [2, 5, 6]
    # The scores are in the records, so a restarted run goes on ranking by them.
    again = Checkpointer(tmp_path, keep_last=2, keep_best=1)
    assert again.save(7, items(7), {}, score=0.3, wait=True)
    assert again.steps() == [2, 6, 7]


def test_leftovers_of_killed_jobs_are_removed_at_the_start(tmp_path, saved):
    root = tmp_path / "checkpoints"
    for name in ("3.orbax-checkpoint-tmp", "3.orbax-checkpoint-tmp-1700000000", "1.deleting"):
        (root / name / "params").mkdir(parents=True)
    Checkpointer(root)
    assert sorted(p.name for p in root.iterdir()) == ["1", "2"]


def test_a_step_is_saved_once(saved, notes):
    assert saved.save(2, items(9), {}, wait=True)
    restored = saved.restore(target(items()))
    assert restored is not None and same(restored.items, items(2)) and notes == []


def data_file(step: Path) -> Path:
    """The largest file of the step: array data."""
    return max((p for p in (step / "params").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncate(step: Path) -> None:
    file = data_file(step)
    os.truncate(file, file.stat().st_size // 2)


def delete(step: Path) -> None:
    data_file(step).unlink()


def flip(step: Path) -> None:
    file = data_file(step)
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 0x10
    file.write_bytes(content)


def zero_page(step: Path) -> None:
    file = data_file(step)
    content = bytearray(file.read_bytes())
    content[1024:5120] = bytes(4096)
    file.write_bytes(content)


def swap_with_the_other_step(step: Path) -> None:
    """Valid files with valid checksums of their own, but of another step: only our digests can tell."""
    shutil.rmtree(step / "params")
    shutil.copytree(step.parent / "1" / "params", step / "params")


def remove_item(step: Path) -> None:
    shutil.rmtree(step / "teacher")


def remove_record(step: Path) -> None:
    (step / "meta" / "metadata").unlink()


def break_record(step: Path) -> None:
    file = step / "meta" / "metadata"
    file.write_text(file.read_text()[:-20])


def change_record(step: Path) -> None:
    file = step / "meta" / "metadata"
    record = json.loads(file.read_text())
    record["examples_seen"] += 1
    file.write_text(json.dumps(record))


DAMAGES = [
    (truncate, "params"),
    (delete, "params"),
    (flip, "params"),
    (zero_page, "params"),
    (swap_with_the_other_step, "wrong SHA-256"),
    (remove_item, "'teacher' is missing"),
    (remove_record, "metadata is missing"),
    (break_record, "does not parse"),
    (change_record, "seal is broken"),
]


@pytest.mark.parametrize(("damage", "fault"), DAMAGES, ids=[d.__name__ for d, _ in DAMAGES])
def test_a_damaged_checkpoint_is_named_moved_aside_and_passed_over(tmp_path, saved, notes, damage, fault):
    root = tmp_path / "checkpoints"
    damage(root / "2")
    if damage is not remove_item:
        shown: list[str] = []
        weights, meta = load_weights(tmp_path, "params", warn=shown.append)
        assert meta["step"] == 1 and same(weights, items(1)["params"])
        assert len(shown) == 1 and fault in shown[0]
        with pytest.raises(CheckpointDamaged, match="2: "):
            load_weights(root / "2", "params")
    restored = saved.restore(target(items()))
    assert restored is not None and restored.step == 1 and same(restored.items, items(1))
    assert len(notes) == 1 and fault in notes[0] and "moved to 2.corrupt-1" in notes[0]
    assert (root / "2.corrupt-1").is_dir() and not (root / "2").exists()
    # The step can be saved again, and damaged again, without losing the first evidence.
    assert saved.save(2, items(2), {}, wait=True)
    truncate(root / "2")
    assert saved.restore(target(items())) is not None
    assert (root / "2.corrupt-1").is_dir() and (root / "2.corrupt-2").is_dir()


def test_a_copy_without_its_markers_is_still_good(tmp_path, saved):
    """Content decides, not the marker files that a copy to another store may leave out."""
    for marker in (tmp_path / "checkpoints").rglob("commit_success.txt"):
        marker.unlink()
    restored = saved.restore(target(items()))
    assert restored is not None and restored.step == 2 and same(restored.items, items(2))


def test_no_good_checkpoint_left_is_an_error_and_stays_one(tmp_path, saved):
    for step in ("1", "2"):
        flip(tmp_path / "checkpoints" / step)
    with pytest.raises(ValueError, match="no good checkpoint is left"):
        saved.restore(target(items()))
    with pytest.raises(ValueError, match=r"1.corrupt-1; 2.corrupt-1"):
        Checkpointer(tmp_path / "checkpoints").restore(target(items()))


def test_another_model_is_refused_and_nothing_is_moved(tmp_path, saved):
    other = items(0, size=17)
    other["params"]["head"]["extra"] = jnp.ones(3)  # type: ignore[index]
    del other["params"]["backbone"]["cls"]  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="does not fit this experiment") as refused:
        saved.restore(target(other))
    text = str(refused.value)
    assert "params/backbone/blocks/kernel: float32[2, 8, 300] in the checkpoint, float32[2, 8, 17] here" in text
    assert "params/head/extra: missing in the checkpoint" in text
    assert "params/backbone/cls: only in the checkpoint" in text
    assert saved.steps() == [1, 2]


def test_a_newer_format_is_refused_not_moved(tmp_path, saved):
    file = tmp_path / "checkpoints" / "2" / "meta" / "metadata"
    record = json.loads(file.read_text())
    file.write_text(json.dumps(sealed({**record, "format_version": 99})))
    with pytest.raises(ValueError, match=r"format version 99; this program reads up to 1"):
        saved.restore(target(items()))
    assert saved.steps() == [1, 2]


def test_a_check_can_refuse_before_anything_is_read(tmp_path, saved):
    def check(meta):
        raise ValueError(f"not step {meta['step']}")

    with pytest.raises(ValueError, match="not step 2"):
        saved.restore(target(items()), check=check)


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


def test_saves_do_not_pile_up_behind_a_slow_disk(saved, notes, monkeypatch):
    real = saved._orbax.wait_until_finished
    monkeypatch.setattr(saved._orbax, "wait_until_finished", lambda: (time.sleep(1.0), real()))
    assert saved.save(3, items(3), {})
    start = time.monotonic()
    assert not saved.save(4, items(4), {})
    assert time.monotonic() - start < 0.9
    assert "no checkpoint at step 4" in notes[0]
    # The last one of a run does wait for its turn.
    assert saved.save(5, items(5), {}, wait=True)
    assert saved.steps() == [3, 5]


def test_unwritable_directories_fail_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"run directory .*file cannot be written"):
        Checkpointer(tmp_path / "file" / "checkpoints")
    with pytest.raises(ValueError, match="cannot be written"):
        Checkpointer(Path("/proc/protloc/checkpoints"))


def test_weights_are_read_from_runs_folders_and_steps(tmp_path, saved):
    for path, step in ((tmp_path, 2), (tmp_path / "checkpoints", 2), (tmp_path / "checkpoints" / "1", 1)):
        weights, meta = load_weights(path)
        assert same(weights, items(step)["teacher"]) and meta["step"] == step
        assert all(type(x) is np.ndarray for x in jax.tree.leaves(weights))
        assert meta["weights_sha256"] == content_digest(jax.tree.map(np.asarray, items(step)["teacher"]))
    with pytest.raises(
        ValueError, match=r"has no 'techer'; it has params, teacher, counters. Did you mean 'teacher'\?"
    ):
        load_weights(tmp_path, "techer")
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        load_weights(tmp_path / "nothing")


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


def test_lack_of_rights_is_not_damage(tmp_path, saved, monkeypatch):
    def denied(*_, **__):
        raise ValueError("PERMISSION_DENIED: error reading local file")

    monkeypatch.setattr(checkpoint_files.ocp.PyTreeCheckpointHandler, "restore", denied)
    with pytest.raises(ValueError, match="PERMISSION_DENIED"):
        saved.restore(target(items()))
    assert saved.steps() == [1, 2]


def test_digests_name_content_not_layout():
    tree = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}
    assert content_digest(tree) == content_digest({"a": np.asfortranarray(tree["a"])})
    assert content_digest(tree) != content_digest({"a": tree["a"].reshape(3, 2)})
    assert content_digest(tree) != content_digest({"b": tree["a"]})
    assert content_digest(tree) != content_digest({"a": -tree["a"]})
    assert named_leaves(nested({"a/b": 1, "a/c": 2})) == {"a/b": 1, "a/c": 2}
    record = sealed({"x": [1, 2], "y": 0.1})
    assert seal_holds(record) and not seal_holds({**record, "x": [1, 3]}) and seal_holds(sealed(record))


def test_the_table_of_a_leaf_matches_hashlib():
    import hashlib

    x = jax.random.normal(jax.random.key(0), (3, 5)).astype(jnp.bfloat16)
    (piece,) = leaf_table({"x": x})["x"]["pieces"]
    assert piece["sha256"] == hashlib.sha256(np.asarray(x).tobytes()).hexdigest()
    assert piece["range"] == [[0, 3], [0, 5]]


def test_restored_on_other_numbers_of_devices(tmp_path):
    """8 devices, fsdp 4 -> 4 -> 2 -> 1 -> 8: the same bits, wherever they lie."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(Path(__file__).parent / "other_devices.py"), str(tmp_path)],
        env=forced_devices(8),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert read_meta(tmp_path / "5")["devices"] == 8
