"""Controls of the de novo study: chance where nothing can be known, and an effect where there must be one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from protloc_jax.data import split_file
from protloc_jax.data.durable import write_whole
from protloc_jax.eval.de_novo.frozen import frozen_answers
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.features import read as read_features
from protloc_jax.studies.de_novo.config import DeNovoStudy
from protloc_jax.studies.named_sections import title_of
from protloc_jax.studies.steps import Made, Workshop

FILE = "control.json"
EXCHANGES = 200
STANDARD_ERRORS = 3  # two would fail one sound study in twenty


def permuted(study: DeNovoStudy, task: str, table: Made, split: Made, draw: str, shop: Workshop) -> dict[str, Any]:
    """With perturbations exchanged between wells, frozen features must recognise them at chance.

    Where sites of one well are trained and tested on (splits by image) nothing is expected: a well knows itself.
    """

    def work(folder: Path) -> None:
        features = read_features(table.path)
        own = split_file.read(split.path).splits([str(i) for i in features.obs["id"]], draw)[0]
        each = []
        for number in range(EXCHANGES):
            moved = exchanged(features, np.random.default_rng(number), np.concatenate([own.train, own.test]))
            answers = frozen_answers(moved, own.train, own.test, shared="note")
            each.append([float((answers.rank == 1).mean()), 1 / len(answers.classes)])
        wells = features.obs["well"].astype(str).to_numpy()
        both = len(set(wells[own.train]) & set(wells[own.test]))
        write_whole(folder / FILE, json.dumps({"each": each, "wells_in_both": both}).encode())

    made = shop.compute(f"control-permuted-{task}", work, settings=[draw, EXCHANGES], uses=[table, split])
    found = json.loads((made.path / FILE).read_text())
    each, both = np.array(found["each"]), found["wells_in_both"]
    mean, chance = each.mean(0)
    # The exchanges are draws of their own; this is how far their mean may stand from chance.
    error = STANDARD_ERRORS * each[:, 0].std(ddof=1) / np.sqrt(len(each))
    return {
        "task": title_of(study.tasks, task),
        "control": "perturbations exchanged between wells, frozen, class means, top-1",
        "value": float(mean),
        "low": float(mean - error),
        "high": float(mean + error),
        "expected": f"anything: {both} wells stand in training and test" if both else f"chance, {chance:.4f}",
        "passed": None if both else bool(abs(mean - chance) <= max(error, 1e-12)),
    }


def exchanged(table: FeatureTable, rng: np.random.Generator, rows: np.ndarray, *, column: str = "perturbation",
              group: str = "well") -> FeatureTable:  # fmt: skip
    """The table with the column's values exchanged between the wells of some rows, whole wells at a time."""
    obs = table.obs.reset_index(drop=True).copy()
    values = obs[column].astype(object).to_numpy().copy()
    wells = obs[group].astype(str).to_numpy()[rows]
    names, first = np.unique(wells, return_index=True)
    moved = dict(zip(names, values[rows[first]][rng.permutation(len(names))], strict=True))
    values[rows] = [moved[well] for well in wells]
    return FeatureTable(table.x, obs.assign(**{column: values}), table.uns, table.names)


def positive(study: DeNovoStudy, differences: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The true graph must help against its shuffle: else the harness cannot see what a graph does."""
    found = []
    for d in differences:
        if d["family"] != "truth" or d["second"] != study.shuffle or d["k"] != 1:
            continue
        found.append(
            {
                "task": d["task_title"],
                "control": f"true graph − its shuffle, {d['method_title']}, {d['how_title']}, top-1",
                "value": d["estimate"],
                "low": d["low"],
                "high": d["high"],
                "expected": "above 0",
                "passed": bool(d["low"] is not None and d["low"] > 0),
            }
        )
    return found
