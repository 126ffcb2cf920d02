"""Plates as heat maps, one small map a plate, all on one scale of colours."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from protloc_jax.report.plots import RC, figure_bytes

_ACROSS = 3


def plate_maps(
    plates: Mapping[str, np.ndarray], *, label: str, note: str = "", limits: tuple[float, float] | None = None
) -> bytes:
    """Heat maps of {plate: values [rows, columns]} as PNG bytes; wells without a value (NaN) stay grey.

    limits   ends of the scale; None takes the 2nd and the 98th percentile of all wells, so that one bad well does not
             hide the rest
    Raises ValueError without any plate.
    """
    if not plates:
        raise ValueError("no plates to draw.")
    values = np.concatenate([grid[np.isfinite(grid)] for grid in plates.values()])
    low, high = limits or (np.percentile(values, (2, 98)) if len(values) else (0.0, 1.0))
    low, high = (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)
    rows, columns = next(iter(plates.values())).shape
    across = min(_ACROSS, len(plates))
    down = -(-len(plates) // across)
    with matplotlib.rc_context(RC):
        width = (9.0 if across > 1 else 5.2) / across
        figure = Figure(
            figsize=(width * across + 0.9, (width * rows / columns + 0.55) * down + 0.2), layout="constrained"
        )
        grid = figure.subplots(down, across, squeeze=False)
        colours = matplotlib.colormaps["viridis"].with_extremes(bad="#e4e7ea")
        picture = None
        for number, axes in enumerate(grid.ravel()):
            if number >= len(plates):
                axes.set_visible(False)
                continue
            name = list(plates)[number]
            picture = axes.imshow(np.ma.masked_invalid(plates[name]), cmap=colours, vmin=low, vmax=high, aspect="equal")
            axes.set_title(name, fontsize=9)
            step = 1 if columns <= 12 else 4
            axes.set_xticks(range(0, columns, step), [str(c + 1) for c in range(0, columns, step)], fontsize=6)
            axes.set_yticks(range(0, rows, step), [row_name(r) for r in range(0, rows, step)], fontsize=6)
            axes.tick_params(length=0, pad=1)
            axes.spines[:].set_visible(False)
        figure.colorbar(picture, ax=grid, shrink=0.8, label=label, aspect=24)  # type: ignore[arg-type]
        if note:
            figure.supxlabel(note, fontsize=8, color="#8a4b00", ha="right", x=0.99)
        return figure_bytes(figure)


def row_name(row: int) -> str:
    """A, B, ... Z, AA, ... of a row counted from 0."""
    return chr(65 + row) if row < 26 else chr(64 + row // 26) + chr(65 + row % 26)
