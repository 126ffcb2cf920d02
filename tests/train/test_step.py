"""The step as a whole: what it returns, what a bad step leaves alone, what it refuses, and that it compiles once."""

from __future__ import annotations

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_step import BATCH, CHANNELS, EXPERIMENT, STEPS_PER_EPOCH, batch_number, changed

from protloc_jax.objective.diagnostics import judge
from protloc_jax.train.method import LossOutput
from protloc_jax.train.methods import METHODS
from protloc_jax.train.methods.dino import Dino
from protloc_jax.train.optimizer import init_optimizer
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.state import TrainState, add_examples, examples_seen, init_state
from protloc_jax.train.step import example_keys, make_step, step_function


@functools.cache
def real_step():
    return make_step(EXPERIMENT, CHANNELS, Schedules(EXPERIMENT, STEPS_PER_EPOCH))


def fresh_state():
    return jax.jit(lambda: init_state(EXPERIMENT, CHANNELS, jax.random.key(0)))()


def test_steps_train_report_and_compile_once(caplog):
    state, step = fresh_state(), real_step()
    # Copies: NumPy views of a buffer keep it from being donated.
    start = jax.tree.map(np.array, state.params)
    seen = []
    with jax.log_compiles(True), caplog.at_level(logging.WARNING):
        for number in range(4):
            given = state
            state, metrics = step(state, batch_number(number))
            # The state is donated. The gains never change: whether their buffer is reused or handed on is jax's affair.
            donated = jax.tree.map(lambda leaf: leaf.is_deleted(), given.params)
            donated["head"]["last"].pop("g")
            assert all(jax.tree.leaves(donated))
            if number == 0:
                caplog.clear()
            seen.append(jax.device_get(metrics))
    assert not [r for r in caplog.records if "ompiling" in r.getMessage()]
    assert step._cache_size() == 1
    expected = {"loss", "grad_norm", "finite", "bad_steps", "lr", "weight_decay", "momentum", "teacher_temp", "kl"}
    expected |= {"student_temp", "centre_momentum", "freeze_last_layer", "teacher_entropy", "prototype_entropy"}
    expected |= {"centre_norm", "feature_std", "effective_rank"}
    assert set(seen[0]) == expected
    assert all(np.shape(v) == () for v in seen[0].values())
    assert [int(m["finite"]) for m in seen] == [1] * 4
    # Finite, and all that a verdict needs. Four steps of a tiny network have not earned one yet.
    assert judge(seen[-1], out_dim=64, step=4, warmup=10).state == "warming up"
    assert (int(state.step), examples_seen(state)) == (4, 4 * BATCH)
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), start, jax.device_get(state.params))
    assert not moved["head"]["last"].pop("g")
    assert all(jax.tree.leaves(moved))


def test_a_step_with_non_finite_numbers_changes_only_position_and_count():
    step = real_step()
    state, _ = step(fresh_state(), batch_number(0))
    kernel = state.params["backbone"]["blocks"]["mlp"]["fc1"]["kernel"]
    broken = jax.tree.map(jnp.copy, state)
    broken.params["backbone"]["blocks"]["mlp"]["fc1"]["kernel"] = kernel.at[1, 0, 0].set(jnp.nan)
    before = jax.tree.map(np.array, broken)
    for bad in (1, 2):
        broken, metrics = step(broken, batch_number(bad))
        after = jax.tree.map(np.array, broken)
        assert not int(metrics["finite"])
        assert int(after.bad_steps) == int(metrics["bad_steps"]) == bad
        assert (int(after.step), examples_seen(after)) == (1 + bad, (1 + bad) * BATCH)
        for field in ("params", "teacher", "buffers", "opt_state", "key"):
            jax.tree.map(np.testing.assert_array_equal, getattr(after, field), getattr(before, field))
    # The next good step starts the count again.
    mended = broken._replace(params=state.params)
    mended, metrics = step(mended, batch_number(3))
    assert int(metrics["finite"])
    assert int(mended.bad_steps) == 0


def test_images_without_any_contrast_give_a_finite_loss():
    """Black, grey and white images, a black protein channel, one bright pixel, and a field clipped at both ends."""
    batch = batch_number(0)
    image = batch.image.copy()
    image[0], image[1], image[2] = 0, 77, 255
    image[3, ..., 1] = 0
    image[4], image[4, 20, 20, 1] = 0, 1
    image[5] = np.where(image[5] > 100, 255, 0)
    state = fresh_state()
    for odd in (image, np.zeros_like(image), np.full_like(image, 255)):
        state, metrics = real_step()(state, batch._replace(image=odd))
        assert int(metrics["finite"]) == 1
        assert all(np.isfinite(value) for value in jax.device_get(metrics).values())
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(state.params)))


def test_initial_teacher_equals_the_student_but_shares_no_buffer():
    state = fresh_state()
    for mine, theirs in zip(jax.tree.leaves(state.params), jax.tree.leaves(state.teacher), strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert mine.unsafe_buffer_pointer() != theirs.unsafe_buffer_pointer()
    blocks = state.params["backbone"]["blocks"]["mlp"]["fc1"]["kernel"]
    assert not np.array_equal(blocks[0], blocks[1]), "blocks start from different draws"


def test_position_carries_over_32_bits():
    examples = jnp.asarray([3, 2**32 - 5], jnp.uint32)
    after = add_examples(examples, 16)
    assert after.dtype == jnp.uint32
    np.testing.assert_array_equal(after, [4, 11])
    state = TrainState(None, None, None, None, None, after, None, None)  # type: ignore[arg-type]
    assert examples_seen(state) == (4 << 32) + 11


def test_keys_depend_on_the_example_alone():
    data = jax.random.key_data(jax.random.key(5))
    at = np.array([[0, 7], [1, 7], [0, 8], [0, 7]], np.int32)
    keys = np.asarray(jax.random.key_data(example_keys(data, jnp.asarray(at))))
    np.testing.assert_array_equal(keys[0], keys[3])
    assert len(np.unique(keys, axis=0)) == 3
    np.testing.assert_array_equal(jax.random.key_data(example_keys(data, jnp.asarray(at[2:3]))), keys[2:3])


class Contrast(Dino):
    """A method with a predictor, a queue and a loss that does not split: what the seam must be able to carry."""

    def __init__(self, splits=True):
        self.ema = {"backbone": "backbone"}
        self.splits_over_micro_batches = splits

    def group(self, path):
        return "main"

    def loss(self, params, teacher, buffers, views, *, batch, keys, scalars):
        online = views @ params["backbone"]["w"] @ params["predictor"]["w"]
        target = views @ teacher["backbone"]["w"]
        loss = jnp.square(online - target).mean() + 0.1 * jnp.square(online @ buffers["queue"].T).mean()
        return LossOutput(loss, {"size": jnp.square(target).mean()}, {"target": target, "offset": batch.example[:, 1]})

    def update_buffers(self, buffers, output, scalars):
        return {"queue": output.rows["target"][:3], "offset": output.rows["offset"]}

    def metrics(self, buffers, output):
        return {"size": output.means["size"]}


def contrast_state():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
    params = {"backbone": {"w": draw(4, 4)}, "predictor": {"w": draw(4, 4)}}
    buffers = {"queue": draw(3, 4), "offset": jnp.zeros(8, jnp.int32)}
    zero, key = jnp.zeros((), jnp.int32), jax.random.key_data(jax.random.key(0))
    teacher = {"backbone": {"w": draw(4, 4)}}
    return TrainState(params, teacher, buffers, init_optimizer(params), zero, jnp.zeros(2, jnp.uint32), zero, key)


def test_the_seam_carries_predictors_queues_and_rows_in_order_under_accumulation():
    views = np.random.default_rng(1).standard_normal((8, 4)).astype(np.float32)
    batch = batch_number(0, 8)._replace(image=views, substituted=np.arange(8) % 3 == 0)
    results = []
    for accumulation in (1, 4):
        experiment = changed(EXPERIMENT, optim={"batch": 8, "accumulation": accumulation, "warmup_epochs": 0})
        step = step_function(experiment, Contrast(), Schedules(experiment, 4), lambda batch, *_: batch.image)
        results.append(jax.device_get(jax.jit(step)(contrast_state(), batch)))
    (whole, metrics), (parts, of_parts) = results
    assert int(metrics["substituted"]) == int(of_parts["substituted"]) == 3
    np.testing.assert_array_equal(whole.buffers["offset"], batch.example[:, 1])
    np.testing.assert_array_equal(parts.buffers["offset"], batch.example[:, 1])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), whole, parts)
    start = contrast_state()
    np.testing.assert_allclose(whole.buffers["queue"], (views @ start.teacher["backbone"]["w"])[:3], rtol=1e-5)
    for name in ("backbone", "predictor"):
        assert not np.array_equal(whole.params[name]["w"], start.params[name]["w"])
    assert "predictor" not in whole.teacher
    assert "size" in metrics


def test_a_loss_that_does_not_split_refuses_accumulation(monkeypatch):
    schedules = Schedules(EXPERIMENT, 4)
    for unsplittable in ({"centring": "sinkhorn"}, {"koleo": 0.1}):
        experiment = changed(EXPERIMENT, optim={"accumulation": 2}, method=unsplittable)
        with pytest.raises(ValueError, match="does not split over micro-batches"):
            make_step(experiment, CHANNELS, schedules)
    monkeypatch.setitem(METHODS, "dino", lambda *_: Contrast(splits=False))
    experiment = changed(EXPERIMENT, optim={"accumulation": 2})
    with pytest.raises(ValueError, match="does not split over micro-batches"):
        make_step(experiment, CHANNELS, schedules)


def test_what_does_not_fit_together_is_refused_before_compiling():
    schedules = Schedules(EXPERIMENT, STEPS_PER_EPOCH)
    with pytest.raises(ValueError, match="no pair"):
        make_step(changed(EXPERIMENT, views={"n_global": 1, "n_local": 0}), CHANNELS, schedules)
    accumulating = make_step(changed(EXPERIMENT, optim={"accumulation": 4}), CHANNELS, schedules)
    with pytest.raises(ValueError, match="batch of 6"):
        accumulating.lower(fresh_state(), batch_number(0, 6))
    with pytest.raises(ValueError, match="accumulation=3"):
        changed(EXPERIMENT, optim={"batch": 16, "accumulation": 3})


@pytest.mark.parametrize(
    ("section", "values", "keys"),
    [
        ("optim", {"batch": 0, "clip": -1.0, "b1": 1.0, "eps": 0.0}, ("batch=0", "clip=-1.0", "b1", "eps=0.0")),
        ("method", {"out_dim": 1, "teacher_temp": 0.0, "momentum": 1.5}, ("out_dim=1", "teacher_temp", "momentum=1.5")),
        ("run", {"mesh_data": 0, "out": "", "seed": -1}, ("mesh_data=0", "out=", "seed=-1")),
    ],
)
def test_bad_values_are_refused_all_at_once(section, values, keys):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        changed(EXPERIMENT, **{section: values})
    for key in keys:
        assert key in str(error.value)
