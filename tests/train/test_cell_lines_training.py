"""Runs with cell tokens: devices, what a run may go on with, and what weights it may begin with."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_training as tiny
from quick_compilation import forced_devices

from protloc_jax.config import ConfigError, with_overrides
from protloc_jax.data.cell_vectors import CellVectors, read, write
from protloc_jax.devices import make_mesh
from protloc_jax.eval.load import load, untrained
from protloc_jax.model.config import VitConfig
from protloc_jax.train.checkpoint_files import load_weights
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.initial import WeightsDoNotFit, first_state, with_rows_of
from protloc_jax.train.initial_model import beginning
from protloc_jax.train.loop import fit
from protloc_jax.train.resume import ResumeRefused, changes, describe_run, refuse_changes
from protloc_jax.train.step import state_sharding

SHORT = ("optim.steps=2", "optim.warmup_epochs=0")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Vectors of widths 3 and 4, a run without tokens, and one with two that began with its weights."""
    out = tmp_path_factory.mktemp("cell_lines")
    rng = np.random.default_rng(0)
    for width in (3, 4):
        write(CellVectors(("VERO", "U2OS"), rng.normal(size=(2, width))), out / f"{width}.csv")
    tiny.train(out / "plain", *SHORT)
    begins = beginning(asked(out, "with", 3, f"init.weights={out / 'plain'}"), tiny.CHANNELS)
    facts = tiny.facts(cell_vectors=read(out / "3.csv").digest)
    fit(begins.experiment, tiny.batches, facts, initial=begins.initial, step=tiny.cheap_step())
    return out, begins


def asked(out: Path, run: str, width: int, *more: str):
    return tiny.experiment(out / run, *SHORT, "model.cell_tokens=2", f"data.cell_vectors={out / f'{width}.csv'}", *more)


def test_weights_without_tokens_get_a_fresh_map(made):
    out, begins = made
    assert begins.experiment.model.cell_tokens == 2 and begins.experiment.model.cell_dim == 3
    assert "2 cell token(s) of vectors of width 3, by a fresh map, for the weights have none" in begins.words
    assert begins.initial.fresh == ("cells",)
    held = state_sharding(begins.experiment, tiny.CHANNELS, make_mesh())
    state = first_state(begins.experiment, tiny.CHANNELS, held, begins.initial)
    theirs = load_weights(out / "plain")[0]["backbone"]
    drawn = untrained(out / "with").params  # from the run's seed, and nothing of it was trained
    for network in (state.params, state.teacher):
        backbone = dict(network["backbone"])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), backbone.pop("cells"), drawn["cells"])
        assert tiny.bits(backbone) == tiny.bits(theirs)
    assert 0.01 < drawn["cells"]["kernel"].std() < 0.03
    assert tiny.bits({k: v for k, v in drawn.items() if k != "cells"}) == tiny.bits(theirs)


def test_new_tokens_have_positions_of_zero_where_there_are_positions_for_them():
    shape = {"size": "custom", "dim": 2, "depth": 1, "heads": 1, "patch": 4, "image_size": 8, "registers": 1}
    model = VitConfig(**shape, cell_tokens=2, cell_dim=3, position_prefix="all")
    pos = np.arange(1.0, 13.0).reshape(1, 6, 2)
    backbone, _ = with_rows_of(model, {"pos": pos}, {"config": {"model": shape}})
    np.testing.assert_array_equal(backbone["pos"][0, :, 0], [1, 0, 0, 3, 5, 7, 9, 11])


def test_weights_with_tokens_bring_them_and_need_vectors_of_their_width(made):
    out, _ = made
    weights = f"init.weights={out / 'with'}"
    begins = beginning(
        tiny.experiment(out / "next", *SHORT, weights, f"data.cell_vectors={out / '3.csv'}"), tiny.CHANNELS
    )
    assert begins.experiment.model == load(out / "with").config and begins.initial.fresh == ()
    assert "2 cell token(s) of vectors of width 3, from them" in begins.words
    with pytest.raises(
        WeightsDoNotFit, match=r"2 cell token\(s\) of vectors of width 3; .*4\.csv has vectors of width 4"
    ):
        beginning(asked(out, "next", 4, weights), tiny.CHANNELS)
    with pytest.raises(WeightsDoNotFit, match=r"name the cell lines' vectors, data\.cell_vectors=FILE"):
        beginning(tiny.experiment(out / "next", *SHORT, weights), tiny.CHANNELS)
    with pytest.raises(WeightsDoNotFit, match=r"model\.cell_tokens: 1 asked for, 2 in the weights"):
        beginning(asked(out, "next", 3, weights, "model.cell_tokens=1"), tiny.CHANNELS)


def test_what_cannot_be_trained_is_refused(made):
    out, _ = made
    with pytest.raises(ConfigError, match=r"model\.cell_tokens=2 needs a vector of every cell line"):
        beginning(tiny.experiment(out / "next", "model.cell_tokens=2"), tiny.CHANNELS)
    with pytest.raises(
        ConfigError, match=r"model\.cell_tokens=2: with data\.weak_label=compound local crops come from"
    ):
        asked(out, "next", 3, "data.weak_label=compound")
    frozen = ("method.name=supervised", "method.train=head", "views.n_local=0", f"init.weights={out / 'plain'}")
    base = [s for s in tiny.SETTINGS if not s.startswith(("method.", "views.n_local"))]
    tokens = ("model.cell_tokens=2", f"data.cell_vectors={out / '3.csv'}", f"run.out={out / 'next'}")
    with pytest.raises(
        WeightsDoNotFit, match=r"with method\.train=head the map that makes them would stay as it is drawn"
    ):
        beginning(with_overrides(Experiment(), [*base, *frozen, *tokens]), tiny.CHANNELS)


def test_a_run_does_not_go_on_with_other_vectors(made):
    out, begins = made
    facts = tiny.facts(cell_vectors=read(out / "3.csv").digest)
    before = describe_run(begins.experiment, facts)
    moved = asked(out, "with", 3, f"init.weights={out / 'plain'}", "data.cell_vectors=elsewhere.csv")
    moved = dataclasses.replace(begins.experiment, data=moved.data)
    assert changes(before, describe_run(moved, facts)) == []
    other = describe_run(begins.experiment, facts._replace(cell_vectors="f" * 64))
    with pytest.raises(
        ResumeRefused, match=rf"content of data\.cell_vectors: {facts.cell_vectors[:12]} -> ffffffffffff"
    ):
        refuse_changes(before, other, where="runs/a")
    assert changes(before, describe_run(begins.experiment, tiny.facts())) == [
        f"content of data.cell_vectors: {facts.cell_vectors[:12]} -> (none)"
    ]


def test_a_step_with_lines_is_the_same_on_eight_devices():
    worker = Path(__file__).parent / "cell_lines_on_devices.py"
    done = subprocess.run([sys.executable, worker], env=forced_devices(8), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    one, eight, turned = found["one"], found["eight"], found["turned"]
    assert one["moved"] > 1e-5, "no gradient reaches the map of the tokens"
    np.testing.assert_allclose(eight["loss"], one["loss"], rtol=1e-10)
    np.testing.assert_allclose(eight["params"], one["params"], rtol=0, atol=1e-9)
    assert abs(turned["loss"] - one["loss"]) > 1e-6 * abs(one["loss"])
