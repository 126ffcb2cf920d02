"""The WS-DINO study from end to end: steps, scores, results (arXiv 2209.07819)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from protloc_jax.config import to_dict
from protloc_jax.data import info as record_info
from protloc_jax.data import split_file
from protloc_jax.data.durable import write_whole
from protloc_jax.data.manifest import read as read_manifest
from protloc_jax.eval.features import read as read_features
from protloc_jax.studies.named_sections import title_of
from protloc_jax.studies.overview import synthetic_source
from protloc_jax.studies.steps import Made, Workshop
from protloc_jax.studies.ws_dino import baselines, controls, facts, profiles, runs, scores
from protloc_jax.studies.ws_dino import results as made_of
from protloc_jax.studies.ws_dino.config import WsDinoStudy, arms_of
from protloc_jax.studies.ws_dino.folds import fold_names, text_of
from protloc_jax.studies.ws_dino.labels import granularity
from protloc_jax.studies.ws_dino.published import PUBLISHED
from protloc_jax.studies.ws_dino.results import Scored
from protloc_jax.studies.ws_dino.runs import Cell, Features, Inputs

BASELINE = "fields as they are"
_FILE = "control.json"


class Outcome(NamedTuple):
    """Results as one plain dict, ready for JSON, and what pictures are made from."""

    results: dict[str, Any]
    inputs: Inputs
    features: dict[Cell, list[Features]]

    @property
    def sources(self) -> dict[Cell, dict[tuple[int, str], list[Made]]]:
        """The weights behind each cell's last features, by seed and part, one a channel."""
        return {cell: each[0].weights for cell, each in self.features.items()}


def run(study: WsDinoStudy, shop: Workshop) -> Outcome:
    """Do or find every step and put the results together."""
    runs.refuse_missing(study)
    inputs = runs.prepare(study, shop)
    features = runs.embed(study, inputs, runs.train(study, inputs, shop), shop)
    based = _baselines(study, inputs, shop)
    scored = _scores(study, inputs, {**features, **{cell: [own] for cell, own in based.items()}}, shop)
    titles = {name: baselines.TITLES[name] for name in study.baselines}
    rows = [made_of.row(study, s, metric, titles=titles) for s in scored if s.last for metric in s.answers]
    compared = made_of.differences(study, scored)
    first = {name: _table_of(features, name) for name in study.screens}
    results = {
        "study": study.name,
        "synthetic": synthetic_source({name: read_features(made.path) for name, made in first.items() if made}),
        "config": to_dict(study),
        "screens": {name: _screen(study, inputs, name) for name in study.screens},
        "rows": rows,
        "curves": made_of.curves(study, scored),
        "differences": compared,
        "labels": granularity(study, inputs),
        "facts": facts.measured(study, inputs, features, shop),
        "controls": _controls(study, inputs, features, compared, shop),
        "published": PUBLISHED,
        "notes": notes(study),
        "steps": shop.log,
    }
    return Outcome(json.loads(json.dumps(results)), inputs, features)


def notes(study: WsDinoStudy) -> list[str]:
    """What a reader must know beside the numbers."""
    found = [
        "Transductive rows are trained on the very images that are scored (as published); an arm with weak labels has "
        "seen which of them share a treatment or compound, and that is what NSC then excludes. Inductive rows ask only "
        "about compounds that the backbone has never seen.",
        "Intervals are bootstraps over the compounds that are asked about, their neighbours kept; they are not over "
        "seeds, and not over other screens.",
        f"The last checkpoint is the result. The correction of the first tables, {study.correction}, was fixed before "
        "the run; the others stand in a table of their own.",
    ]
    if any(arm.truth for arm in study.arms.values()):
        found.append("Arms marked 'truth' train on the mechanisms that are asked for: upper bounds, no methods.")
    if len(study.seeds) == 1:
        found.append("One pretraining seed: what another seed would give is not known.")
    return found


def _baselines(study: WsDinoStudy, inputs: Inputs, shop: Workshop) -> dict[Cell, Features]:
    found: dict[Cell, Features] = {}
    if study.baselines:
        with shop.phase("baselines", len(study.screens)):
            for screen in study.screens:
                columns = profiles.profiling_of(study, study.screens[screen]).columns
                made = baselines.baseline_tables(inputs.records[screen], screen, columns, shop)
                for name in study.baselines:
                    key = (study.seeds[0], runs.ALL)
                    found[Cell(screen, name, BASELINE, "transductive")] = Features({key: [made[name]]}, {}, None)
    return found


def _scores(study: WsDinoStudy, inputs: Inputs, features: dict[Cell, list[Features]], shop: Workshop) -> list[Scored]:
    """Every cell: the last checkpoint under every correction and channel by channel, earlier ones under the first."""
    jobs: list[tuple[Cell, Features, bool, str, str]] = []
    for cell, each in features.items():
        if cell.model == BASELINE:
            jobs.append((cell, each[0], True, study.baseline_correction, ""))
            continue
        jobs += [(cell, each[0], True, name, "") for name in study.corrections]
        if study.models[cell.model].channels == "each" and cell.training == "transductive":
            jobs += [(cell, each[0], True, study.correction, c) for c in inputs.channels[cell.screen]]
        jobs += [(cell, own, False, study.correction, "") for own in each[1:]]
    with shop.phase("scores", len(jobs)):
        return [_score(study, inputs, *job, shop) for job in jobs]


def _score(
    study: WsDinoStudy,
    inputs: Inputs,
    cell: Cell,
    own: Features,
    last: bool,
    correction: str,
    channel: str,
    shop: Workshop,
) -> Scored:
    profiling = profiles.profiling_of(study, study.screens[cell.screen])
    steps = study.corrections[correction].steps if correction in study.corrections else correction
    place = inputs.channels[cell.screen].index(channel) if channel else None
    tables = {key: made if place is None else [made[place]] for key, made in own.tables.items()}

    def work(folder: Path) -> None:
        held = _held_out(study, inputs, cell)
        found = []
        for seed in dict.fromkeys(seed for seed, _ in tables):
            parts = [part for other, part in tables if other == seed]
            each = [
                profiles.profiles([read_features(t.path) for t in tables[seed, part]], steps, profiling)
                for part in parts
            ]
            found.append(scores.score(each, None if held is None else [held[part] for part in parts]))
        scores.write({metric: scores.answers([one[metric] for one in found]) for metric in scores.METRICS}, folder)

    where = "" if last else f"epoch{own.epoch:g}"
    name = "-".join(filter(None, ("scores", *cell, correction, channel, where)))
    settings = {"profiling": to_dict(profiling), "steps": steps, "training": cell.training}
    uses = [made for key in tables for made in tables[key]]
    made = shop.compute(name, work, settings=settings, uses=[inputs.splits[cell.screen], *uses])
    seeds = tuple(dict.fromkeys(seed for seed, _ in tables))
    return Scored(cell, correction, channel, own.epoch, last, seeds, scores.read(made.path))


def _held_out(study: WsDinoStudy, inputs: Inputs, cell: Cell) -> dict[str, frozenset[str]] | None:
    """The compounds that each fold holds out; None for a transductive cell, which holds out none."""
    if cell.training == "transductive":
        return None
    file = split_file.read(inputs.splits[cell.screen].path)
    compound = np.asarray(file.columns[study.screens[cell.screen].compound], object)
    return {name: frozenset(compound[file.splits(name=name)[0].test].tolist()) for name in fold_names(study)}


def _controls(
    study: WsDinoStudy,
    inputs: Inputs,
    features: dict[Cell, list[Features]],
    differences: list[dict[str, Any]],
    shop: Workshop,
) -> list[dict[str, Any]]:
    rows = []
    if "permuted" in study.controls and study.permutations > 1:
        found: dict[tuple[str, str], dict[str, Any]] = {}
        with shop.phase("controls", len(study.screens)):
            for screen in study.screens:
                cell = facts.shown_cell(study, features, screen)
                if cell is not None:
                    words = f"{title_of(study.arms, cell.arm)}, {title_of(study.models, cell.model)}"
                    found[screen, words] = _permuted(study, cell, features[cell][0], shop)
        rows += controls.permuted_rows(found)
    if "positive" in study.controls:
        rows += controls.positive_rows(differences)
    return rows


def _permuted(study: WsDinoStudy, cell: Cell, own: Features, shop: Workshop) -> dict[str, Any]:
    profiling = profiles.profiling_of(study, study.screens[cell.screen])
    steps = study.corrections[study.correction].steps
    tables = next(iter(own.tables.values()))

    def work(folder: Path) -> None:
        made = profiles.profiles([read_features(t.path) for t in tables], steps, profiling)
        found = controls.permuted(made, permutations=study.permutations)
        write_whole(folder / _FILE, json.dumps(found).encode())

    settings = {"profiling": to_dict(profiling), "steps": steps, "permutations": study.permutations}
    made = shop.compute(f"control-permuted-{cell.screen}", work, settings=settings, uses=tables)
    return json.loads((made.path / _FILE).read_text())


def _table_of(features: dict[Cell, list[Features]], screen: str) -> Made | None:
    """Any feature table of a screen, for where its images come from."""
    own = (each[0] for cell, each in features.items() if cell.screen == screen)
    return next((tables[0] for one in own for tables in one.tables.values()), None)


def _screen(study: WsDinoStudy, inputs: Inputs, name: str) -> dict[str, Any]:
    screen = study.screens[name]
    info = record_info.load(inputs.records[name].path)
    table = read_manifest(inputs.records[name].path / record_info.MANIFEST_FILE).table
    file = split_file.read(inputs.splits[name].path)
    trained = file.splits(name=runs.ALL)[0].train
    compound, moa = text_of(table, screen.compound), text_of(table, screen.moa)
    treated = trained[~np.isin(compound[trained], screen.negative)]
    return {
        "title": title_of(study.screens, name),
        "convention": screen.convention or study.convention,
        "arms": list(arms_of(study, name)),
        "channels": list(inputs.channels[name]),
        "images": len(table),
        "image_size": f"{info.width} x {info.height}",
        "trained": len(trained),
        "controls": int(np.isin(compound, screen.negative).sum()),
        "compounds": len(set(compound[treated])),
        "mechanisms": len(set(moa[treated]) - {""}),
        "batches": len(set(text_of(table, screen.batch))),
        "plates": len(set(text_of(table, screen.plate))),
        "folds": _folds(file, compound, table, study) if "inductive" in study.training else [],
    }


def _folds(file: split_file.SplitFile, compound: np.ndarray, table: Any, study: WsDinoStudy) -> list[dict[str, Any]]:
    """What every fold holds out and trains on."""
    rows = []
    for name in fold_names(study):
        split = file.splits(list(map(str, table["id"])), name)[0]
        held: Sequence[str] = sorted(set(compound[split.test]))
        rows.append({"fold": name, "train_images": len(split.train), "held_out": list(held)})
    return rows
