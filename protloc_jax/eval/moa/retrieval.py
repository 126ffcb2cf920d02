"""What is retrieved: a treatment's replicates against untreated wells, and a mechanism's compounds against the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from protloc_jax.eval.corrections.fitted_rows import FITTED_ON, fitted_rows
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.moa.aggregate import Level, aggregated
from protloc_jax.eval.moa.average_precision import NULL_SIZE, Retrieval, retrieval
from protloc_jax.eval.moa.columns import Columns, negative_controls
from protloc_jax.eval.moa.treatments import Convention, Treatments, wells_of


def activity(
    table: FeatureTable,
    *,
    convention: Convention = "ws_dino",
    columns: Columns | None = None,
    null_size: int = NULL_SIZE,
    seed: int = 0,
) -> Retrieval:
    """Whether the wells of a treatment find each other among untreated wells; a group is a treatment.

    Queries are wells (means of their rows). Positives are the treatment's wells on other plates; those of the same
    plate stand in for a query that has no others. Negatives are the control wells that no correction was fitted on, by
    the column `fitted_on` of the table. Where all of them were fitted on they are used nevertheless, and the notes say
    that the scores are then too good.
    """
    columns = columns or Columns()
    own = wells_of(table, convention=convention, columns=columns)
    controls, notes = control_wells(table, columns)
    n, m = len(own), len(controls.x)
    assert own.plate is not None
    negatives = np.arange(n, n + m)
    queries, same_plate = [], 0
    for q in range(n):
        alike = (own.treatment == own.treatment[q]) & (np.arange(n) != q)
        elsewhere = alike & (own.plate != own.plate[q])
        same_plate += int(alike.any() and not elsewhere.any())
        queries.append((q, np.flatnonzero(elsewhere if elsewhere.any() else alike), negatives))
    if same_plate:
        notes += (f"{same_plate} wells have replicates on their own plate only, and are asked for these.",)
    return retrieval(
        np.concatenate([own.profiles, controls.x]),
        queries,
        names=(*own.names, *controls.obs["id"]),
        group=(*own.treatment, *[""] * m),
        compound=(*own.compound, *[""] * m),
        what="replicates against untreated wells",
        null_size=null_size,
        seed=seed,
        notes=notes,
    )


def mechanism(treatments: Treatments, *, null_size: int = NULL_SIZE, seed: int = 0) -> Retrieval:
    """Whether treatments find other compounds of their mechanism; a group is a mechanism.

    Positives: same mechanism, other compound. Negatives: other mechanisms.
    """
    c, m = treatments.compound, treatments.moa
    queries = [
        (q, np.flatnonzero((m == m[q]) & (c != c[q])), np.flatnonzero((m != m[q]) & (c != c[q])))
        for q in range(len(treatments))
    ]
    return retrieval(
        treatments.profiles,
        queries,
        names=treatments.names,
        group=list(m),
        compound=list(c),
        what="compounds of the same mechanism",
        null_size=null_size,
        seed=seed,
    )


def control_wells(table: FeatureTable, columns: Columns) -> tuple[FeatureTable, tuple[str, ...]]:
    """One row a negative-control well that may serve as a negative, and what must be said about them.

    A well counts as fitted on if any of its rows is. ValueError where the table has no control.
    """
    rows = np.flatnonzero(negative_controls(table.obs, columns))
    if not len(rows):
        raise ValueError(
            f"the table has no negative control (compound {' or '.join(columns.controls)}, or "
            f"{columns.well_type} negative_control): nothing to tell treatments from."
        )
    table = FeatureTable(np.asarray(table.x)[rows], table.obs.iloc[rows].reset_index(drop=True), table.uns)
    wells = aggregated(table, (Level((columns.plate, columns.well), "mean"),), columns=columns)
    fitted = fitted_wells(table, wells, columns)
    if FITTED_ON not in table.obs:
        said = (
            f"The table has no column '{FITTED_ON}': its {len(fitted)} control wells are taken as held out of any fit."
        )
        return wells, (said,) if _corrected(table.uns) else ()
    if fitted.all():
        return wells, (
            f"NOT HELD OUT: a correction was fitted on all {len(fitted)} control wells, which are the negatives here; "
            "these scores are too good. Fit on some of the controls only.",
        )
    kept = np.flatnonzero(~fitted)
    left = FeatureTable(wells.x[kept], wells.obs.iloc[kept].reset_index(drop=True), wells.uns)
    return left, (
        f"{len(kept)} control wells held out of the fit are the negatives; {int(fitted.sum())} were fitted on.",
    )


def fitted_wells(table: FeatureTable, wells: FeatureTable, columns: Columns) -> np.ndarray:
    """Which wells [W] of a table hold a row that a correction was fitted on; none without the column `fitted_on`."""
    place, own = (
        [f"{p}/{w}" for p, w in zip(o[columns.plate], o[columns.well], strict=True)] for o in (table.obs, wells.obs)
    )
    touched = {p for p, fitted in zip(place, fitted_rows(table.obs), strict=True) if fitted}
    return np.array([p in touched for p in own], bool)


def _corrected(uns: Mapping[str, Any]) -> bool:
    return any("correct" in str(key) for key in uns)
