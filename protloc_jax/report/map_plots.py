"""Two-dimensional maps of features with few coloured and many grey points, as PNG bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from protloc_jax.report.plots import RC, _note, figure_bytes

# matplotlib's tab20 without its two greys, which mean "no single label" here; strong hues first.
_TAB = [0, 2, 4, 6, 8, 10, 12, 16, 18, 1, 3, 5, 7, 9, 11, 13, 17, 19]
_GREY = "#b3bac1"
_MARKS = "o^s"
_NAMES_A_COLUMN = 20


def feature_maps(
    maps: Mapping[str, tuple[np.ndarray, Sequence[str]]], *, classes: Sequence[str] = (), axis: str = "UMAP",
    other: str = "no label or several", legend: str = "only label", columns: int = 2, note: str = "",
) -> bytes:  # fmt: skip
    """Maps {title: (points [N, 2], a label each)} side by side; points labelled "" are grey, under the others.

    A class has the same colour (beyond 18 classes: colour and mark) in every panel, in the order of `classes` (default:
    sorted). Raises ValueError for labels that are not among `classes`, and without maps.
    """
    found = {label for _, labels in maps.values() for label in labels if label}
    names = list(classes) or sorted(found)
    if not maps or found - set(names):
        raise ValueError(
            f"labels outside the classes: {', '.join(sorted(found - set(names)))}." if maps else "no maps."
        )
    colours = [matplotlib.colormaps["tab20"](_TAB[i % len(_TAB)]) for i in range(len(names))]
    marks = [_MARKS[i // len(_TAB) % len(_MARKS)] for i in range(len(names))]
    wide = min(columns, len(maps))
    high = -(-len(maps) // wide)
    with matplotlib.rc_context(RC):
        columns_of_names = 1 + len(found) // _NAMES_A_COLUMN
        figure = Figure(figsize=(4.6 * wide + 2.1 * columns_of_names, 4.4 * high), layout="constrained")
        grid = figure.subplots(high, wide, squeeze=False)
        for axes in grid.flat[len(maps) :]:
            axes.set_visible(False)
        grey = False
        for axes, (title, (points, labels)) in zip(grid.flat, maps.items(), strict=False):
            xy, own = np.asarray(points, float), np.asarray(labels, object)
            size = float(np.clip(6000 / max(len(xy), 1), 4, 40))
            plain = own == ""
            grey |= bool(plain.any())
            axes.scatter(*xy[plain].T, s=0.8 * size, color=_GREY, lw=0)
            for name, colour, mark in zip(names, colours, marks, strict=True):
                axes.scatter(*xy[own == name].T, s=size, color=colour, marker=mark, lw=0)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title(title, fontsize=10)
            axes.set_xlabel(f"{axis} 1", fontsize=8)
            axes.set_ylabel(f"{axis} 2", fontsize=8)
        kept = [i for i, name in enumerate(names) if name in found]
        drawn = [(names[i], colours[i], marks[i]) for i in kept] + ([(other, _GREY, "o")] if grey else [])
        handles = [Line2D([], [], ls="", marker=m, color=c, ms=6, label=n) for n, c, m in drawn]
        if handles:
            figure.legend(handles=handles, loc="outside right center", fontsize=8, title=legend, ncols=columns_of_names)
        _note(grid[0, 0], note)
        return figure_bytes(figure)
