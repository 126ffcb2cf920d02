"""Fault row 17: a step that is not finite changes nothing, is counted and recorded for replay; n in a row end it."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent.parent / "train"))
import tiny_training as tiny
from compiled_once import compiled_once  # noqa: F401
from console_lines import Lines
from saved_at_once import saved_at_once  # noqa: F401
from small_step import EXPERIMENT, changed
from test_step import Contrast, contrast_state

from protloc_jax.data.batch import Batch
from protloc_jax.devices import make_mesh
from protloc_jax.telemetry.writers import read_metrics
from protloc_jax.train.checkpoint import load_weights
from protloc_jax.train.exits import Exit
from protloc_jax.train.replay import replay, report
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.state import examples_seen
from protloc_jax.train.step import step_function

pytestmark = pytest.mark.usefixtures("compiled_once")


class Rooted(Contrast):
    """A loss with the root of a number that is zero for some batch: there it is finite, and its gradient is not."""

    def loss(self, params, teacher, buffers, views, *, batch, keys, scalars):
        output = super().loss(params, teacher, buffers, views, batch=batch, keys=keys, scalars=scalars)
        return output._replace(loss=output.loss + jnp.sqrt(jnp.abs(views[0, 0] * params["backbone"]["w"][0, 0])))


def test_a_gradient_that_is_not_finite_changes_nothing_but_position_and_count():
    experiment = changed(EXPERIMENT, optim={"batch": 8, "warmup_epochs": 0})
    step = jax.jit(step_function(experiment, Rooted(), Schedules(experiment, 4), lambda batch, *_: batch.image))
    state = contrast_state()
    rng = np.random.default_rng(2)
    for number in range(6):
        views = rng.standard_normal((8, 4)).astype(np.float32)
        bad = number in (2, 3)
        if bad:
            views[0, 0] = 0
        before = state
        state, metrics = step(state, Batch(views, np.zeros((8, 2), np.int32)))
        assert np.isfinite(metrics["loss"]) and np.isnan(metrics["grad_norm"]) == bad
        assert int(metrics["finite"]) == (not bad)
        assert int(state.bad_steps) == int(metrics["bad_steps"]) == {2: 1, 3: 2}.get(number, 0)
        assert (int(state.step), examples_seen(state)) == (number + 1, 8 * (number + 1))
        for field in ("params", "teacher", "buffers", "opt_state"):
            same = tiny.bits(getattr(state, field)) == tiny.bits(getattr(before, field))
            assert same == bad, (number, field)


def test_bad_steps_are_recorded_and_survived(tmp_path):
    console = Lines()
    ids = {"describe": lambda n: {"epoch": n // 24, "offset": n % 24, "id": f"cell{n % 24}"}}
    outcome = tiny.train(tmp_path, step=tiny.cheap_step(frozenset({5, 6, 9})), console=console, **ids)
    assert outcome.exit is Exit.DONE and int(outcome.state.bad_steps) == 0
    assert sorted(p.name for p in (tmp_path / "bad_steps").iterdir()) == ["5.json", "6.json", "9.json"]
    record = json.loads((tmp_path / "bad_steps" / "9.json").read_text())
    assert record["first_example"] == 32 and record["in_a_row"] == 1
    assert record["examples"][0] == {"number": 32, "epoch": 1, "offset": 8, "id": "cell8"}
    assert [e["number"] for e in record["examples"]] == [32, 33, 34, 35]
    assert record["replay"].endswith("--replay " + str(tmp_path / "bad_steps" / "9.json"))
    assert (
        len(console.warned) == 3 and "step 6 was not finite" in console.warned[1] and "(2 in a row" in console.warned[1]
    )
    lines = {r["step"]: r for r in read_metrics(tmp_path / "metrics.jsonl")}
    assert lines[5]["loss"] == "NaN" and lines[5]["finite"] == 0 and lines[7]["finite"] == 1


@pytest.mark.parametrize("log_every", [1, 4, 20])
def test_too_many_bad_steps_in_a_row_stop_the_run(tmp_path, log_every):
    """Found at the next look at the metrics; the parameters are those before the first bad step either way."""
    bad = frozenset(range(6, 30))
    outcome = tiny.train(
        tmp_path,
        "run.stop_after_bad=3",
        f"run.log_every={log_every}",
        "run.checkpoint_every=0",
        step=tiny.cheap_step(bad),
    )
    assert outcome.exit is Exit.BAD_STEPS == 70
    assert outcome.step == {1: 8, 4: 8, 20: 20}[log_every]
    assert (tmp_path / "bad_steps" / "6.json").exists()
    weights, meta = load_weights(tmp_path, "params")
    assert meta["step"] == outcome.step
    fine = tiny.train(tmp_path / "fine", "optim.steps=5", "optim.warmup_epochs=0", step=tiny.cheap_step())
    assert tiny.bits(weights) == tiny.bits(fine.state.params)


def test_a_run_stopped_by_bad_steps_may_be_tried_again(tmp_path):
    bad = tiny.cheap_step(frozenset(range(6, 10)))
    first = tiny.train(tmp_path, "run.stop_after_bad=3", step=bad)
    assert first.exit is Exit.BAD_STEPS and first.step == 8
    assert int(first.state.bad_steps) == 3
    assert tiny.train(tmp_path, "run.stop_after_bad=3", step=bad).exit is Exit.DONE


def test_a_recorded_step_is_seen_again_tensor_by_tensor(tmp_path):
    """A learning rate beyond all measure: soon nothing is finite. Seen again from a checkpoint after it."""
    wild = ("optim.lr=1e30", "optim.warmup_epochs=0", "optim.clip=0", "run.stop_after_bad=3", "run.checkpoint_every=1")
    outcome = tiny.train(tmp_path, *wild, "run.keep_last=9", step=None)
    first = min(int(p.stem) for p in (tmp_path / "bad_steps").iterdir())
    assert outcome.exit is Exit.BAD_STEPS and outcome.step == first + 2 and first > 1
    look = partial(replay, experiment=tiny.experiment(tmp_path, *wild), mesh=make_mesh(), data=tiny.facts())
    said: list[str] = []
    found = look(tmp_path / "bad_steps" / f"{first + 1}.json", loader_factory=tiny.batches, say=said.append)
    assert (found.step, found.metrics["finite"], found.metrics["bad_steps"]) == (first + 1, 0, 2)
    assert "changed nothing but counters" in said[0]
    assert any(t.nan or t.inf for t in found.tensors if t.name.startswith("grads/"))
    assert not any(t.nan or t.inf for t in found.tensors if t.name.startswith(("params/", "views/")))
    text = report(found)
    assert f"step {first + 1}: reproduced" in text and "loss" in text
    assert [e["number"] for e in found.culprits or ()] == list(range(4 * first, 4 * first + 4))
