"""Fault row 30: equal seeds give equal bits; how many workers read the data, and how far ahead, changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import jax
import pytest

sys.path.append(str(Path(__file__).parent.parent / "train"))
sys.path.append(str(Path(__file__).parent.parent / "data"))
import tiny_training as tiny
from compiled_once import compiled_once  # noqa: F401
from small_records import pack

from protloc_jax.cli.main import main
from protloc_jax.train import loop
from protloc_jax.train.digest import content_digest

TINY = (*tiny.SETTINGS, "optim.warmup_epochs=0", "optim.freeze_last_layer_epochs=0", "run.checkpoint_every=0")
READING = {
    "threads": (),
    "one-thread": ("data.threads=1", "data.prefetch=1"),
    "far-ahead": ("data.threads=3", "data.prefetch=7"),
    "two-workers": ("data.workers=2",),
    "three-workers": ("data.workers=3", "data.prefetch=1"),
}
SLOW = pytest.mark.slow
pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def train(tmp_path_factory) -> Callable[..., dict[int, str]]:
    """`train(*overrides)`: `protloc pretrain` on small records; digests of everything trained, by step."""
    records = pack(tmp_path_factory.mktemp("records") / "set")

    def run(*overrides: str, steps: tuple[int, ...]) -> dict[int, str]:
        found: dict[int, str] = {}
        make = loop.make_step

        def watched(*arguments):
            step = make(*arguments)

            def noted(state, batch):
                state, metrics = step(state, batch)
                if int(state.step) in steps:
                    trained = (state.params, state.teacher, state.buffers)
                    found[int(state.step)] = content_digest(jax.device_get(trained))
                return state, metrics

            return noted

        place = tmp_path_factory.mktemp("run")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "make_step", watched)
            words = (f"data.records={records}", f"run.out={place}", f"optim.steps={steps[-1]}")
            assert main(["pretrain", *TINY, *words, *overrides]) == 0
        return found

    return run


@pytest.fixture(scope="module")
def first(train) -> dict[int, str]:
    return train(steps=(1, 10))


@pytest.mark.parametrize("reading", [r if r == "two-workers" else pytest.param(r, marks=SLOW) for r in READING])
def test_two_fresh_runs_agree_at_steps_1_and_10_however_data_are_read(train, first, reading):
    assert set(first) == {1, 10} and first[1] != first[10]
    assert train(*READING[reading], steps=(1, 10)) == first


@pytest.mark.slow
def test_the_digests_tell_seeds_apart(train, first):
    """Another run, for what the short form takes for granted."""
    assert not set(train("run.seed=1", steps=(1, 10)).values()) & set(first.values())


@pytest.mark.slow
def test_two_fresh_runs_agree_after_a_hundred_steps(train):
    """The long form: nine epochs, evaluated at more steps."""
    steps = (1, 10, 100)
    whole = train(steps=steps)
    assert len(set(whole.values())) == 3
    for reading in READING.values():
        assert train(*reading, steps=steps) == whole
