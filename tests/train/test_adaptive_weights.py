"""Weights with tokens of every channel as the beginning of runs on other channels."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_training as tiny

from protloc_jax.channels import parse
from protloc_jax.config import with_overrides
from protloc_jax.convert.own_weights import fit_to_channels
from protloc_jax.convert.weight_file import WeightsRefused
from protloc_jax.eval.load import load, untrained
from protloc_jax.model.config import VitConfig
from protloc_jax.plan.dry_run import plan, plan_beginning
from protloc_jax.train.checkpoint import load_weights
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.initial import WeightsDoNotFit
from protloc_jax.train.initial_model import beginning, with_architecture
from protloc_jax.train.methods import METHODS
from protloc_jax.train.resume import ResumeRefused

pytestmark = pytest.mark.usefixtures("compiled_once")

ADAPTIVE = "model.stem=channels"
OTHERS = parse("lipid,dapi")


def run(out, *overrides, channels=tiny.CHANNELS):
    """A tiny run as the command line has it, with a step that costs nothing."""
    begins = beginning(tiny.experiment(out, "optim.steps=2", "optim.warmup_epochs=0", *overrides), channels)
    facts = tiny.facts(channels=channels)
    outcome = tiny.fit(begins.experiment, tiny.batches, facts, initial=begins.initial, step=tiny.cheap_step())
    return begins, outcome


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run on nucleus and gfp."""
    out = tmp_path_factory.mktemp("adaptive")
    run(out, ADAPTIVE)
    return out


def rows_in(run_directory):
    return load_weights(run_directory)[0]["backbone"]["channels"]


def test_the_vocabulary_is_saved_and_belongs_to_the_run(source):
    encoder = load(source)
    assert encoder.config.channel_names == ("nucleus", "gfp") and encoder.config.channels == 2
    assert encoder.for_channels(parse("er,protein")).channels.names == ("protein",)
    with pytest.raises(ResumeRefused, match=r"model\.channel_names.*other"):
        run(source, ADAPTIVE, "model.channel_names=nucleus,gfp,other")
    with pytest.raises(ValueError, match="has no row for 'gfp'"):
        run(source, ADAPTIVE, "model.channel_names=nucleus,er")
    assert "resumed" not in str(run(source, ADAPTIVE)[0].words)


def test_other_channels_find_their_rows_or_get_new_ones(source):
    begins = beginning(with_overrides(Experiment(), [f"init.weights={source}"]), OTHERS)
    assert begins.experiment.model.channel_names == ("nucleus", "gfp", "lipid")
    assert "read by the rows lipid, nucleus of the vocabulary (nucleus, gfp, lipid); new rows: lipid" in str(
        begins.words
    )
    old = rows_in(source)
    want = np.concatenate([old, old.mean(0, keepdims=True)])
    for tree in (begins.initial.params, begins.initial.teacher):
        np.testing.assert_array_equal(tree["backbone"]["channels"], want)


def test_a_vocabulary_of_ones_own_takes_the_rows_of_its_names(source, tmp_path):
    names = "model.channel_names=lipid,nucleus"
    begins, outcome = run(tmp_path, f"init.weights={source}", ADAPTIVE, names, channels=OTHERS)
    old = rows_in(source)
    want = np.stack([old.mean(0, dtype=np.float64).astype("f4"), old[0]])
    np.testing.assert_array_equal(begins.initial.params["backbone"]["channels"], want)
    assert outcome.state.params["backbone"]["channels"].shape == want.shape
    began = untrained(tmp_path)
    assert began.provenance["which"] == "initial" and began.config.channel_names == ("lipid", "nucleus")
    np.testing.assert_array_equal(began.params["channels"], want)
    with pytest.raises(ValueError, match="has no row for 'lipid'"):
        beginning(
            with_overrides(Experiment(), [f"init.weights={source}", ADAPTIVE, "model.channel_names=nuclei"]), OTHERS
        )


def test_weights_of_another_stem_are_refused_by_name(source, tmp_path):
    with pytest.raises(WeightsRefused, match=r"model\.stem=channels.* init\.weights="):
        fit_to_channels(source, tmp_path / "fitted", OTHERS, "mean")
    plan = ["method.name=supervised", "method.classes=a,b", f"init.weights={source}", "init.plan=natural"]
    with pytest.raises(WeightsDoNotFit, match=r"init\.plan=natural: .*\(nucleus, gfp\) and has no slots to fill"):
        beginning(with_overrides(Experiment(), plan), OTHERS)
    asked, joint = VitConfig(stem="channels", channel_names=("gfp",)), VitConfig()
    with pytest.raises(WeightsDoNotFit, match=r"model\.stem: channels asked for, joint in the weights"):
        with_architecture(asked, joint)
    assert with_architecture(VitConfig(channel_sampling="hierarchical", stem="channels"), asked) == replace(
        asked, channel_sampling="hierarchical"
    )


def test_supervised_training_and_forecasts_take_them(source):
    keys = [*(item for item in tiny.SETTINGS if not item.startswith(("method.", "model."))), "views.n_local=0"]
    keys += ["method.name=supervised", "method.classes=a,b,c", "views.n_global=1", f"init.weights={source}"]
    three = parse("gfp,er,nucleus")
    experiment, words = plan_beginning(with_overrides(Experiment(), keys), three)
    assert experiment.model.stem == "channels" and "new rows: er" in str(words)
    method = METHODS["supervised"](experiment, three)
    assert method.vit.channel_rows == (1, 2, 0)
    params = jax.eval_shape(lambda: method.init(jax.random.key(0))[0])
    logits = jax.eval_shape(method.logits, params, jax.ShapeDtypeStruct((2, 1, 8, 8, 3), jnp.float32))
    assert logits.shape == (2, 1, 3)
    dino = with_overrides(Experiment(), ["model.patch=16", "model.channels=4", "optim.batch=64"])
    four = parse("microtubules,protein,nucleus,er")
    adaptive = replace(dino, model=replace(dino.model, stem="channels"))
    whole, by_channel = plan(dino, four, 1000), plan(adaptive, four, 1000)
    # The kernel is that of one channel, and four rows of the vocabulary come with it.
    saved = (4 - 1) * 16 * 16 * 384 - 4 * 384
    assert whole.parameters["backbone"] - by_channel.parameters["backbone"] == saved
    assert by_channel.flops_per_image > 4 * whole.flops_per_image
    assert by_channel.activations_a_device > 4 * whole.activations_a_device
