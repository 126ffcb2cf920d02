"""One of several processes of a tiny run; PROTLOC_* say which. Started by tests/faults."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import tiny_training as tiny

from protloc_jax.data.batch import Batch
from protloc_jax.devices import any_process, make_mesh
from protloc_jax.launch.start import start_up
from protloc_jax.train.loop import fit


def slices(start: int) -> Iterator[Batch]:
    """This process's contiguous part of every global batch."""
    own = 4 // jax.process_count()
    first = jax.process_index() * own
    for batch in tiny.batches(start, seconds=0.02):
        yield Batch(*(x if x is None else x[first : first + own] for x in batch))


def main(out: str, signal_at: str, *overrides: str) -> int:
    start_up()
    assert any_process(jax.process_index() == 1) == (jax.process_count() > 1)
    step = tiny.cheap_step()

    def watched(state, batch):
        # Of several processes only the second hears of the preemption.
        if jax.process_index() == min(1, jax.process_count() - 1) and int(state.step) == int(signal_at):
            os.kill(os.getpid(), signal.SIGTERM)
        return step(state, batch)

    mesh = make_mesh(fsdp=2)
    experiment = tiny.experiment(Path(out), *overrides)
    outcome = fit(experiment, slices, tiny.facts(), step=watched, mesh=mesh)
    print(f"ended {outcome.step} {int(outcome.exit)}", flush=True)
    return int(outcome.exit)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
