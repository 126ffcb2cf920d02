"""Weights and features of the background study: pretraining runs, conversions, and tables of the made images."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from protloc_jax.data import info as record_info
from protloc_jax.data.manifest import read as read_manifest
from protloc_jax.studies.backbones import config_content, weights_of
from protloc_jax.studies.background.config import BackgroundStudy, encoders_of, inference_of, seeds_of
from protloc_jax.studies.background.inputs import Inputs
from protloc_jax.studies.steps import Made, Word, Workshop, given

# Values of `protloc embed` by which an image without its cell cannot be encoded.
NEEDS_CELL = {"centre", "cls+centre", "cell", "masked", "masked:0", "masked:median"}


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


class System(NamedTuple):
    """One row of the tables: an encoder under an option of inference, on one data section."""

    data: str
    encoder: str
    inference: str


class Features(NamedTuple):
    """Feature tables of a system, one a seed: of the made images, and by kind of the native ones."""

    seeds: tuple[int, ...]
    tables: list[Made]
    native: list[dict[str, Made]]


def systems_of(study: BackgroundStudy) -> list[System]:
    """Every system, in the order of the tables."""
    return [
        System(data, name, inference)
        for data in study.data
        for name, encoder in encoders_of(study, data).items()
        for inference in inference_of(study, encoder)
    ]


def embed(
    study: BackgroundStudy, inputs: Inputs, sources: dict[Source, Made], shop: Workshop
) -> dict[System, Features]:
    """Features of every system and seed, of all images."""
    systems = systems_of(study)
    kinds = {data: [kind for own, kind in inputs.native if own == data] for data in study.data}
    steps = sum(len(seeds_of(study, study.encoders[s.encoder])) * (1 + len(kinds[s.data])) for s in systems
                if study.encoders[s.encoder].kind != "table")  # fmt: skip
    found: dict[System, Features] = {}
    with shop.phase("features", steps):
        for system in systems:
            encoder, seeds = study.encoders[system.encoder], seeds_of(study, study.encoders[system.encoder])
            if encoder.kind == "table":
                table = given(encoder.table.replace("{data}", system.data))
                found[system] = Features(seeds, [table], [{}])
                continue
            tables, native = [], []
            for seed in seeds:
                weight = sources[Source(system.data, system.encoder, seed)]
                tables.append(_embedded(study, system, seed, weight, inputs.images[system.data], "", shop))
                native.append({
                    kind: _embedded(study, system, seed, weight, inputs.native[system.data, kind], kind, shop)
                    for kind in kinds[system.data]
                })  # fmt: skip
            found[system] = Features(seeds, tables, native)
    return found


def _embedded(
    study: BackgroundStudy, system: System, seed: int, weight: Made, images: Made, kind: str, shop: Workshop
) -> Made:
    encoder = study.encoders[system.encoder]
    words: list[Word] = ["embed", "--weights", weight, "--records", images, "--batch", str(study.batch)]
    option = study.inference[system.inference].words
    words += option
    if not kind and NEEDS_CELL & set(option) and "background_only" in study.conditions:
        # There is no cell to look at in a background: those images have no features, and nothing else may lack them.
        condition = read_manifest(images.path / record_info.MANIFEST_FILE).table["condition"].astype(str)
        share = float((condition == "background_only").mean())
        words += ["--bad", "skip", "--max-bad", f"{share + 1e-6:.6f}"]
    if encoder.kind == "untrained":
        words.append("--untrained")
    if encoder.kind == "frozen":
        words += ["--plan", encoder.plan, "--size", encoder.size]
    name = "-".join(filter(None, ("features", *system, kind, f"seed{seed}")))
    return shop.command(name, [*words, "--out", "{out}"], file="features.h5ad")


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
