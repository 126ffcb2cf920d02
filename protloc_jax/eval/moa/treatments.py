"""The labelled treatments of a screen: one profile each, with compound, mechanism and batch.

A positive control stands on plates of all batches, and three published evaluations disagree on which of its wells make
its profile and which batch it belongs to. The conventions carry their names and apply to any compound that stands in
several batches:

ws_dino      all wells. The batch is a number: the median, over the treatment's plates, of the batch's rank (0, 1, ...)
             in natural order of the table's batches. Taxol 0.3 of BBBC021 gets 4.0, as if it were Week5's
joined       all wells. The batch is the names of all its batches, joined: equal only to a treatment of the very same
             batches, and so for taxol to no other (DeepProfiler's notebook)
dose_series  without the positive-control wells, by `well_type`. What still stands in several batches gets their joined
             name (Ljosa's profiles, uniDINO)

per_batch    for crossed designs, where every treatment stands in every batch: all wells, and a treatment in each of its
             batches is a profile and a query of its own (this project's)
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from protloc_jax.config import nearest
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.moa.aggregate import N_ROWS, TREATMENT, Aggregation, Level, aggregated, shown
from protloc_jax.eval.moa.columns import (
    POSITIVE,
    Columns,
    concentrations,
    natural,
    negative_controls,
    positions,
    some,
    texts,
    treatments,
)

Convention = Literal["ws_dino", "joined", "dose_series", "per_batch"]
Which = Literal["labelled", "unlabelled"]
_JOIN, _WITHIN = "+", " in "


@dataclass(frozen=True)
class Treatments:
    """Profiles of labelled treatments (or of their wells), in natural order of their names.

    names          [T] unique
    profiles       [T, D] float64
    compound, moa  [T] text
    concentration  [T] float64, NaN where none is given
    batch          [T] text, or numbers under the convention ws_dino
    n_rows         [T] rows of the table behind a profile
    plate, position  [T] text for wells, None for treatments
    treatment      [T] the treatment of a well; of treatments their names
    about          convention, aggregation and counts of what was left out, ready for JSON
    """

    names: tuple[str, ...]
    profiles: np.ndarray
    compound: np.ndarray
    moa: np.ndarray
    batch: np.ndarray
    concentration: np.ndarray
    n_rows: np.ndarray
    treatment: np.ndarray
    plate: np.ndarray | None = None
    position: np.ndarray | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: Any) -> Treatments:
        """Some of them, in the order given (row numbers or a mask)."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(int)
        arrays = ("profiles", "compound", "moa", "batch", "concentration", "n_rows", "treatment")
        own: dict[str, Any] = {name: getattr(self, name)[rows] for name in arrays}
        for name in ("plate", "position"):
            own[name] = None if getattr(self, name) is None else getattr(self, name)[rows]
        return replace(self, names=tuple(self.names[i] for i in rows), **own)


def treatments_of(
    table: FeatureTable,
    aggregation: Aggregation,
    *,
    convention: Convention = "ws_dino",
    which: Which = "labelled",
    columns: Columns | None = None,
) -> Treatments:
    """The labelled treatments of a table of images, wells or any rows with metadata.

    A treatment is a compound at a concentration (with convention="per_batch", in one batch). Rows without mechanism and
    negative controls are no treatments; they are counted in `about`. With which="unlabelled" it is the rows without
    mechanism that are taken, for questions.
    The last level of `aggregation` must group by `treatment` alone.
    Raises ValueError for missing columns, an unknown convention, no labelled row, a treatment with two mechanisms or
    rows without batch (all are listed).
    """
    if not aggregation or aggregation[-1].by != (TREATMENT,):
        raise ValueError(
            f"the aggregation '{shown(aggregation)}' does not end in one row a treatment ('treatment:mean')."
        )
    labelled, columns, about = _labelled(table, convention, columns or Columns(), which)
    if convention == "per_batch":
        asked = asked_names(labelled.obs, columns, convention)
        labelled = replace(labelled, obs=labelled.obs.assign(**{TREATMENT: asked}))
    result = aggregated(labelled, aggregation, columns=columns)
    batch = _batches(table, labelled, convention, columns)
    names = tuple(result.obs[TREATMENT])
    return Treatments(
        names,
        result.x,
        texts(result.obs[columns.compound]),
        texts(result.obs[columns.moa]),
        np.array([batch[name] for name in names], np.float64 if convention == "ws_dino" else object),
        concentrations(result.obs, columns),
        result.obs[N_ROWS].to_numpy(),
        np.array(names, object),
        about={
            **about,
            "aggregation": shown(aggregation),
            "left_out_of_aggregation": result.uns["aggregation"]["left_out"],
        },
    )


def asked_names(obs: pd.DataFrame, columns: Columns, convention: Convention) -> np.ndarray:
    """What the treatment of every row is called under a convention, [N] text."""
    names = texts(treatments(obs, columns))
    return names + _WITHIN + texts(obs[columns.batch]) if convention == "per_batch" else names


def wells_of(table: FeatureTable, *, convention: Convention = "ws_dino", columns: Columns | None = None) -> Treatments:
    """The wells of the labelled treatments, each the mean of its rows and in the batch of its plate.

    `convention` only says whether positive-control wells are among them ("dose_series": no).
    """
    labelled, columns, about = _labelled(table, convention, columns or Columns())
    columns.need(labelled.obs, "plate", "well")
    level = Level((columns.plate, columns.well), "mean")
    result = aggregated(labelled, (level,), columns=columns)
    obs = result.obs
    columns.need(obs, "treatment", "batch")
    return Treatments(
        tuple(obs["id"]),
        result.x,
        texts(obs[columns.compound]),
        texts(obs[columns.moa]),
        texts(obs[columns.batch]),
        concentrations(obs, columns),
        obs[N_ROWS].to_numpy(),
        texts(obs[TREATMENT]),
        texts(obs[columns.plate]),
        positions(obs, columns),
        about={
            **about,
            "aggregation": shown((level,)),
            "left_out_of_aggregation": result.uns["aggregation"]["left_out"],
        },
    )


def joined(first: Treatments, *others: Treatments) -> Treatments:
    """Profiles of several tables side by side. ValueError lists the treatments that not all of them have."""
    for other in others:
        differing = sorted(set(first.names) ^ set(other.names), key=natural)
        if differing:
            raise ValueError(f"the tables' treatments differ: {some(differing)}.")
    profiles = np.concatenate([first.profiles, *(one.profiles for one in others)], axis=1)
    return replace(first, profiles=profiles)


def _labelled(
    table: FeatureTable, convention: Convention, columns: Columns, which: Which = "labelled"
) -> tuple[FeatureTable, Columns, dict[str, Any]]:
    """The rows of labelled (or unlabelled) treatments with their `treatment`, and counts of the others by reason."""
    if convention not in get_args(Convention):
        words = get_args(Convention)
        raise ValueError(f"convention='{convention}': not one of {', '.join(words)}.{nearest(str(convention), words)}")
    obs: Any = table.obs.reset_index(drop=True)
    columns.need(obs, "compound", "moa", "batch", *(("well_type",) if convention == "dose_series" else ()))
    control, moa = negative_controls(obs, columns), texts(obs[columns.moa])
    other = (moa == "") == (which == "labelled")
    unnamed = ~control & ~other & (texts(obs[columns.compound]) == "")
    keep = ~control & ~other & ~unnamed
    positive = np.zeros(len(obs), bool)
    if convention == "dose_series":
        positive = keep & (texts(obs[columns.well_type]) == POSITIVE)
        keep &= ~positive
    left_out = {
        "negative controls": int(control.sum()),
        "no mechanism" if which == "labelled" else "a mechanism": int((~control & other).sum()),
        "no compound": [str(i) for i in obs["id"][unnamed]],
        "positive-control wells (dose_series)": int(positive.sum()),
    }
    if not keep.any():
        counts = ", ".join(f"{k}: {v if isinstance(v, int) else len(v)}" for k, v in left_out.items())
        words = "with" if which == "labelled" else "without"
        raise ValueError(f"no row of the table is of a treatment {words} mechanism ({counts}).")
    obs = obs[keep].reset_index(drop=True)
    obs[TREATMENT] = treatments(obs, columns)
    clashes = obs.assign(_moa=moa[keep]).groupby(TREATMENT)["_moa"].agg(lambda v: sorted(set(v)))
    clashes = clashes[clashes.map(len) > 1]
    if len(clashes):
        shown_ = [f"{name} ({', '.join(found)})" for name, found in clashes.items()]
        raise ValueError(f"{columns.moa}: treatments with several mechanisms: {some(shown_)}.")
    empty = texts(obs[columns.batch]) == ""
    if empty.any():
        raise ValueError(f"{columns.batch}: rows without a batch: {some(list(obs['id'][empty]))}.")
    labelled = FeatureTable(np.asarray(table.x)[keep], obs, table.uns)
    about = {"convention": convention, "rows": len(obs), "left_out_rows": left_out}
    return labelled, columns, about


def _batches(whole: FeatureTable, labelled: FeatureTable, convention: Convention, columns: Columns) -> dict[str, Any]:
    """The batch of every treatment under a convention."""
    obs: Any = labelled.obs.assign(_batch=texts(labelled.obs[columns.batch]))
    if convention != "ws_dino":
        found = obs.groupby(TREATMENT)["_batch"].agg(lambda v: _JOIN.join(sorted(set(v), key=natural)))
        return {str(k): v for k, v in found.items()}
    columns.need(obs, "plate")
    every = sorted(set(texts(whole.obs[columns.batch])) - {""}, key=natural)
    rank = {name: i for i, name in enumerate(every)}
    plates = obs[[TREATMENT, columns.plate, "_batch"]].drop_duplicates()
    ranks = plates["_batch"].map(rank).groupby(plates[TREATMENT]).median()
    return {str(k): float(v) for k, v in ranks.items()}
