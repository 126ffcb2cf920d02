"""The smallest run that is still one: real state, loop and checkpoints, and a step that compiles in no time.

As a program it trains by `fit` with the real step, for the tests that kill it.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from protloc_jax.channels import parse
from protloc_jax.config import with_overrides
from protloc_jax.data.batch import Batch
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.loop import fit
from protloc_jax.train.resume import DataFacts
from protloc_jax.train.state import TrainState, add_examples
from protloc_jax.train.steps import Outcome

CHANNELS = parse("nucleus,gfp")
EXAMPLES = 24
SETTINGS = (
    *("model.size=custom", "model.dim=16", "model.depth=1", "model.heads=1", "model.patch=4", "model.image_size=8"),
    *("model.channels=2", "views.recipe=dino", "views.global_size=8", "views.local_size=4", "views.n_local=1"),
    *("method.out_dim=8", "method.hidden=8", "method.bottleneck=8", "method.layers=2", "optim.batch=4"),
    *("optim.steps=20", "optim.warmup_epochs=1", "optim.freeze_last_layer_epochs=1"),
    *("run.log_every=1", "run.checkpoint_every=3", "run.compilation_cache=none"),
)


def experiment(out: Path, *overrides: str) -> Experiment:
    return with_overrides(Experiment(), [*SETTINGS, f"run.out={out}", *overrides])


def facts(**changes: Any) -> DataFacts:
    return DataFacts(EXAMPLES, CHANNELS, name="noise", digest="d0")._replace(**changes)


def image(number: int) -> np.ndarray:
    """The image of an example number: of its place in the epoch, as with real records."""
    return np.random.default_rng([3, number % EXAMPLES]).integers(0, 200, (8, 8, 2)).astype(np.uint8)


def batches(start: int, *, size: int = 4, seconds: float = 0.0) -> Iterator[Batch]:
    while True:
        time.sleep(seconds)
        numbers = range(start, start + size)
        addresses = np.asarray([divmod(n, EXAMPLES) for n in numbers], np.int32)
        yield Batch(np.stack([image(n) for n in numbers]), addresses)
        start += size


@functools.cache
def cheap_step(bad: frozenset[int] = frozenset()) -> Any:
    """A step that mixes images, addresses and all of the state, so that any error of resuming shows in the loss.

    `bad`: steps (counted from 1) that are not finite and change nothing but counters. Compiled once for all runs.
    """
    wrong = jnp.asarray(sorted(bad) or [-1], jnp.int32)

    @partial(jax.jit, donate_argnums=0)
    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        seen = batch.image.astype(jnp.float32).mean() / 255 + jnp.cos(batch.example.astype(jnp.float32)).sum()
        pull = jnp.sin(seen * 7) + sum(jnp.sin(x * 3).sum() for x in jax.tree.leaves(state.params)) * 1e-3
        good = jnp.all(wrong != state.step + 1)
        params = jax.tree.map(lambda p: jnp.where(good, p * 0.99 + 0.01 * jnp.sin(p + pull), p), state.params)
        teacher = jax.tree.map(lambda t, p: jnp.where(good, 0.9 * t + 0.1 * p, t), state.teacher, params)
        buffers = jax.tree.map(lambda c: jnp.where(good, 0.9 * c + pull, c), state.buffers)
        bad_steps = jnp.where(good, 0, state.bad_steps + 1).astype(jnp.int32)
        new = state._replace(
            params=params,
            teacher=teacher,
            buffers=buffers,
            step=state.step + 1,
            examples=add_examples(state.examples, batch.example.shape[0]),
            bad_steps=bad_steps,
        )
        return new, {"loss": jnp.where(good, pull, jnp.nan), "finite": good.astype(jnp.int32), "bad_steps": bad_steps}

    return step


def train(out: Path, *overrides: str, **options: Any) -> Outcome:
    """`fit` with the cheap step, in this process."""
    options = {"step": cheap_step(), "loader_factory": batches, "data": facts(), **options}
    return fit(experiment(out, *overrides), options.pop("loader_factory"), options.pop("data"), **options)


def bits(tree: Any) -> list[bytes]:
    """Every leaf's bytes, in order: equal only for bit-identical trees."""
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def losses(out: Path) -> dict[int, float]:
    """Loss by step from the metrics file; fails on a step that is there twice."""
    found: dict[int, float] = {}
    for line in (out / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "train":
            assert record["step"] not in found, f"two lines of step {record['step']}"
            found[record["step"]] = float(record["loss"])
    return found


def main(out: str, cache: str, seconds: str, *overrides: str) -> int:
    from protloc_jax.devices import set_up_compilation_cache

    set_up_compilation_cache(cache)
    # Programs of every size are kept: compiling is most of these tests' time.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    slow = partial(batches, seconds=float(seconds))
    return int(fit(experiment(Path(out), *overrides), slow, facts()).exit)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
