"""Channel sampling inside DINO: who draws what, and that neither the batch nor its division matters."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_training as tiny

from protloc_jax.channels import parse
from protloc_jax.data.batch import Batch
from protloc_jax.train.methods import METHODS
from protloc_jax.train.sampled_channels import STUDENT, TEACHER, present_channels
from protloc_jax.views.multicrop import Views

CHANNELS = parse("nucleus,gfp,er")
EXPERIMENT = tiny.experiment(
    Path("unused"), "model.stem=channels", "model.scan=false", "model.channel_names=er,nucleus,protein,other"
)
MANY = jax.random.split(jax.random.key(3), 2048)
KEYS = MANY[:4]
SCALARS = {"teacher_temp": jnp.float32(0.05), "student_temp": jnp.float32(0.1)}


def sampled(how: str):
    return dataclasses.replace(EXPERIMENT, model=dataclasses.replace(EXPERIMENT.model, channel_sampling=how))


draws = jax.jit(present_channels, static_argnums=(0, 1), static_argnames=("network", "views"))


def drawn(how="hierarchical", keys=KEYS, network=STUDENT, views=3):
    found = draws(sampled(how).model, CHANNELS, keys, network=network, views=views)
    return None if found is None else np.asarray(found)


def test_draws_are_addressed_by_example_network_and_view():
    whole, teacher = drawn(keys=MANY), drawn(keys=MANY, network=TEACHER, views=2)
    assert whole.shape == (len(MANY), 3, 3) and whole.any(-1).all()
    np.testing.assert_array_equal(drawn(keys=MANY[::-1]), whole[::-1])
    np.testing.assert_array_equal(drawn(keys=MANY, views=2), whole[:, :2])
    # Independent draws agree as often as two of the seven subsets do: (1/3)^2 (1/3 + 1/3 + 1) = 0.185.
    for one, other in ((whole[:, :2], teacher), (whole[:, :-1], whole[:, 1:])):
        assert (one == other).all(-1).mean() == pytest.approx(0.185, abs=0.03)
    assert drawn("none") is None
    kept = drawn("hierarchical_protein", keys=MANY)
    assert kept[..., 1].all() and not kept[..., 0].all()


@pytest.fixture(scope="module")
def loss():
    """The loss of DINO with sampled channels, as a function of views and keys."""
    dino = METHODS["dino"](sampled("hierarchical"), CHANNELS)
    assert dino.vit.channel_rows == (1, 2, 0)
    rng, shapes = np.random.default_rng(0), jax.eval_shape(lambda: dino.init(jax.random.key(0)))
    params, teacher, buffers = jax.tree.map(lambda a: rng.normal(0, 0.3, a.shape).astype(np.float32), shapes)

    @jax.jit
    def loss(views, keys):
        batch = Batch(image=None, example=jnp.zeros((len(keys), 2), jnp.int32))
        return dino.loss(params, teacher, buffers, views, batch=batch, keys=keys, scalars=SCALARS).loss

    return loss


def views_of(n: int) -> Views:
    rng = np.random.default_rng(5)
    return Views(rng.normal(size=(n, 2, 8, 8, 3)).astype("f4"), rng.normal(size=(n, 1, 4, 4, 3)).astype("f4"))


def test_micro_batches_add_up_to_the_batch(loss):
    views = views_of(4)
    # Each example of a micro-batch twice, which has the same mean and needs no other program.
    halves = [np.array([i, i + 2, i, i + 2]) for i in (0, 1)]
    parts = [float(loss(jax.tree.map(lambda x, at=at: x[at], views), KEYS[at])) for at in halves]
    assert float(loss(views, KEYS)) == pytest.approx(np.mean(parts), rel=1e-5) and parts[0] != parts[1]
    assert float(loss(views, KEYS[::-1])) != float(loss(views, KEYS))


def test_a_channel_that_nobody_draws_has_no_influence(loss):
    """Of the student's and the teacher's views of an example; found by looking through keys."""
    seen = drawn(keys=MANY).any(1) | drawn(keys=MANY, network=TEACHER, views=2).any(1)
    chosen = [int(np.flatnonzero(~seen[:, c])[0]) for c in (0, 1, 2, 0)]
    views, hidden = views_of(4), ~seen[chosen]
    assert hidden.any(-1).all()
    other = jax.tree.map(lambda x: np.where(hidden[:, None, None, None], 50.0, x).astype("f4"), views)
    jax.tree.map(
        np.testing.assert_array_equal, loss(views, MANY[np.array(chosen)]), loss(other, MANY[np.array(chosen)])
    )


def test_what_cannot_be_sampled_is_refused_by_name():
    with pytest.raises(ValueError, match=r"hierarchical_protein' needs one channel with the role protein.*none"):
        METHODS["dino"](sampled("hierarchical_protein"), parse("nucleus,er"))
    with pytest.raises(ValueError, match=r"is a, b; use"):
        METHODS["dino"](sampled("hierarchical_protein"), parse("a:protein,b:protein"))
    more = ("method.name=supervised", "method.classes=a,b", "views.n_local=0", "model.stem=channels")
    kept = [item for item in tiny.SETTINGS if not item.startswith("method.")]
    supervised = tiny.with_overrides(tiny.Experiment(), [*kept, *more, "model.channel_sampling=hierarchical"])
    with pytest.raises(ValueError, match=r"channel_sampling='hierarchical': supervised trains on all channels"):
        METHODS["supervised"](supervised, CHANNELS)
