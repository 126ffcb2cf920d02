"""Supervised training through a channel plan: its features, its gradients, what a checkpoint remembers, refusals."""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import signal
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_training as tiny

from protloc_jax.channel_plans import plan_of
from protloc_jax.channels import parse
from protloc_jax.config import ConfigError, with_overrides
from protloc_jax.convert.own_weights import fit_to_channels
from protloc_jax.convert.weight_file import WeightsRefused
from protloc_jax.data.batch import Batch
from protloc_jax.eval.load import load, untrained
from protloc_jax.model.vit import Vit
from protloc_jax.plan.dry_run import plan, plan_beginning
from protloc_jax.train.channel_passes import keys_of_passes, slots_of
from protloc_jax.train.checkpoint_files import load_weights
from protloc_jax.train.exits import Exit
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.initial import WeightsDoNotFit
from protloc_jax.train.initial_model import beginning
from protloc_jax.train.loop import fit
from protloc_jax.train.methods.supervised import Supervised
from protloc_jax.train.resume import ResumeRefused
from protloc_jax.views.config import normalisation_of
from protloc_jax.views.multicrop import Views
from protloc_jax.views.prepare import PrepareConfig, prepare

SLOTS = parse("microtubules,protein,nucleus,er")
IMAGES = np.stack([tiny.image(n) for n in range(4)])
SUPERVISED = (
    *("method.name=supervised", "method.classes=a,b,c", "method.hidden=8", "views.n_global=1", "views.n_local=0"),
    *("method.ema=0.9", "optim.steps=8", "optim.warmup_epochs=0"),  # the cheap step moves a teacher
)


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """The runs of this file compile the same programs, unoptimised; all but the first read them from a folder."""
    new = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in new}
    for name, value in {**new, "jax_disable_most_optimizations": True}.items():
        jax.config.update(name, value)
    yield
    for name, value in {**before, "jax_disable_most_optimizations": False}.items():
        jax.config.update(name, value)


@pytest.fixture(name="source", scope="module")
def _source(tmp_path_factory):
    """Weights with the atlas' four slots."""
    out = tmp_path_factory.mktemp("hpa")
    settings = ("optim.steps=1", "optim.warmup_epochs=0", "model.channels=4", "model.depth=2")
    tiny.train(out, *settings, data=tiny.facts(channels=SLOTS))
    return out


def asked(source, text, out="unused", *more) -> Experiment:
    kept = [item for item in tiny.SETTINGS if not item.startswith(("method.", "model."))]
    settings = [*kept, *SUPERVISED, f"init.weights={source}", f"init.plan={text}", f"run.out={out}", *more]
    return with_overrides(Experiment(), settings)


def begun(source, text, *more):
    """(the method, the backbone that it begins with, the experiment as it is saved)."""
    begins = beginning(asked(source, text, "unused", *more), tiny.CHANNELS)
    assert begins.initial is not None
    return Supervised(begins.experiment, tiny.CHANNELS), begins.initial.params["backbone"], begins.experiment


def features_of(method, experiment, backbone):
    """What the head sees of whole images, by the training method."""
    how = PrepareConfig(normalisation=normalisation_of(experiment.views, tiny.CHANNELS), resize=8, crop=8)
    return np.asarray(jax.jit(lambda b, x: method.features({"backbone": b}, prepare(x, how)))(backbone, IMAGES))


@pytest.mark.parametrize("text", ["natural", "per-channel", "replicate", "permuted:3:natural+copy"])
def test_features_before_the_first_step_are_those_of_frozen_weights(source, text):
    method, backbone, experiment = begun(source, text, "method.pooling=cls+mean")
    got = features_of(method, experiment, backbone)
    encoder = load(source)
    frozen = encoder.with_plan(plan_of(text, encoder.channels, tiny.CHANNELS), tiny.CHANNELS)
    want = frozen.features(IMAGES, pooling="cls+mean")
    assert got.shape[-1] == want.shape[-1] == method.width == (64 if text in ("per-channel", "replicate") else 32)
    head = jax.eval_shape(method.init, jax.random.key(0))[0]["head"]
    assert head["mlp_0"]["kernel"].shape == (method.width, 8)
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert np.abs(got[0] - got[1]).max() > 1e-3


def test_gradients_flow_through_both_passes(source):
    """Against central differences, in float64, of the loss written out: two calls of the network, vectors side by side.

    One direction in each part of the parameters; slots that no pass fills get none.
    """
    method, backbone, _ = begun(source, "per-channel", "method.dropout=0", "method.head=linear", "method.pooling=mean")
    labels = np.eye(3)[[0, 1, 2, 0]]
    batch = Batch(None, np.zeros((4, 2), np.int32), labels=labels)
    with jax.enable_x64(True):
        rng = np.random.default_rng(2)
        last = {"kernel": rng.normal(size=(32, 3)), "bias": rng.normal(size=3)}
        # Fresh weights are small; larger ones make the differences larger than rounding.
        params = {"backbone": jax.tree.map(lambda p: 3 * jnp.asarray(p, jnp.float64), backbone), "head": {"last": last}}
        params = jax.tree.map(jnp.asarray, params)
        crops = jnp.asarray(rng.normal(size=(4, 1, 8, 8, 2)))
        keys = jax.random.split(jax.random.key(0), 4)

        def loss(p):
            return method.loss(p, {}, {}, Views(crops, crops[:, :0]), batch=batch, keys=keys, scalars={}).loss

        @jax.jit
        def by_hand(p):
            zero, nucleus, protein = jnp.zeros_like(crops[:, 0, ..., 0]), crops[:, 0, ..., 0], crops[:, 0, ..., 1]
            vit, vectors = Vit(method.vit_config), []
            for slots in ((zero, protein, zero, zero), (zero, zero, nucleus, zero)):
                output: Any = vit.apply({"params": p["backbone"]}, jnp.stack(slots, -1))
                vectors.append(output.patches.mean(-2))
            z = jnp.concatenate(vectors, -1) @ p["head"]["last"]["kernel"] + p["head"]["last"]["bias"]
            return (jnp.logaddexp(0, z) - labels * z).mean(-1).mean()

        value, grads = jax.jit(jax.value_and_grad(loss))(params)
        assert float(value) == pytest.approx(float(by_hand(params)), rel=1e-12)
        for top, name in (("backbone", "stem"), ("backbone", "blocks"), ("head", "last")):
            way = jax.tree.map(np.zeros_like, params)
            way[top][name] = jax.tree.map(lambda p: rng.normal(size=p.shape), params[top][name])
            up, down = (by_hand(jax.tree.map(lambda p, w, s=s: p + s * w, params, way)) for s in (1e-5, -1e-5))
            slope = sum(np.vdot(g, w) for g, w in zip(jax.tree.leaves(grads), jax.tree.leaves(way), strict=True))
            assert abs(slope) > 1e-4
            assert float(up - down) / 2e-5 == pytest.approx(float(slope), rel=1e-6), name
        size = np.abs(grads["backbone"]["stem"]["kernel"]).max((0, 1, 3))
        assert size[1] > 0 and size[2] > 0 and size[0] == size[3] == 0


def test_each_pass_skips_blocks_of_its_own(source):
    method, backbone, _ = begun(source, "passes:0,gfp,0,0;0,gfp,0,0", "model.drop_path=0.5")
    images = jnp.asarray(IMAGES, jnp.float32) / 100
    keys = jax.random.split(jax.random.key(3), 4)
    found = jax.jit(lambda b, k: method.features({"backbone": b}, images, k))(backbone, keys)
    skips = np.abs(np.subtract(*np.split(found, 2, axis=-1))).max(-1) > 1e-4
    assert skips.any()  # the same channel in both passes: only the skipped blocks differ
    each = jax.random.key_data(keys_of_passes(keys, 2)).reshape(8, -1)
    assert len(np.unique(each, axis=0)) == 8


def batches(start, *, last=None):
    for number, batch in enumerate(tiny.batches(start)):
        if number == last:
            os.kill(os.getpid(), signal.SIGTERM)
        yield batch._replace(labels=np.eye(3, dtype=np.float32)[batch.example[:, 1] % 3])


def run(source, text, out, *, last=None):
    begins = beginning(asked(source, text, out), tiny.CHANNELS)
    loader = functools.partial(batches, last=last)
    return fit(begins.experiment, loader, tiny.facts(), step=tiny.cheap_step(), initial=begins.initial).exit


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory, source):
    out = tmp_path_factory.mktemp("planned") / "run"
    assert run(source, "per-channel", out) is Exit.DONE
    return out


def test_a_stopped_run_goes_on_to_the_same_bits_without_the_weights(whole, source, tmp_path):
    weights, out = tmp_path / "weights", tmp_path / "run"
    shutil.copytree(source, weights)
    assert run(weights, "per-channel", out, last=5) is Exit.PREEMPTED
    shutil.rmtree(weights)
    assert run(weights, "per-channel", out) is Exit.DONE
    for item in ("params", "teacher", "opt_state"):
        assert tiny.bits(load_weights(whole, item)[0]) == tiny.bits(load_weights(out, item)[0])
    assert tiny.losses(whole) == tiny.losses(out)
    with pytest.raises(ResumeRefused, match=r"init\.plan: passes:0,gfp,0,0;0,0,nucleus,0 -> passes:0,gfp,nucleus,0"):
        run(weights, "natural", out)


def test_a_run_remembers_its_plan_and_is_an_encoder_of_its_records_channels(whole, source):
    _, meta = load_weights(whole, "params")
    wiring = "passes:0,gfp,0,0;0,0,nucleus,0"
    assert meta["config"]["init"]["plan"] == meta["init"]["plan"] == wiring
    assert meta["config"]["model"]["channels"] == 4
    assert slots_of(meta) == SLOTS and [name for name, _ in meta["channels"]] == ["nucleus", "gfp"]
    encoder = load(whole)
    assert encoder.plan is not None and encoder.plan.text == wiring
    assert encoder.channels == tiny.CHANNELS and encoder.dim == 32
    assert encoder.provenance["channel_passes"] == "0,gfp,0,0;0,0,nucleus,0"
    method, backbone, experiment = begun(source, "per-channel")
    trained = features_of(method, experiment, load_weights(whole, "teacher")[0]["backbone"])
    np.testing.assert_allclose(encoder.features(IMAGES), trained, atol=1e-6)
    before = features_of(method, experiment, backbone)
    np.testing.assert_allclose(untrained(whole).features(IMAGES), before, atol=1e-6)
    assert np.abs(trained - before).max() > 1e-2
    # Images whose channels have other names: by role into the records' channels, and on by the plan.
    other = parse("hpa_green:protein,dapi")
    np.testing.assert_allclose(encoder.for_channels(other).features(IMAGES[..., ::-1]), trained, atol=1e-6)


def test_such_a_run_is_where_another_begins(whole):
    again = beginning(asked(whole, "natural"), tiny.CHANNELS)
    assert again.experiment.init.plan == "passes:0,gfp,nucleus,0"
    with pytest.raises(WeightsDoNotFit, match=r"reads the channels microtubules, protein, nucleus, er.*init\.plan="):
        beginning(asked(whole, ""), tiny.CHANNELS)
    with pytest.raises(WeightsRefused, match=r"trained through a channel plan .* begin with it by init\.plan"):
        fit_to_channels(whole, whole.parent / "fitted", parse("nucleus"), "mean")


def test_a_plan_costs_its_passes(source):
    found = {}
    for text in ("natural", "per-channel"):
        experiment, words = plan_beginning(asked(source, text), tiny.CHANNELS)
        found[text] = plan(experiment, tiny.CHANNELS, 24, image_shape=(8, 8))
        assert any("channel plan (0,gfp," in line and "pass(es) a view" in line for line in words)
    one, two = found["natural"], found["per-channel"]
    assert one.batch_bytes == two.batch_bytes == 4 * (8 * 8 * 2 + 8)  # images and their addresses
    assert two.flops_per_image == pytest.approx(2 * one.flops_per_image, rel=0.02)
    assert two.activations_a_device == pytest.approx(2 * one.activations_a_device, rel=0.02)


def test_what_does_not_fit_is_refused_by_name(source):
    with pytest.raises(ValueError, match=r"method\.name=dino makes one pass a view, and this plan has 2"):
        beginning(tiny.experiment(source, f"init.weights={source}", "init.plan=per-channel"), tiny.CHANNELS)
    with pytest.raises(ConfigError) as caught:
        asked(source, "naturel", "unused", "init.freeze_backbone_epochs=-1")
    for words in ("plan=naturel: not one of natural", "Did you mean 'natural'", "freeze_backbone_epochs=-1.0"):
        assert words in str(caught.value)
    with pytest.raises(ConfigError, match=r"plan=natural: means nothing without weights"):
        asked("", "natural")
    constants = ("views.normalise=dataset", "views.mean=.1,.1", "views.std=.1,.1")
    with pytest.raises(ValueError, match=r"init\.plan=slots:") as caught:
        beginning(asked(source, "slots:protien=gfp,nucleus=blue", "unused", *constants), tiny.CHANNELS)
    for words in ("Did you mean 'protein'", "no channel 'blue'", "views.normalise=self"):
        assert words in str(caught.value)
    unresolved = asked(source, "natural")
    with pytest.raises(ValueError, match=r"init\.plan=natural is not written out yet"):
        Supervised(unresolved, tiny.CHANNELS)
    init = dataclasses.replace(unresolved.init, plan="passes:gfp,nucleus")
    with pytest.raises(ValueError, match=r"pass 1 fills 2 slots, the model has 3"):
        Supervised(dataclasses.replace(unresolved, init=init), tiny.CHANNELS)
