"""Weights and features of the background study: pretraining runs, conversions, and tables of the made images."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from protloc_jax.studies.backbones import config_content, weights_of
from protloc_jax.studies.background.config import BackgroundStudy, encoders_of, seeds_of
from protloc_jax.studies.background.inputs import Inputs
from protloc_jax.studies.steps import Made, Word, Workshop, given


class Source(NamedTuple):
    """Weights of an encoder by one seed; `data` is the section it was trained on, where it depends on it."""

    data: str
    encoder: str
    seed: int


def weights(study: BackgroundStudy, inputs: Inputs, shop: Workshop) -> dict[Source, Made]:
    """Weights of every encoder, data section and seed: pretrained here or elsewhere, converted, or of the reference."""
    found: dict[Source, Made] = {}
    frozen = {name: e for name, e in study.encoders.items() if e.kind == "frozen"}
    jobs = [
        Source(data, name, seed)
        for data in study.data
        for seed in study.seeds
        for name, encoder in encoders_of(study, data).items()
        if encoder.kind == "trained"
    ]
    with shop.phase("weights", len(frozen) + len(jobs)):
        made = {name: weights_of(name, e.weights, e.convert, shop) for name, e in frozen.items()}
        for job in jobs:
            found[job] = _pretrained(study, inputs, job, shop)
    for data in study.data:
        for name, encoder in encoders_of(study, data).items():
            if encoder.kind == "frozen":
                found[Source(data, name, study.seeds[0])] = made[name]
            if encoder.kind == "untrained":
                for seed in seeds_of(study, encoder):
                    found[Source(data, name, seed)] = found[Source(data, study.reference, seed)]
    return found


def _pretrained(study: BackgroundStudy, inputs: Inputs, job: Source, shop: Workshop) -> Made:
    section, encoder = study.data[job.data], study.encoders[job.encoder]
    name = f"pretrain-{job.data}-{job.encoder}-seed{job.seed}"
    if study.runs and (elsewhere := Path(study.runs) / name).is_dir():
        shop.say(f"{name}: made elsewhere, {elsewhere}")
        return given(elsewhere)
    words: list[Word] = ["pretrain", "--config", study.config, ("data.records=", inputs.records[job.data])]
    if job.data in inputs.splits:
        words += [("data.split_file=", inputs.splits[job.data]), f"data.split_name={section.split_name}"]
    words += [*study.options, *section.training, *encoder.options]
    words += [f"run.seed={job.seed}", f"data.seed={job.seed}", "run.out={out}"]
    return shop.command(name, words, file="run", uses=[config_content(study.config)])
