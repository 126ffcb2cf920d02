"""From feature tables of one backbone a channel to profiles of treatments, corrected on the negative control."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from protloc_jax.eval import corrections
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.moa.aggregate import parse
from protloc_jax.eval.moa.columns import Columns, negative_controls
from protloc_jax.eval.moa.treatments import Convention, Treatments, joined, treatments_of
from protloc_jax.studies.ws_dino.config import Screen, WsDinoStudy


@dataclasses.dataclass(frozen=True)
class Profiling:
    """How fields become profiles of treatments: columns, aggregation, convention."""

    columns: Columns
    aggregation: str
    convention: Convention


def profiling_of(study: WsDinoStudy, screen: Screen) -> Profiling:
    """How the fields of a screen become profiles."""
    named = {key: getattr(screen, key) for key in ("compound", "concentration", "moa", "batch", "plate", "well")}
    columns = Columns(**named, well_type=screen.well_type, controls=screen.negative)
    return Profiling(columns, study.aggregation, screen.convention or study.convention)


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
    aggregation = parse(profiling.aggregation)
    each = [
        treatments_of(table, aggregation, convention=profiling.convention, columns=profiling.columns)
        for table in corrected(tables, steps, profiling)
    ]
    return joined(*each)


def side_by_side(tables: Sequence[FeatureTable]) -> FeatureTable:
    """Fields with the features of all channels in one row. ValueError where the tables are not of the same fields."""
    first = tables[0]
    if any(list(table.obs["id"]) != list(first.obs["id"]) for table in tables):
        raise ValueError("the channels' tables do not hold the same fields in the same order.")
    return FeatureTable(np.concatenate([table.x for table in tables], axis=1), first.obs, first.uns)
