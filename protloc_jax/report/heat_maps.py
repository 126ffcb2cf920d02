"""Matrices of numbers as pictures, the numbers written in."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from protloc_jax.report.plots import RC, _note, figure_bytes


def heat_map(
    matrix: np.ndarray, names: Sequence[str], *, columns: Sequence[str] | None = None, row_label: str,
    column_label: str, label: str, note: str = "",
) -> bytes:  # fmt: skip
    """A matrix [R, C] with a colour and two places for each number; NaN is left blank.

    names, columns   what rows and columns are called (columns default to names). Colours run over the numbers that
                     there are, so that two maps are compared by their numbers, not their colours.
    """
    matrix = np.asarray(matrix, float)
    columns = list(columns) if columns is not None else list(names)
    known = matrix[np.isfinite(matrix)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
    with matplotlib.rc_context(RC):
        width, height = 0.42 * len(columns) + 3.2, 0.36 * len(names) + 2.2
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots()
        picture = axes.imshow(matrix, cmap="viridis", vmin=low, vmax=max(high, low + 1e-6), aspect="auto")
        for (i, j), value in np.ndenumerate(matrix):
            if np.isfinite(value):
                dark = value - low > 0.6 * (high - low)
                axes.text(j, i, f"{value:.2f}".replace("0.", "."), ha="center", va="center", fontsize=7,
                          color="black" if dark else "white")  # fmt: skip
        axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_xlabel(column_label)
        axes.set_ylabel(row_label)
        axes.spines[:].set_visible(False)
        figure.colorbar(picture, ax=axes, shrink=0.7, label=label)
        _note(axes, note)
        return figure_bytes(figure)
