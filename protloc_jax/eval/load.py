"""One way from weights on disk to an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from protloc_jax.channels import ChannelSet
from protloc_jax.config import from_mapping
from protloc_jax.model.encoder import Encoder
from protloc_jax.train.checkpoint_files import load_weights
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.initial import began_with
from protloc_jax.train.state import init_state
from protloc_jax.views.normalisation import Normalisation
from protloc_jax.views.prepare import PrepareConfig


def load(path: str | Path, *, which: str = "teacher", size: int = 0) -> Encoder:
    """The encoder of a run directory (its newest good checkpoint) or of one checkpoint.

    which  "teacher", or "params" for the student
    size   side in pixels that images are brought to; 0 = the run's global view size
    Raises FileNotFoundError or ValueError naming the path and what is wrong; digests are checked before use.
    """
    params, meta = load_weights(path, which)
    return _encoder(
        params["backbone"],
        meta,
        size,
        {
            "weights": str(path),
            "weights_sha256": meta["weights_sha256"],
            "which": which,
            "examples_seen": meta.get("examples_seen"),
        },
    )


def untrained(path: str | Path, *, seed: int | None = None, size: int = 0) -> Encoder:
    """The encoder that the run at `path` began with: same architecture and seed, no training. The baseline to beat.

    A run that began with weights began with theirs, read again from where they were: WeightsChanged where they are gone
    or changed. A `seed` always asks for fresh parameters.
    """
    _, meta = load_weights(path, "teacher")
    if meta.get("init") and seed is None:
        began = began_with(meta["init"])
        facts = {
            "weights": f"initial, {began.directory}",
            "weights_sha256": began.meta["weights_sha256"],
            "which": "initial",
            "examples_seen": 0,
        }
        return _encoder(began.items[meta["init"]["which"]]["backbone"], meta, size, facts)
    experiment = from_mapping(Experiment, meta["config"])
    seed = experiment.run.seed if seed is None else seed
    state = init_state(experiment, ChannelSet(meta["channels"]), jax.random.key(seed))
    params = jax.tree.map(np.asarray, state.params["backbone"])
    facts = {"weights": f"untrained, seed {seed}", "which": "initial", "examples_seen": 0}
    return _encoder(params, meta, size, facts)


def _encoder(params: Any, meta: dict[str, Any], size: int, facts: dict[str, Any]) -> Encoder:
    experiment = from_mapping(Experiment, meta["config"])
    side = size or experiment.views.global_size
    how = meta["normalisation"]
    normalisation = Normalisation(how["kind"], tuple(how["mean"]), tuple(how["std"]))
    channels = ChannelSet(meta["channels"])
    return Encoder(
        config=experiment.model,
        channels=channels,
        params=params,
        prepare=PrepareConfig(normalisation=normalisation, resize=side, crop=side),
        um_per_pixel=meta.get("um_per_pixel"),
        provenance={
            **facts,
            "experiment": experiment.name,
            "channels": str(channels),
            "channel_plan": "each channel in its own slot",
            "image_size": side,
        },
    )
