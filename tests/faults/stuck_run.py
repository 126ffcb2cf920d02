"""A tiny run, or one of the processes of one, whose sixth step sleeps. Started by test_row_07_stuck_step.py."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

TRAIN = Path(__file__).parent.parent / "train"
sys.path.append(str(TRAIN))

import jax  # noqa: E402
import tiny_training as tiny  # noqa: E402

from protloc_jax.data.batch import Batch  # noqa: E402
from protloc_jax.launch.start import start_up  # noqa: E402
from protloc_jax.train.loop import fit  # noqa: E402


def slices(start: int) -> Iterator[Batch]:
    """This process's contiguous part of every global batch."""
    own = 4 // jax.process_count()
    first = jax.process_index() * own
    for batch in tiny.batches(start, seconds=0.05):
        yield Batch(*(x if x is None else x[first : first + own] for x in batch))


def sleep_in_the_step() -> None:
    print("asleep", flush=True)
    time.sleep(1000)


def main(out: str, *overrides: str) -> int:
    start_up()
    step, done = tiny.cheap_step(), []

    def sleeping(state, batch):
        done.append(1)
        # Of several processes the last one.
        if len(done) == 6 and jax.process_index() == jax.process_count() - 1:
            sleep_in_the_step()
        return step(state, batch)

    return int(fit(tiny.experiment(Path(out), *overrides), slices, tiny.facts(), step=sleeping).exit)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
