"""Fault row 18: a loss spike is told; on request its step changes nothing, or the run goes back and past its images."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent.parent / "train"))
import tiny_training as tiny
from compiled_once import compiled_once  # noqa: F401
from console_lines import Lines
from saved_at_once import save_at_once, saved_at_once  # noqa: F401
from small_step import EXPERIMENT, changed
from spiking_step import FACTOR, spiking_step
from test_step import Contrast, contrast_state

from protloc_jax.data.batch import Batch
from protloc_jax.telemetry.writers import read_metrics
from protloc_jax.train import checkpoint_files
from protloc_jax.train.exits import Exit
from protloc_jax.train.experiment import OptimConfig
from protloc_jax.train.jumps import Jumps
from protloc_jax.train.resume import ResumeRefused, pack
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.spike_watch import Spike, SpikeWatch
from protloc_jax.train.spikes import empty_window, limit, with_loss
from protloc_jax.train.state import examples_seen
from protloc_jax.train.step import step_function

SIZE = 8


def oracle(losses, *, factor=FACTOR, size=SIZE):
    """(which are spikes, how far each is from its limit relative to it) in float64, one list operation at a time."""
    good: list[float] = []
    spikes, distances = [], []
    for loss in map(float, losses):
        last = good[-size:]
        spike = False
        if len(last) == size and np.isfinite(loss):
            mean = sum(last) / size
            above = mean + factor * (sum((x - mean) ** 2 for x in last) / size) ** 0.5
            spike = loss > above
            distances.append(abs(loss - above) / abs(above))
        spikes.append(spike)
        if np.isfinite(loss) and not spike:
            good.append(loss)
    return spikes, distances


def series(seed):
    """Losses that fall and jitter, some six times as high, one not finite."""
    rng = np.random.default_rng(seed)
    losses = 4 + 2 * np.exp(-np.arange(60) / 20) + 0.1 * rng.standard_normal(60)
    losses[rng.choice(np.arange(3, 60), 6, replace=False)] *= 6
    losses[rng.integers(10, 50)] = np.nan
    return losses.astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
def test_the_step_and_the_host_judge_as_the_rule_in_float64(seed):
    losses = series(seed)
    wanted, distances = oracle(losses)
    assert min(distances) > 1e-4, "no case that rounding could decide"
    assert 2 <= sum(wanted) < 10

    def judge(window, loss):
        spike = loss > limit(window, FACTOR)
        return with_loss(window, loss, jnp.isfinite(loss) & ~spike), spike

    found = jax.lax.scan(judge, empty_window(SIZE), jnp.asarray(losses))[1]
    assert found.tolist() == wanted
    watch = SpikeWatch(OptimConfig(spike_factor=FACTOR, spike_window=SIZE))
    assert [watch.judge(i + 1, 0, {"loss": float(x)}) is not None for i, x in enumerate(losses)] == wanted
    assert watch.count == sum(wanted)


def test_a_watch_that_goes_on_from_the_metrics_judges_as_before():
    losses = series(0)
    optim = OptimConfig(spike_factor=FACTOR, spike_window=SIZE)
    whole = SpikeWatch(optim)
    records = []
    for step, loss in enumerate(losses):
        spike = whole.judge(step + 1, 0, {"loss": float(loss)})
        records.append({"loss": str(loss), "finite": int(np.isfinite(loss)), "spike": int(spike is not None)})
    resumed = SpikeWatch(optim, before=records[:33])
    rest = [int(resumed.judge(n + 34, 0, {"loss": float(x)}) is not None) for n, x in enumerate(losses[33:])]
    assert rest == [r["spike"] for r in records[33:]]
    assert resumed.count == whole.count


def test_equal_losses_never_spike_by_their_rounding():
    loss = jnp.float32(0.1)
    window = empty_window(7)
    for _ in range(9):
        assert not loss > limit(window, 0.01)
        window = with_loss(window, loss, jnp.asarray(True))
    assert loss * 1.01 > limit(window, 6.0)


def test_a_skipped_step_changes_only_position_and_count():
    """The real step around a loss that depends on the batch alone: the images of one step are ten times as bright."""
    optim = {"batch": 8, "warmup_epochs": 0, "on_spike": "skip", "spike_window": 4}
    experiment = changed(EXPERIMENT, optim=optim)
    step = jax.jit(step_function(experiment, Contrast(), Schedules(experiment, 4), lambda batch, *_: batch.image))
    state = contrast_state()._replace(spikes=empty_window(4))
    rng = np.random.default_rng(2)
    spiked = []
    for number in range(9):
        views = rng.standard_normal((8, 4)).astype(np.float32) * (30 if number in (6, 7) else 1)
        before = state
        state, metrics = step(state, Batch(views, np.zeros((8, 2), np.int32)))
        spiked.append(int(metrics["spike"]))
        assert int(metrics["finite"]) == 1
        assert np.isinf(metrics["spike_limit"]) == (number < 4)
        for field in ("params", "teacher", "buffers", "opt_state", "spikes"):
            same = tiny.bits(getattr(state, field)) == tiny.bits(getattr(before, field))
            assert same == (number in (6, 7)), (number, field)
    assert spiked == [0] * 6 + [1, 1, 0]
    assert (int(state.step), examples_seen(state), int(state.bad_steps)) == (9, 72, 0)
    assert int(state.spikes.number) == 7


# The loop, with a step that spikes at chosen examples.

WINDOW = ("optim.spike_window=4", "optim.spike_factor=6")
SKIP, BACK = ("optim.on_spike=skip", *WINDOW), ("optim.on_spike=rollback", *WINDOW)


pytestmark = pytest.mark.usefixtures("compiled_once")


def seen_by(out):
    """{step: the first example that it saw} of a finished run."""
    return {r["step"]: r["examples"] - 4 for r in read_metrics(out / "metrics.jsonl")}


def test_a_flagged_spike_is_told_and_counted_and_changes_nothing(tmp_path):
    console = Lines()
    outcome = tiny.train(tmp_path, *WINDOW, step=spiking_step(40, 60), console=console)
    assert outcome.exit is Exit.DONE
    assert [w.partition(" (")[0] for w in console.warned] == [
        "step 11: the loss 1000 is a spike",
        "step 16: the loss 1000 is a spike",
    ]
    assert console.warned[1].endswith("number 2 of this run")
    assert [r["step"] for r in read_metrics(tmp_path / "metrics.jsonl") if r["spike"]] == [11, 16]
    plain = tiny.train(tmp_path / "plain", "run.checkpoint_every=0", step=spiking_step())
    assert tiny.bits(outcome.state) == tiny.bits(plain.state)
    # The form of checkpoints is what it was before there was anything to judge.
    meta = checkpoint_files.read_meta(tmp_path / "checkpoints" / "20")
    assert set(meta["items"]) == {"params", "teacher", "buffers", "opt_state", "counters"}
    assert set(meta["items"]["counters"]) == {"step", "examples", "bad_steps", "key"}
    assert "spikes" not in pack(outcome.state)


def test_skipped_spikes_are_recorded_and_a_killed_run_skips_the_same(tmp_path):
    console = Lines()
    step = spiking_step(40, 60)
    outcome = tiny.train(tmp_path / "whole", *SKIP, step=step, console=console)
    assert outcome.exit is Exit.DONE and outcome.step == 20
    assert sorted(p.name for p in (tmp_path / "whole" / "bad_steps").iterdir()) == ["11.json", "16.json"]
    record = json.loads((tmp_path / "whole" / "bad_steps" / "11.json").read_text())
    assert record["why"].startswith("the loss 1000 is a spike (above ")
    assert [e["number"] for e in record["examples"]] == [40, 41, 42, 43]
    assert "changed nothing (1 in a row, stopping at 10); protloc pretrain --replay" in console.warned[0]

    class Killed(Exception):
        pass

    def dying(state, batch):
        if int(state.step) == 13:
            raise Killed
        return step(state, batch)

    with pytest.raises(Killed):
        tiny.train(tmp_path / "killed", *SKIP, step=dying)
    resumed = tiny.train(tmp_path / "killed", *SKIP, step=step)
    assert tiny.bits(resumed.state) == tiny.bits(outcome.state)
    assert tiny.losses(tmp_path / "killed") == tiny.losses(tmp_path / "whole")


def test_a_loss_that_stays_high_stops_the_run(tmp_path):
    high = spiking_step(*range(40, 80, 4))
    outcome = tiny.train(tmp_path, *SKIP, "run.stop_after_bad=3", "run.checkpoint_every=0", step=high)
    assert outcome.exit is Exit.BAD_STEPS and outcome.step == 13
    assert sorted(p.name for p in (tmp_path / "bad_steps").iterdir()) == ["11.json", "12.json", "13.json"]


@pytest.fixture(scope="module")
def went_back(tmp_path_factory, compiled_once):  # noqa: F811
    """A run with a spike at step 11, which is seen at step 12: its directory, outcome and console."""
    out, console = tmp_path_factory.mktemp("back"), Lines()
    with pytest.MonkeyPatch.context() as patch:
        save_at_once(patch)
        outcome = tiny.train(out, *BACK, "run.log_every=5", step=spiking_step(40), console=console)
    return out, outcome, console


def test_a_run_goes_back_past_the_images(went_back, tmp_path):
    """The spike (examples 40 to 43) takes the run back to step 9 and on with example 44."""
    out, outcome, console = went_back
    assert outcome.exit is Exit.DONE and outcome.step == 20
    assert examples_seen(outcome.state) == 4 * (20 + 2)
    assert seen_by(out) == {n: 4 * (n - 1) if n <= 9 else 4 * (n + 1) for n in range(1, 21)}
    assert "back to step 9; examples 36 to 43 are jumped over" in console.said
    (jump,) = json.loads((out / "jumps.json").read_text())["jumps"]
    assert (jump["step"], jump["first"], jump["to"], jump["spike"], jump["loss"]) == (9, 36, 44, 11, 1000.0)
    assert checkpoint_files.read_meta(out / "checkpoints" / "20")["jumps"] == [jump]
    # A run that begins anew with the list takes the same batches, without meeting the spike.
    shutil.copy(out / "jumps.json", tmp_path)
    rerun = tiny.train(tmp_path, *BACK, "run.checkpoint_every=0", step=spiking_step())
    assert tiny.bits(rerun.state) == tiny.bits(outcome.state)
    assert tiny.losses(tmp_path) == tiny.losses(out)


def test_killed_after_going_back_it_still_jumps_and_is_the_same_whatever_is_logged(went_back, tmp_path):
    """The checkpoint that it goes on from lies before the jump, whose only trace is the list."""
    out, outcome, _ = went_back

    class Killed(Exception):
        pass

    step, seen = spiking_step(40), []

    def dying(state, batch):
        seen.append(examples_seen(state))
        if seen[-1] == 44:
            raise Killed
        return step(state, batch)

    with pytest.raises(Killed):
        tiny.train(tmp_path, *BACK, step=dying)
    assert seen[-3:] == [36, 40, 44]
    console = Lines()
    resumed = tiny.train(tmp_path, *BACK, step=step, console=console)
    assert tiny.bits(resumed.state) == tiny.bits(outcome.state)
    assert tiny.losses(tmp_path) == tiny.losses(out)
    assert any("1 jump(s) over images that brought a spike" in line for line in console.said)


def test_a_later_spike_after_the_same_checkpoint_lengthens_the_jump(tmp_path):
    outcome = tiny.train(tmp_path, *BACK, step=spiking_step(40, 52))
    assert outcome.exit is Exit.DONE
    (jump,) = Jumps.read(tmp_path).listed()
    assert (jump["step"], jump["first"], jump["to"], jump["spike"]) == (9, 36, 56, 12)
    assert seen_by(tmp_path)[10] == 56


def test_a_spike_that_comes_back_ends_the_run_with_a_record(tmp_path):
    console = Lines()
    step = spiking_step(40, 44)
    outcome = tiny.train(tmp_path, *BACK, step=step, console=console)
    assert outcome.exit is Exit.BAD_STEPS == 70
    assert sorted(p.name for p in (tmp_path / "bad_steps").iterdir()) == ["10.json", "11.json"]
    assert "the spike of the loss came back" in console.said[-1]
    assert "again; the run has gone back to 9 before" in console.warned[-1]
    assert tiny.train(tmp_path, *BACK, step=step).exit is Exit.BAD_STEPS, "and so does the same command again"


def test_without_a_checkpoint_to_go_back_to_the_step_is_left_out(tmp_path):
    console = Lines()
    outcome = tiny.train(tmp_path, *BACK, "run.checkpoint_every=0", step=spiking_step(40), console=console)
    assert outcome.exit is Exit.DONE and examples_seen(outcome.state) == 80
    assert "there is no checkpoint to go back to" in console.warned[1]
    assert seen_by(tmp_path) == {n: 4 * (n - 1) for n in range(1, 21)}
    assert [p.name for p in (tmp_path / "bad_steps").iterdir()] == ["11.json"]


@pytest.mark.slow  # two saved checkpoints more, for the end of a run alone
def test_a_spike_in_the_last_steps_is_gone_back_for_too(tmp_path):
    outcome = tiny.train(tmp_path, *BACK, "run.log_every=50", "run.checkpoint_every=7", step=spiking_step(76))
    assert outcome.exit is Exit.DONE and outcome.step == 20
    assert seen_by(tmp_path)[15] == 80 and examples_seen(outcome.state) == 4 * 26


@pytest.mark.slow  # three runs, for a choice that has to be forced
def test_what_is_done_about_spikes_is_a_setting_of_the_run_that_can_be_forced(tmp_path):
    """A run that has met spikes may go on skipping them, with a window that fills anew; and stop doing so."""
    with pytest.raises(ValueError, match="the loader ended after 6"):
        tiny.train(tmp_path, loader_factory=lambda start: itertools.islice(tiny.batches(start), 6))
    with pytest.raises(ResumeRefused, match=r"optim\.on_spike: flag -> skip"):
        tiny.train(tmp_path, *SKIP)
    ten = {"loader_factory": lambda start: itertools.islice(tiny.batches(start), 13 - start // 4), "force_resume": True}
    with pytest.raises(ValueError, match="the loader ended after 13"):
        tiny.train(tmp_path, *SKIP, step=spiking_step(40), **ten)
    assert [p.name for p in (tmp_path / "bad_steps").iterdir()] == ["11.json"]
    assert tiny.train(tmp_path, force_resume=True).exit is Exit.DONE


def test_a_list_of_jumps_that_is_none_is_named(tmp_path):
    (tmp_path / "jumps.json").write_text('{"jumps": [{"step": 3}]}')
    with pytest.raises(ValueError, match=r"jumps\.json: not a list of jumps"):
        Jumps.read(tmp_path)
    jumps = Jumps()
    assert jumps.add(Spike(11, 40, 9.0, 5.0), step=9, first=36, batch=4)
    assert not jumps.add(Spike(11, 44, 9.0, 5.0), step=9, first=36, batch=4)
    assert (jumps.target(9, 36), jumps.target(9, 44), jumps.target(8, 36)) == (44, 44, 36)


@pytest.mark.slow
def test_two_processes_go_back_together(tmp_path, monkeypatch):
    """Long for its two processes: the decision comes from the loss of the whole batch, which both have."""
    import test_two_processes as pair

    monkeypatch.setattr(pair, "PROGRAM", Path(__file__).parent.parent / "train" / "spiking_step.py")
    results = pair.run(tmp_path / "run", *BACK, processes=2, devices=2)
    assert [code for code, _ in results] == [0, 0], "\n".join(text for _, text in results)
    ended = {line for _, text in results for line in text.splitlines() if line.startswith("ended")}
    assert ended == {"ended 20 88"}
    (jump,) = Jumps.read(tmp_path / "run").listed()
    assert (jump["step"], jump["first"], jump["to"]) == (9, 36, 44)
    assert sorted(tiny.losses(tmp_path / "run")) == list(range(1, 21))
