"""Schedules against arrays written out in float64, with the conventions of the published code."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_step import EXPERIMENT, changed

from protloc_jax.train.curves import cosine_by_epoch
from protloc_jax.train.schedules import Schedules


def cosine_array(start, end, total):
    """One value a step; the last step stops just short of `end`."""
    return np.array([end + (start - end) * (1 + np.cos(np.pi * i / total)) / 2 for i in range(total)])


def expected(experiment, per_epoch):
    """Every schedule as a table [steps], by numpy's own linspace."""
    o, m = experiment.optim, experiment.method
    total = o.steps or o.epochs * per_epoch
    warmup = int(o.warmup_epochs * per_epoch)
    peak = o.lr * o.batch / o.lr_batch if o.lr_batch else o.lr
    epoch = np.arange(total) // per_epoch
    temps = np.linspace(m.warmup_teacher_temp, m.teacher_temp, m.warmup_teacher_temp_epochs)
    temps = np.concatenate([temps, np.full(total, m.teacher_temp)])
    return {
        "lr": np.concatenate([np.linspace(0, peak, warmup), cosine_array(peak, o.min_lr, total - warmup)]),
        "weight_decay": cosine_array(o.weight_decay, o.weight_decay_end, total),
        "momentum": cosine_array(m.momentum, 1.0, total),
        "teacher_temp": temps[epoch],
        "student_temp": np.full(total, m.student_temp),
        "centre_momentum": np.full(total, m.centre_momentum),
        "freeze_last_layer": epoch < o.freeze_last_layer_epochs,
    }


CASES = {
    "published": ({"batch": 512, "epochs": 100, "lr": 5e-4, "lr_batch": 256, "warmup_epochs": 10}, {}, 7),
    "warm temperature": (
        {"freeze_last_layer_epochs": 3},
        {"warmup_teacher_temp": 0.04, "teacher_temp": 0.07, "warmup_teacher_temp_epochs": 5},
        5,
    ),
    "one warm-up step, one warm epoch": ({"warmup_epochs": 1}, {"warmup_teacher_temp_epochs": 1}, 1),
    "no warm-up at all": ({"warmup_epochs": 0}, {"warmup_teacher_temp_epochs": 0}, 3),
    "steps instead of epochs": ({"steps": 37, "warmup_epochs": 2, "freeze_last_layer_epochs": 0}, {}, 10),
}


@pytest.mark.parametrize("case", CASES)
def test_every_schedule_equals_its_table(case):
    optim, method, per_epoch = CASES[case]
    experiment = changed(EXPERIMENT, optim={"freeze_last_layer_epochs": 1} | optim, method=method)
    tables = expected(experiment, per_epoch)
    with jax.enable_x64(True):
        schedules = Schedules(experiment, per_epoch)
        steps = jnp.arange(schedules.total)
        values = schedules(steps)
        assert values.keys() == tables.keys()
        for name, table in tables.items():
            value = np.broadcast_to(values[name], table.shape)
            assert value.dtype == table.dtype, name
            np.testing.assert_allclose(value, table, rtol=1e-12, atol=1e-15, err_msg=name)


def test_float32_is_close_enough_at_every_step():
    experiment = changed(EXPERIMENT, optim={"epochs": 300, "warmup_epochs": 10})
    tables = expected(experiment, 400)
    schedules = Schedules(experiment, 400)
    values = schedules(jnp.arange(schedules.total, dtype=jnp.int32))
    for name in ("lr", "weight_decay", "momentum", "teacher_temp"):
        assert values[name].dtype == jnp.float32
        np.testing.assert_allclose(values[name], tables[name], atol=2e-6 * tables[name].max(), err_msg=name)


def test_a_warm_up_may_begin_above_zero():
    experiment = changed(EXPERIMENT, optim={"warmup_epochs": 2, "warmup_start": 0.1, "lr": 1e-3, "lr_batch": 0})
    with jax.enable_x64(True):
        schedules = Schedules(experiment, 4)
        lr = schedules(jnp.arange(schedules.total))["lr"]
        np.testing.assert_allclose(lr[:8], np.linspace(1e-4, 1e-3, 8), rtol=1e-12)
        np.testing.assert_allclose(lr[8:], cosine_array(1e-3, experiment.optim.min_lr, schedules.total - 8), rtol=1e-12)


def test_a_cosine_by_epoch_stands_still_within_one():
    with jax.enable_x64(True):
        got = cosine_by_epoch(0.9, 1.0, 12, 4)(jnp.arange(12))
    np.testing.assert_allclose(got, np.repeat(cosine_array(0.9, 1.0, 3), 4), rtol=1e-12)


def test_past_the_end_the_last_values_stay():
    schedules = Schedules(EXPERIMENT, 4)
    after = schedules(10 * schedules.total)
    np.testing.assert_allclose(after["lr"], EXPERIMENT.optim.min_lr, rtol=1e-6)
    np.testing.assert_allclose(after["momentum"], 1.0)


@pytest.mark.parametrize(
    ("optim", "per_epoch", "message"),
    [
        ({"epochs": 5, "warmup_epochs": 5}, 10, "only 50"),
        ({"steps": 20, "warmup_epochs": 10}, 10, "100 steps"),
        ({}, 0, "less than one batch"),
    ],
)
def test_runs_that_never_leave_the_warm_up_are_refused(optim, per_epoch, message):
    with pytest.raises(ValueError, match=message):
        Schedules(changed(EXPERIMENT, optim=optim), per_epoch)
