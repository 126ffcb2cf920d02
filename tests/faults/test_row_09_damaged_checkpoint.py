"""A damaged checkpoint is noticed before use, named, moved aside and never deleted; the one before it is taken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_training as tiny
from small_checkpoints import (
    break_item_record,
    break_record,
    change_record,
    delete,
    flip,
    items,
    remove_item,
    remove_record,
    same,
    swap_with_the_other_step,
    target,
    truncate,
    two_saved,
    zero_page,
)
from storage_faults import Crash, Lines, compiled_once, dying, wait_for_saves

from protloc_jax.train import checkpoint_files
from protloc_jax.train.checkpoint import CheckpointDamaged, Checkpointer, load_weights
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
    (break_item_record, "params"),
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


def test_no_good_checkpoint_left_is_an_error_and_stays_one(tmp_path, saved):
    for step in ("1", "2"):
        flip(tmp_path / "checkpoints" / step)
    with pytest.raises(ValueError, match="no good checkpoint is left"):
        saved.restore(target(items()))
    with pytest.raises(ValueError, match=r"1.corrupt-1; 2.corrupt-1"):
        Checkpointer(tmp_path / "checkpoints").restore(target(items()))


def test_lack_of_rights_is_not_damage(tmp_path, saved, monkeypatch):
    def denied(*_, **__):
        raise ValueError("PERMISSION_DENIED: error reading local file")

    monkeypatch.setattr(checkpoint_files.ocp.PyTreeCheckpointHandler, "restore", denied)
    with pytest.raises(ValueError, match="PERMISSION_DENIED"):
        saved.restore(target(items()))
    assert saved.steps() == [1, 2]


@pytest.mark.parametrize("marker", ["commit_success.txt", "_CHECKPOINT_METADATA"])
def test_a_removed_marker_is_no_damage(tmp_path, saved, notes, marker):
    """The digests of all arrays say that a checkpoint is whole, not files that a copy may leave out."""
    found = list((tmp_path / "checkpoints" / "2").rglob(marker))
    assert found
    for file in found:
        file.unlink()
    restored = saved.restore(target(items()))
    assert restored is not None and restored.step == 2 and same(restored.items, items(2)) and notes == []


@pytest.mark.parametrize("damage", [flip, break_record], ids=lambda d: d.__name__)
def test_a_run_goes_on_from_the_one_before_and_says_so(tmp_path, monkeypatch, damage):
    wait_for_saves(monkeypatch)
    whole, out = tiny.train(tmp_path / "whole"), tmp_path / "run"
    with pytest.raises(Crash):
        tiny.train(out, step=dying(13))
    damage(out / "checkpoints" / "12")
    console = Lines()
    outcome = tiny.train(out, console=console)
    assert outcome.exit is Exit.DONE and tiny.bits(outcome.state) == tiny.bits(whole.state)
    assert tiny.losses(out) == tiny.losses(tmp_path / "whole")
    assert len(console.warned) == 1 and "moved to 12.corrupt-1" in console.warned[0]
    assert any("resumed from" in line and "/9 " in line for line in console.said)
    assert (out / "checkpoints" / "12.corrupt-1" / "teacher").is_dir()
    (entry,) = map(json.loads, (out / "lineage.jsonl").read_text().splitlines())
    assert entry["step"] == 9 and entry["changes"] == [] and "checkpoints/12" in entry["passed_over"][0]
    assert load_weights(out)[1]["lineage"] == [entry]
