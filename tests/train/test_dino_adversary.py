"""DINO with an adversary: its gradients against central differences, which rows count, and what it is told before."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pretraining_by_hand as by_hand
import pytest
from small_step import CHANNELS, EXPERIMENT, as_float64, batch_number, changed

from protloc_jax.config import ConfigError, from_mapping, to_dict, with_overrides
from protloc_jax.data import manifest as manifests
from protloc_jax.data.batch import Batch
from protloc_jax.model.vit import Vit
from protloc_jax.objective.gradient_reversal import reversed_gradient
from protloc_jax.train.dino_adversary_config import DinoAdversaryConfig
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.labels import with_labels
from protloc_jax.train.methods.dino import Dino
from protloc_jax.train.methods.dino_adversary import DinoAdversary
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.state import init_state
from protloc_jax.train.step import step_function
from protloc_jax.views.multicrop import Views

QUICK = {"xla_backend_optimization_level": 0}
TINY = changed(EXPERIMENT, model={"depth": 1, "dim": 16, "drop_path": 0.0})
# Columns of a batch: plate, batch (three weeks), well type (1 = control).
GROUPS = np.array([[0, 0, 1], [0, 1, 1], [0, 2, 0], [0, -1, 1]], np.int32)


def adversarial(weight=0.7, experiment=TINY, **more):
    keys = {f.name: getattr(experiment.method, f.name) for f in dataclasses.fields(experiment.method)}
    facts = {"nuisance_values": ("w1", "w2", "w3"), "places": (1, 2, 1), "adversary_hidden": 6, **more}
    method = DinoAdversaryConfig(
        **{**keys, "name": "dino_adversary"}, adversary_weight=weight, adversary_ramp_epochs=0, **facts
    )
    return dataclasses.replace(experiment, method=method)


def test_the_gradient_comes_back_negative_and_scaled():
    x, g = jnp.asarray([1.0, -2.0]), jnp.asarray([3.0, 5.0])
    value, back = jax.vjp(reversed_gradient, x, jnp.asarray(0.5))
    np.testing.assert_array_equal(value, x)
    np.testing.assert_array_equal(back(g)[0], [-1.5, -2.5])
    assert back(g)[1] == 0
    assert not np.any(jax.vjp(reversed_gradient, x, jnp.asarray(0.0))[1](g)[0])


@pytest.fixture(scope="module")
def seen():
    """In float64: loss and gradients of the method by groups, and the two losses by hand."""
    with jax.enable_x64(True):
        experiment = adversarial()
        method, dino = DinoAdversary(experiment, CHANNELS), Dino(TINY, CHANNELS)
        params, teacher, buffers = as_float64(method.init(jax.random.key(0)))
        params = jax.tree.map(lambda p: 2 * p, params)  # fresh weights are small: differences would be rounding
        rng = np.random.default_rng(1)
        views = Views(*(jnp.asarray(rng.normal(size=(4, 2, s, s, 2))) for s in (32, 16)))
        scalars = {name: jnp.asarray(v, float) for name, v in Schedules(experiment, 4)(jnp.asarray(9)).items()}
        keys = jax.random.split(jax.random.key(2), 4)

        def whole(params, group, at=slice(None)):
            batch, crops = Batch(None, None, group=group[at]), jax.tree.map(lambda x: x[at], views)
            return method.loss(params, teacher, buffers, crops, batch=batch, keys=keys[at], scalars=scalars)

        def plain(params):
            return dino.loss(params, teacher, buffers, views, batch=Batch(None, None), keys=keys, scalars=scalars).loss

        def by_hand(params):
            """Rows 0 and 1 are the controls of a known week; two of four examples, two views each."""
            cls = Vit(method.vit_config).apply({"params": params["backbone"]}, views.global_).cls[:2]
            a = params["adversary"]
            z = (
                jnp.maximum(cls @ a["mlp_0"]["kernel"] + a["mlp_0"]["bias"], 0) @ a["last"]["kernel"]
                + a["last"]["bias"]
            )
            logp = z - jnp.log(jnp.exp(z).sum(-1, keepdims=True))
            return -(logp[0, :, 0].sum() + logp[1, :, 1].sum()) / 2 / 4

        run = jax.jit(jax.value_and_grad(lambda p, g: (o := whole(p, g), (o.loss, o))[1], has_aux=True),
                      compiler_options=QUICK)  # fmt: skip
        both = jax.jit(lambda p: (plain(p), by_hand(p)), compiler_options=QUICK)
        half = jax.jit(lambda p, g, first: whole(p, g, slice(first, first + 2)).loss, static_argnums=2,
                       compiler_options=QUICK)  # fmt: skip
        yield params, run, both, (method, half)


def test_gradients_are_those_of_central_differences(seen):
    params, run, both, _ = seen
    with jax.enable_x64(True):
        (value, _), grads = run(params, GROUPS)
        assert float(value) == pytest.approx(sum(map(float, both(params))), rel=1e-12)
        rng = np.random.default_rng(4)
        for top, signs in (("backbone", (1, -0.7)), ("head", (1, 0)), ("adversary", (0, 1))):
            way = jax.tree.map(np.zeros_like, params)
            way[top] = jax.tree.map(lambda p: rng.normal(size=p.shape), params[top])
            way["head"]["last"]["g"] *= 0  # gains are fixed and get no gradient
            up, down = (np.array(both(jax.tree.map(lambda p, w, s=s: p + s * w, params, way))) for s in (1e-6, -1e-6))
            slope = sum(np.vdot(g, w) for g, w in zip(jax.tree.leaves(grads), jax.tree.leaves(way), strict=True))
            assert float((up - down) / 2e-6 @ np.array(signs)) == pytest.approx(float(slope), rel=1e-5), top
            assert top == "head" or abs((up - down)[1]) > 1e-10, "the adversary's loss moves"


def test_a_regulariser_gets_the_students_mean_global_vector(seen):
    """`LossOutput.features` against the transformer in NumPy."""
    params, run, _, _ = seen
    with jax.enable_x64(True):
        (_, output), _ = run(params, GROUPS)
        rng = np.random.default_rng(1)
        views = rng.normal(size=(4, 2, 32, 32, 2))
        p = by_hand.float64(params["backbone"])
        want = np.mean([by_hand.encoded(p, views[:, v], patch=8)[0] for v in range(2)], axis=0)
        np.testing.assert_allclose(output.features, want, rtol=1e-9, atol=1e-11)


def test_only_controls_of_a_known_value_count(seen):
    params, run, both, (method, _) = seen
    with jax.enable_x64(True):
        (value, output), grads = run(params, GROUPS)
        other = GROUPS.copy()
        other[2, 1], other[:, 0] = 0, 5  # the week of a treated well, and a column that is not asked for
        (same, _), as_before = run(params, other)
        assert value == same
        jax.tree.map(np.testing.assert_array_equal, grads, as_before)
        assert float(output.means["controls"]) == 0.5
        metrics = method.metrics({"centre": jnp.zeros(64)}, output)
        assert float(metrics["adversary_loss"]) == pytest.approx(2 * float(both(params)[1]), rel=1e-6)
        # Without any control the term is 0, its gradients too, and nothing is undefined.
        (alone, output), grads = run(params, np.zeros_like(GROUPS))
        assert float(alone) == pytest.approx(float(both(params)[0]), rel=1e-12)
        assert not any(np.any(g) for g in jax.tree.leaves(grads["adversary"]))
        assert all(np.isfinite(v) for v in method.metrics({"centre": jnp.zeros(64)}, output).values())
        assert float(method.metrics({"centre": jnp.zeros(64)}, output)["adversary_accuracy"]) == 0


def test_micro_batches_add_up(seen):
    """One of them holds two controls, the other none."""
    params, run, _, (_, half) = seen
    with jax.enable_x64(True):
        (value, _), _ = run(params, GROUPS)
        assert np.mean([half(params, GROUPS, first) for first in (0, 2)]) == pytest.approx(float(value), rel=1e-12)


def updated(experiment, method):
    """State after two steps in float64, from views without augmentation."""
    experiment = changed(experiment, optim={"batch": 4, "warmup_epochs": 0})

    def views(batch, keys, dtype):
        x = batch.image.astype(dtype) / 255
        return Views(jnp.stack([x[:, :32, :32], x[:, 8:, 8:]], 1), x[:, None, :16, :16])

    with jax.enable_x64(True):
        state = as_float64(init_state(experiment, CHANNELS, jax.random.key(0)))
        step = step_function(experiment, method(experiment, CHANNELS), Schedules(experiment, 4), views)
        run = jax.jit(step, compiler_options=QUICK)
        metrics = {}
        for number, groups in enumerate((GROUPS, np.zeros_like(GROUPS))):  # a batch without controls, the same program
            state, metrics = run(state, batch_number(number, 4)._replace(group=groups))
        assert run._cache_size() == 1
        return jax.device_get(state), jax.device_get(metrics)


def test_weight_0_updates_the_networks_as_plain_dino():
    plain, _ = updated(TINY, Dino)
    off, metrics = updated(adversarial(0.0), DinoAdversary)
    assert metrics["controls"] == metrics["adversary"] == 0 and metrics["finite"] == 1
    for tree in ("params", "teacher"):
        for part in ("backbone", "head"):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-11),
                getattr(off, tree)[part],
                getattr(plain, tree)[part],
            )
    assert "adversary" in off.params and "adversary" not in off.teacher


def table(n=24):
    rows = pd.DataFrame({"id": [f"f{i}" for i in range(n)], "plate": [f"p{i % 5}" for i in range(n)]})
    rows["batch"] = [None if i == 0 else f"week{i % 2}" for i in range(n)]
    rows["well_type"] = ["negative_control" if i % 4 < 2 else "treatment" for i in range(n)]
    rows["compound"] = ["DMSO" if i % 4 < 2 else f"c{i % 3}" for i in range(n)]
    rows["split"] = ["val" if i >= n - 4 else "train" for i in range(n)]
    return manifests.make(rows, CHANNELS)


ASKED = ("method.name=dino_adversary", "data.weak_label=compound")


def test_what_the_records_say_is_filled_in_and_told():
    found, notes = with_labels(with_overrides(Experiment(), [*ASKED]), table())
    assert isinstance(found.method, DinoAdversaryConfig)
    assert found.method.nuisance_values == ("week0", "week1") and found.method.places == (1, 2, 0)
    assert from_mapping(Experiment, to_dict(found)) == found
    assert notes == (
        "adversary: 9 of 20 training images are controls (well_type=negative_control), of 2 of 2 values of 'batch'.",
        "the controls are classes of their own in the weak label 'compound': DMSO.",
    )


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["method.nuisance=bacth"], r"method\.nuisance=bacth: no column 'bacth'\. Did you mean 'batch'\?"),
        (["method.controls=well_typ=x"], r"no column 'well_typ'\. Did you mean 'well_type'\?"),
        (["method.controls=well_type=negative"], r"no 'negative' in 'well_type'\. Did you mean 'negative_control'\?"),
        (["method.controls=plate=p0", "method.nuisance=plate"], r"hold 4 controls of 1 values of 'plate'"),
        (["method.controls=DMSO"], r"controls=DMSO: say column=value"),
        (["method.adversary_weight=-1"], r"adversary_weight=-1\.0: must be at least 0"),
    ],
)
def test_what_cannot_be_is_refused_by_name(overrides, reason):
    with pytest.raises(ConfigError, match=reason):
        with_labels(with_overrides(Experiment(), [*ASKED, *overrides]), table())
