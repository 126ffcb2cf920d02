"""Checkpoints: what is kept and refused, and where one may be restored. Damage and full disks: tests/faults."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_compilation import forced_devices
from small_checkpoints import items, same, target, two_saved

from protloc_jax.train.checkpoint import Checkpointer, load_weights
from protloc_jax.train.checkpoint_files import read_meta
from protloc_jax.train.digest import content_digest, leaf_table, named_leaves, nested, seal_holds, sealed


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def saved(tmp_path, notes) -> Checkpointer:
    return two_saved(tmp_path, notes)


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
