"""Scores over the epochs of training, one panel a question, as PNG bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from protloc_jax.report.plots import PALETTE, RC, _note, figure_bytes

_GREY = "#555555"


@dataclass(frozen=True)
class EpochLine:
    """A score over epochs: mean [E] over seeds, and each seed [S, E]. The last point is the result."""

    epochs: Sequence[float]
    mean: Sequence[float]
    by_seed: Sequence[Sequence[float]] = ()
    dashed: bool = False


@dataclass(frozen=True)
class EpochPanel:
    """One panel: its title, {name: line}, {words: level} for dotted horizontal lines."""

    title: str
    lines: Mapping[str, EpochLine]
    levels: Mapping[str, float] = field(default_factory=dict)


def epoch_curves(
    panels: Sequence[EpochPanel], *, y_label: str, columns: int = 2, note: str = ""
) -> bytes:  # fmt: skip
    """Panels side by side on one scale. Filled: the last checkpoint; star: the best, picked by this very score.

    The same name has the same colour in all panels. Raises ValueError without panels or lines.
    """
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    if not names:
        raise ValueError("no curves to draw.")
    wide = min(columns, len(panels))
    high = -(-len(panels) // wide)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(max(5.5, 4.5 * wide), 3.2 * high + 0.8), layout="constrained")
        grid = figure.subplots(high, wide, squeeze=False, sharey=True)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        drawn = {}
        for number, (axes, panel) in enumerate(zip(grid.flat, panels, strict=False)):
            for name, line in panel.lines.items():
                colour = PALETTE[names.index(name) % len(PALETTE)]
                for seed in line.by_seed if len(line.by_seed) > 1 else ():
                    axes.plot(line.epochs, seed, color=colour, lw=0.7, alpha=0.35)
                (drawn[name],) = axes.plot(
                    line.epochs, line.mean, color=colour, lw=1.8, ls="--" if line.dashed else "-", label=name
                )
                axes.plot(line.epochs[-1], line.mean[-1], "o", ms=6.5, color=colour)
                best = int(np.argmax(line.mean))
                axes.plot(line.epochs[best], line.mean[best], "*", ms=10, color=colour, markerfacecolor="white")
            for words, level in panel.levels.items():
                axes.axhline(level, color=_GREY, ls=":", lw=1)
                axes.annotate(words, (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                              fontsize=8, color=_GREY)  # fmt: skip
            axes.set_title(panel.title, fontsize=10)
            axes.tick_params(labelleft=number % wide == 0)
            axes.grid(axis="y", color="#ececec")
            axes.set_axisbelow(True)
            axes.set_xlabel("passes over the training images")
            if number % wide == 0:
                axes.set_ylabel(y_label)
        figure.legend(
            list(drawn.values()), list(drawn), loc="outside upper center", ncols=min(4, len(drawn)), fontsize=9
        )
        _note(grid[0, 0], note)
        return figure_bytes(figure)
