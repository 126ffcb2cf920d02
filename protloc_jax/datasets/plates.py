"""Plates: wells as rows and columns, outliers within a plate, edge effects, trends, and Z' of controls."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from protloc_jax.data.manifest import capped

FORMATS = {6: (2, 3), 12: (3, 4), 24: (4, 6), 48: (6, 8), 96: (8, 12), 384: (16, 24), 1536: (32, 48)}
MAD_TO_SD = 1.4826  # of a normal distribution
_WELL = re.compile(r"([A-Za-z]{1,2})[-_ ]?0*([1-9][0-9]?)")


def well_positions(wells: Sequence[str]) -> np.ndarray:
    """Names such as A01, h12 or AF48 as [N, 2] row and column, counted from 0. ValueError lists what is no well."""
    found, bad = [], []
    for name in wells:
        match = _WELL.fullmatch(str(name).strip())
        row = -1
        if match:
            letters = match[1].upper()
            row = ord(letters[-1]) - 65 + (26 * (ord(letters[0]) - 64) if len(letters) == 2 else 0)
        if match and row < FORMATS[1536][0] and int(match[2]) <= FORMATS[1536][1]:
            found.append((row, int(match[2]) - 1))
        else:
            bad.append(f"'{name}'")
    if bad:
        raise ValueError(f"{len(bad)} names are no wells (A01 to AF48): {capped(list(dict.fromkeys(bad)))}.")
    return np.asarray(found, int).reshape(-1, 2)


def plate_shape(positions: np.ndarray, *, wells: int = 0) -> tuple[int, int]:
    """Rows and columns of a plate that has all the positions [N, 2].

    wells  6, 12, ... 1536, or 0 for the smallest of 96, 384 and 1536 that fits: a few wells in use do not make a small
           plate, and an edge effect needs the true edge
    Raises ValueError where a position lies outside.
    """
    rows, columns = positions.max(axis=0) + 1
    formats = [FORMATS[wells]] if wells else [shape for n, shape in FORMATS.items() if n >= 96]
    fitting = [shape for shape in formats if shape[0] >= rows and shape[1] >= columns]
    if not fitting:
        raise ValueError(f"wells in row {rows} or column {columns} lie outside of a plate of {wells} wells.")
    return fitting[0]


def plate_grid(positions: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Values [N] at positions [N, 2] as a plate [rows, columns], NaN where there is no well; doubles are averaged."""
    total, count = np.zeros(shape), np.zeros(shape)
    np.add.at(total, tuple(positions.T), values)
    np.add.at(count, tuple(positions.T), 1)
    return np.divide(total, count, out=np.full(shape, np.nan), where=count > 0)


def robust_z(values: np.ndarray) -> np.ndarray:
    """(values - median) / (1.4826 MAD), finite for any finite values [N].

    Where more than half of the values are equal, so that the MAD is 0, the mean absolute deviation times 1.2533 takes
    its place; where all are equal, every z is 0.
    """
    x = np.asarray(values, np.float64)
    if not len(x):
        return x
    away = x - np.median(x)
    scale = MAD_TO_SD * np.median(np.abs(away)) or 1.2533 * np.abs(away).mean()
    return away / scale if scale > 1e-12 * max(1.0, float(np.abs(x).max())) else np.zeros_like(x)


def robust_z_within(values: np.ndarray, groups: np.ndarray, *, least: int) -> np.ndarray:
    """`robust_z` within each group; values of groups below `least` are compared with all values instead."""
    x = np.asarray(values, np.float64)
    result = robust_z(x)
    for group in np.unique(groups):
        rows = groups == group
        if rows.sum() >= least:
            result[rows] = robust_z(x[rows])
    return result


class Edge(NamedTuple):
    """Edge wells against interior wells of the plates.

    effect: difference of medians in robust standard deviations of the interior, mean over plates; p_value: that labels
    of edge and interior permuted within plates give as large an effect, either way; edge, interior: numbers of wells;
    row_trend, column_trend: rank correlation of value and row or column, mean over plates. NaN without wells of both.
    """

    effect: float
    p_value: float
    edge: int
    interior: int
    row_trend: float
    column_trend: float


def edge_effect(
    values: np.ndarray,
    positions: np.ndarray,
    plates: np.ndarray,
    shape: tuple[int, int],
    *,
    permutations: int = 2000,
    seed: int = 0,
) -> Edge:
    """The edge effect of well values [N] at positions [N, 2] of plates [N], all of one shape.

    Edge wells are those of the outermost rows and columns of the plate (not of the wells in use).
    """
    x, last = np.asarray(values, np.float64), np.asarray(shape) - 1
    at_edge = ((positions == 0) | (positions == last)).any(axis=1)
    rng = np.random.default_rng(seed)
    observed, permuted, trends = [], [], []
    for plate in np.unique(plates):
        own = plates == plate
        y, edge = x[own], at_edge[own]
        trends.append([rank_correlation(positions[own, axis], y) for axis in (0, 1)])
        if edge.sum() < 1 or (~edge).sum() < 3:
            continue
        observed.append(_difference(y[None, edge], y[None, ~edge])[0])
        shuffled = rng.permuted(np.tile(y, (permutations, 1)), axis=1)
        permuted.append(_difference(shuffled[:, : edge.sum()], shuffled[:, edge.sum() :]))
    row, column = np.mean(trends, axis=0) if trends else (np.nan, np.nan)
    if not observed:
        return Edge(np.nan, np.nan, int(at_edge.sum()), int((~at_edge).sum()), float(row), float(column))
    effect, null = float(np.mean(observed)), np.mean(permuted, axis=0)
    p_value = (1 + (np.abs(null) >= abs(effect) - 1e-12).sum()) / (1 + permutations)
    return Edge(effect, float(p_value), int(at_edge.sum()), int((~at_edge).sum()), float(row), float(column))


def _difference(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Median at the edge minus median inside, in robust SDs of the inside: outer [P, E], inner [P, I] -> [P]."""
    middle = np.median(inner, axis=1)
    away = np.abs(inner - middle[:, None])
    spread = MAD_TO_SD * np.median(away, axis=1)
    spread = np.where(spread > 0, spread, 1.2533 * away.mean(axis=1))
    return np.divide(np.median(outer, axis=1) - middle, spread, out=np.zeros(len(outer)), where=spread > 0)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two arrays [N], 0 where one of them is constant."""
    ranks = [rankdata(v) - (len(v) + 1) / 2 for v in (a, b)]
    scale = float(np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    return float((ranks[0] * ranks[1]).sum() / scale) if scale > 0 else 0.0


def z_prime(positive: np.ndarray, negative: np.ndarray, *, robust: bool = False) -> float:
    """Z' = 1 - 3 (s+ + s-) / |m+ - m-| of control wells (Zhang, Chung & Oldenburg, J. Biomol. Screen. 1999).

    m and s are mean and sample standard deviation, or (robust) median and 1.4826 MAD. NaN where a control has fewer
    than two wells or both have one centre: Z' is not defined there.
    """
    arrays = [np.asarray(v, np.float64) for v in (positive, negative)]
    if min(map(len, arrays)) < 2:
        return float("nan")
    if robust:
        centre = [float(np.median(v)) for v in arrays]
        spread = [MAD_TO_SD * float(np.median(np.abs(v - m))) for v, m in zip(arrays, centre, strict=True)]
    else:
        centre, spread = [float(v.mean()) for v in arrays], [float(v.std(ddof=1)) for v in arrays]
    distance = abs(centre[0] - centre[1])
    return 1 - 3 * sum(spread) / distance if distance > 0 else float("nan")


def wells_of(images: pd.DataFrame, *, plate: str, well: str, measures: Sequence[str]) -> pd.DataFrame:
    """One row a plate and well, in order: plate, well, row, column, images, mean of each measure."""
    grouped = images.groupby([plate, well], sort=True)
    table = grouped[list(measures)].mean().reset_index()
    table.insert(2, "images", grouped.size().to_numpy())
    positions = well_positions(table[well].astype(str).to_list())
    table.insert(2, "row", positions[:, 0])
    table.insert(3, "column", positions[:, 1])
    return table
