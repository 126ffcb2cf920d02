"""What rendering gives: one field of view with its exact truth."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Field(NamedTuple):
    """One rendered field of view.

    image [H, W, C] uint8 or uint16; nucleus_labels and cell_labels [H, W] int32 (0 is background, equal numbers belong
    together); density: for each class the protein has (of a screen: each structure its stains show), its expected
    photons per pixel before optics, float32 [H, W]; truth: what the field was made from (protein, weights, per-cell
    expression and phase, defocus, quality, …; of a screen: `screens.render_screen`).
    """

    image: np.ndarray
    nucleus_labels: np.ndarray
    cell_labels: np.ndarray
    density: dict[str, np.ndarray]
    truth: dict[str, Any]
