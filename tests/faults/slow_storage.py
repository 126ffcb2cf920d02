"""Measures steps beside checkpoints on storage that takes a second a save; prints one line of JSON.

Blocks of steps without checkpoints, with them, and without again take turns. The time of a block is everything in it,
copies and digests included; a ratio is the median over the rounds of block against block.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from protloc_jax.train.checkpoint import Checkpointer
from protloc_jax.train.save_times import SaveTimes

ROUNDS, STEPS, SECONDS = 11, 40, 1.0
MEGABYTES = 32


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    rename = os.rename

    def slow(source, target, **options):
        time.sleep(SECONDS)
        rename(source, target, **options)

    os.rename = slow
    warned: list[str] = []
    keeper = Checkpointer(Path(tempfile.mkdtemp()), warn=warned.append)
    saves = SaveTimes(keeper, minutes=0)
    items = {"params": {"w": jnp.zeros(MEGABYTES * 2**18), "x": jnp.ones((400, 400))}}
    work = jax.jit(lambda x: jax.lax.fori_loop(0, 12, lambda _, y: jnp.tanh(y @ y), x))
    x = work(items["params"]["x"]).block_until_ready()
    step = written = 0

    def block(saving: bool) -> float:
        nonlocal x, step, written
        start = time.perf_counter()
        for _ in range(STEPS):
            if saving and saves.due(True):
                written += keeper.save(step, items, {})
            x = work(x).block_until_ready()
            keeper.poll()
            step += 1
        return time.perf_counter() - start

    assert keeper.save(step, items, {}, wait=True)
    block(False), block(True)
    after_one = peak()
    rounds = []
    for _ in range(ROUNDS):
        times = [block(False), block(True)]
        while keeper.busy:  # not into the block without
            time.sleep(0.01)
        rounds.append([*times, block(False)])
    print(
        json.dumps(
            {
                "saves": written,
                "left_out": len(warned),
                "state_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(items)),
                "peak_after_one": after_one,
                "peak_after_all": peak(),
                "step_seconds": statistics.median(r[0] for r in rounds) / STEPS,
                "slow_against_idle": statistics.median(2 * r[1] / (r[0] + r[2]) for r in rounds),
                "idle_against_idle": statistics.median(r[2] / r[0] for r in rounds),
            }
        )
    )
    keeper.close()


if __name__ == "__main__":
    main()
