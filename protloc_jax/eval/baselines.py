"""Hand-made features of records, as feature tables: what a trained backbone has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from protloc_jax.data.read import Records
from protloc_jax.data.sequential import sequential
from protloc_jax.eval.embed import data_facts, metadata
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.handmade import intensity_features, texture_features

NAMES = ("intensity only", "hand-made texture")


def handmade_tables(
    records: Records, rows: Sequence[int] | np.ndarray, *, channels: Sequence[str] = (), batch: int = 64
) -> dict[str, FeatureTable]:
    """Tables "intensity only" (mean and spread a channel) and "hand-made texture" of some records.

    The texture features treat the protein channel apart; without one channel of that role the first channel stands
    in. k-NN standardises these features on its bank, because their units differ.
    """
    chosen = records.info.channel_set.subset(channels)
    protein = chosen.protein if chosen.protein is not None else 0
    rows = np.asarray(rows, np.int64)
    found: dict[str, list[np.ndarray]] = {name: [] for name in NAMES}
    reader = sequential(records, rows, batch, channels=chosen.names)
    try:
        for images, valid in reader:
            own = np.asarray(images.image)[valid]
            found[NAMES[0]].append(intensity_features(own))
            found[NAMES[1]].append(texture_features(own, protein=protein))
    finally:
        reader.close()  # type: ignore[attr-defined]
    facts = {**data_facts(records), "layer": "none", "pooling": "none", "channel_plan": "all", "scale": "standardise"}
    obs = metadata(records, rows)
    return {name: FeatureTable(np.concatenate(x).astype(np.float32), obs, facts) for name, x in found.items()}
