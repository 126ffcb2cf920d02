"""A step whose loss spikes at chosen examples; as a program one of several processes that train with it."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tiny_training as tiny

from protloc_jax.train.checkpoint import Checkpointer
from protloc_jax.train.spikes import limit, with_loss
from protloc_jax.train.state import examples_seen

FACTOR = 6.0


MOST = 10  # examples of one run; a fixed number, so that all runs share one program


@functools.cache
def cheap_step():
    return tiny.cheap_step()


@jax.jit
def judged(at, before, after, batch, metrics):
    """What a step returns whose loss is a thousand for batches that begin with one of the examples `at`."""
    first = batch.example[0, 0] * tiny.EXAMPLES + batch.example[0, 1]
    loss = jnp.where((first == at).any(), 1000.0, metrics["loss"])
    if before.spikes is None:
        return after, {**metrics, "loss": loss}
    highest = limit(before.spikes, FACTOR)
    spike = loss > highest
    kept = jax.tree.map(lambda old, new: jnp.where(spike, old, new), before, after)
    bad = jnp.where(spike, before.bad_steps + 1, 0)
    spikes = with_loss(before.spikes, loss, ~spike)
    after = kept._replace(step=after.step, examples=after.examples, bad_steps=bad, spikes=spikes)
    told = {"spike": spike.astype(jnp.int32), "spike_limit": highest}
    return after, {**metrics, **told, "loss": loss, "bad_steps": bad}


def spiking_step(*examples):
    """The cheap step with spikes at batches that begin with these examples; it judges them as the real one does."""
    at = np.asarray([*examples, *[-1] * (MOST - len(examples))], np.int32)

    def step(state, batch):
        before = jax.tree.map(jnp.copy, state)
        after, metrics = cheap_step()(state, batch)
        return judged(at, before, after, batch, metrics)

    return step


def main(out: str, _: str, *overrides: str) -> int:
    from two_processes import slices

    from protloc_jax.devices import make_mesh, start_up
    from protloc_jax.train.loop import fit

    start_up()
    # Steps of no length would overtake the writing of checkpoints, and the run goes back to the newest one.
    save = Checkpointer.save
    Checkpointer.save = lambda *args, **options: save(*args, **{**options, "wait": True})  # type: ignore[method-assign]
    experiment = tiny.experiment(Path(out), *overrides)
    outcome = fit(experiment, slices, tiny.facts(), step=spiking_step(40), mesh=make_mesh(fsdp=2))
    print(f"ended {outcome.step} {examples_seen(outcome.state)}", flush=True)
    return int(outcome.exit)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
