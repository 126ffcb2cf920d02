"""Trains one run on changing numbers of devices, and once on the same; needs eight devices. Prints a JSON object.

`device_counts.py FOLDER STEPS_A_LEG COUNT:FSDP ...`: each leg goes on from the checkpoint that the one before left when
it was stopped by a signal. The first leg's checkpoint is also gone on from by the first leg's devices to the end.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.append(str(Path(__file__).parent.parent / "train"))
import tiny_training as tiny

import protloc_jax.train.step as step_module
from protloc_jax.data.batch import Batch
from protloc_jax.devices import make_mesh, params_sharding, set_up_compilation_cache
from protloc_jax.train.checkpoint_files import load_weights, read_meta
from protloc_jax.train.loop import fit
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.step import make_step

BATCH = 8
# The parameters of a test are small; without this floor none would be split.
step_module.params_sharding = partial(params_sharding, min_elements=64)


def train(out: Path, total: int, *, devices: int, fsdp: int, stop_at: int = -1) -> dict[str, Any]:
    """Go on in `out` on so many devices until a signal after step `stop_at`, or to the end."""
    experiment = tiny.experiment(out, f"optim.batch={BATCH}", f"optim.steps={total}", "run.checkpoint_every=0")
    mesh = make_mesh(fsdp=fsdp, devices=jax.devices()[:devices])
    real = make_step(experiment, tiny.CHANNELS, Schedules(experiment, tiny.EXAMPLES // BATCH), mesh)
    seen: dict[str, Any] = {"ids": {}, "losses": {}, "split": 0, "devices": devices}

    def step(state: Any, batch: Batch) -> Any:
        number = int(state.step) + 1
        seen["ids"][number] = np.asarray(batch.example).tolist()
        seen["split"] = sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state.params))
        assert len(jax.tree.leaves(state.params)[0].sharding.device_set) == devices
        state, metrics = real(state, batch)
        seen["losses"][number] = float(metrics["loss"])
        if number == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return state, metrics

    def loader(start: int) -> Iterator[Batch]:
        return tiny.batches(start, size=BATCH)

    outcome = fit(experiment, loader, tiny.facts(), step=step, mesh=mesh)
    assert outcome.step == (total if stop_at < 0 else stop_at), outcome.step
    meta = read_meta(out / "checkpoints" / str(outcome.step))
    return seen | {"exit": int(outcome.exit), "position": meta["examples_seen"]}


def main(folder: str, steps: str, *legs: str) -> None:
    base, each = Path(folder), int(steps)
    set_up_compilation_cache(str(base / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    counts = [tuple(map(int, leg.split(":"))) for leg in legs]
    total = each * len(counts)
    first = {"devices": counts[0][0], "fsdp": counts[0][1]}
    whole = train(base / "whole", total, **first)
    found = []
    for number, (devices, fsdp) in enumerate(counts, 1):
        stop = each * number if number < len(counts) else -1
        found.append(train(base / "legs", total, devices=devices, fsdp=fsdp, stop_at=stop))
        if number == 1:
            shutil.copytree(base / "legs", base / "same")
    same = train(base / "same", total, **first)
    bits = {name: tiny.bits(load_weights(base / name, "opt_state")[0]) for name in ("whole", "same", "legs")}
    equal = {name: bits[name] == bits["whole"] for name in ("same", "legs")}
    print(json.dumps({"whole": whole, "legs": found, "same": same, "equal": equal}))


if __name__ == "__main__":
    main(*sys.argv[1:])
