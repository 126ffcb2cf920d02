"""WSL, SimCLR, BYOL, MoCo v3 and MAE: updates against NumPy by hand, stopping and going on, and what is refused."""

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
import pretraining_by_hand as by_hand
import pytest
import tiny_training as tiny
from equivalence_runs import environment

from protloc_jax.config import with_overrides
from protloc_jax.devices import batch_sharding, host_to_global, make_mesh, replicated
from protloc_jax.model.masked import kept_patches
from protloc_jax.train.checkpoint_files import load_weights
from protloc_jax.train.exits import Exit
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.initial import first_state
from protloc_jax.train.loop import fit
from protloc_jax.train.method import METHOD
from protloc_jax.train.methods import METHODS
from protloc_jax.train.methods.backbone import keys_of_views
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.step import example_keys, make_step, state_sharding, step_function
from protloc_jax.views.multicrop import Views

STEPS = 7
OF = {
    "wsl": (
        "method.classes=a,b,c",
        "method.place=1",
        "method.hidden=6",
        "method.dropout=0",
        "method.unlabelled=ignore",
    ),
    "simclr": ("method.hidden=6", "method.out_dim=5"),
    "byol": ("method.hidden=6", "method.out_dim=5", "method.momentum=0.5", "method.momentum_by=epoch"),
    "moco": ("method.hidden=6", "method.out_dim=5", "method.momentum=0.5"),
    "mae": ("method.mask_ratio=0.5", "method.decoder_dim=8", "method.decoder_depth=1", "method.decoder_heads=2"),
}
TERM = np.cos(np.arange(16))


def experiment(name, out="nowhere", *more):
    kept = [item for item in tiny.SETTINGS if not item.startswith(("method.", "views.n_local", "model.heads"))]
    return with_overrides(
        Experiment(),
        [
            *(
                *kept,
                f"run.out={out}",
                f"method.name={name}",
                *OF[name],
                f"optim.steps={STEPS}",
                "optim.warmup_epochs=0",
            ),
            *("optim.clip=0", "optim.decay=all", "optim.lr=0.02", "optim.lr_batch=0", "model.heads=2"),
            *("model.init=fan_in", "run.checkpoint_every=0", "views.n_local=0"),
            *(f"views.n_global={1 if name in ('wsl', 'mae') else 2}", *more),
        ],
    )


def two_views(name):
    """Two easily made views of an image, or the first of them."""

    def views(batch, keys, dtype):
        x = 4 * (batch.image.astype(dtype) / 255 - 0.4)
        shown = jnp.stack([x, 0.5 * x[:, :, ::-1] + 0.1], 1)[:, : 1 if name in ("wsl", "mae") else 2]
        return Views(shown, shown[:, :0])

    return views


class WithTerm:
    """A method with a term of its features beside it, as a regulariser of them is put around a method."""

    def __init__(self, method):
        self.method = method

    def __getattr__(self, name):
        return getattr(self.method, name)

    def loss(self, *args, **more):
        output = self.method.loss(*args, **more)
        assert output.features.dtype == jnp.float32
        return output._replace(loss=output.loss + 0.3 * (output.features @ TERM.astype(np.float32)).mean())


@functools.cache
def compiled(name):
    """(step, first state) of a method, on a mesh of one device as `fit` has it."""
    config, mesh = experiment(name), make_mesh()
    held = state_sharding(config, tiny.CHANNELS, mesh)
    method = WithTerm(METHODS[name](config, tiny.CHANNELS))
    step = step_function(config, method, Schedules(config, tiny.EXAMPLES // 4), two_views(name), mesh)
    step = jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(held, batch_sharding(mesh)),
        out_shardings=(held, replicated(mesh)),
    )
    return step, lambda: first_state(config, tiny.CHANNELS, held, None)


def batches(start, *, last=None):
    for number, batch in enumerate(tiny.batches(start)):
        if number == last:
            os.kill(os.getpid(), signal.SIGTERM)
        group = np.stack([np.zeros(4, int), batch.example[:, 1] % 4 - 1], 1)  # a quarter has no value
        yield batch._replace(group=group.astype(np.int32))


def by_numpy(name, state, batch):
    """The loss with its term, as a function of the parameters alone."""
    views = np.asarray(two_views(name)(batch, None, np.float32).global_, float)
    kept = None
    if name == "mae":
        keys = keys_of_views(example_keys(state.key, jnp.asarray(batch.example)), METHOD, 1)
        kept = np.asarray(kept_patches(keys, 4, 2))[:, 0]
    teacher = by_hand.float64(state.teacher)

    def loss(params):
        value, features = by_hand.METHODS[name](params, teacher, views, batch.group[:, 1], kept)
        return value + 0.3 * (features @ TERM).mean()

    return loss


@pytest.mark.usefixtures("compiled_once")
# MoCo v3 has BYOL's networks; their losses are compared in test_pretraining_losses.
@pytest.mark.parametrize("name", ["wsl", "simclr", pytest.param("byol", marks=pytest.mark.slow), "moco", "mae"])
def test_updates_are_those_by_hand_and_a_stopped_run_goes_on_to_the_same_bits(name, tmp_path):
    step, first = compiled(name)
    state, mesh, feed, optim = first(), make_mesh(), batches(0), experiment(name).optim
    for number in range(STEPS):
        batch, before = next(feed), jax.device_get(state)
        state, metrics = step(state, host_to_global(batch, mesh))
        assert metrics["finite"] == 1 and not set(metrics) & {"features", "feature_mean"}
        if number != 1:  # at the second step teacher and network differ
            continue
        after, loss = jax.device_get(state), by_numpy(name, before, batch)
        params = by_hand.float64(before.params)
        assert float(metrics["loss"]) == pytest.approx(loss(params), rel=2e-5)
        grads = jax.tree.map(lambda new, old: (new - optim.b1 * old) / (1 - optim.b1), after.opt_state.mu,
                             before.opt_state.mu)  # fmt: skip
        rng = np.random.default_rng(0)
        for part in params:
            way = jax.tree.map(np.zeros_like, params)
            way[part] = jax.tree.map(lambda p, rng=rng: rng.normal(size=p.shape), params[part])
            up, down = (loss(jax.tree.map(lambda p, w, s=s: p + s * w, params, way)) for s in (1e-5, -1e-5))
            products = [np.vdot(g, w) for g, w in zip(jax.tree.leaves(grads), jax.tree.leaves(way), strict=True)]
            assert (up - down) / 2e-5 == pytest.approx(np.sum(products), abs=2e-4 * np.linalg.norm(products)), part
            assert np.linalg.norm(products) > 1e-4, f"{part} is trained"
        assert set(after.teacher) == ({"backbone", "projector"} if name in ("byol", "moco") else set())
        follows = float(metrics.get("momentum", 0))
        assert name != "byol" or follows == 0.5, "all of the first epoch"
        for old, own, new in zip(*map(jax.tree.leaves, (before.teacher, {k: after.params[k] for k in after.teacher},
                                                        after.teacher)), strict=True):  # fmt: skip
            np.testing.assert_allclose(new, follows * old + (1 - follows) * own, rtol=1e-5, atol=1e-7)
    again = functools.partial(fit, experiment(name, tmp_path), data=tiny.facts(), step=step)
    stopped = again(lambda start: batches(start, last=5))
    assert stopped.exit is Exit.PREEMPTED and 0 < stopped.step < STEPS
    assert again(batches).exit is Exit.DONE
    for item in ("params", "opt_state"):
        assert tiny.bits(load_weights(tmp_path, item)[0]) == tiny.bits(jax.device_get(getattr(state, item)))
    assert all(np.isfinite(list(tiny.losses(tmp_path).values())))


def test_what_a_method_cannot_work_with_is_refused_by_name():
    channels = tiny.CHANNELS
    for name, wanted in {
        "wsl": "one whole view",
        "mae": "one whole",
        "simclr": "two whole",
        "moco": "two whole",
    }.items():
        config = experiment(name)
        method = METHODS[name](config, channels)
        assert method.views(config.views) is config.views
        with pytest.raises(ValueError, match=rf"views\.n_global=3, views\.n_local=2: {name} needs {wanted}"):
            method.views(dataclasses.replace(config.views, n_global=3, n_local=2))
        if method.splits_over_micro_batches:
            continue
        more = experiment(name, "nowhere", "optim.accumulation=2")
        schedules = Schedules(more, 6)
        with pytest.raises(ValueError, match=f"method '{name}' compares the examples"):
            make_step(more, channels, schedules)
    splits = {
        (name, norm): METHODS[name](
            experiment(name, "nowhere", f"method.norm={norm}"), channels
        ).splits_over_micro_batches
        for name in ("wsl", "simclr", "byol", "moco")
        for norm in ("batch", "layer", "none")
    }
    assert {key for key, yes in splits.items() if yes} == {
        (n, norm) for n in ("wsl", "byol") for norm in ("layer", "none")
    }
    assert METHODS["mae"](experiment("mae"), channels).splits_over_micro_batches
    with pytest.raises(ValueError, match=r"method\.classes is empty"):
        METHODS["wsl"](experiment("wsl", "nowhere", "method.classes="), channels)
    with pytest.raises(ValueError, match=r"method\.mask_ratio=0\.9 keeps 0 of 4 patches"):
        METHODS["mae"](experiment("mae", "nowhere", "method.mask_ratio=0.9"), channels)
    plan = ("init.weights=x", "init.plan=passes:gfp,gfp")
    with pytest.raises(ValueError, match=r"init\.plan=passes:gfp,gfp: method\.name=simclr trains with a slot"):
        METHODS["simclr"](experiment("simclr", "nowhere", *plan, "views.normalise=self"), channels)
    by_channel = ("model.stem=channels", "model.channel_names=nucleus,gfp")
    with pytest.raises(ValueError, match=r"model\.stem='channels': mae masks patches"):
        METHODS["mae"](experiment("mae", "nowhere", *by_channel), channels)
    with pytest.raises(ValueError, match=r"channel_sampling='hierarchical': byol trains on all"):
        METHODS["byol"](experiment("byol", "nowhere", *by_channel, "model.channel_sampling=hierarchical"), channels)


@pytest.mark.parametrize("name", ["simclr", "moco", "mae"])
def test_the_compiler_counts_the_same_operations(name):
    """Forward and backward pass of the whole loss; it also counts norms, softmax and GELU, and more at small widths."""
    kept = [item for item in OF[name] if not item.startswith(("method.hidden", "method.out", "method.dec"))]
    own = ("method.decoder_dim=64", "method.decoder_depth=2", "method.decoder_heads=2") if name == "mae" else ()
    sizes = ("model.dim=64", "model.depth=2", "model.scan=false", "model.patch=16", "model.image_size=224")
    config = with_overrides(experiment(name), [*kept, *own, *sizes, "views.global_size=224"])
    method = METHODS[name](config, tiny.CHANNELS)
    params, teacher, _ = jax.eval_shape(method.init, jax.random.key(0))
    views = jax.ShapeDtypeStruct((4, config.views.n_global, 224, 224, 2), jnp.float32)
    batch = next(batches(0))._replace(image=None)

    def loss(params, teacher, views):
        keys = jax.random.split(jax.random.key(0), 4)
        return method.loss(params, teacher, {}, Views(views, views), batch=batch, keys=keys, scalars={}).loss

    counted = (jax.jit(jax.grad(loss)).lower(params, teacher, views).cost_analysis() or {})["flops"]
    assert 0.95 < counted / 4 / method.flops(config.views) < 1.5


@pytest.mark.slow  # the losses and heads on eight devices are compared in test_pretraining_losses
def test_eight_devices_train_as_one():
    """SimCLR and MoCo v3 with batch norms, in float64, three steps on data and fsdp devices."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(Path(__file__).parent / "pretraining_on_devices.py")],
        env=environment(devices=8),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for name in ("simclr", "moco"):
        for layout in ("eight", "fsdp"):
            np.testing.assert_allclose(found[name][layout]["losses"], found[name]["one"]["losses"], rtol=1e-8)
            np.testing.assert_allclose(found[name][layout]["params"], found[name]["one"]["params"], atol=1e-8)
        assert found[name]["fsdp"]["split"] > 0 and np.all(np.diff(found[name]["one"]["losses"]) != 0)
