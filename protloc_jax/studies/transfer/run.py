"""The transfer study from end to end: steps, scores, results (arXiv 2602.05527 and 2604.10970)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from protloc_jax.config import from_mapping, to_dict
from protloc_jax.data import info as record_info
from protloc_jax.data import read as read_records
from protloc_jax.data import split_file
from protloc_jax.data.manifest import read as read_manifest
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.features import read as read_features
from protloc_jax.eval.own_classifier import load_own, own_probabilities
from protloc_jax.model.config import VitConfig
from protloc_jax.studies.overview import synthetic_source
from protloc_jax.studies.steps import Made, Workshop
from protloc_jax.studies.transfer import cells, scores
from protloc_jax.studies.transfer import results as made_of
from protloc_jax.studies.transfer.cells import Cell, Features, Inputs, split_name
from protloc_jax.studies.transfer.config import TransferStudy
from protloc_jax.studies.transfer.controls import controls
from protloc_jax.studies.transfer.published import PUBLISHED
from protloc_jax.studies.transfer.scores import Scored, Scoring
from protloc_jax.train.checkpoint_files import load_meta

TITLES = {"fov": "fields of view", "cell": "single cells"}


class Outcome(NamedTuple):
    """Results as one plain dict, ready for JSON, and what pictures are made from."""

    results: dict[str, Any]
    inputs: Inputs
    features: dict[Cell, Features]


def run(study: TransferStudy, shop: Workshop) -> Outcome:
    """Do or find every step and put the results together."""
    cells.refuse_missing(study)
    records = cells.prepare(study, shop)
    splits = cells.split(study, records, shop)
    inputs = Inputs(records, splits, cells.weights(study, records, splits, shop))
    features = cells.frozen(study, inputs, shop)
    features |= cells.finetuned(study, inputs, shop)
    with shop.phase("scores", len(features)):
        scored = {cell: _score(study, inputs, cell, own, shop) for cell, own in features.items()}
    tested = controls(study, inputs, features, scored, shop)
    tables = {cell: read_features(own.tables[0].path) for cell, own in features.items()}
    widths = {cell: table.x.shape[1] for cell, table in tables.items()}
    table = made_of.Table(study, scored, features, widths)
    results = {
        "study": study.name,
        "synthetic": synthetic_source({str(i): t for i, t in enumerate(tables.values())}),
        "config": to_dict(study),
        "levels": {name: _level(study, inputs, name) for name in study.levels},
        "backbones": {name: _backbone(study, inputs, name) for name in study.backbones},
        "rows": made_of.rows_with_choices(table),
        "curves": made_of.curves(table),
        "neighbours": made_of.neighbours(table),
        "differences": made_of.differences(table),
        "controls": tested,
        "published": [dict(entry) for entry in PUBLISHED],
        "notes": notes(study),
        "steps": shop.log,
    }
    return Outcome(json.loads(json.dumps(results)), inputs, features)


def scoring_of(study: TransferStudy, level: str) -> Scoring:
    """How the cells of a level are scored."""
    own = study.levels[level]
    return Scoring(own.evaluators, study.head, study.k, own.label, own.unit, study.resamples)


def notes(study: TransferStudy) -> list[str]:
    """What a reader must know beside the numbers."""
    found = [
        "Which images, classes, split, classifier, channel wiring, fine-tuning and k the papers used is not published: "
        "every setting here is this project's, and the published numbers are targets, not a tolerance.",
        "Intervals are bootstraps over proteins of the test part; the proteins of one split are not those of another. "
        "Repeats over seeds show the spread of training, they are not a sample of data sets.",
    ]
    if any(b.part == "all" and b.config for b in study.backbones.values()):
        found.append(
            "A backbone pretrained on all images has seen the test images, without their labels (transductive); the "
            "inductive one has not."
        )
    given = [name for name, b in study.backbones.items() if b.weights]
    if given and len(study.seeds) > 1:
        found.append(f"Weights from elsewhere have one pretraining seed: {', '.join(given)}.")
    return found


def _score(study: TransferStudy, inputs: Inputs, cell: Cell, own: Features, shop: Workshop) -> Scored:
    scoring = scoring_of(study, cell.level)
    split = inputs.splits[cell.level]
    names = made_of.fractions_of(study) if cell.fraction is None else [split_name(cell.fraction)]

    def work(folder: Path) -> None:
        tables = [read_features(table.path) for table in own.tables]
        file = split_file.read(split.path)
        found = scores.score(tables, file, names, scoring)
        if own.runs and "head" in scoring.evaluators:
            images = inputs.records[study.levels[cell.level].images]
            pairs = zip(own.runs, tables, strict=True)
            probabilities = [_own(study, run, table, images) for run, table in pairs]
            mine = scores.score_probabilities(tables, probabilities, file, names[0], scoring)
            found = Scored(found.entries | mine.entries, found.counts | mine.counts)
        scores.write(found, folder)

    tuned = "" if cell.fraction is None else f"-tuned-{cell.fraction:g}"
    made = shop.compute(
        f"scores-{cell.level}-{cell.backbone}-{cell.plan}{tuned}",
        work,
        settings={"scoring": to_dict(scoring), "splits": names},
        uses=[split, *own.tables, *own.runs],
    )
    return scores.read(made.path)


def _own(study: TransferStudy, run: Made, table: FeatureTable, records: Made) -> np.ndarray:
    """Probabilities [N, L] of the run's own classifier for the rows of its feature table, classes as the table's."""
    own = load_own(run.path)
    if own.pooling == study.pooling:
        values = own.of_features(table.x)
    else:
        with read_records.open(records.path) as images:
            values = own_probabilities(own, images, np.arange(images.n)).probabilities
    return values[:, [own.label_names.index(name) for name in table.label_matrix()[1]]]


def _level(study: TransferStudy, inputs: Inputs, name: str) -> dict[str, Any]:
    level = study.levels[name]
    records = inputs.records[level.images].path
    manifest = read_manifest(records / record_info.MANIFEST_FILE)
    file = split_file.read(inputs.splits[name].path)
    whole = file.splits(name=split_name(max(study.fractions)))[0]
    units = manifest.table[level.unit].astype(str).to_numpy() if level.unit in manifest.table else None
    parts = ", ".join(
        f"{part} {len(rows)} images" + ("" if units is None else f" of {len(set(units[rows]))} {level.unit}s")
        for part, rows in (("train", whole.train), ("val", whole.val), ("test", whole.test))
    )
    return {
        "label": TITLES[name],
        "column": level.label,
        "unit": level.unit,
        "images": manifest.n,
        "units": 0 if units is None else len(set(units)),
        "classes": list(manifest.label_names),
        "um_per_pixel": manifest.um_per_pixel,
        "split": f"by {level.unit}, seed {study.split_seed}: {parts}"
        + (f"; as level {level.like}" if level.like else ""),
    }


def _backbone(study: TransferStudy, inputs: Inputs, name: str) -> dict[str, Any]:
    backbone = study.backbones[name]
    of = backbone.untrained_of or name
    meta = load_meta(inputs.weights[of, study.seeds[0]].path)
    model = meta["config"]["model"]
    vit = from_mapping(VitConfig, model)
    size = vit.size if vit.size != "custom" else f"{vit.shape.depth} x {vit.shape.dim}"
    how = {"train": "training proteins only (inductive)", "all": "all images (transductive)"}
    words = "weights from elsewhere" if backbone.weights else "none"
    if backbone.config:
        target = backbone.images in {level.images for level in study.levels.values()}
        words = f"{backbone.images}, {how[backbone.part] if target else 'its ' + backbone.part + ' images'}"
    return {
        "title": backbone.title or name,
        "role": backbone.role,
        "pretraining": words,
        "model": f"ViT-{size}/{vit.patch}",
        "dim": vit.shape.dim,
        "channels": ", ".join(channel[0] for channel in meta["channels"]),
        "seeds": list(cells.seeds_of(study, name)),
    }
