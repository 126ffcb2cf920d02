"""The mark on rows that a correction was fitted on, which do not score its result, in tables of any tool."""

from __future__ import annotations

import numpy as np
import pandas as pd

from protloc_jax.data.grouping import is_missing
from protloc_jax.data.manifest import capped

FITTED_ON = "fitted_on"
_TRUE, _FALSE = ("true", "1", "1.0", "yes"), ("false", "0", "0.0", "no", "")


def fitted_rows(obs: pd.DataFrame) -> np.ndarray:
    """Rows [N] bool that a correction was fitted on, by the column `fitted_on`; none without it.

    Truth is written as true, 1 or yes, in any case; a missing value is false. Raises ValueError naming the rows (`id`)
    that say neither.
    """
    if FITTED_ON not in obs:
        return np.zeros(len(obs), bool)
    words = np.array(["" if is_missing(v) else str(v).strip().lower() for v in obs[FITTED_ON]])
    strange = ~np.isin(words, (*_TRUE, *_FALSE))
    if strange.any():
        raise ValueError(
            f"{FITTED_ON}: neither true nor false in rows {capped(list(map(str, obs['id'][strange])), 10)}."
        )
    return np.isin(words, _TRUE)
