"""A screen's table, or several of one channel each, to every mechanism-of-action score of it, ready for JSON.

What `evaluate` returns (and `protloc moa --out` writes, one entry of "systems" each):

    rows, features           of the joined table
    treatments, compounds, mechanisms   that are labelled
    largest_class            {compound, rows, share}: the compound of most labelled rows
    convention, aggregation, normalisation   as text
    left_out                 counts of rows that are of no labelled treatment, by reason; ids where a group is missing
    metrics                  {"nsc", "nscb", "nscb_all"?, "wells_nsc"?, "wells_nscb"?, "wells_compound"?}: each
                             `MoaScore.as_dict`: correct, of, accuracy, interval {estimate, low, high, ...}, chance,
                             without_candidate, unanswerable, tied, dropped, confusion {names, counts}, queries
    map                      {"activity", "mechanism"}: each `Retrieval.as_dict`: map, interval, chance,
                             groups [{group, map, p, q}], queries, notes; or {"not_scored": why}
    synthetic                what was simulated, "" for real images
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from protloc_jax.config import check_literals, opt
from protloc_jax.eval.corrections.fitted_rows import FITTED_ON, fitted_rows
from protloc_jax.eval.features import SOURCE, FeatureTable
from protloc_jax.eval.moa import aggregate, nearest
from protloc_jax.eval.moa.average_precision import NULL_SIZE
from protloc_jax.eval.moa.columns import Columns, some, texts
from protloc_jax.eval.moa.nearest import MoaScore
from protloc_jax.eval.moa.retrieval import activity, mechanism
from protloc_jax.eval.moa.treatments import Treatments, treatments_of, wells_of

SYNTHETIC = "simulated"


@dataclass(frozen=True)
class MoaConfig:
    """How a screen is scored."""

    aggregation: str = opt("ws_dino", "from images to treatments: a name, or levels 'plate,treatment:mean > ...'")
    convention: Literal["ws_dino", "joined", "dose_series", "per_batch"] = opt(
        "ws_dino", "wells and batch of a treatment that stands in several batches"
    )
    wells: bool = opt(False, "also ask every well")
    all_classes: bool = opt(False, "also count NSCB over all mechanisms, those of one batch wrong by construction")
    average_precision: bool = opt(True, "also mean average precision")
    resamples: int = opt(2000, "bootstrap resamples over compounds")
    level: float = opt(0.95, "coverage of the intervals")
    null_size: int = opt(NULL_SIZE, "random rankings of a null distribution")
    seed: int = opt(0, "seed of bootstrap and null distributions")

    def __post_init__(self) -> None:
        check_literals(self)
        aggregate.parse(self.aggregation)
        problems = [
            f"{n}={getattr(self, n)}: must be positive." for n in ("resamples", "null_size") if getattr(self, n) < 1
        ]
        if not 0 < self.level < 1:
            problems.append(f"level={self.level}: must lie between 0 and 1.")
        if problems:
            raise ValueError(" ".join(problems))


def joined_tables(tables: Mapping[str, FeatureTable], *, columns: Columns | None = None) -> FeatureTable:
    """Tables of the same rows side by side, in the row order of the first; they are matched by `id`.

    A row counts as fitted on if it does in any table. Raises ValueError listing ids that stand twice, that are not in
    all tables, or whose metadata differ.
    """
    columns = columns or Columns()
    names = list(tables)
    first = tables[names[0]]
    ids = texts(first.obs["id"])
    problems, parts = [], [np.asarray(first.x)]
    fitted = np.zeros(len(ids), bool) | fitted_rows(first.obs)
    for name, table in tables.items():
        own = texts(table.obs["id"])
        values, counts = np.unique(own.astype(str), return_counts=True)
        if (counts > 1).any():
            problems.append(f"{name}: ids that stand twice: {some(list(values[counts > 1]))}.")
            continue
        lacking, extra = (sorted(set(a) - set(b)) for a, b in ((ids, own), (own, ids)))
        if lacking:
            problems.append(f"{name} lacks rows of {names[0]}: {some(lacking)}.")
        if extra:
            problems.append(f"{name} has rows that {names[0]} has not: {some(extra)}.")
        if lacking or extra or name == names[0]:
            continue
        at = {key: i for i, key in enumerate(own)}
        order = np.array([at[key] for key in ids])
        for column in ("compound", "concentration", "moa", "batch", "plate", "well"):
            called = columns.called(column)
            if called in first.obs and called in table.obs:
                differ = texts(first.obs[called]) != texts(table.obs[called])[order]
                if differ.any():
                    problems.append(f"{name} and {names[0]} differ in '{called}': {some(list(ids[differ]))}.")
        parts.append(np.asarray(table.x)[order])
        fitted |= fitted_rows(table.obs)[order]
    if problems:
        raise ValueError("the tables cannot be put side by side. " + " ".join(problems))
    obs = first.obs.reset_index(drop=True)
    if any(FITTED_ON in table.obs for table in tables.values()):
        obs = obs.assign(**{FITTED_ON: fitted})
    sources = sorted({str(t.uns[SOURCE]) for t in tables.values() if t.uns.get(SOURCE)})
    uns = {**first.uns, "joined": names, **({SOURCE: "; ".join(sources)} if sources else {})}
    return FeatureTable(np.concatenate(parts, axis=1), obs, uns)


def evaluate(
    table: FeatureTable, config: MoaConfig | None = None, *, columns: Columns | None = None, normalisation: str = ""
) -> dict[str, Any]:
    """Every score of one table, as this file's docstring lists them.

    normalisation  in words; where not given, the corrections that the table's provenance names
    """
    config, columns = config or MoaConfig(), columns or Columns()
    treatments, scores = scores_of(table, config, columns=columns)
    how = {"resamples": config.resamples, "level": config.level, "seed": config.seed}
    retrieved: dict[str, Any] = {}
    if config.average_precision:
        null: dict[str, Any] = {"null_size": config.null_size, "seed": config.seed}
        for name, ask in {
            "activity": lambda: activity(table, convention=config.convention, columns=columns, **null),
            "mechanism": lambda: mechanism(treatments, **null),
        }.items():
            try:
                retrieved[name] = ask().as_dict(**{**how, "resamples": min(config.resamples, 500)})
            except ValueError as error:
                retrieved[name] = {"not_scored": str(error)}
    compounds, counts = np.unique(treatments.compound.astype(str), return_inverse=True)
    weight = np.bincount(counts, weights=treatments.n_rows)
    most = int(weight.argmax())
    about = dict(treatments.about)
    return {
        "rows": len(table.obs),
        "features": int(table.x.shape[1]),
        "treatments": len(treatments),
        "compounds": len(compounds),
        "mechanisms": len(set(treatments.moa)),
        "largest_class": {
            "compound": str(compounds[most]),
            "rows": int(weight[most]),
            "share": float(weight[most] / weight.sum()),
        },
        "convention": config.convention,
        "aggregation": about["aggregation"],
        "normalisation": normalisation or normalisation_of(table),
        "left_out": {**about["left_out_rows"], "without_a_group": about["left_out_of_aggregation"]},
        "metrics": {name: score.as_dict(**how) for name, score in scores.items()},
        "map": retrieved,
        "synthetic": synthetic_source(table),
    }


def normalisation_of(table: FeatureTable) -> str:
    """The corrections that a table went through, one after the other, as its provenance names them; or "none"."""
    made = [f"{one['steps']}{f' in {n} blocks' if (n := one.get('blocks', 1)) > 1 else ''}" for one in _steps(table)]
    return ", then ".join(made) or "none"


def synthetic_source(table: FeatureTable) -> str:
    """What was simulated, in words; empty where the table does not say that its images were."""
    source = str(table.uns.get(SOURCE) or "")
    return source if SYNTHETIC in source else ""


def scores_of(
    table: FeatureTable, config: MoaConfig, *, columns: Columns | None = None
) -> tuple[Treatments, dict[str, MoaScore]]:
    """The labelled treatments and their nearest-neighbour scores by name."""
    treatments = treatments_of(
        table, aggregate.parse(config.aggregation), convention=config.convention, columns=columns
    )
    scores = {"nsc": nearest.nsc(treatments), "nscb": nearest.nscb(treatments)}
    if config.all_classes:
        scores["nscb_all"] = nearest.nscb(treatments, classes="all")
    if config.wells:
        wells = wells_of(table, convention=config.convention, columns=columns)
        scores |= {"wells_nsc": nearest.nsc(wells), "wells_nscb": nearest.nscb(wells)}
        scores["wells_compound"] = nearest.not_same_plate_or_well(wells)
    return treatments, scores


def differences(
    first: Mapping[str, MoaScore], second: Mapping[str, MoaScore], config: MoaConfig
) -> dict[str, dict[str, Any]]:
    """First system minus second in every metric that both have, paired over compounds, ready for JSON."""
    found = {}
    for name in first:
        if name in second:
            own = first[name].minus(second[name], resamples=config.resamples, level=config.level, seed=config.seed)
            found[name] = {**own.interval.as_dict(), "p_value": own.p_value, "over": "compounds, neighbours fixed"}
    return found


def _steps(table: FeatureTable) -> list[Mapping[str, Any]]:
    found = table.uns.get("corrections", [])
    return [one for one in found if isinstance(one, Mapping) and "steps" in one] if isinstance(found, list) else []
