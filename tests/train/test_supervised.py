"""Supervised training on the common step: what is frozen, what an example's labels and key decide, resuming."""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_training as tiny
from equivalence_runs import environment
from small_step import CHANNELS
from small_supervised import BATCH, CLASSES, batch_number, experiment

from protloc_jax.config import ConfigError, from_mapping, to_dict, with_overrides
from protloc_jax.eval.load import load
from protloc_jax.train.checkpoint_files import load_weights
from protloc_jax.train.experiment import DinoConfig, Experiment
from protloc_jax.train.loop import Exit, fit
from protloc_jax.train.methods.supervised import Supervised
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.state import init_state
from protloc_jax.train.step import make_step
from protloc_jax.train.supervised_config import SupervisedConfig

THREE = {"depth": 3, "dim": 16}


def trained(config, steps=3, batches=batch_number):
    """(state before, state after, metrics of the last step) of a real run of the step."""
    state = jax.jit(lambda: init_state(config, CHANNELS, jax.random.key(0)))()
    before = jax.device_get(state)
    step = make_step(config, CHANNELS, Schedules(config, 4))
    metrics = {}
    for number in range(steps):
        state, metrics = step(state, batches(number))
    return before, jax.device_get(state), jax.device_get(metrics)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_last_blocks_are_trained_and_nothing_below_them_moves_by_a_bit(ema):
    """With weight decay, which would move a parameter whose learning rate alone is not quite zero."""
    config = experiment(model=THREE, train="last_n", last_n=1, ema=ema, optim={"weight_decay": 0.3})
    before, after, metrics = trained(config)
    assert metrics["finite"] == 1
    for tree in ("params", "teacher") if ema else ("params",):
        old, new = getattr(before, tree), getattr(after, tree)
        for name in ("stem", "cls", "pos"):
            assert tiny.bits(old["backbone"][name]) == tiny.bits(new["backbone"][name]), name
        for a, b in zip(*(jax.tree.leaves(t["backbone"]["blocks"]) for t in (old, new)), strict=True):
            assert a[:2].tobytes() == b[:2].tobytes()
            assert not np.array_equal(a[2], b[2])
        assert not np.array_equal(old["backbone"]["norm"]["scale"], new["backbone"]["norm"]["scale"])
        assert not np.array_equal(old["head"]["last"]["kernel"], new["head"]["last"]["kernel"])
    # Moments exist for the trained block alone.
    for moments in (after.opt_state.mu, after.opt_state.nu):
        assert {x.shape[0] for x in jax.tree.leaves(moments["backbone"]["blocks"])} == {1}
        assert moments["backbone"]["pos"].shape == ()


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_frozen_backbone_keeps_its_bits_and_has_no_moments(ema):
    config = experiment(model=THREE, train="head", ema=ema, optim={"weight_decay": 0.3})
    before, after, _ = trained(config)
    for tree in ("params", "teacher") if ema else ("params",):
        old, new = getattr(before, tree), getattr(after, tree)
        assert tiny.bits(old["backbone"]) == tiny.bits(new["backbone"])
        assert tiny.bits(old["head"]) != tiny.bits(new["head"])
    assert {x.shape for x in jax.tree.leaves(after.opt_state.mu["backbone"])} == {()}
    assert (after.teacher == {}) is (not ema)


def test_micro_batches_add_up_with_unlabelled_examples_in_some_of_them():
    empty = (0, 1, 2, 5)  # unevenly over the four micro-batches
    batches = functools.partial(batch_number, empty=empty)
    _, one, metrics = trained(experiment(model=THREE), batches=batches)
    _, four, again = trained(experiment(model=THREE, optim={"accumulation": 4}), batches=batches)
    assert metrics["unlabelled"] == again["unlabelled"] == len(empty)
    assert metrics["loss"] == pytest.approx(again["loss"], rel=1e-5)
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(four.params), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@functools.cache
def small_method(**how):
    method = Supervised(experiment(model=THREE, **how), CHANNELS)
    return method, jax.jit(method.init)(jax.random.key(0))[0]


def output(images, labels, keys, **how):
    method, params = small_method(**how)
    from protloc_jax.train.step import view_maker

    config = experiment(model=THREE, **how)
    views = view_maker(config, CHANNELS, method, None)(images, None, keys, jnp.float32)
    batch = batch_number(0, len(labels))._replace(image=None, labels=labels)
    return method.loss(params, {}, {}, views, batch=batch, keys=keys, scalars={})


def test_an_examples_loss_depends_on_its_own_image_key_and_labels_alone():
    """Its dropped units too: alone in a batch it has the loss that it adds to a larger one."""
    batch = batch_number(0, 4)
    keys = jax.random.split(jax.random.key(5), 4)
    loss = jax.jit(lambda *a: output(*a).loss)
    together = loss(batch.image, batch.labels, keys)
    alone = [loss(batch.image[i : i + 1], batch.labels[i : i + 1], keys[i : i + 1]) for i in range(4)]
    assert together == pytest.approx(np.mean(alone), rel=1e-5)
    assert len({float(x) for x in alone}) == 4
    other = loss(batch.image[:1], batch.labels[:1], keys[1:2])
    assert abs(other - alone[0]) > 1e-5


def test_an_unlabelled_example_weighs_nothing():
    batch = batch_number(0, 4)
    keys = jax.random.split(jax.random.key(5), 4)
    labels = batch.labels.copy()
    labels[3] = 0
    grad = jax.jit(jax.grad(lambda images: output(images, labels, keys).loss))(batch.image.astype(np.float32) / 255)
    size = np.abs(grad).max((1, 2, 3))
    assert size[3] == 0 and (size[:3] > 0).all()
    found = output(batch.image, labels, keys)
    assert float(found.means["labelled"]) == 0.75


def test_what_does_not_fit_is_refused_by_name():
    with pytest.raises(ValueError, match=r"views\.n_local=2: supervised trains on global crops"):
        small_method()[0].views(dataclasses.replace(experiment().views, n_local=2))
    with pytest.raises(ValueError, match=r"method\.last_n=4: the backbone has 3 blocks"):
        small_method(train="last_n", last_n=4)
    with pytest.raises(ValueError, match=r"method\.classes is empty"):
        small_method(classes=())
    batch, keys = batch_number(0, 4), jax.random.split(jax.random.key(0), 4)
    with pytest.raises(ValueError, match="the batch has 4 classes; method.classes names 5"):
        output(batch.image, batch.labels[:, :4], keys)
    with pytest.raises(ValueError) as caught:
        SupervisedConfig(
            train="last_n", dropout=1.0, head="mlp", hidden=(), classes=("a", "a"), loss="focal", label_smoothing=0.1
        )
    for word in ("last_n", "dropout=1", "hidden=()", "repeated a", "not with loss=focal"):
        assert word in str(caught.value)


def test_forecast_of_arithmetic():
    """A frozen backbone costs a forward pass; a third of the blocks a third of the backward pass."""
    views = experiment().views
    whole, third, head = (
        small_method(**how)[0].flops(views) for how in ({}, {"train": "last_n", "last_n": 1}, {"train": "head"})
    )
    assert whole > third > head
    assert whole - head == pytest.approx(3 * (third - head), rel=1e-6)


# Overrides of the tiny run, in any order: its method's own keys go when its name changes.
SUPERVISED = (
    *("method.name=supervised", "method.classes=a,b,c", "method.hidden=8", "method.dropout=0.5", "views.n_global=1"),
    *("views.n_local=0", "optim.steps=8", "model.depth=2"),
)


def tiny_experiment(out, *more):
    kept = [item for item in tiny.SETTINGS if not item.startswith("method.")]
    return with_overrides(Experiment(), [*kept, *SUPERVISED, f"run.out={out}", *more])


def labelled_batches(start, *, last=None):
    for number, batch in enumerate(tiny.batches(start)):
        if last is not None and number == last:
            raise KeyboardInterrupt
        offsets = batch.example[:, 1]
        yield batch._replace(labels=np.eye(3, dtype=np.float32)[offsets % 3])


def run(out, *more, last=None, **options):
    return fit(tiny_experiment(out, *more), lambda start: labelled_batches(start, last=last), tiny.facts(), **options)


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("supervised") / "run"
    more = ("method.train=last_n", "method.last_n=1")
    assert run(out, *more).exit is Exit.DONE
    return out, more


def test_a_killed_run_goes_on_to_the_same_bits(whole, tmp_path):
    out, more = whole
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, *more, last=5)
    assert not (tmp_path / "checkpoints" / "8").exists()
    assert run(tmp_path, *more).exit is Exit.DONE
    for item in ("params", "opt_state"):
        assert tiny.bits(load_weights(out, item)[0]) == tiny.bits(load_weights(tmp_path, item)[0])
    assert tiny.losses(out) == tiny.losses(tmp_path)
    with pytest.raises(ValueError, match=r"method\.last_n: 1 -> 2"):
        run(tmp_path, "method.train=last_n", "method.last_n=2")


def test_a_run_without_a_teacher_gives_an_encoder_of_its_params(whole):
    out, _ = whole
    encoder = load(out)
    assert encoder.provenance["which"] == "params"
    assert tiny.bits(encoder.params) == tiny.bits(load_weights(out, "params")[0]["backbone"])
    with pytest.raises(ValueError, match=r"has no 'teacher'; it has params"):
        load(out, which="teacher")


def test_a_pretrained_backbone_is_where_it_begins(whole, tmp_path):
    out, _ = whole
    seen = {}

    def evaluate(state, step, give_up):
        seen[step] = jax.device_get(state.params["backbone"])
        return {"val_macro_f1": 0.5}

    more = (f"init.weights={out}", "init.which=params", "run.eval_every=4", "method.train=head")
    assert run(tmp_path, *more, evaluate=evaluate).exit is Exit.DONE
    begun = tiny.bits(load_weights(out, "params")[0]["backbone"])
    assert tiny.bits(seen[0]) == tiny.bits(seen[8]) == begun


def test_eight_devices_train_as_one():
    """A last_n run with dropout, drop path and unlabelled examples, in float64, over data and fsdp devices."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(Path(__file__).parent / "supervised_on_devices.py")],
        env=environment(devices=8),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for name in ("eight", "fsdp"):
        np.testing.assert_allclose(found[name]["losses"], found["one"]["losses"], rtol=1e-8)
        np.testing.assert_allclose(found[name]["params"], found["one"]["params"], atol=1e-8)
    assert found["fsdp"]["split"] > 0 and found["eight"]["split"] == 0
    assert np.all(np.diff(found["one"]["losses"]) != 0)


def test_the_method_is_chosen_by_name_and_older_configs_are_dino():
    assert isinstance(from_mapping(Experiment, {"method": {"out_dim": 8}}).method, DinoConfig)
    config = with_overrides(Experiment(), ["method.classes=a,b", "method.name=supervised"])
    assert config.method == SupervisedConfig(classes=("a", "b"))
    assert from_mapping(Experiment, to_dict(config)) == config
    with pytest.raises(ConfigError) as caught:
        with_overrides(config, ["method.out_dim=8", "method.droput=0.1"])
    assert "'method.out_dim'. It belongs to method.name=dino, and this is supervised" in str(caught.value)
    assert "Did you mean 'method.dropout'" in str(caught.value)
    with pytest.raises(ConfigError, match="Did you mean 'supervised'"):
        with_overrides(Experiment(), ["method.name=supervisd"])
    with pytest.raises(ConfigError, match=r"method\.out_dim'\. It belongs to method\.name=dino"):
        from_mapping(Experiment, {"method": {"name": "supervised", "out_dim": 8}})


def test_sizes_of_the_small_experiment():
    assert BATCH == 16 and len(CLASSES) == 5
