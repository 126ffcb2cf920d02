"""The loop with a step that compiles in no time: order, metrics, resuming, signals, bad steps, refusals."""

from __future__ import annotations

import json
import os
import signal
from functools import partial

import jax
import numpy as np
import pytest
import tiny_training as tiny
from console_lines import Lines
from saved_at_once import saved_at_once  # noqa: F401

from protloc_jax.channels import parse
from protloc_jax.telemetry.writers import read_metrics
from protloc_jax.train.checkpoint import load_weights
from protloc_jax.train.exits import Exit
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.resume import ResumeRefused
from protloc_jax.train.state import examples_seen

pytestmark = pytest.mark.usefixtures("compiled_once")


class Killed(Exception):
    """Stands for a crash at a place of the test's choosing."""


def dying(last):
    """A step after which, `last` steps being done, the next one dies."""
    step = tiny.cheap_step()

    def until(state, batch):
        if int(state.step) == last:
            raise Killed
        return step(state, batch)

    return until


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run: its directory and outcome."""
    out = tmp_path_factory.mktemp("whole")
    return out, tiny.train(out)


def test_a_whole_run(whole):
    out, outcome = whole
    assert outcome.exit is Exit.DONE and outcome.step == 20
    assert int(outcome.state.step) == 20 and examples_seen(outcome.state) == 80
    assert sorted(tiny.losses(out)) == list(range(1, 21))
    record = read_metrics(out / "metrics.jsonl")[-1]
    assert record["examples"] == 80 and record["epoch"] == pytest.approx(80 / 24)
    assert record["images_per_s"] > 0 and record["eta_s"] == 0 and record["data_wait_percent"] >= 0
    assert sorted(int(p.name) for p in (out / "checkpoints").iterdir())[-1] == 20
    saved = Experiment(**{})
    assert json.loads((out / "config.json").read_text())["optim"]["batch"] == 4 != saved.optim.batch


def test_the_checkpoint_tells_all_that_evaluation_needs(whole):
    out, outcome = whole
    weights, meta = load_weights(out)
    assert tiny.bits(weights) == tiny.bits(outcome.state.teacher)
    assert meta["channels"] == [["nucleus", "nucleus"], ["gfp", "protein"]]
    assert meta["examples_seen"] == 80 and meta["step"] == 20
    assert meta["normalisation"]["kind"] in ("self", "dataset", "none")
    assert meta["config"]["model"]["dim"] == 16
    assert meta["data"] == {"name": "noise", "digest": "d0", "examples": 24}
    assert meta["seconds"] > 0


@pytest.mark.parametrize("last", [2, 3, 7, 13])
def test_a_crashed_run_goes_on_bit_for_bit(tmp_path, whole, last):
    """Before the first checkpoint (of step 3), right after it, between two, in a later epoch."""
    out, outcome = whole
    with pytest.raises(Killed):
        tiny.train(tmp_path, step=dying(last))
    console = Lines()
    resumed = tiny.train(tmp_path, console=console)
    assert resumed.exit is Exit.DONE
    assert tiny.bits(resumed.state) == tiny.bits(outcome.state)
    assert tiny.losses(tmp_path) == tiny.losses(out)
    begun = [line for line in console.said if "resumed from" in line]
    assert [line.split("(")[0].split("/")[-1] for line in begun] == ([f"{last // 3 * 3} "] if last >= 3 else [])
    assert console.warned == []


def test_metrics_between_log_steps_survive_too(tmp_path, whole):
    """Logged every 7 steps, saved every 3: the file is never behind a checkpoint, and has each step once."""
    with pytest.raises(Killed):
        tiny.train(tmp_path, "run.log_every=7", step=dying(11))
    tiny.train(tmp_path, "run.log_every=7")
    assert tiny.losses(tmp_path) == tiny.losses(whole[0])


def test_a_finished_run_is_left_alone(tmp_path, whole):
    tiny.train(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "checkpoints").rglob("*")}

    def never(start):
        raise AssertionError("asked for data")
        yield

    again = tiny.train(tmp_path, loader_factory=never)
    assert again.exit is Exit.DONE and again.step == 20
    assert tiny.bits(again.state) == tiny.bits(whole[1].state)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "checkpoints").rglob("*")} == before
    assert tiny.losses(tmp_path) == tiny.losses(whole[0])


def test_seconds_add_up_over_restarts(tmp_path):
    with pytest.raises(Killed):
        tiny.train(tmp_path, step=dying(7), loader_factory=partial(tiny.batches, seconds=0.05))
    _, first = load_weights(tmp_path)
    tiny.train(tmp_path)
    _, second = load_weights(tmp_path)
    assert second["seconds"] > first["seconds"] > 0.25


def test_order_is_evaluate_save_batch_step(tmp_path):
    events: list[str] = []

    def factory(start):
        for batch in tiny.batches(start):
            events.append("batch")
            yield batch

    step = tiny.cheap_step()

    def noted(state, batch):
        events.append("step")
        return step(state, batch)

    def evaluate(state, done, give_up):
        events.append(f"evaluate {done}")
        assert int(state.step) == done and not give_up()
        return {"score": done / 10, "other": 1.0}

    outcome = tiny.train(
        tmp_path,
        *("optim.steps=6", "optim.warmup_epochs=0.5", "run.eval_every=4"),
        evaluate=evaluate,
        step=noted,
        loader_factory=factory,
    )
    assert outcome.exit is Exit.DONE
    assert [e for e in events if e != "batch"] == [
        *("evaluate 0", "step", "step", "step", "step", "evaluate 4", "step", "step", "evaluate 6")
    ]
    # No more than the two batches placed ahead.
    assert events.count("batch") == 6 + 2
    scores = read_metrics(tmp_path / "metrics.jsonl", kind="eval")
    assert [(r["step"], r["score"]) for r in scores] == [(0, 0.0), (4, 0.4), (6, 0.6)]


def test_the_best_by_the_first_score_is_kept(tmp_path):
    by_step = {0: 0.0, 3: 0.9, 6: 0.2, 9: 0.3, 12: 0.4, 15: 0.5, 18: 0.6, 20: 0.1}
    options = ("run.eval_every=3", "run.keep_last=1", "run.keep_best=1")
    tiny.train(tmp_path, *options, evaluate=lambda state, done, give_up: {"f1": by_step[done], "bad": -done})
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [3, 20]


def test_evaluation_is_not_repeated_on_resume(tmp_path):
    seen: list[int] = []

    def evaluate(state, done, give_up):
        seen.append(done)
        return {"f1": 0.5}

    run = partial(tiny.train, tmp_path, "run.eval_every=3", evaluate=evaluate)
    with pytest.raises(Killed):
        run(step=dying(7))
    assert seen == [0, 3, 6]
    run()
    assert seen == [0, 3, 6, 9, 12, 15, 18, 20]
    assert [r["step"] for r in read_metrics(tmp_path / "metrics.jsonl", kind="eval")] == seen


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_under_way_and_the_run_goes_on(tmp_path, whole, number):
    step = tiny.cheap_step()

    def signalled(state, batch):
        if int(state.step) == 7:
            os.kill(os.getpid(), number)
        return step(state, batch)

    console = Lines()
    stopped = tiny.train(tmp_path, "run.checkpoint_every=0", step=signalled, console=console)
    assert stopped.exit is Exit.PREEMPTED == 75 and stopped.step == 8
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["8"]
    assert "the same command goes on" in console.said[-1] and signal.Signals(number).name in console.said[-1]
    assert sorted(tiny.losses(tmp_path)) == list(range(1, 9))
    resumed = tiny.train(tmp_path)
    assert tiny.bits(resumed.state) == tiny.bits(whole[1].state)
    assert tiny.losses(tmp_path) == tiny.losses(whole[0])


def test_a_signal_during_an_evaluation_reaches_it(tmp_path):
    gave_up = []

    def evaluate(state, done, give_up):
        if done == 6:
            os.kill(os.getpid(), signal.SIGTERM)
            gave_up.append(give_up())
            return {}
        return {"f1": 0.1}

    stopped = tiny.train(tmp_path, "run.eval_every=3", "run.checkpoint_every=0", evaluate=evaluate)
    assert gave_up == [True]
    assert stopped.exit is Exit.PREEMPTED and stopped.step == 6
    assert (tmp_path / "checkpoints" / "6").is_dir()
    assert [r["step"] for r in read_metrics(tmp_path / "metrics.jsonl", kind="eval")] == [0, 3]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("optim.batch=8",), ["optim.batch: 4 -> 8"]),
        (("model.depth=2", "optim.lr=1e-3"), ["model.depth: 1 -> 2", "optim.lr: 0.0005 -> 0.001"]),
        (("run.seed=1",), ["run.seed: 0 -> 1"]),
    ],
)
def test_changed_settings_are_refused_by_name(tmp_path, whole, change, named):
    tiny.train(tmp_path, "optim.steps=3", "optim.warmup_epochs=0")
    with pytest.raises(ResumeRefused) as refused:
        tiny.train(tmp_path, "optim.steps=3", "optim.warmup_epochs=0", *change)
    assert all(text in str(refused.value) for text in named)
    assert "--force-resume" in str(refused.value)


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"channels": parse("gfp,nucleus")}, "channels: nucleus:nucleus, gfp:protein -> gfp:protein, nucleus:nucleus"),
        ({"examples": 28}, "training examples: 24 -> 28"),
        ({"digest": "d1"}, "content of the records: d0 -> d1"),
    ],
)
def test_changed_data_are_refused(tmp_path, facts, named):
    run = partial(tiny.train, tmp_path, "optim.steps=3", "optim.warmup_epochs=0")
    run()
    with pytest.raises(ResumeRefused, match=named):
        run(data=tiny.facts(**facts))


def test_what_is_free_may_change_and_force_goes_further(tmp_path):
    with pytest.raises(Killed):
        tiny.train(tmp_path, step=dying(7))
    free = ("run.log_every=5", "run.keep_last=1", "data.threads=7", "model.remat=block", "name=other")
    free += ("data.tolerant=true", "data.max_bad=0.1", "data.verify=open")
    with pytest.raises(Killed):
        tiny.train(tmp_path, *free, step=dying(11))
    forced = tiny.train(tmp_path, *free, "optim.lr=1e-3", force_resume=True)
    assert forced.exit is Exit.DONE and forced.step == 20


def test_bad_input_before_the_first_step(tmp_path):
    with pytest.raises(ValueError, match="holds less than one batch"):
        tiny.train(tmp_path / "a", "optim.batch=32")
    with pytest.raises(ValueError, match=r"run directory .* cannot be written"):
        tiny.train(tmp_path / "b", "run.out=/proc/nothing/here")
    with pytest.raises(ValueError, match=r"the loader ended after 2 of 20 steps"):
        tiny.train(
            tmp_path / "c",
            loader_factory=lambda start: [b for b, _ in zip(tiny.batches(start), range(2), strict=False)],
        )


def test_the_loop_leaves_metrics_on_the_device_between_log_steps(tmp_path, monkeypatch):
    """After the position, read before the first step, only log steps and checkpoints bring anything back."""
    from protloc_jax.train import loop

    fetched = []
    real = jax.device_get

    def noted(tree):
        fetched.append(len(tree) if isinstance(tree, list) else "position")
        return real(tree)

    monkeypatch.setattr(loop.jax, "device_get", noted)
    tiny.train(tmp_path, "run.log_every=8", "run.checkpoint_every=0")
    assert fetched == ["position", 1, 7, 8, 4]


def test_the_verdict_is_told_in_words(tmp_path):
    step = tiny.cheap_step()

    def collapsed(state, batch):
        state, metrics = step(state, batch)
        flat = {"teacher_entropy": np.log(8), "prototype_entropy": np.log(8), "kl": 0.0}
        flat |= {"feature_std": 0.5, "effective_rank": 5.0, "centre_norm": 1.0}
        return state, {**metrics, **{k: jax.numpy.float32(v) for k, v in flat.items()}}

    console = Lines()
    tiny.train(tmp_path, step=collapsed, console=console)
    (warning,) = console.warned
    assert warning.startswith("step 6, uniform collapse: the teacher spreads evenly")
    verdicts = {r["step"]: r["verdict"] for r in read_metrics(tmp_path / "metrics.jsonl")}
    assert verdicts[5] == "warming up" and verdicts[6] == "uniform collapse" == verdicts[20]


def test_a_profile_of_the_steps_asked_for(tmp_path):
    console = Lines()
    settings = ("optim.steps=8", "run.checkpoint_every=0", "run.profile=3:5")
    assert tiny.train(tmp_path, *settings, console=console).exit == Exit.DONE
    assert len(list((tmp_path / "profile").rglob("*.xplane.pb"))) == 1
    (told,) = (line for line in console.said if "profile in" in line)
    assert f"xprof --logdir {tmp_path / 'profile'}" in told
    with pytest.raises(ValueError, match="profile=5:3: must be START:STOP"):
        tiny.experiment(tmp_path, "run.profile=5:3")
