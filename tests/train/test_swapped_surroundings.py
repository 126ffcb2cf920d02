"""Training on swapped surroundings: the step hands masks and donors to the views, and the teacher sees its own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_step import CHANNELS, EXPERIMENT, as_float64, batch_number, changed

from protloc_jax.data.batch import Batch
from protloc_jax.devices import make_mesh
from protloc_jax.train.method import VIEWS
from protloc_jax.train.methods.dino import Dino
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.step import example_keys, view_maker
from protloc_jax.views.background_config import BackgroundViews
from protloc_jax.views.multicrop import Views, make_views

TINY = changed(
    EXPERIMENT,
    model={"depth": 1, "dim": 16, "drop_path": 0.0},
    data={"mask": True, "donor": "any"},
    views={"n_local": 0, "brightness": 0.0, "contrast": 0.0, "drop_channel": 0.0,
           "background": BackgroundViews(swap=0.7, teacher="masked")},
)  # fmt: skip


def batch_of_cells(size=4):
    plain, donors = batch_number(0, size), batch_number(1, size).image
    mask = np.zeros(plain.image.shape[:3], np.uint8)
    mask[:, 12:28, 10:30], mask[:, :8, 30:] = 1, 2
    return plain._replace(donor=donors, mask=mask)


@pytest.mark.parametrize("on_mesh", [False, True])
def test_the_step_hands_masks_and_donors_to_the_views(on_mesh):
    batch, mesh = batch_of_cells(), make_mesh(devices=jax.devices()[:1]) if on_mesh else None
    keys = example_keys(jax.random.key_data(jax.random.key(3)), jnp.asarray(batch.example))
    views = view_maker(TINY, CHANNELS, Dino(TINY, CHANNELS), mesh)
    got = jax.jit(lambda b, k: views(b, k, jnp.float32))(batch, keys)
    own = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, VIEWS)
    want = jax.jit(make_views(TINY.views, CHANNELS))(batch.image, own, donor=batch.donor, mask=batch.mask)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert got.teacher is not None and not np.allclose(got.teacher, got.global_, atol=0.1)


def test_the_loss_compares_the_student_with_what_the_teacher_sees():
    """By hand: cross-entropy of the teacher's logits of its own crops with the student's of the other view."""
    with jax.enable_x64(True):
        method = Dino(TINY, CHANNELS)
        params, teacher, buffers = as_float64(method.init(jax.random.key(0)))
        params, teacher = (jax.tree.map(lambda p, f=f: f * p, t) for t, f in ((params, 3.0), (teacher, 2.0)))
        rng = np.random.default_rng(1)
        shown, own = (jnp.asarray(rng.normal(size=(3, 2, 32, 32, 2))) for _ in range(2))
        scalars = {name: jnp.asarray(v, float) for name, v in Schedules(TINY, 4)(jnp.asarray(9)).items()}
        keys = jax.random.split(jax.random.key(2), 3)

        def loss(views):
            return method.loss(params, teacher, buffers, views, batch=Batch(None, None), keys=keys, scalars=scalars)

        empty = shown[:, :0]
        got = float(loss(Views(shown, empty, own)).loss)
        student = np.asarray(method._prototypes(params, method._encode(params, shown, None)))
        target = np.asarray(method._prototypes(teacher, method._encode(teacher, own, None)))
        a, b = student / float(scalars["student_temp"]), target / float(scalars["teacher_temp"])
        log_p = a - np.log(np.exp(a - a.max(-1, keepdims=True)).sum(-1, keepdims=True)) - a.max(-1, keepdims=True)
        q = np.exp(b - b.max(-1, keepdims=True))
        q /= q.sum(-1, keepdims=True)
        want = -np.mean([(q[:, i] * log_p[:, 1 - i]).sum(-1).mean() for i in (0, 1)])
        assert got == pytest.approx(want, rel=1e-9)
        assert abs(float(loss(Views(shown, empty)).loss) - got) > 1e-3
