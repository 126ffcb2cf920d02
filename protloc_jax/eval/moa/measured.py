"""Measurements without learning as a feature table: intensity of every channel, and how many nuclei there are.

What a learned embedding has to beat: many compounds kill, and a cell count alone tells a good part of the mechanisms.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from protloc_jax.data.read import Records
from protloc_jax.data.sequential import sequential
from protloc_jax.datasets.quality_measures import count_nuclei
from protloc_jax.eval.embed import data_facts, metadata
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.handmade import intensity_features
from protloc_jax.eval.moa.columns import Columns, negative_controls

NAME = "intensity and cell count"


def measured_table(
    records: Records, rows: Sequence[int] | np.ndarray, *, columns: Columns | None = None, batch: int = 32
) -> FeatureTable:
    """Mean and spread of every channel and, where a channel stains nuclei, the logarithm of 1 + nuclei.

    Units differ, so each measurement is standardised by mean and deviation of the untreated images (of all images
    where none is); one that is constant there is only centred. Cosines of the result are comparable with a corrected
    embedding's. The first channel of the role nucleus (or named so) is counted.
    """
    rows = np.asarray(rows, np.int64)
    channels = records.info.channel_set
    nuclear = next((i for i, c in enumerate(channels) if "nucle" in str(c.role) or "nucle" in c.name.lower()), None)
    parts = []
    reader = sequential(records, rows, batch, channels=channels.names)
    try:
        for images, valid in reader:
            own = np.asarray(images.image)[valid]
            found = [intensity_features(own)]
            if nuclear is not None:
                counts = [count_nuclei(image[..., nuclear]) for image in own]
                found.append(np.log1p(np.asarray(counts, np.float32))[:, None])
            parts.append(np.concatenate(found, axis=1))
    finally:
        reader.close()  # type: ignore[attr-defined]
    x, obs = np.concatenate(parts).astype(np.float64), metadata(records, rows)
    untreated = negative_controls(obs, columns or Columns())
    own = x[untreated] if untreated.sum() > 1 else x
    spread = own.std(axis=0)
    x = (x - own.mean(axis=0)) / np.where(spread > 1e-9 * np.abs(own).max(axis=0), spread, 1)
    counted = "with nuclei" if nuclear is not None else "no nuclear channel"
    facts = {**data_facts(records), "layer": "none", "pooling": "none", "channel_plan": "all", "measured": counted}
    return FeatureTable(x.astype(np.float32), obs, facts)
