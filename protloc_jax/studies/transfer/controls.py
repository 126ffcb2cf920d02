"""Controls of the transfer study: can the harness see an effect, and does it stay quiet where there is none?"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from protloc_jax.config import to_dict
from protloc_jax.data import read as read_records
from protloc_jax.data import split_file
from protloc_jax.data.durable import write_whole
from protloc_jax.eval import statistics
from protloc_jax.eval.baselines import NAMES, handmade_tables
from protloc_jax.eval.features import read as read_features
from protloc_jax.eval.heads import ClassifyConfig, classify
from protloc_jax.studies.overview import Question, question
from protloc_jax.studies.steps import Made, Word, Workshop
from protloc_jax.studies.transfer import scores
from protloc_jax.studies.transfer.cells import Cell, Features, Inputs, split_name
from protloc_jax.studies.transfer.config import TransferStudy
from protloc_jax.studies.transfer.scores import Scored, Scoring, mean_over_repeats

FILE = "control.json"


def controls(
    study: TransferStudy,
    inputs: Inputs,
    features: Mapping[Cell, Features],
    scored: Mapping[Cell, Scored],
    shop: Workshop,
) -> list[dict[str, Any]]:
    """Every control that the study asks for, as rows: level, name, words, macro_f1, expected, passed."""
    jobs: list[Callable[[], dict[str, Any]]] = []
    for level in study.levels:
        cell = _shown(study, features, level)
        if cell is None:
            continue
        if "permuted" in study.controls:
            jobs.append(lambda level=level, cell=cell: _permuted(study, inputs, level, cell, features[cell], shop))
        if "handmade" in study.controls:
            jobs.append(lambda level=level: _handmade(study, inputs, level, shop))
    if study.source_control:
        jobs.append(lambda: _source(study, inputs, scored, shop))
    with shop.phase("controls", len(jobs) + bool(study.source_control)):
        return [job() for job in jobs]


def _shown(study: TransferStudy, features: Mapping[Cell, Features], level: str) -> Cell | None:
    """The cell that label controls use: the backbone pretrained on the source, by its first plan."""
    mine = [cell for cell in features if cell.level == level and cell.fraction is None]
    source = [c for c in mine if study.backbones[c.backbone].role in ("hpa_fov", "hpa_sc")]
    return next(iter([*source, *mine]), None)


def _permuted(
    study: TransferStudy, inputs: Inputs, level: str, cell: Cell, own: Features, shop: Workshop
) -> dict[str, Any]:
    own_level = study.levels[level]
    head = dataclasses.replace(study.head, labels="permuted")

    def work(folder: Path) -> None:
        asked = question(
            {"table": read_features(own.tables[0].path)},
            unit=own_level.unit,
            label=own_level.label,
            split_file=split_file.read(inputs.splits[level].path),
            split_name=split_name(max(study.fractions)),
        )
        found = _classified(study, asked, head)
        chance = max(found["chance"].values(), key=lambda entry: entry["estimate"])
        write_whole(folder / FILE, json.dumps({"macro_f1": found["macro_f1"], "chance": chance}).encode())

    made = shop.compute(
        f"control-permuted-{level}", work, settings=to_dict(head), uses=[own.tables[0], inputs.splits[level]]
    )
    found = json.loads((made.path / FILE).read_text())
    chance = found["chance"]["estimate"]
    return {
        "level": level,
        "name": "labels permuted",
        "words": f"{cell.backbone}, {cell.plan}: heads trained and tested on labels exchanged between whole proteins",
        "macro_f1": found["macro_f1"],
        "expected": f"not above chance ({chance:.3f}, the best rule that knows the class shares only)",
        "passed": bool(found["macro_f1"]["low"] is not None and found["macro_f1"]["low"] <= chance),
    }


def _handmade(study: TransferStudy, inputs: Inputs, level: str, shop: Workshop) -> dict[str, Any]:
    own = study.levels[level]
    scoring = Scoring(("head",), study.head, study.k, own.label, own.unit, study.resamples)
    records, split = inputs.records[own.images], inputs.splits[level]
    name = split_name(max(study.fractions))

    def work(folder: Path) -> None:
        with read_records.open(records.path) as images:
            tables = handmade_tables(images, np.arange(images.n))
        found = [scores.score([tables[n]], split_file.read(split.path), [name], scoring) for n in NAMES]
        simple, texture = (one.counts["head", name] for one in found)
        difference = statistics.paired_difference(texture, simple, mean_over_repeats, resamples=study.resamples)
        entry = {
            "difference": difference.interval.as_dict(),
            "scores": [one.entries["head", name]["macro_f1"]["estimate"] for one in found],
        }
        write_whole(folder / FILE, json.dumps(entry).encode())

    made = shop.compute(f"control-handmade-{level}", work, settings=to_dict(scoring), uses=[records, split])
    found = json.loads((made.path / FILE).read_text())
    simple, texture = found["scores"]
    return {
        "level": level,
        "name": "hand-made features",
        "words": f"texture features ({texture:.3f}) minus intensities alone ({simple:.3f}), same head and split",
        "macro_f1": _interval(found["difference"]),
        "expected": "above 0: these images and this split can tell systems apart",
        "passed": bool(found["difference"]["low"] is not None and found["difference"]["low"] > 0),
    }


def _source(study: TransferStudy, inputs: Inputs, scored: Mapping[Cell, Scored], shop: Workshop) -> dict[str, Any]:
    """The backbone on the images that it was pretrained on, with their own labels and split."""
    name = next(n for n, b in study.backbones.items() if b.images == study.source_control)
    seed = study.seeds[0]
    words: list[Word] = ["embed", "--weights", inputs.weights[name, seed]]
    words += ["--records", inputs.records[study.source_control], "--pooling", study.pooling, "--size", study.size]
    table = shop.command(
        f"features-source-{name}-seed{seed}", [*words, "--batch", str(study.batch), "--out", "{out}"], file="f.h5ad"
    )

    def work(folder: Path) -> None:
        asked = question({"table": read_features(table.path)})
        found = _classified(study, asked, study.head)
        write_whole(folder / FILE, json.dumps(found).encode())

    made: Made = shop.compute("control-source", work, settings=to_dict(study.head), uses=[table])
    found = json.loads((made.path / FILE).read_text())
    whole = split_name(max(study.fractions))
    mine = [
        one.entries["head", whole]["macro_f1"]["estimate"]
        for cell, one in scored.items()
        if cell.backbone == name and cell.fraction is None and ("head", whole) in one.entries
    ]
    best = max(mine, default=float("nan"))
    return {
        "level": _level_of(study, name),
        "name": "source data",
        "words": f"{name} on {study.source_control}, its own labels and held-out proteins, every channel in its slot",
        "macro_f1": found["macro_f1"],
        "expected": f"above the same backbone on the target ({best:.3f}, its best plan): an upper bound",
        "passed": bool(found["macro_f1"]["estimate"] > best),
    }


def _classified(study: TransferStudy, asked: Question, head: Any) -> dict[str, Any]:
    config = ClassifyConfig(head=head, resamples=study.resamples)
    results = classify(asked.systems, asked.task, asked.splits, config).results
    entry = results["systems"]["table"]["head"]["macro_f1"]
    return {
        "macro_f1": _interval(entry),
        "chance": {name: _interval(one["macro_f1"]) for name, one in results["chance"].items()},
    }


def _interval(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in ("estimate", "low", "high")}


def _level_of(study: TransferStudy, name: str) -> str:
    """The level beside which the source control stands: single cells for a backbone of single cells."""
    return "cell" if study.backbones[name].role == "hpa_sc" and "cell" in study.levels else next(iter(study.levels))
