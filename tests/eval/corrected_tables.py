"""Small tables with plates, batches and controls, for the tests of corrections."""

from __future__ import annotations

import numpy as np
import pandas as pd

from protloc_jax.eval.features import FeatureTable


def screen(n=240, d=6, *, seed=0, uns=None, plates=6):
    """Rows of `plates` plates in two batches, a third of them controls; every plate has an offset and a scale."""
    rng = np.random.default_rng(seed)
    plate = np.arange(n) % plates
    role = np.where(np.arange(n) // plates % 3 == 0, "dmso", "treated")
    mix = rng.normal(size=(d, d))
    x = rng.normal(size=(n, d)) @ mix
    x = x * (1 + 0.3 * plate[:, None]) + 5 * rng.normal(size=(plates, d))[plate]
    obs = pd.DataFrame(
        {
            "id": [f"i{i:03d}" for i in range(n)],
            "plate": [f"P{p}" for p in plate],
            "batch": [f"b{p // (plates // 2)}" for p in plate],
            "well": [f"{'ABCDEFGH'[i // plates % 8]}{i // plates // 8 + 1:02d}" for i in range(n)],
            "role": role,
            "moa": [f"m{i % 4}" for i in range(n)],
        }
    )
    return FeatureTable(x.astype(np.float32), obs, uns or {}), role == "dmso"


def rows_of(table, rows):
    """A table's rows, by number or mask."""
    obs = table.obs[rows] if np.asarray(rows).dtype == bool else table.obs.iloc[rows]
    return FeatureTable(table.x[rows], obs.reset_index(drop=True), table.uns, table.names)
