"""From feature tables of one backbone a channel to profiles of treatments, corrected on the negative control."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from protloc_jax.eval import corrections
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.moa.aggregate import parse
from protloc_jax.eval.moa.columns import Columns, natural, negative_controls
from protloc_jax.eval.moa.nearest import nsc, nscb
from protloc_jax.eval.moa.treatments import Convention, Treatments, joined, treatments_of
from protloc_jax.studies.ws_dino.config import Screen, WsDinoStudy


@dataclasses.dataclass(frozen=True)
class Profiling:
    """How fields become profiles of treatments: columns, aggregation, convention; by_batch: of each batch apart."""

    columns: Columns
    aggregation: str
    convention: Convention
    by_batch: bool = False


def profiling_of(study: WsDinoStudy, screen: Screen) -> Profiling:
    """How the fields of a screen become profiles."""
    named = {key: getattr(screen, key) for key in ("compound", "concentration", "moa", "batch", "plate", "well")}
    columns = Columns(**named, well_type=screen.well_type, controls=screen.negative)
    return Profiling(columns, study.aggregation, study.convention, screen.by_batch)


def corrected(tables: Sequence[FeatureTable], steps: str, profiling: Profiling) -> list[FeatureTable]:
    """Each channel's fields, normalised by a correction that is fitted on that channel's negative controls."""
    if not steps:
        return list(tables)
    parsed, found = corrections.parse(steps), []
    for table in tables:
        controls = controls_of(table, profiling)
        if not controls.any():
            words = ", ".join(profiling.columns.controls)
            raise ValueError(f"correction '{steps}': no field of {words} to fit it on.")
        found.append(corrections.fit(parsed, table, controls).apply(table))
    return found


def controls_of(table: FeatureTable, profiling: Profiling) -> np.ndarray:
    """Which fields [N] bool are of the negative control."""
    return negative_controls(table.obs, profiling.columns)


def profiles(tables: Sequence[FeatureTable], steps: str, profiling: Profiling) -> Treatments:
    """The treatments' profiles, channels side by side in the order of the tables."""
    of_table = _of_batches if profiling.by_batch else _of_treatments
    return joined(*(of_table(table, profiling) for table in corrected(tables, steps, profiling)))


def check_screen(name: str, obs: pd.DataFrame, profiling: Profiling) -> None:
    """Raise ValueError where the metadata of a screen's fields leave NSC or NSCB nothing to ask about."""
    table = FeatureTable(np.ones((len(obs), 1), np.float32), obs)
    try:
        made = profiles([table], "", profiling)
        for metric in (nsc, nscb):
            found = metric(made)
            if found.without_candidate == found.of:
                raise ValueError(f"{found.metric}: no treatment has a neighbour that it may have.")
    except ValueError as error:
        hint = "" if profiling.by_batch else " Where treatments stand in all batches, set by_batch=true."
        raise ValueError(f"screens.{name}: {error}{hint}") from error


def _of_treatments(table: FeatureTable, profiling: Profiling) -> Treatments:
    aggregation = parse(profiling.aggregation)
    return treatments_of(table, aggregation, convention=profiling.convention, columns=profiling.columns)


def _of_batches(table: FeatureTable, profiling: Profiling) -> Treatments:
    """Profiles of the treatments of every batch, named treatment/batch."""
    batch = table.obs[profiling.columns.batch].astype(str).to_numpy()
    one_batch = dataclasses.replace(profiling, convention="joined", by_batch=False)
    parts = []
    for name in sorted(set(batch), key=natural):
        rows = np.flatnonzero(batch == name)
        part = FeatureTable(table.x[rows], table.obs.iloc[rows].reset_index(drop=True), table.uns)
        if not controls_of(part, profiling).all():
            own = _of_treatments(part, one_batch)
            parts.append(dataclasses.replace(own, names=tuple(f"{n}/{name}" for n in own.names)))
    arrays = ("profiles", "compound", "moa", "batch", "concentration", "n_rows", "treatment")
    together = {key: np.concatenate([getattr(part, key) for part in parts]) for key in arrays}
    return dataclasses.replace(parts[0], names=tuple(n for part in parts for n in part.names), **together)


def side_by_side(tables: Sequence[FeatureTable]) -> FeatureTable:
    """Fields with the features of all channels in one row. ValueError where the tables are not of the same fields."""
    first = tables[0]
    if any(list(table.obs["id"]) != list(first.obs["id"]) for table in tables):
        raise ValueError("the channels' tables do not hold the same fields in the same order.")
    return FeatureTable(np.concatenate([table.x for table in tables], axis=1), first.obs, first.uns)
