"""Converted weights on disk: an ordinary checkpoint of this project, its record with two keys more."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax

import protloc_jax
from protloc_jax.config import to_dict
from protloc_jax.convert.converted import Converted
from protloc_jax.convert.weight_file import WeightsRefused
from protloc_jax.train.checkpoint import Checkpointer
from protloc_jax.train.checkpoint_files import CHECKPOINTS, steps_in
from protloc_jax.train.experiment import DinoConfig, Experiment
from protloc_jax.views.config import ViewsConfig


def save(converted: Converted, out: str | Path, *, name: str = "", um_per_pixel: float | None = None) -> Path:
    """Write converted weights as `OUT/checkpoints/0`, which `eval.load` and a run can start from; returns that path.

    The record says the architecture (config.model), the head's sizes (config.method), channels and normalisation as a
    run's does, and besides "prepare" (the weights' own preprocessing) and "source". Raises WeightsRefused where there
    is a checkpoint already.
    """
    directory = Path(out) / CHECKPOINTS
    if steps_in(directory):
        raise WeightsRefused(f"{directory} holds a checkpoint already; choose another directory.")
    # Orbax copies NumPy arrays before it writes them, and a CPU's jax arrays not; these are the same memory.
    items: dict[str, Any] = jax.tree.map(lambda leaf: jax.device_put(leaf, may_alias=True), converted.trees)
    if converted.extras:
        items["extras"] = converted.extras
    checkpoints = Checkpointer(directory, max_failures=1)
    try:
        checkpoints.save(0, items, describe(converted, name=name, um_per_pixel=um_per_pixel), wait=True)
    finally:
        checkpoints.close()
    return directory / "0"


def describe(converted: Converted, *, name: str = "", um_per_pixel: float | None = None) -> dict[str, Any]:
    """The checkpoint's record, JSON-able."""
    experiment = Experiment(
        name=name or converted.source.get("model") or Path(converted.source["path"]).stem,
        model=converted.config,
        method=DinoConfig(**converted.source["head"]) if converted.source.get("head") else DinoConfig(),
        views=ViewsConfig(global_size=converted.prepare.crop or converted.config.image_size),
    )
    return {
        "config": to_dict(experiment),
        "channels": [list(channel) for channel in converted.channels],
        "normalisation": dataclasses.asdict(converted.prepare.normalisation),
        "um_per_pixel": um_per_pixel,
        "data": {"name": "", "digest": "", "examples": 0},
        "versions": {"protloc_jax": protloc_jax.__version__, "jax": jax.__version__},
        "examples_seen": 0,
        "prepare": to_dict(converted.prepare),
        "source": converted.source,
        "notes": list(converted.notes),
    }
