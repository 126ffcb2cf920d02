"""What the columns of a screen's table are called, and what follows from them: treatments, controls, well positions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from protloc_jax.config import nearest

NEGATIVE, POSITIVE = "negative_control", "positive_control"
SHOWN = 10
# Concentrations that agree to so many significant digits are one: 0.3 in float32 and in float64 differ in the eighth.
_DIGITS = 6


@dataclass(frozen=True)
class Columns:
    """The names under which a table holds a screen's metadata.

    concentration and well_type may be absent from a table: then a treatment is its compound alone, and controls are
    known by the compound's name only. `controls` are the compounds (or mechanisms) that are no treatment.
    """

    compound: str = "compound"
    concentration: str = "concentration"
    moa: str = "moa"
    batch: str = "batch"
    plate: str = "plate"
    well: str = "well"
    well_type: str = "well_type"
    controls: tuple[str, ...] = ("DMSO",)

    def called(self, name: str) -> str:
        """The table's name of one of these fields; any other name as it is."""
        return getattr(self, name) if name in {f.name for f in fields(self)} - {"controls"} else name

    def need(self, obs: pd.DataFrame, *names: str) -> None:
        """ValueError naming all of the columns (by field) that `obs` lacks, each with the nearest one it has."""
        have = [str(c) for c in obs.columns]
        wanted = [self.called(name) for name in names]
        missing = [f"no column '{w}'.{nearest(w, have)}" for w in wanted if w not in have]
        if missing:
            raise ValueError(f"the table has {' It has '.join(missing)} Columns: {', '.join(have)}.")


def texts(column: Any) -> np.ndarray:
    """A column as text [N] object, missing values as ''."""
    return np.array(["" if v is None or v != v or v is pd.NA else str(v).strip() for v in column], object)


def concentrations(obs: pd.DataFrame, columns: Columns) -> np.ndarray:
    """Concentrations [N] float64, NaN where none is given. ValueError lists what is no number."""
    if columns.concentration not in obs:
        return np.full(len(obs), np.nan)
    given = texts(obs[columns.concentration])
    numbers = np.asarray(pd.to_numeric(pd.Series(given), errors="coerce"), np.float64)
    bad = sorted({t for t, n in zip(given, numbers, strict=True) if t and np.isnan(n) and t.lower() != "nan"})
    if bad:
        raise ValueError(f"{columns.concentration}: not numbers: {some(bad)}.")
    return numbers


def treatments(obs: pd.DataFrame, columns: Columns) -> np.ndarray:
    """The treatment of every row [N] object, "taxol@0.3"; the compound's name alone without a concentration.

    '' where the compound is missing. Concentrations are compared to six significant digits.
    """
    columns.need(obs, "compound")
    names, doses = texts(obs[columns.compound]), concentrations(obs, columns)
    return np.array([f"{n}@{d:.{_DIGITS}g}" if n and d == d else n for n, d in zip(names, doses, strict=True)], object)


def negative_controls(obs: pd.DataFrame, columns: Columns) -> np.ndarray:
    """Which rows [N] bool are untreated controls: by well type, by compound or by mechanism."""
    named = {name.lower() for name in columns.controls}
    found = np.zeros(len(obs), bool)
    for column in (columns.compound, columns.moa):
        if column in obs:
            found |= np.array([v.lower() in named for v in texts(obs[column])], bool)
    if columns.well_type in obs:
        found |= texts(obs[columns.well_type]) == NEGATIVE
    return found


def positions(obs: pd.DataFrame, columns: Columns) -> np.ndarray:
    """The place of every row's well on its plate [N] object: "B02", also of a well named "P1/B02"."""
    columns.need(obs, "well")
    return np.array([v.rsplit("/", 1)[-1] for v in texts(obs[columns.well])], object)


def natural(value: Any) -> tuple[Any, ...]:
    """A sorting key under which Week2 comes before Week10, and numbers by size."""
    if isinstance(value, (int, float, np.number)):
        return ((0, float(value), ""),)
    parts = re.split(r"(\d+(?:\.\d+)?)", str(value))
    return tuple((0, float(p), "") if i % 2 else (1, 0.0, p.lower()) for i, p in enumerate(parts) if p)


def some(values: Sequence[Any]) -> str:
    """The first values, and how many more there are."""
    shown = ", ".join(map(str, values[:SHOWN]))
    return shown if len(values) <= SHOWN else f"{shown} ... ({len(values)} in all)"
