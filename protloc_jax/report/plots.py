"""Figures as PNG bytes: colour-blind safe, readable at page width, drawn without a display."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours (2008), distinguishable under the common forms of colour blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
RC: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "legend.frameon": False,
    "figure.dpi": 110,
    "svg.hashsalt": "protloc",
}


def bars(
    rows: Sequence[tuple[str, float, float, float]], *, label: str, note: str = "", chance: float | None = None
) -> bytes:
    """Horizontal bars with intervals: rows of (name, value, low, high), drawn from top to bottom."""
    names, values, low, high = (list(c) for c in zip(*rows, strict=True))
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(8, 0.5 * len(rows) + 1.3), layout="constrained")
        axes = figure.subplots()
        at = np.arange(len(rows))[::-1]
        spread = np.clip([np.subtract(values, low), np.subtract(high, values)], 0, None)
        axes.barh(at, values, 0.62, color=PALETTE[0], xerr=spread, error_kw={"ecolor": "#333", "capsize": 3, "lw": 1.1})
        for y, value, top in zip(at, values, high, strict=True):
            axes.text(max(top, value) + 0.012, y, f"{value:.3f}", va="center", fontsize=9)
        if chance is not None:
            axes.axvline(chance, color="#555", ls="--", lw=1)
            axes.text(chance, len(rows) - 0.42, " chance", color="#555", fontsize=8, va="bottom")
        axes.set_yticks(at, names)
        axes.set_xlim(0, max(1e-3, *high, *values) * 1.14)
        axes.set_xlabel(label)
        _note(axes, note)
        return figure_bytes(figure)


def per_class(
    names: Sequence[str], systems: Mapping[str, Sequence[float]], support: Sequence[int], *, label: str, note: str = ""
) -> bytes:
    """A dot per class and system (F1 by class); classes sorted by the last system, their support beside the name."""
    order = np.argsort(np.asarray(list(systems.values())[-1]))
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(8, 0.29 * len(names) + 1.5), layout="constrained")
        axes = figure.subplots()
        marks = "osD^vP*X"
        for number, (system, values) in enumerate(systems.items()):
            axes.plot(
                np.asarray(values)[order], np.arange(len(names)), marks[number % len(marks)], ms=6,
                color=PALETTE[number % len(PALETTE)], label=system, alpha=0.9,
            )  # fmt: skip
        axes.set_yticks(np.arange(len(names)), [f"{names[i]} ({support[i]})" for i in order])
        axes.grid(axis="y", color="#e6e6e6")
        axes.set_axisbelow(True)
        axes.set_xlim(-0.03, 1.03)
        axes.set_xlabel(label)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(4, len(systems)), fontsize=9)
        _note(axes, note)
        return figure_bytes(figure)


def confusion(matrix: np.ndarray, names: Sequence[str], *, note: str = "") -> bytes:
    """A row-normalised confusion matrix [L, L] (rows: truth), shares of at least 5 % written in."""
    matrix = np.asarray(matrix, float)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    with matplotlib.rc_context(RC):
        side = 0.36 * len(names) + 2.4
        figure = Figure(figsize=(side + 0.8, side), layout="constrained")
        axes = figure.subplots()
        picture = axes.imshow(share, cmap="viridis", vmin=0, vmax=1)
        for i, j in zip(*np.nonzero(share >= 0.05), strict=True):
            axes.text(j, i, f"{100 * share[i, j]:.0f}", ha="center", va="center", fontsize=7,
                      color="black" if share[i, j] > 0.6 else "white")  # fmt: skip
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.spines[:].set_visible(False)
        figure.colorbar(picture, ax=axes, shrink=0.6, label="share of the true class")
        _note(axes, note)
        return figure_bytes(figure)


def scatter(xy: np.ndarray, labels: Sequence[str], *, title: str = "", note: str = "") -> bytes:
    """A two-dimensional map (UMAP) of points coloured by label, each label's name at its median."""
    names = np.asarray(labels)
    classes = sorted(set(labels))
    colours = matplotlib.colormaps["tab20"].resampled(max(len(classes), 2))
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(8, 6.4), layout="constrained")
        axes = figure.subplots()
        for number, name in enumerate(classes):
            rows = names == name
            axes.scatter(*xy[rows].T, s=max(4, 3000 / max(len(xy), 1)), color=colours(number), label=name, lw=0)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, markerscale=1.6, title="class")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel("UMAP 1")
        axes.set_ylabel("UMAP 2")
        axes.set_title(title)
        _note(axes, note)
        return figure_bytes(figure)


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, x_label: str, y_label: str,
    levels: Mapping[str, float] | None = None, note: str = "",
) -> bytes:  # fmt: skip
    """Lines of {name: (x, y)}, with named horizontal levels (for example ln K under a loss)."""
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(8, 3.4), layout="constrained")
        axes = figure.subplots()
        for number, (name, (x, y)) in enumerate(series.items()):
            axes.plot(x, y, color=PALETTE[number % len(PALETTE)], label=name, lw=1.6)
        for name, level in (levels or {}).items():
            axes.axhline(level, color="#555", ls="--", lw=1)
            axes.annotate(name, (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if len(series) > 1:
            axes.legend(fontsize=9)
        _note(axes, note)
        return figure_bytes(figure)


def over_k(
    series: Mapping[str, Mapping[str, Sequence[float]]], *, y_label: str = "macro-F1",
    published: Mapping[str, float] | None = None, chance: float | None = None, note: str = "",
) -> bytes:  # fmt: skip
    """A score over the number of neighbours, with intervals; filled circles where that k was chosen on validation rows.

    series: {system: {"k", "estimate", "low", "high" (NaN where unknown), "chosen" (some of the k)}}; published: named
    values of a paper, dotted. The k axis is logarithmic; systems stand side by side so that intervals do not hide.
    """
    ticks = sorted({k for line in series.values() for k in line["k"]})
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(8, 4), layout="constrained")
        axes = figure.subplots()
        for number, (name, line) in enumerate(series.items()):
            colour = PALETTE[number % len(PALETTE)]
            x = np.asarray(line["k"], float) * 1.035 ** (number - (len(series) - 1) / 2)
            y = np.asarray(line["estimate"], float)
            spread = np.nan_to_num(np.clip([y - np.asarray(line["low"]), np.asarray(line["high"]) - y], 0, None))
            axes.errorbar(x, y, spread, color=colour, lw=1.4, elinewidth=1, capsize=2.5, label=name)
            picked = np.isin(line["k"], list(line["chosen"]))
            for rows, face in ((~picked, "white"), (picked, colour)):
                axes.plot(x[rows], y[rows], "o", ms=6.5, color=colour, markerfacecolor=face)
        lines = [(name, value, ":") for name, value in (published or {}).items()]
        for name, value, style in [*lines, *([("chance", chance, "--")] if chance is not None else [])]:
            axes.axhline(value, color="#555", ls=style, lw=1)
            # Outside, where no curve passes.
            words, beside = textwrap.fill(name, 22), axes.get_yaxis_transform()
            axes.text(1.01, value, words, transform=beside, va="center", fontsize=8, color="#555")
        axes.set_xscale("log")
        axes.set_xticks(ticks, [str(k) for k in ticks])
        axes.minorticks_off()
        axes.set_xlabel("neighbours k (filled: chosen on validation groups)")
        axes.set_ylabel(y_label)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(4, len(series)), fontsize=9)
        _note(axes, note)
        return figure_bytes(figure)


def image_grid(
    rows: Sequence[Sequence[np.ndarray]], *, row_names: Sequence[str] = (), column_names: Sequence[str] = (),
    cell: float = 1.35, note: str = "",
) -> bytes:  # fmt: skip
    """A grid of pictures ([H, W] in [0, 1] shown grey, [H, W, 3] as colour), with names of rows and columns."""
    columns = max(len(r) for r in rows)
    with matplotlib.rc_context(RC):
        width = cell * columns + (1.5 if row_names else 0.2)
        figure = Figure(
            figsize=(width, cell * len(rows) + (0.5 if column_names or note else 0.2)), layout="constrained"
        )
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for i, row in enumerate(rows):
            for j in range(columns):
                axes: Axes = grid[i, j]
                axes.set_xticks([])
                axes.set_yticks([])
                axes.spines[:].set_visible(False)
                if j < len(row):
                    axes.imshow(row[j], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                if i == 0 and j < len(column_names):
                    axes.set_title(column_names[j], fontsize=9)
                if j == 0 and i < len(row_names):
                    axes.set_ylabel(row_names[i], rotation=0, ha="right", va="center", fontsize=9)
        if note:
            figure.supxlabel(note, fontsize=8, color="#8a4b00")
        return figure_bytes(figure)


def _note(axes: Axes, note: str) -> None:
    """A small remark inside the figure itself (such as "synthetic"), so that it stays with a copied picture."""
    if note:
        axes.figure.supxlabel(note, fontsize=8, color="#8a4b00", ha="right", x=0.99)


def figure_bytes(figure: Figure) -> bytes:
    """A figure as PNG bytes; equal figures give equal bytes."""
    buffer = io.BytesIO()
    # No software or date in the file: equal data give equal bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
