"""Example images for a page."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from protloc_jax.data import read
from protloc_jax.eval.load import load
from protloc_jax.model.encoder import Encoder


def attention_examples(
    weights: str | Path, records_folder: str | Path, *, most: int = 6
) -> tuple[Encoder, np.ndarray, list[str]]:
    """An encoder with one raw image [B, H, W, C] of each of the first `most` classes and the classes' names.

    Test images where there are some, all images otherwise.
    """
    encoder = load(weights)
    with read.open(records_folder) as records:
        encoder = encoder.for_channels(records.info.channel_set)
        columns = list(records.info.channel_set.select(encoder.channels.names))
        table = records.manifest.table
        held_out = np.flatnonzero(table["split"].to_numpy() == "test")
        pool = held_out if len(held_out) else np.arange(records.n)
        chosen: dict[str, int] = {}
        for row in pool:
            labels = table["labels"].iloc[int(row)]
            name = labels[0] if len(labels) else "unlabelled"
            if name not in chosen and len(chosen) < most:
                chosen[name] = int(row)
        images = np.stack([np.asarray(records[row])[..., columns] for row in chosen.values()])
    return encoder, images, list(chosen)
