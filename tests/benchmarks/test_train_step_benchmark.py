"""The CPU benchmark of the training step: its rows, its turns and its ratios."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))
import train_step  # noqa: E402
from train_step_row import Row, Work  # noqa: E402


def test_names_tell_rows_apart_and_find_them():
    rows = (*train_step.ROWS, *train_step.MORE)
    assert len({row.name for row in rows}) == len(rows)
    for name in (rows[0].name, "torch eager, SDPA, f32"):  # though other names begin with it
        assert [row.name for row in train_step.chosen([name])] == [name]
    assert {row.group for row in train_step.chosen(["forward"])} == {("forward", "float32"), ("forward", "bfloat16")}
    assert train_step.chosen([]) == list(train_step.ROWS)


def test_every_group_has_ours_and_every_kind_of_peer():
    for group in (("step", "float32"), ("step", "bfloat16")):
        own = [row for row in train_step.ROWS if row.group == group]
        assert {row.side for row in own} == {"ours", "torch"}
        kinds = {(row.fused, row.compiled, row.recompute) for row in own if row.side == "torch"}
        assert kinds == {(True, False, False), (True, True, False), (True, False, True), (False, False, False)}


def test_in_as_many_rounds_as_rows_everyone_goes_first_and_last_once():
    rows = list(train_step.TORCH)
    rounds = [train_step.round_of(rows, number) for number in range(len(rows))]
    assert all(sorted(r.name for r in one) == sorted(r.name for r in rows) for one in rounds)
    for place in (0, -1):
        assert {one[place] for one in rounds} == set(rows)


def told(*seconds):
    turns = [{"seconds": s, "processor_seconds": 2 * s, "peak_gb": 1.0 + s, "loss": 1.0} for s in seconds]
    return {"first": {"seconds": 9.0, "loss": 6.0}, "life_peak": 2.5, "turns": turns}


def test_ratios_are_medians_of_ratios_within_a_round():
    """A load that triples one round's times changes no ratio, though it changes every median."""
    mine, eager, compiled = Row("ours"), Row("torch"), Row("torch", compiled=True)
    group = {mine: told(1.0, 6.0, 2.0), eager: told(2.0, 12.0, 5.0), compiled: told(0.5, 3.0, 4.0)}
    rows = {entry["row"]: entry for entry in train_step.summary(group, Work(batch=4))}
    found = rows[mine.name]
    assert found["speed_over"][eager.name] == 2.0 and found["speed_over"][compiled.name] == 0.5
    assert found["speed_over_eager"] == 2.0
    assert (found["fastest_peer"], found["speed_over_fastest_peer"]) == (compiled.name, 0.5)
    assert found["images_per_second"] == 4 / 2.0 and found["seconds_min"] == 1.0
    assert (found["peak_gb_of_steps"], found["peak_gb_of_process"]) == (7.0, 7.0)
    assert rows[eager.name]["speed_over_eager"] == 1.0


def test_without_a_peer_there_is_no_ratio():
    (alone,) = train_step.summary({Row("ours"): told(1.0)}, Work())
    assert alone["speed_over"] == {} and alone["fastest_peer"] is alone["speed_over_eager"] is None


@pytest.mark.slow  # two compilations and torch: a minute
def test_small_form(tmp_path):
    pytest.importorskip("torch", reason="the peer is PyTorch")
    out = tmp_path / "t.json"
    rows = ["ours, scan, remat block, f32", "torch eager, SDPA, f32", "ours, scan, f32, forward"]
    command = [sys.executable, "-m", "benchmarks.train_step", "--small", "--rounds", "2", "--out", str(out)]
    done = subprocess.run([*command, "--rows", *rows], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written = json.loads(out.read_text())
    assert [row["row"] for row in written["rows"]] == rows
    # 512 prototypes: both losses begin near ln 512 = 6.2.
    assert all(5 < row["first_loss"] < 7.5 for row in written["rows"][:2])
    assert written["rows"][0]["speed_over_eager"] > 0 and written["versions"]["torch"]
