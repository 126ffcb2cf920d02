"""The picture beside the table: training on an accelerator in images a second, and all ratios to peers."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from table_rows import Row

from protloc_jax.report.plots import PALETTE, RC

OURS, PEERS = PALETTE[0], ("#9a9a9a", "#c8c8c8")


def picture(rows: Sequence[Row]) -> bytes:
    """A PNG of two panels; the left one is absent without a run on an accelerator."""
    card = [row for row in rows if row.family == "gpu"]
    ratios = [row for row in rows if row.ratio is not None]
    with matplotlib.rc_context(RC):
        height = max(3.0, 0.36 * len(ratios) + 1.3)
        figure = Figure(figsize=(12.5 if card else 8.0, height), layout="constrained")
        if card:
            left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.35))
            throughput(left, card)
        else:
            right = figure.subplots()
        speed(right, ratios)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
        return file.getvalue()


def throughput(axes: Axes, rows: Sequence[Row]) -> None:
    """Images a second of each size: ours in colour, its peers grey."""
    at, ticks, names = 0.0, [], []
    for what in dict.fromkeys(row.what for row in rows):
        own = [row for row in rows if row.what == what]
        bars = [("ours", own[0].ours, own[0].more, OURS)]
        bars += [
            (row.peer, row.other, "", grey)
            for row, grey in zip((r for r in own if r.other is not None), PEERS, strict=False)
        ]
        for name, value, more, colour in bars:
            axes.barh(at, value, 0.8, color=colour)
            label = f" {value:,.0f}  {name}" + (f" ({more})" if more else "")
            axes.text(value, at, label, va="center", fontsize=8.5)
            ticks.append(at)
            at += 1
        names.append((np.mean(ticks[-len(bars) :]), what.removeprefix("DINO step, ").replace(", ", "\n", 1)))
        at += 0.6
    axes.set_yticks([place for place, _ in names], [name for _, name in names], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 2.0 * max(max(row.ours, row.other or 0) for row in rows))
    axes.set_xlabel("images a second")
    axes.set_title(f"DINO training step, {rows[0].machine}", loc="left")


def speed(axes: Axes, rows: Sequence[Row]) -> None:
    """Ratios on a logarithmic scale around 1."""
    places = np.arange(len(rows))
    for place, row in zip(places, rows, strict=True):
        assert row.ratio is not None
        exponent = math.log2(row.ratio)
        axes.barh(place, exponent, 0.66, color=OURS if exponent >= 0 else PALETTE[1])
        side = "left" if exponent >= 0 else "right"
        axes.text(exponent, place, f" {row.ratio:.2g} ", va="center", ha=side, fontsize=8.5)
    axes.set_yticks(places, [f"{row.what}\nbeside {row.peer}" for row in rows], fontsize=7.5)
    axes.invert_yaxis()
    values = [math.log2(row.ratio) for row in rows if row.ratio]
    low, high = math.floor(min([-1.0, *values])), math.ceil(max([1.0, *values]))
    marks = range(low, high + 1)
    axes.set_xticks(list(marks), [f"{2.0**mark:g}" for mark in marks])
    axes.set_xlim(low - 0.3, high + 0.5)
    axes.axvline(0, color="#333", lw=1)
    axes.set_xlabel("times as fast as the peer (logarithmic)")
    axes.set_title("Blue: ours is faster; orange: the peer is", loc="left")
