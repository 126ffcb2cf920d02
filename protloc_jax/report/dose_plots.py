"""Dose-response curves: distance from untreated cells over dose, one small panel a compound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from protloc_jax.report.plots import PALETTE, RC, figure_bytes

_COLUMNS = 5


def dose_panels(compounds: Sequence[Mapping[str, Any]], *, unit: str = "µM", note: str = "") -> bytes:
    """Panels of {compound, moa, doses: [{dose, distance, limit, outside}], hill}, PNG.

    Filled points lie outside the range of untreated wells, whose upper limit is the dashed line; a Hill curve is drawn
    where one was fitted ({bottom, top, ec50, slope}).
    """
    rows = -(-len(compounds) // _COLUMNS)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(2.3 * _COLUMNS, 1.9 * rows + 1.0))
        # Fixed margins: laying out a hundred panels by their contents takes minutes.
        height = 1.9 * rows + 1.0
        margins = {"left": 0.07, "right": 0.99, "bottom": 0.7 / height, "top": 1 - 0.4 / height}
        grid = figure.subplots(rows, _COLUMNS, squeeze=False, gridspec_kw={"hspace": 0.75, "wspace": 0.3, **margins})
        for axes in grid.ravel()[len(compounds) :]:
            axes.set_visible(False)
        for axes, one in zip(grid.ravel(), compounds, strict=False):
            dose = np.array([d["dose"] for d in one["doses"]])
            distance = np.array([d["distance"] for d in one["doses"]])
            outside = np.array([d["outside"] for d in one["doses"]], bool)
            limit = np.array([d["limit"] for d in one["doses"]])
            axes.plot(dose, limit, "--" if len(dose) > 1 else "_", color="#555", lw=1, ms=14)
            for shown, face in ((outside, PALETTE[0]), (~outside, "white")):
                axes.plot(dose[shown], distance[shown], "o", ms=5, color=PALETTE[0], markerfacecolor=face)
            hill = one["hill"]
            if "ec50" in hill and len(dose) > 1:
                x = np.geomspace(dose.min(), dose.max(), 100)
                y = hill["bottom"] + (hill["top"] - hill["bottom"]) / (1 + (hill["ec50"] / x) ** hill["slope"])
                axes.plot(x, y, color=PALETTE[1], lw=1.2)
            axes.set_xscale("log")
            axes.minorticks_off()
            axes.set_ylim(0, 1.12 * max(distance.max(), limit.max()))
            axes.set_title(f"{one['compound']}\n{one['moa']}" if one["moa"] else str(one["compound"]), fontsize=8)
            axes.tick_params(labelsize=7)
        figure.supxlabel(f"concentration ({unit}); filled: outside the range of untreated wells {note}", fontsize=9)
        figure.supylabel("distance from untreated", fontsize=9)
        return figure_bytes(figure)
