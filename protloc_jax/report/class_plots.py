"""Scores class by class, with their intervals, as PNG bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from protloc_jax.report.plots import PALETTE, RC, _note, figure_bytes

MARKS = "osD^vP*X"


def class_intervals(
    names: Sequence[str],
    systems: Mapping[str, Mapping[str, Sequence[float | None]]],
    support: Sequence[int],
    *,
    units: Sequence[int] | None = None,
    label: str,
    note: str = "",
) -> bytes:
    """A dot with its interval for every class and system, classes sorted by the last system.

    names    classes [L]
    systems  {system: {"estimate", "low", "high"}}, each [L]; NaN or None is not drawn
    support  images [L], and units the groups [L] (proteins, plates), beside the class's name
    Systems stand below one another within a class, so that intervals do not hide. Raises ValueError naming every list
    that is not as long as `names`.
    """
    lists = {f"{system}, {key}": values[key] for system, values in systems.items() for key in values}
    lists |= {"support": support, **({"units": units} if units is not None else {})}
    wrong = [f"{name} ({len(values)})" for name, values in lists.items() if len(values) != len(names)]
    if wrong or not systems:
        raise ValueError(f"{len(names)} classes, but {', '.join(wrong) or 'no system'}.")
    values = {
        system: {key: np.asarray([np.nan if v is None else v for v in own[key]], float) for key in own}
        for system, own in systems.items()
    }
    last = list(values.values())[-1]["estimate"]
    order = np.argsort(np.nan_to_num(last, nan=-1.0), kind="stable")
    beside = [f"{names[i]} ({support[i]}" + (f" / {units[i]})" if units is not None else ")") for i in order]
    # Room for one line a system in each class.
    step = max(1.0, 0.45 * len(systems))
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(8, 0.29 * step * len(names) + 1.6), layout="constrained")
        axes = figure.subplots()
        for number, (system, own) in enumerate(values.items()):
            at = np.arange(len(names)) - 0.62 * ((number + 0.5) / len(values) - 0.5)
            x, low, high = (own[key][order] for key in ("estimate", "low", "high"))
            spread = np.nan_to_num(np.clip([x - low, high - x], 0, None))
            axes.errorbar(
                x, at, xerr=spread, fmt=MARKS[number % len(MARKS)], ms=5.5, color=PALETTE[number % len(PALETTE)],
                elinewidth=1.1, capsize=2, label=system, alpha=0.9,
            )  # fmt: skip
        axes.set_yticks(np.arange(len(names)), beside)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.grid(axis="y", color="#e6e6e6")
        axes.set_axisbelow(True)
        axes.set_xlim(-0.03, 1.03)
        axes.set_xlabel(label)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(4, len(values)), fontsize=9)
        _note(axes, note)
        return figure_bytes(figure)
