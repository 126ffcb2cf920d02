"""Curves over the share of training data, and forest plots of differences, as PNG bytes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from protloc_jax.report.plots import PALETTE, RC, _note, figure_bytes

_GREY = "#555555"
_MARKS = "osD^v"


@dataclass(frozen=True)
class Line:
    """A score at some of a panel's fractions with its interval; NaN where a value or a bound is unknown."""

    estimate: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """One panel of `fraction_curves`; its title may have several lines.

    fractions  shares of the training data in (0, 1], ascending; 0 is allowed and drawn at the left end
    lines      {name: Line}, each with one value a fraction; the same name has the same colour in all panels
    marks      {words: fraction}: vertical lines, such as the crossover
    levels     {words: value}: horizontal dotted lines, such as a published score
    """

    title: str
    fractions: Sequence[float]
    lines: Mapping[str, Line]
    marks: Mapping[str, float] = field(default_factory=dict)
    levels: Mapping[str, float] = field(default_factory=dict)


def fraction_curves(
    panels: Sequence[Panel], *, y_label: str = "macro-F1", columns: int = 3, note: str = ""
) -> bytes:  # fmt: skip
    """Scores over the share of the training data, one panel a system, intervals as bands, one scale for all panels.

    The share is logarithmic (symmetric-logarithmic where 0 occurs). Raises ValueError without panels, or naming the
    panels whose lines do not have one value a fraction.
    """
    bad = [
        f"'{panel.title}', line '{name}'"
        for panel in panels
        for name, line in panel.lines.items()
        if {len(line.estimate), len(line.low), len(line.high)} != {len(panel.fractions)}
    ]
    if bad or not panels:
        raise ValueError(f"lines need one value a fraction: {', '.join(bad)}." if bad else "no panels to draw.")
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    every = sorted({float(f) for panel in panels for f in panel.fractions})
    wide = min(columns, len(panels))
    high = -(-len(panels) // wide)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(max(5.2, 3.15 * wide), 3.1 * high + 0.7), layout="constrained")
        grid = figure.subplots(high, wide, squeeze=False, sharey=True)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for number, (axes, panel) in enumerate(zip(grid.flat, panels, strict=False)):
            _panel(axes, panel, names, every)
            axes.tick_params(labelbottom=True, labelleft=number % wide == 0)
            if number % wide == 0:
                axes.set_ylabel(y_label)
            if number + wide >= len(panels):
                axes.set_xlabel("share of the training data")
        drawn = {
            label: line for axes in grid.flat for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        words = {_filled(label, 34): line for label, line in drawn.items()}
        figure.legend(
            list(words.values()), list(words), loc="outside upper center", ncols=min(3, len(words)), fontsize=9
        )
        _note(grid[0, 0], note)
        return figure_bytes(figure)


def forest(
    rows: Sequence[tuple[str, float, float, float, bool]], *, label: str, note: str = "", wrap: int = 60
) -> bytes:  # fmt: skip
    """Differences with intervals around a line at zero: rows of (name, value, low, high, significant), top to bottom.

    Filled marks are significant, hollow ones not (also by colour); the numbers stand at the right. An unknown bound is
    NaN. Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("no differences to draw.")
    names = [_filled(name, wrap) for name, *_ in rows]
    heights = [0.16 * (1 + name.count("\n")) + 0.16 for name in names]
    at = -(np.cumsum(heights) - np.asarray(heights) / 2)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(9, sum(heights) + 1.0), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=_GREY, lw=1)
        for y, (_, value, low, top, significant) in zip(at, rows, strict=True):
            colour = PALETTE[1] if significant and value < 0 else PALETTE[0] if significant else _GREY
            if np.isfinite(low) and np.isfinite(top):
                axes.plot([low, top], [y, y], color=colour, lw=1.4, solid_capstyle="butt")
            axes.plot(value, y, "o", ms=5.5, color=colour, markerfacecolor=colour if significant else "white")
            text = f"{value:+.3f}" + (f"  [{low:+.3f}, {top:+.3f}]" if np.isfinite(low) and np.isfinite(top) else "")
            axes.text(1.02, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8, color=colour)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_yticks(at, names, fontsize=8.5)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(-sum(heights), 0)
        axes.grid(axis="x", color="#ececec")
        axes.set_axisbelow(True)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(label)
        _note(axes, note)
        return figure_bytes(figure)


def paired_dots(
    rows: Sequence[tuple[str, Mapping[str, tuple[float, float, float]], Mapping[str, float]]], *, label: str,
    note: str = "", wrap: int = 40,
) -> bytes:  # fmt: skip
    """Scores of a few series (frozen, fine-tuned) with intervals, one row a system; published values: hollow diamonds.

    rows: (name, {series: (value, low, high)}, {series: published value}), from top to bottom; NaN where a bound is
    unknown. Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("no rows to draw.")
    series = list(dict.fromkeys(name for _, values, _ in rows for name in values))
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(9, 0.24 * len(rows) * max(2, len(series)) + 1.3), layout="constrained")
        axes = figure.subplots()
        for i, (_, values, published) in enumerate(rows):
            for number, name in enumerate(series):
                y, colour = -i - 0.3 * (number - (len(series) - 1) / 2), PALETTE[number % len(PALETTE)]
                if name in values:
                    value, low, high = values[name]
                    axes.plot([low, high], [y, y], color=colour, lw=1.6, solid_capstyle="butt")
                    axes.plot(value, y, _MARKS[number % len(_MARKS)], ms=6.5, color=colour)
                if name in published:
                    axes.plot(published[name], y, "D", ms=7, color=colour, markerfacecolor="none", mew=1.4)
            if i:
                axes.axhline(0.5 - i, color="#ececec", lw=1, zorder=0)
        handles = [
            Line2D([], [], lw=1.6, ms=6.5, label=name, marker=_MARKS[n % len(_MARKS)], color=PALETTE[n % len(PALETTE)])
            for n, name in enumerate(series)
        ]
        if any(published for *_, published in rows):
            handles.append(
                Line2D([], [], ls="", marker="D", ms=7, color=_GREY, markerfacecolor="none", label="published")
            )
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize=9)
        axes.set_yticks(-np.arange(len(rows)), [_filled(name, wrap) for name, *_ in rows], fontsize=8.5)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(0.5 - len(rows), 0.5)
        axes.grid(axis="x", color="#ececec")
        axes.set_axisbelow(True)
        axes.set_xlabel(label)
        _note(axes, note)
        return figure_bytes(figure)


def _panel(axes: Axes, panel: Panel, names: Sequence[str], every: Sequence[float]) -> None:
    x = np.asarray(panel.fractions, float)
    smallest = min((f for f in every if f > 0), default=0.1)
    for name, line in panel.lines.items():
        number = names.index(name)
        colour, mark = PALETTE[number % len(PALETTE)], _MARKS[number % len(_MARKS)]
        y, low, high = (np.asarray(v, float) for v in (line.estimate, line.low, line.high))
        known = np.isfinite(y)
        axes.plot(x[known], y[known], mark + "-", color=colour, lw=1.6, ms=5, label=name)
        banded = known & np.isfinite(low) & np.isfinite(high)
        axes.fill_between(x[banded], low[banded], high[banded], color=colour, alpha=0.18, lw=0)
        if banded.sum() == 1:  # a band of one point is nothing to see
            axes.vlines(x[banded], low[banded], high[banded], color=colour, lw=1.2)
    top = max(panel.levels.values(), default=0.0)
    for words, value in panel.levels.items():
        axes.axhline(value, color=_GREY, ls=":", lw=1.2)
        # The highest is named above its line, the others below theirs: published values lie close together.
        above = value == top
        axes.annotate(
            words, (0, value), xycoords=("axes fraction", "data"), xytext=(3, 1.5 if above else -2),
            textcoords="offset points", va="bottom" if above else "top", fontsize=7.5, color=_GREY,
            bbox={"facecolor": "white", "alpha": 0.75, "lw": 0, "pad": 0.5}, zorder=4,
        )  # fmt: skip
    for words, fraction in panel.marks.items():
        axes.axvline(fraction, color=PALETTE[3], ls="--", lw=1.4, label=words)
    if every[0] == 0:
        axes.set_xscale("symlog", linthresh=smallest)
    else:
        axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(every, [f"{100 * f:g} %" for f in every], fontsize=8)
    # A margin beyond the first and the last share, in the axis's own terms.
    axes.set_xlim((-0.15 * smallest if every[0] == 0 else every[0] / 1.25), every[-1] * 1.25)
    axes.set_title("\n".join(_filled(part, 40) for part in panel.title.split("\n")), fontsize=9.5)
    axes.grid(axis="y", color="#ececec")
    axes.set_axisbelow(True)


def _filled(text: str, width: int) -> str:
    """Text in lines of at most `width` characters, broken at spaces only."""
    return textwrap.fill(text, width, break_on_hyphens=False)
