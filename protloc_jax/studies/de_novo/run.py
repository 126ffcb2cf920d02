"""The de novo study from end to end: steps, scores, results (arXiv 2507.10737)."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from protloc_jax.config import to_dict
from protloc_jax.data import info as record_info
from protloc_jax.data import split_file
from protloc_jax.studies.de_novo import controls, published, runs
from protloc_jax.studies.de_novo import inputs as study_inputs
from protloc_jax.studies.de_novo import results as made_of
from protloc_jax.studies.de_novo.config import DeNovoStudy
from protloc_jax.studies.de_novo.inputs import Inputs
from protloc_jax.studies.named_sections import title_of
from protloc_jax.studies.steps import Workshop


class Outcome(NamedTuple):
    """Results as one plain dict, ready for JSON."""

    results: dict[str, Any]


def run(study: DeNovoStudy, shop: Workshop) -> Outcome:
    """Do or find every step and put the results together."""
    study_inputs.refuse_missing(study)
    inputs = study_inputs.prepare(study, shop)
    trained = runs.pretrain(study, inputs, shop)
    made = runs.score(study, inputs, trained, shop)
    scored = made_of.read_scores(study, made)
    compared = made_of.differences(study, scored)
    results = {
        "study": study.name,
        "synthetic": _synthetic(inputs),
        "config": to_dict(study),
        "screens": {name: _screen(study, inputs, name) for name in study.screens},
        "tasks": {name: _task(study, inputs, name) for name in study.tasks},
        "graphs": {n: {"title": title_of(study.graphs, n), **found} for n, found in inputs.statistics.items()},
        "rows": [made_of.row(study, one) for one in scored],
        "differences": compared,
        "controls": _controls(study, inputs, trained, compared, shop),
        "published": published.rows(),
        "published_source": published.SOURCE,
        "notes": notes(study),
        "steps": shop.log,
    }
    return Outcome(json.loads(json.dumps(results)))


def notes(study: DeNovoStudy) -> list[str]:
    """What a reader must know beside the numbers."""
    found = [
        "Every fine-tuning begins with the pretrained weights themselves; the released code goes on from an encoder "
        "that earlier seeds have fine-tuned on the same task.",
        "Scores are of the last epoch. The authors test the epoch that is best on validation images.",
        "Intervals are bootstraps over wells, over all seeds and draws of the shots; they are not over cell lines, of "
        "which there is one a task.",
        "A graph is over perturbations. It knows nothing of those without an edge; how many those are stands in its "
        "statistics.",
        "Three training lines make a cell line's vector nearly a name: the controls with random, exchanged and one-hot "
        "vectors say how much of an effect is that.",
    ]
    if study.truth:
        found.append("The true graph is what the simulator draws the effects from. It is an upper bound and no result.")
    return found


def _controls(study: DeNovoStudy, inputs: Inputs, trained: Any, compared: Any, shop: Workshop) -> list[dict[str, Any]]:
    found = []
    if "permuted" in study.controls and study.frozen:
        cells = [cell for cell in runs.cells_of(study) if cell.how == "frozen"]
        first = {cell.task: cell for cell in reversed(cells)}
        with shop.phase("controls", 2 * len(first)):
            for task, cell in first.items():
                seed = study.seeds[0]
                weights = trained[runs.pretraining_of(cell.method, study.variants[cell.variant]), seed]
                table = runs.features(study, inputs, cell, runs.fitted(study, cell, weights, seed, shop), seed, shop)
                draw = inputs.draws[task][0]
                found.append(controls.permuted(study, task, table, inputs.splits[task], draw, shop))
    if "positive" in study.controls and study.truth and study.shuffle:
        found += controls.positive(study, compared)
    return found


def _synthetic(inputs: Inputs) -> str:
    sources = {record_info.load(made.path).synthetic for made in inputs.records.values()}
    return "; ".join(sorted(filter(None, sources)))


def _screen(study: DeNovoStudy, inputs: Inputs, name: str) -> dict[str, Any]:
    info = record_info.load(inputs.records[name].path)
    return {
        "title": title_of(study.screens, name),
        "images": info.n,
        "channels": list(info.channel_set.names),
        "image_size": f"{info.width} x {info.height}",
    }


def _task(study: DeNovoStudy, inputs: Inputs, name: str) -> dict[str, Any]:
    task = study.tasks[name]
    file = split_file.read(inputs.splits[name].path)
    parts = [
        {"draw": draw, **{p: len(getattr(file.splits(name=draw)[0], p)) for p in ("train", "val", "test")}}
        for draw in inputs.draws[name]
    ]
    return {
        "title": title_of(study.tasks, name),
        "screen": title_of(study.screens, task.screen),
        "line": task.line,
        "split": " ".join(task.split),
        "draws": parts,
        "published": published.COLUMNS.get(task.published, ""),
    }
