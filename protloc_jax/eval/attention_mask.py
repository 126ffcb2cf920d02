"""The part of an image that holds a given share of the attention."""

from __future__ import annotations

import numpy as np


def kept_by_mass(attention: np.ndarray, share: float = 0.6) -> np.ndarray:
    """Which patches [..., h, w] are kept: of each map the fewest, largest first, that hold `share` of its sum.

    This is DINO's mask (patches in rising order, kept where the running share exceeds 1 - share). It leaves ties to the
    sort; here, of equal patches, the earlier in reading order is kept. Patches without attention are never kept.
    Raises ValueError for a share outside (0, 1], for negative or missing attention, and for maps without any.

    Source: visualize_attention.py of facebookresearch/dino and crosszamirski/WS-DINO.
    """
    if not 0 < share <= 1:
        raise ValueError(
            f"share={share:g}: must be a fraction, above 0 and at most 1, for example 0.6. The published default of 50 "
            "is no percentage: its formula keeps patches whose running share exceeds 1 - 50, which is all of them."
        )
    maps = np.asarray(attention, np.float64)
    if not np.isfinite(maps).all() or (maps < 0).any():
        raise ValueError("attention holds negative values or values that are no numbers.")
    flat = maps.reshape(*maps.shape[:-2], -1)
    total = flat.sum(-1, keepdims=True)
    if (total <= 0).any():
        raise ValueError(f"{int((total <= 0).sum())} maps hold no attention at all.")
    order = np.argsort(-flat, axis=-1, kind="stable")
    ranked = np.take_along_axis(flat, order, -1)
    before = np.cumsum(ranked, -1) - ranked
    # A running sum that reaches the share up to rounding has reached it.
    wanted = (before < (share - 1e-9) * total) & (ranked > 0)
    kept = np.zeros(flat.shape, bool)
    np.put_along_axis(kept, order, wanted, -1)
    return kept.reshape(maps.shape)
