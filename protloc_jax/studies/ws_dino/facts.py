"""What is measured beside accuracy: retrieval of replicates and mechanisms, and batches against biology."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from protloc_jax.config import to_dict
from protloc_jax.data.durable import write_whole
from protloc_jax.eval import corrections
from protloc_jax.eval.corrections import comparison
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.features import read as read_features
from protloc_jax.eval.moa.columns import negative_controls
from protloc_jax.eval.moa.retrieval import activity, mechanism
from protloc_jax.studies.named_sections import title_of
from protloc_jax.studies.number_texts import DASH, interval_text
from protloc_jax.studies.steps import Made, Workshop
from protloc_jax.studies.ws_dino import profiles
from protloc_jax.studies.ws_dino.config import WsDinoStudy
from protloc_jax.studies.ws_dino.profiles import Profiling
from protloc_jax.studies.ws_dino.runs import Cell, Features, Inputs
from protloc_jax.studies.ws_dino.table import TRUTH

FILE = "facts.json"
SHARE = 0.5
RETRIEVAL = (
    "Activity: wells of a treatment find each other among untreated wells (mean over treatments); the correction is "
    f"fitted on {100 * SHARE:.0f} % of the control wells, the others are the negatives. Mechanism: treatments find "
    "other compounds of their mechanism (mean over mechanisms). First seed; intervals over compounds; found: groups "
    "with q at most 0.05 against random rankings."
)


MEASURES = ("batch_mixing", "ilisi", "batch_accuracy", "label_neighbours", "label_silhouette")
MIXING = (
    "Fields of treatments and of control wells that no correction was fitted on (fitted on "
    f"{100 * SHARE:.0f} % of the control wells); labels are mechanisms, of treatments only. In brackets: by chance. "
    "First seed."
)


def shown_cell(study: WsDinoStudy, features: Mapping[Cell, Any], screen: str) -> Cell | None:
    """The cell that pictures and controls show: a trained arm that is no upper bound, fixed by the config.

    The one that repeats the authors' compound labels, else the reference, else the first; by the first model.
    """
    able = [
        cell
        for cell in features
        if cell.screen == screen
        and cell.training == "transductive"
        and cell.arm in study.arms
        and study.arms[cell.arm].kind == "trained"
        and not study.arms[cell.arm].truth
    ]

    def rank(cell: Cell) -> tuple[bool, bool]:
        return study.arms[cell.arm].published != "compound", cell.arm != study.reference

    return min(able, key=rank, default=None)


def measured(
    study: WsDinoStudy, inputs: Inputs, features: Mapping[Cell, list[Features]], shop: Workshop
) -> dict[str, Any]:
    """Retrieval of every transductive cell, batch mixing of every correction, and the cell that is shown."""
    cells = [cell for cell in features if cell.training == "transductive"]
    with shop.phase("retrieval", len(cells)):
        retrieved = [_retrieval(study, cell, features[cell][0], shop) for cell in cells]
    shown = {screen: shown_cell(study, features, screen) for screen in study.screens}
    able = {screen: cell for screen, cell in shown.items() if cell is not None}
    with shop.phase("batches against biology", len(able)):
        mixed = [row for screen, cell in able.items() for row in _mixing(study, cell, features[cell][0], shop)]
    return {
        "shown": {screen: cell._asdict() if cell else None for screen, cell in shown.items()},
        "retrieval": retrieved,
        "retrieval_words": RETRIEVAL,
        "mixing": mixed,
        "mixing_words": MIXING,
    }


def _retrieval(study: WsDinoStudy, cell: Cell, own: Features, shop: Workshop) -> dict[str, Any]:
    profiling = profiles.profiling_of(study, study.screens[cell.screen])
    steps = study.corrections[study.correction].steps
    tables = next(iter(own.tables.values()))

    def work(folder: Path) -> None:
        write_whole(folder / FILE, json.dumps(retrieved(tables, steps, profiling, study.resamples)).encode())

    settings = {"profiling": to_dict(profiling), "steps": steps, "share": SHARE, "resamples": study.resamples}
    made = shop.compute("-".join(("retrieval", *cell[:3])), work, settings=settings, uses=tables)
    found = json.loads((made.path / FILE).read_text())
    arm = study.arms[cell.arm]
    row = {
        "screen": cell.screen,
        "arm": title_of(study.arms, cell.arm) + (TRUTH if arm.truth else ""),
        "channels": title_of(study.models, cell.model),
    }
    for name, one in found.items():
        row[name] = one["reason"] if "reason" in one else interval_text(one)
        row[f"chance, {name}"] = one.get("chance")
        row[f"found, {name}"] = DASH if "reason" in one else f"{one['found']}/{one['of']}"
    return row


def _mixing(study: WsDinoStudy, cell: Cell, own: Features, shop: Workshop) -> list[dict[str, Any]]:
    profiling = profiles.profiling_of(study, study.screens[cell.screen])
    steps = {title_of(study.corrections, name): about.steps for name, about in study.corrections.items()}
    tables = next(iter(own.tables.values()))

    def work(folder: Path) -> None:
        write_whole(folder / FILE, json.dumps(mixed(tables, steps, profiling)).encode())

    settings = {"profiling": to_dict(profiling), "steps": steps, "share": SHARE}
    made = shop.compute("-".join(("mixing", *cell[:3])), work, settings=settings, uses=tables)
    found = json.loads((made.path / FILE).read_text())
    rows = []
    for title in steps:
        row: dict[str, Any] = {"screen": cell.screen, "correction": title}
        for name in MEASURES:
            one = found["tables"].get(title, {}).get(name)
            row[comparison.MEASURES[name][0]] = _with_chance(one)
        rows.append(row | {"left out": found["left_out"].get(title, DASH)})
    return rows if found["left_out"] else [{k: v for k, v in row.items() if k != "left out"} for row in rows]


def _with_chance(entry: Mapping[str, float | None] | None) -> str:
    if entry is None or entry["found"] is None:
        return DASH
    return f"{entry['found']:.2f}" + ("" if entry["chance"] is None else f" ({entry['chance']:.2f})")


def mixed(tables: list[Made], steps: Mapping[str, str], profiling: Profiling) -> dict[str, Any]:
    """Measures of batches and mechanisms under every correction; one that cannot be fitted has its reason instead.

    Mechanisms of controls count as none, so that controls speak of batches alone.
    """
    each = [read_features(made.path) for made in tables]
    controls = negative_controls(each[0].obs, profiling.columns)
    done, left_out = {}, {}
    for title, text in steps.items():
        try:
            fields = [_half_fitted(own, text, controls) for own in each]
        except ValueError as error:
            left_out[title] = str(error)
            continue
        table = profiles.side_by_side(fields)
        moa = table.obs[profiling.columns.moa].where(~controls, "")
        done[title] = FeatureTable(table.x, table.obs.assign(**{profiling.columns.moa: moa}), table.uns)
    columns = profiling.columns
    try:
        found = comparison.compare(done, batch=columns.batch, label=columns.moa, plate=columns.plate)["tables"]
    except ValueError as error:
        found, left_out = {}, {title: str(error) for title in steps}
    return {"tables": found, "left_out": left_out}


def _half_fitted(own: FeatureTable, steps: str, controls: np.ndarray) -> FeatureTable:
    """A table corrected by steps that are fitted on a share of its control wells."""
    return corrections.fit(steps, own, controls, share=SHARE).apply(own) if steps else own


def retrieved(tables: list[Made], steps: str, profiling: Profiling, resamples: int) -> dict[str, Any]:
    """Activity and mechanism of the tables of one backbone a channel; what cannot be asked has a reason instead."""
    each = [read_features(made.path) for made in tables]

    def active() -> Any:
        controls = negative_controls(each[0].obs, profiling.columns)
        table = profiles.side_by_side([_half_fitted(own, steps, controls) for own in each])
        return activity(table, convention=profiling.convention, columns=profiling.columns)

    asked = {"activity": active, "mechanism": lambda: mechanism(profiles.profiles(each, steps, profiling))}
    found = {}
    for name, ask in asked.items():
        try:
            one = ask().as_dict(resamples=min(resamples, 500))
        except ValueError as error:
            found[name] = {"reason": f"cannot be asked: {error}"}
            continue
        bounds = one["interval"]
        kept = {"estimate": one["map"], "low": bounds["low"], "high": bounds["high"], "chance": one["chance"]}
        found[name] = {**kept, "found": one["groups_retrieved"], "of": one["of_groups"]}
    return found
