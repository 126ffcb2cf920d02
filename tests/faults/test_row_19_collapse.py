"""Fault row 19: runs that collapse alarm within 200 steps, by the teacher's entropy or the features' spread; healthy
ones never do."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

sys.path.append(str(Path(__file__).parent.parent / "train"))
import tiny_training as tiny
from console_lines import Lines

from protloc_jax.objective.diagnostics import effective_rank, entropy, feature_moments, feature_spread, judge
from protloc_jax.objective.dino import dino_loss, update_centre
from protloc_jax.telemetry.writers import read_metrics

STEPS, WARMUP = 200, 50


def self_distil(key, teacher_temp, centre_momentum, offset):
    """Metrics [STEPS] of a small self-distilled perceptron on noisy points around 12 centres that share an offset."""
    keys = jax.random.split(key, 6)
    points = jax.random.normal(keys[0], (12, 16)) + offset
    shapes = {"in": (16, 64), "out": (64, 32), "neck": (32, 16), "last": (16, 64)}
    student = {n: jax.random.normal(k, s) / s[0] ** 0.5 for k, (n, s) in zip(keys[1:5], shapes.items(), strict=True)}

    def features(p, x):
        h = jax.nn.gelu(x @ p["in"]) @ p["out"]
        h = h - h.mean(-1, keepdims=True)
        return h / jnp.sqrt(jnp.square(h).mean(-1, keepdims=True) + 1e-6)

    def logits(p, h):
        z = h @ p["neck"]
        last = p["last"] / jnp.linalg.norm(p["last"], axis=0)
        return z / jnp.linalg.norm(z, axis=-1, keepdims=True) @ last

    optimiser = optax.adamw(3e-3, weight_decay=0.04)

    def body(carry, i):
        student, teacher, moments, centre = carry
        which, noise = jax.random.split(jax.random.fold_in(keys[5], i))
        x = points[jax.random.randint(which, (32,), 0, 12)]
        views = x[:, None] + 0.7 * jax.random.normal(noise, (32, 4, 16))
        target = logits(teacher, features(teacher, views[:, :2]))

        def objective(p):
            h = features(p, views)
            loss, stats = dino_loss(logits(p, h), target, centre, student_temp=0.1, teacher_temp=teacher_temp)
            return loss, (stats, feature_moments(h[:, :2]))

        (loss, (stats, seen)), grads = jax.value_and_grad(objective, has_aux=True)(student)
        updates, moments = optimiser.update(grads, moments, student)
        student = optax.apply_updates(student, updates)
        teacher = jax.tree.map(lambda t, s: 0.98 * t + 0.02 * s, teacher, student)
        centre = update_centre(centre, stats.teacher_logits, centre_momentum)
        metrics = {
            "loss": loss,
            "teacher_entropy": stats.teacher_entropy,
            "prototype_entropy": entropy(stats.teacher_probabilities),
            "kl": stats.kl,
            "feature_std": feature_spread(seen),
            "effective_rank": effective_rank(seen),
            "centre_norm": jnp.linalg.norm(centre),
        }
        return (student, teacher, moments, centre), metrics

    start = (student, student, optimiser.init(student), jnp.zeros(64))
    return jax.lax.scan(body, start, jnp.arange(STEPS))[1]


@pytest.mark.parametrize("seeds", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_real_collapses_alarm_within_200_steps_and_healthy_runs_never(seeds):
    recipes = jnp.asarray([(0.07, 0.9, 4.0), (0.04, 0.9, 4.0), (0.3, 0.9, 4.0), (0.04, 1.0, 8.0)])
    keys = jax.random.split(jax.random.key(0), seeds)
    run = jax.vmap(jax.vmap(self_distil, in_axes=(0, None, None, None)), in_axes=(None, 0, 0, 0))
    metrics = jax.device_get(jax.jit(run)(keys, *recipes.T))

    def states(recipe, seed):
        of_step = ({name: v[recipe, seed, i] for name, v in metrics.items()} for i in range(STEPS))
        return [judge(m, out_dim=64, step=i, warmup=WARMUP).state for i, m in enumerate(of_step)]

    for seed in range(seeds):
        for healthy in (0, 1):
            assert set(states(healthy, seed)) == {"warming up", "healthy"}
        assert states(2, seed)[-1] == "uniform collapse"  # teacher too hot
        assert states(3, seed)[-1] == "single-prototype collapse"  # no centre


# The same in a run: the real step and loop, a teacher without a centre, or too hot.

RUN = ("optim.lr=2e-3", "optim.lr_batch=0", "optim.batch=12", "optim.warmup_epochs=2", "run.log_every=10")
RUN += ("optim.freeze_last_layer_epochs=0", "run.checkpoint_every=0", "method.out_dim=32", "method.momentum=0.95")


@pytest.mark.slow  # two programs to compile; the short form judges the same collapses without the loop around them
@pytest.mark.parametrize(
    ("settings", "steps", "state", "words"),
    [
        (("method.centre_momentum=1",), 60, "single-prototype collapse", "is the centre on?"),
        (
            ("method.teacher_temp=0.3", "method.warmup_teacher_temp=0.3"),
            200,
            "uniform collapse",
            "try a lower teacher temperature",
        ),
    ],
)
def test_a_run_that_collapses_says_so(tmp_path, settings, steps, state, words):
    console = Lines()
    batches = partial(tiny.batches, size=12)
    tiny.train(tmp_path, *RUN, *settings, f"optim.steps={steps}", step=None, loader_factory=batches, console=console)
    assert any(state in warning and words in warning for warning in console.warned)
    verdicts = {r["step"]: r["verdict"] for r in read_metrics(tmp_path / "metrics.jsonl") if "verdict" in r}
    assert verdicts[1] == "warming up" and verdicts[steps] == state
