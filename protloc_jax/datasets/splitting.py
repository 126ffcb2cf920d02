"""Train, validation and test while packing: whole groups to each split, classes spread as the fractions ask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from protloc_jax.data.manifest import SPLITS
from protloc_jax.data.splits import train_val_test


def check_fractions(fractions: Sequence[float], *, key: str = "split_fractions") -> None:
    """Raise ValueError unless three non-negative fractions (train, val, test) add up to 1 with some train."""
    good = len(fractions) == 3 and all(0 <= f <= 1 for f in fractions) and abs(sum(fractions) - 1) < 1e-6
    if not good or fractions[0] <= 0:
        raise ValueError(
            f"{key}={','.join(f'{f:g}' for f in fractions)}: give train,val,test as three fractions that add "
            "up to 1, with some train, for example .7,.1,.2."
        )


def split_groups(groups: Sequence[str], hot: np.ndarray, fractions: Sequence[float], *, seed: int = 0) -> np.ndarray:
    """Assign each row the split of its group: [N] text, "train", "val" or "test".

    groups     [N] the value that must not be torn apart (a field of view, a protein, a plate)
    hot        [N, L] labels as zeros and ones (L may be 0)
    fractions  wanted shares of train, val, test; a share of 0 leaves that split empty

    The assignment is that of `data.splits.train_val_test`. Raises ValueError when there are fewer groups than splits.
    """
    check_fractions(fractions)
    names, wanted = np.unique(np.asarray(groups, dtype=str)), sum(f > 0 for f in fractions)
    if len(names) < wanted:
        raise ValueError(
            f"{len(names)} group(s) cannot fill {wanted} splits without being torn apart; split by a finer column "
            "or set fractions to 0."
        )
    made = train_val_test(hot, np.asarray(groups, dtype=str), shares=tuple(fractions), seed=seed)  # type: ignore[arg-type]
    return np.asarray(SPLITS, dtype=object)[made.part]
