"""From rows of images to one row a well, a plate or a treatment: means and medians, level by level.

An aggregation is a tuple of levels, finest first. A level puts all rows together that agree in its columns. The order
matters: a mean over fields weighs a plate with more fields more, a mean over wells does not.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd

from protloc_jax.config import nearest
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.moa.columns import Columns, natural, some, texts, treatments

How = Literal["mean", "median", "lower_median"]
N_ROWS, TREATMENT = "n_rows", "treatment"


class Level(NamedTuple):
    """Rows with equal values in the columns `by` become one row, by `how`."""

    by: tuple[str, ...]
    how: How


Aggregation = tuple[Level, ...]

AGGREGATIONS: dict[str, Aggregation] = {
    # WS-DINO's TSNE.py: fields of all wells of a plate together, then the plates. There is no well level.
    "ws_dino": (Level((TREATMENT, "plate"), "mean"), Level((TREATMENT,), "median")),
    "wells": (Level(("plate", "well"), "mean"), Level((TREATMENT,), "mean")),
    "wells_median": (Level(("plate", "well"), "mean"), Level((TREATMENT,), "median")),
    # DeepProfiler's notebook: fields straight to treatments.
    "median": (Level((TREATMENT,), "median"),),
    "mean": (Level((TREATMENT,), "mean"),),
}


def lower_median(x: Any, axis: int = 0) -> np.ndarray:
    """The median as torch.median gives it: of n sorted values the one at (n - 1) // 2, never a mean of two.

    x: [...] of any real type, kept. ValueError for an empty axis.
    """
    x = np.asarray(x)
    n = x.shape[axis]
    if not n:
        raise ValueError(f"the median of nothing: axis {axis} of shape {list(x.shape)} is empty.")
    return np.take(np.partition(x, (n - 1) // 2, axis=axis), (n - 1) // 2, axis=axis)


def parse(text: str) -> Aggregation:
    """An aggregation by its name, or as text: "plate,treatment:mean > treatment:median".

    ValueError lists all parts that are wrong, with the nearest valid words.
    """
    if text in AGGREGATIONS:
        return AGGREGATIONS[text]
    if ":" not in text:
        raise ValueError(
            f"aggregation '{text}': no such name.{nearest(text, AGGREGATIONS)} Have: {', '.join(AGGREGATIONS)}; or "
            "write levels, 'plate,treatment:mean > treatment:median'."
        )
    levels, problems = [], []
    for part in text.split(">"):
        columns, _, how = (word.strip() for word in part.partition(":"))
        by = tuple(c.strip() for c in columns.split(",") if c.strip())
        if how not in get_args(How):
            problems.append(f"'{how}' is none of {', '.join(get_args(How))}.{nearest(how, get_args(How))}")
        if not by:
            problems.append(f"'{part.strip()}' names no column; write columns:how.")
        levels.append(Level(by, how))  # type: ignore[arg-type]
    if problems:
        raise ValueError(f"aggregation '{text}': {' '.join(problems)}")
    return tuple(levels)


def shown(aggregation: Aggregation) -> str:
    """An aggregation as the text that `parse` reads."""
    return " > ".join(f"{','.join(level.by)}:{level.how}" for level in aggregation)


def aggregated(table: FeatureTable, aggregation: Aggregation, *, columns: Columns | None = None) -> FeatureTable:
    """One row a group of the last level, features float64, in natural order of the groups' values.

    `plate`, `well`, `compound`, ... in a level mean the columns that `columns` names so. A column `treatment` that the
    table lacks is made of compound and concentration. Metadata that are the same in all
    rows of every group stay, others are dropped; `n_rows` counts the rows of `table` behind a row, `id` joins the last
    level's values. `uns["aggregation"]` says how: levels, rows, `dropped_columns`, and `left_out` (id and reason of
    each row that has no value in a column that is grouped by).
    Raises ValueError for no level, unknown columns (all of them, each with the nearest), and for a later level's
    column that differs within a group of an earlier one.
    """
    if not aggregation:
        raise ValueError("an aggregation needs at least one level.")
    columns = columns or Columns()
    aggregation = tuple(Level(tuple(columns.called(name) for name in level.by), level.how) for level in aggregation)
    wanted = list(dict.fromkeys(name for level in aggregation for name in level.by))
    obs: Any = table.obs.reset_index(drop=True)
    if TREATMENT in wanted and TREATMENT not in obs and columns.compound in obs:
        obs = obs.assign(**{TREATMENT: treatments(obs, columns)})
    columns.need(obs, *wanted)
    left_out, whole = [], np.ones(len(obs), bool)
    for name in wanted:
        empty = texts(obs[name]) == ""
        left_out += [{"id": str(i), "reason": f"no {name}"} for i in obs["id"][whole & empty]]
        whole &= ~empty
    if not whole.any():
        raise ValueError(f"no row has a value in all of {', '.join(wanted)}; nothing is left to aggregate.")
    x = np.asarray(table.x, np.float64)[whole]
    obs = obs[whole].reset_index(drop=True)
    obs[N_ROWS] = obs[N_ROWS].to_numpy(np.int64) if N_ROWS in obs else 1
    dropped: list[str] = []
    for number, level in enumerate(aggregation):
        later = [name for later in aggregation[number + 1 :] for name in later.by]
        x, obs, gone = _one_level(x, obs, level, later)
        dropped += gone
    how = {"levels": shown(aggregation), "rows": int(whole.sum()), "dropped_columns": dropped, "left_out": left_out}
    return FeatureTable(x, obs, {**table.uns, "aggregation": how})


def _one_level(x: np.ndarray, obs: Any, level: Level, later: list[str]) -> tuple[np.ndarray, pd.DataFrame, list[str]]:
    """Features, metadata and dropped columns after one level."""
    keys = list(zip(*(obs[name] for name in level.by), strict=True))
    order = sorted(dict.fromkeys(keys), key=lambda key: tuple(natural(v) for v in key))
    at = {key: i for i, key in enumerate(order)}
    number = np.array([at[key] for key in keys])
    members = np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1])
    first = np.array([rows[0] for rows in members])
    put_together = {"mean": np.mean, "median": np.median, "lower_median": lower_median}[level.how]
    result = np.stack([put_together(x[rows], axis=0) for rows in members])
    kept: dict[str, Any] = {}
    dropped = []
    for name in obs.columns:
        if name in ("id", N_ROWS):
            continue
        values = texts(obs[name])
        if (values == values[first][number]).all():
            kept[name] = obs[name].to_numpy()[first]
        else:
            dropped.append(str(name))
            if name in later:
                mixed = [i for i, rows in enumerate(members) if len(set(values[rows])) > 1]
                raise ValueError(
                    f"'{name}' differs within one {'/'.join(level.by)}, so rows cannot go by it after that level: "
                    f"{some(['/'.join(map(str, order[i])) for i in mixed])}."
                )
    ids = ["/".join(map(str, key)) for key in order]
    if len(set(ids)) < len(ids):
        ids = [f"{name}#{i}" for i, name in enumerate(ids)]
    counts = np.bincount(number, weights=obs[N_ROWS].to_numpy()).astype(np.int64)
    return result, pd.DataFrame({"id": ids, **kept, N_ROWS: counts}), dropped
