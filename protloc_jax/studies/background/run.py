"""The background study from end to end: steps, scores, results (PMLR 311, 162)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from protloc_jax.config import to_dict
from protloc_jax.data import info as record_info
from protloc_jax.data.manifest import capped
from protloc_jax.data.manifest import read as read_manifest
from protloc_jax.eval.background.joined import made_features
from protloc_jax.eval.background.made import about_of
from protloc_jax.eval.features import read as read_features
from protloc_jax.studies.background import controls, published, runs, scores
from protloc_jax.studies.background import inputs as study_inputs
from protloc_jax.studies.background import results as made_of
from protloc_jax.studies.background.config import BackgroundStudy
from protloc_jax.studies.background.inputs import Inputs
from protloc_jax.studies.background.results import Counts, Scored
from protloc_jax.studies.background.runs import Features, System
from protloc_jax.studies.named_sections import title_of
from protloc_jax.studies.steps import Made, Workshop


class Outcome(NamedTuple):
    """Results as one plain dict, ready for JSON, and what pictures are made from."""

    results: dict[str, Any]
    inputs: Inputs


def run(study: BackgroundStudy, shop: Workshop) -> Outcome:
    """Do or find every step and put the results together."""
    study_inputs.refuse_missing(study)
    inputs = study_inputs.prepare(study, shop)
    features = runs.embed(study, inputs, runs.weights(study, inputs, shop), shop)
    with shop.phase("scores", sum(len(own.tables) + sum(map(bool, own.native)) for own in features.values())):
        scored = {system: _scored(study, inputs, system, own, shop) for system, own in features.items()}
    counts: dict[System, Counts] = {}
    lost: dict[str, list[str]] = {}
    for system, own in scored.items():
        counts[system], left = made_of.counts_of(own)
        if left:
            lost["/".join(system)] = left
    plain = {data: System(data, study.reference, study.plain) for data in study.data}
    compared = made_of.comparisons(study, counts)
    tested, seams = _controls(study, inputs, features, counts, plain, shop)
    sections = {name: _section(study, inputs, name) for name in study.data}
    results = {
        "study": study.name,
        "synthetic": _synthetic(inputs),
        "config": to_dict(study),
        "data": sections,
        "rows": [made_of.row(study, own, counts[system]) for system, own in scored.items()],
        "comparisons": compared,
        "classes": [made_of.by_class(study, scored[system]) for system in plain.values()],
        "controls": tested,
        "seams": seams,
        "lost": lost,
        "published": published.rows(),
        "published_decomposition": {model: published.decomposition(model) for model in published.MODELS},
        "notes": notes(study, sections),
        "steps": shop.log,
    }
    return Outcome(json.loads(json.dumps(results)), inputs)


def notes(study: BackgroundStudy, sections: Mapping[str, Any]) -> list[str]:
    """What a reader must know beside the numbers."""
    found = [
        "Classifiers are fitted and tested on crops that no encoder was trained on here, in folds: no cell or donor "
        "crop stands on both sides of a fold.",
        "Transfer: fitted on untouched crops and applied to each condition. Retrained: fitted anew within each "
        "condition, as the paper does; what is lost then is lost for good.",
        "Intervals are bootstraps over the evaluated proteins, the same for all encoders; they are not over seeds, and "
        "not over other data sets.",
        "The share of the drop that is removed is a ratio of two estimates: where the plain encoder loses little, it "
        "says little.",
        "Published numbers are pairwise accuracies (chance 0.5) of other encoders on real yeast; only the pairwise "
        "table is of the same kind as they are.",
    ]
    found += [
        f"{title_of(study.data, name)}: training and evaluation share proteins, but no {s.apart}."
        for name, s in study.data.items()
        if s.apart and s.apart != s.protein
    ]
    found += [
        f"{own['title']}: a class has fewer than four evaluated proteins, so donors come from all of them; what shares "
        "a crop with the other side of a fold is left out and counted, and little or nothing may be left."
        for own in sections.values()
        if own["groups"] == 1
    ]
    if len(study.seeds) == 1 and any(e.kind == "trained" for e in study.encoders.values()):
        found.append("One pretraining seed: what another seed would give is not known.")
    without = [title_of(study.data, name) for name, s in study.data.items() if not study_inputs.has_patches(s)]
    if without and "cell_free" in study.conditions:
        found.append(f"No patches without cells were given for {', '.join(without)}: no cell-free backgrounds there.")
    return found


def _scored(study: BackgroundStudy, inputs: Inputs, system: System, own: Features, shop: Workshop) -> Scored:
    section, images = study.data[system.data], inputs.images[system.data]
    pairwise = study.classify.pairwise and system.inference == study.plain
    made, native = [], []
    for seed, table, kinds in zip(own.seeds, own.tables, own.native, strict=True):

        def work(folder: Path, table: Made = table) -> None:
            found = made_features(read_features(table.path), images.path)
            lacking = [name for name in found.missing if not name.startswith("background_only/")]
            if lacking:
                raise ValueError(f"{table.path} lacks {len(lacking)} of the made images: {capped(lacking)}.")
            scores.write(scores.score(found, study.classify, pairwise=pairwise), folder)

        def work_native(folder: Path, kinds: dict[str, Made] = kinds) -> None:
            tables = {kind: read_features(made.path) for kind, made in kinds.items()}
            own = scores.score_native(
                tables, category=section.category, protein=section.protein, options=study.classify
            )
            scores.write(own, folder)

        settings = [to_dict(study.classify), pairwise]
        name = f"{'-'.join(system)}-seed{seed}"
        step = shop.compute(f"scores-{name}", work, settings=settings, uses=[images, table])
        made.append(scores.read(step.path))
        if kinds:
            more = [to_dict(study.classify), section.category, section.protein, sorted(kinds)]
            step = shop.compute(f"scores-native-{name}", work_native, settings=more, uses=list(kinds.values()))
            native.append(scores.read(step.path))
    return Scored(system, own.seeds, made, native or None)


def _controls(
    study: BackgroundStudy,
    inputs: Inputs,
    features: dict[System, Features],
    counts: dict[System, Counts],
    plain: dict[str, System],
    shop: Workshop,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    tested: list[dict[str, Any]] = []
    seams: list[dict[str, Any]] = []
    steps = sum({"readable": 1, "permuted": 1, "seam": 1}[c] for c in study.controls)
    with shop.phase("controls", steps * len(study.data)):
        for data, system in plain.items():
            table = features[system].tables[0]
            if {"readable", "permuted"} & set(study.controls):
                found = made_features(read_features(table.path), inputs.images[data].path)
                if "readable" in study.controls:
                    tested += controls.readable(study, data, counts[system])
                    tested.append(controls.contradicted(study, data, found, table, shop))
                if "permuted" in study.controls:
                    tested.append(controls.permuted(study, data, found, table, shop))
            if "seam" in study.controls:
                seams += controls.seams(study, inputs, data, shop)
    return tested, seams


def _synthetic(inputs: Inputs) -> str:
    """What was simulated, in words; empty where nothing was."""
    found = {record_info.load(made.path).synthetic for made in inputs.records.values()}
    return "; ".join(sorted(found - {""}))


def _section(study: BackgroundStudy, inputs: Inputs, name: str) -> dict[str, Any]:
    section = study.data[name]
    split = inputs.splits.get(name)
    manifest, train, rows = study_inputs.parts_of(section, inputs.records[name].path, split.path if split else None)
    cells = read_manifest(inputs.cells[name].path / record_info.MANIFEST_FILE).table
    info = record_info.load(inputs.records[name].path)
    images = record_info.load(inputs.images[name].path)
    protein, category = (study_inputs.text_of(manifest, c) for c in (section.protein, section.category))
    return {
        "title": title_of(study.data, name),
        "crops": f"{info.height} x {info.width}, {', '.join(info.channel_set.names)}",
        "train_crops": len(train),
        "train_proteins": len(set(protein[train])),
        "evaluated_crops": len(cells),
        "evaluated_proteins": len(set(protein[rows])),
        "classes": sorted(set(category[rows])),
        "groups": about_of(images)["sets"]["groups"],
        "images": images.n,
        "conditions": list(study_inputs.conditions_of(study, name)),
        "native": [kind for own, kind in inputs.native if own == name],
    }
