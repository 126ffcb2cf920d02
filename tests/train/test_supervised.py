"""Supervised training on the common step: what is frozen, what an example's labels and key decide, resuming."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import signal
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
from small_supervised import batch_number, experiment

from protloc_jax.config import ConfigError, from_mapping, to_dict, with_overrides
from protloc_jax.devices import make_mesh
from protloc_jax.eval.load import load
from protloc_jax.train.checkpoint_files import load_weights
from protloc_jax.train.exits import Exit
from protloc_jax.train.experiment import DinoConfig, Experiment
from protloc_jax.train.loop import fit
from protloc_jax.train.methods.supervised import Supervised
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.state import init_state
from protloc_jax.train.step import make_step, step_function
from protloc_jax.train.supervised_config import SupervisedConfig
from protloc_jax.views.multicrop import Views

THREE = {"depth": 3, "dim": 16}


def plain_views(batch, keys, dtype):
    """One crop without augmentation, so that what is compiled is small."""
    crop = (batch.image.astype(dtype) / 255)[:, None, :32, :32]
    return Views(crop, crop[:, :0])


def trained(config, steps=3, batches=batch_number):
    """(state before, state after, metrics of the last step) of a real run of the step."""
    state = jax.jit(lambda: init_state(config, CHANNELS, jax.random.key(0)))()
    before = jax.device_get(state)
    step = jax.jit(step_function(config, Supervised(config, CHANNELS), Schedules(config, 4), plain_views))
    # What is compared is one program's, so it need not be optimised.
    step = step.lower(state, batches(0)).compile(compiler_options={"xla_backend_optimization_level": 0})
    metrics = {}
    for number in range(steps):
        state, metrics = step(state, batches(number))
    return before, jax.device_get(state), jax.device_get(metrics)


def test_the_last_blocks_are_trained_and_nothing_below_them_moves_by_a_bit():
    """With weight decay, which would move a parameter whose learning rate alone is not quite zero."""
    config = experiment(model=THREE, train="last_n", last_n=1, ema=0.9, optim={"weight_decay": 0.3})
    before, after, metrics = trained(config)
    assert metrics["finite"] == 1
    for tree in ("params", "teacher"):
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


def test_a_frozen_backbone_keeps_its_bits_and_has_no_moments():
    before, after, _ = trained(experiment(model=THREE, train="head", optim={"weight_decay": 0.3}))
    assert tiny.bits(before.params["backbone"]) == tiny.bits(after.params["backbone"])
    assert tiny.bits(before.params["head"]) != tiny.bits(after.params["head"])
    assert {x.shape for x in jax.tree.leaves(after.opt_state.mu["backbone"])} == {()}
    assert after.teacher == {}


def test_micro_batches_add_up_with_unlabelled_examples_in_some_of_them():
    empty = (0, 1, 2, 5)  # unevenly over the four micro-batches
    batches = functools.partial(batch_number, empty=empty)
    _, one, metrics = trained(experiment(model=THREE), batches=batches)
    _, four, again = trained(experiment(model=THREE, optim={"accumulation": 4}), batches=batches)
    assert metrics["unlabelled"] == again["unlabelled"] == len(empty)
    assert metrics["loss"] == pytest.approx(again["loss"], rel=1e-5)
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(four.params), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def method_of(**how):
    return Supervised(experiment(model=THREE, **how), CHANNELS)


@pytest.fixture(name="params", scope="module")
def _params():
    return jax.jit(method_of().init)(jax.random.key(0))[0]


def output(params, images, labels, keys):
    batch = batch_number(0, len(labels))._replace(image=images, labels=labels)
    views = plain_views(batch, keys, jnp.float32)
    return method_of().loss(params, {}, {}, views, batch=batch, keys=keys, scalars={})


def test_an_examples_loss_depends_on_its_own_image_key_and_labels_alone(params):
    """Its dropped units too: alone in a batch it has the loss that it adds to a larger one."""
    batch = batch_number(0, 4)
    keys = jax.random.split(jax.random.key(5), 4)
    loss = jax.jit(lambda *a: output(params, *a).loss)
    together = loss(batch.image, batch.labels, keys)
    alone = [loss(batch.image[i : i + 1], batch.labels[i : i + 1], keys[i : i + 1]) for i in range(4)]
    assert together == pytest.approx(np.mean(alone), rel=1e-5)
    assert len({float(x) for x in alone}) == 4
    other = loss(batch.image[:1], batch.labels[:1], keys[1:2])
    assert abs(other - alone[0]) > 1e-5


def test_an_unlabelled_example_weighs_nothing(params):
    batch = batch_number(0, 4)
    keys = jax.random.split(jax.random.key(5), 4)
    labels = batch.labels.copy()
    labels[3] = 0
    grad = jax.jit(jax.grad(lambda images: output(params, images, labels, keys).loss))(batch.image.astype(np.float32))
    size = np.abs(grad).max((1, 2, 3))
    assert size[3] == 0 and (size[:3] > 0).all()
    found = jax.jit(lambda: output(params, batch.image, labels, keys))()
    assert float(found.means["labelled"]) == 0.75
    assert found.features.shape == (4, 16), "one vector an image, for a regulariser"


def test_what_does_not_fit_is_refused_by_name(params):
    with pytest.raises(ValueError, match=r"views\.n_local=2: supervised trains on global crops"):
        method_of().views(dataclasses.replace(experiment().views, n_local=2))
    with pytest.raises(ValueError, match=r"method\.last_n=4: the backbone has 3 blocks"):
        method_of(train="last_n", last_n=4)
    with pytest.raises(ValueError, match=r"method\.classes is empty"):
        method_of(classes=())
    batch, keys = batch_number(0, 4), jax.random.split(jax.random.key(0), 4)
    with pytest.raises(ValueError, match=r"the batch has 4 classes; method\.classes names 5"):
        output(params, batch.image, batch.labels[:, :4], keys)
    with pytest.raises(ValueError, match="last_n") as caught:
        SupervisedConfig(
            train="last_n", dropout=1.0, head="mlp", hidden=(), classes=("a", "a"), loss="focal", label_smoothing=0.1
        )
    for word in ("dropout=1", "hidden=()", "repeated a", "not with loss=focal"):
        assert word in str(caught.value)


def test_forecast_of_arithmetic():
    """A frozen backbone costs a forward pass; a third of the blocks a third of the backward pass."""
    views = experiment().views
    whole, third, head = (
        method_of(**how).flops(views) for how in ({}, {"train": "last_n", "last_n": 1}, {"train": "head"})
    )
    assert whole > third > head
    assert whole - head == pytest.approx(3 * (third - head), rel=1e-4)


# Overrides of the tiny run, in any order: its method's own keys go when its name changes.
SUPERVISED = (
    *("method.name=supervised", "method.classes=a,b,c", "method.hidden=8", "method.dropout=0.5", "views.n_global=1"),
    *("views.n_local=0", "optim.steps=8", "model.depth=2"),
)
LAST = ("method.train=last_n", "method.last_n=1")


def tiny_experiment(out, *more):
    kept = [item for item in tiny.SETTINGS if not item.startswith("method.")]
    return with_overrides(Experiment(), [*kept, *SUPERVISED, f"run.out={out}", *more])


@functools.cache
def tiny_step():
    """Compiled once for all runs."""
    config = tiny_experiment("nowhere", *LAST)
    return make_step(config, tiny.CHANNELS, Schedules(config, tiny.EXAMPLES // 4), make_mesh())


def labelled_batches(start, *, last=None):
    for number, batch in enumerate(tiny.batches(start)):
        if number == last:
            os.kill(os.getpid(), signal.SIGTERM)
        offsets = batch.example[:, 1]
        yield batch._replace(labels=np.eye(3, dtype=np.float32)[offsets % 3])


def run(out, *more, last=None, **options):
    config = tiny_experiment(out, *LAST, *more)
    return fit(config, lambda start: labelled_batches(start, last=last), tiny.facts(), step=tiny_step(), **options)


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("supervised") / "run"
    assert run(out).exit is Exit.DONE
    return out


def test_a_stopped_run_goes_on_to_the_same_bits(whole, tmp_path):
    stopped = run(tmp_path, last=5)
    assert stopped.exit is Exit.PREEMPTED and 0 < stopped.step < 8
    assert run(tmp_path).exit is Exit.DONE
    for item in ("params", "opt_state"):
        assert tiny.bits(load_weights(whole, item)[0]) == tiny.bits(load_weights(tmp_path, item)[0])
    assert tiny.losses(whole) == tiny.losses(tmp_path)
    with pytest.raises(ValueError, match=r"method\.last_n: 1 -> 2"):
        run(tmp_path, "method.last_n=2")


def test_a_run_without_a_teacher_gives_an_encoder_of_its_params(whole):
    encoder = load(whole)
    assert encoder.provenance["which"] == "params"
    assert tiny.bits(encoder.params) == tiny.bits(load_weights(whole, "params")[0]["backbone"])
    with pytest.raises(ValueError, match=r"has no 'teacher'; it has params"):
        load(whole, which="teacher")


def test_a_pretrained_backbone_is_where_it_begins(whole, tmp_path):
    seen = {}

    def evaluate(state, step, give_up):
        seen[step] = jax.device_get(state.params["backbone"])
        return {"val_macro_f1": 0.5}

    more = (f"init.weights={whole}", "init.which=params", "run.eval_every=4")
    assert run(tmp_path, *more, evaluate=evaluate).exit is Exit.DONE
    begun = load_weights(whole, "params")[0]["backbone"]
    assert tiny.bits(seen[0]) == tiny.bits(begun) != tiny.bits(seen[8])
    assert tiny.bits(seen[8]["stem"]) == tiny.bits(begun["stem"])
    # A new head: not the one that was trained with these features.
    assert tiny.bits(load_weights(tmp_path, "params")[0]["head"]) != tiny.bits(load_weights(whole, "params")[0]["head"])


@pytest.mark.slow  # the step on eight devices has its short form in test_equivalence; this is the same step
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
