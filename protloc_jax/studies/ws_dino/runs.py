"""The steps of the WS-DINO study from raw files to features: commands of this package, done once each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from protloc_jax.config import load_file
from protloc_jax.data import info as record_info
from protloc_jax.data import split_file
from protloc_jax.data.manifest import read as read_manifest
from protloc_jax.studies.backbones import config_content, weights_of
from protloc_jax.studies.image_sources import is_there, records_of
from protloc_jax.studies.steps import Made, Word, Workshop, given, part_of
from protloc_jax.studies.ws_dino.config import Arm, Model, WsDinoStudy, arms_of, models_of, trainings_of
from protloc_jax.studies.ws_dino.folds import ALL, fold_names, split_of, trained_part
from protloc_jax.studies.ws_dino.profiles import check_screen, profiling_of
from protloc_jax.train.checkpoint_files import CHECKPOINTS, read_meta, steps_in
from protloc_jax.train.experiment import Experiment

# What a config that begins with weights must be told to begin with none.
NO_WEIGHTS = {"weights": "", "head": "new", "which": "teacher", "plan": "", "freeze_backbone_epochs": "0"}


class Cell(NamedTuple):
    """What one row of scores is made of, before a correction.

    training: transductive or inductive
    """

    screen: str
    arm: str
    model: str
    training: str


class Features(NamedTuple):
    """Feature tables of a cell at one checkpoint.

    tables  by seed and by part (the whole, or a fold), one table a channel
    weights what the tables were made with, in the same form
    epoch   passes over the training images, None where nothing was trained
    """

    tables: dict[tuple[int, str], list[Made]]
    weights: dict[tuple[int, str], list[Made]]
    epoch: float | None


class Inputs(NamedTuple):
    """Records and splits by screen, channel names by screen, the weights that models begin with."""

    records: dict[str, Made]
    splits: dict[str, Made]
    channels: dict[str, tuple[str, ...]]
    init: dict[str, Made]


def refuse_missing(study: WsDinoStudy) -> None:
    """Raise FileNotFoundError for every folder, file and config that the study names and that is not there.

    ValueError for models whose config begins with weights of its own: it must be seen what a run begins with.
    """
    named = {f"screens.{n}.{key}": getattr(s, key) for n, s in study.screens.items() for key in ("records", "raw")}
    named |= {f"models.{n}.{key}": getattr(m, key) for n, m in study.models.items() for key in ("config", "init")}
    named["runs"] = study.runs
    lacking = [f"{key}={path}" for key, path in named.items() if path and not is_there(path)]
    if lacking:
        listed = "\n  ".join(lacking)
        raise FileNotFoundError(f"{len(lacking)} of the study's inputs do not exist:\n  {listed}")
    begins = {n: load_file(m.config, Experiment).init.weights for n, m in study.models.items() if not m.init}
    own = [
        f"models.{name}.init: {study.models[name].config} begins with {path}." for name, path in begins.items() if path
    ]
    if own:
        raise ValueError("\n  ".join(["the weights that a model begins with stand in the study's config:", *own]))


def prepare(study: WsDinoStudy, shop: Workshop) -> Inputs:
    """Records, splits and converted weights."""
    found = Inputs({}, {}, {}, {})
    with shop.phase("images", 2 * len(study.screens)):
        for name, screen in study.screens.items():
            found.records[name] = records_of(name, screen, shop)
            found.channels[name] = record_info.load(found.records[name].path).channel_set.names
            found.splits[name] = split_of(study, name, found.records[name], shop)
            table = read_manifest(found.records[name].path / record_info.MANIFEST_FILE).table
            check_screen(name, table, profiling_of(study, screen))
    begun = {name: model for name, model in study.models.items() if model.init}
    with shop.phase("weights to begin with", len(begun)):
        for name, model in begun.items():
            found.init[name] = weights_of(name, model.init, model.convert, shop)
    return found


def cells_of(study: WsDinoStudy) -> list[Cell]:
    """Every cell of the study, in the order of the tables."""
    return [
        Cell(screen, name, model, training)
        for screen in study.screens
        for name, arm in arms_of(study, screen).items()
        for model, about in models_of(study, arm).items()
        for training in trainings_of(study, arm, about)
    ]


def parts_of(study: WsDinoStudy, cell: Cell) -> list[str]:
    """The names of the splits that a cell trains on."""
    return [ALL] if cell.training == "transductive" else fold_names(study)


def train(study: WsDinoStudy, inputs: Inputs, shop: Workshop) -> dict[Cell, dict[tuple[int, str], list[Made]]]:
    """Runs by cell, then by seed and part, one a channel; of untrained cells the run that they are taken from."""
    cells = cells_of(study)
    lent = {cell: _lender(study, cell, cells) for cell in cells if study.arms[cell.arm].kind == "untrained"}
    own = [cell for cell in cells if study.arms[cell.arm].kind != "frozen" and lent.get(cell) is None]
    jobs = [(cell, seed, part) for cell in own for seed in study.seeds for part in parts_of(study, cell)]
    found: dict[Cell, dict[tuple[int, str], list[Made]]] = {}
    with shop.phase("pretraining", sum(len(_channels(study, inputs, cell)) for cell, _, _ in jobs)):
        for cell, seed, part in jobs:
            channels = _channels(study, inputs, cell)
            runs = [_pretrained(study, inputs, cell, seed, part, channel, shop) for channel in channels]
            found.setdefault(cell, {})[seed, part] = runs
    return found | {cell: found[lender] for cell, lender in lent.items() if lender is not None}


def embed(
    study: WsDinoStudy, inputs: Inputs, runs: dict[Cell, dict[tuple[int, str], list[Made]]], shop: Workshop
) -> dict[Cell, list[Features]]:
    """Features of every cell, its last checkpoint first, then those of its curve, the earliest first."""
    jobs: list[tuple[Cell, dict[tuple[int, str], list[Made]], float | None]] = []
    for cell in cells_of(study):
        if study.arms[cell.arm].kind == "trained":
            for taken, epoch in _checkpoints(study, inputs, cell, runs[cell]):
                jobs.append((cell, taken, epoch))
        else:
            own = runs.get(cell) or {
                (study.seeds[0], ALL): [inputs.init[cell.model]] * len(_channels(study, inputs, cell))
            }
            jobs.append((cell, own, None))
    found: dict[Cell, list[Features]] = {}
    with shop.phase("features", sum(len(made) for _, taken, _ in jobs for made in taken.values())):
        for cell, taken, epoch in jobs:
            channels = _channels(study, inputs, cell)
            tables = {
                key: [
                    _embedded(study, inputs, cell, key, channel, source, shop)
                    for channel, source in zip(channels, sources, strict=True)
                ]
                for key, sources in taken.items()
            }
            found.setdefault(cell, []).append(Features(tables, taken, epoch))
    return found


def _lender(study: WsDinoStudy, cell: Cell, cells: Sequence[Cell]) -> Cell | None:
    """The trained cell whose runs tell what they began with; None where they began with weights from elsewhere."""
    if study.models[cell.model].init:
        return None
    alike = [c for c in cells if (c.screen, c.model, c.training) == (cell.screen, cell.model, cell.training)]
    return next((c for c in alike if study.arms[c.arm].kind == "trained"), None)


def spaced(steps: Sequence[int], count: int) -> list[int]:
    """At most `count` of some checkpoints' steps, evenly spaced, without the last."""
    earlier = list(steps[:-1])
    if len(earlier) <= count:
        return earlier
    return [earlier[i] for i in np.unique(np.linspace(0, len(earlier) - 1, count).round().astype(int))]


def _checkpoints(
    study: WsDinoStudy, inputs: Inputs, cell: Cell, runs: dict[tuple[int, str], list[Made]]
) -> list[tuple[dict[tuple[int, str], list[Made]], float]]:
    """The runs' last checkpoints, then those for the curve that all of them keep, each with its epoch."""
    kept = [steps_in(run.path / CHECKPOINTS) for own in runs.values() for run in own]
    last = {key: [_at(run, steps_in(run.path / CHECKPOINTS)[-1]) for run in own] for key, own in runs.items()}
    found = [(last, _epoch(study, inputs, cell, last))]
    if cell.training == "transductive" and study.curve:
        shared = sorted(set(kept[0]).intersection(*kept))
        for step in spaced(shared if shared and shared[-1] == kept[0][-1] else [*shared, kept[0][-1]], study.curve):
            at = {key: [_at(run, step) for run in own] for key, own in runs.items()}
            found.append((at, _epoch(study, inputs, cell, at)))
    return found


def _part(arm: Arm, name: str) -> str:
    """The split that an arm trains on."""
    return trained_part(name, with_controls=arm.with_controls)


def _at(run: Made, step: int) -> Made:
    return part_of(run, f"{CHECKPOINTS}/{step}")


def _epoch(study: WsDinoStudy, inputs: Inputs, cell: Cell, runs: dict[tuple[int, str], list[Made]]) -> float:
    """Passes over the training images of the first run."""
    (_, part), first = next(iter(runs.items()))
    name = _part(study.arms[cell.arm], part)
    images = len(split_file.read(inputs.splits[cell.screen].path).splits(name=name)[0].train)
    return read_meta(first[0].path)["examples_seen"] / images


def _channels(study: WsDinoStudy, inputs: Inputs, cell: Cell) -> tuple[str, ...]:
    """The channels that have a model each; "" for one model of all."""
    return inputs.channels[cell.screen] if study.models[cell.model].channels == "each" else ("",)


def _pretrained(
    study: WsDinoStudy, inputs: Inputs, cell: Cell, seed: int, part: str, channel: str, shop: Workshop
) -> Made:
    arm, model = study.arms[cell.arm], study.models[cell.model]
    name = "-".join(filter(None, ("pretrain", cell.screen, cell.arm, cell.model, channel, part, f"seed{seed}")))
    if study.runs and (elsewhere := Path(study.runs) / name).is_dir():
        shop.say(f"{name}: made elsewhere, {elsewhere}")
        return given(elsewhere)
    words: list[Word] = [
        "pretrain", "--config", model.config, ("data.records=", inputs.records[cell.screen]),
        ("data.split_file=", inputs.splits[cell.screen]), f"data.split_name={_part(arm, part)}",
        *([f"data.channels={channel}"] if channel else []), *_beginning(inputs, cell, arm, model, channel),
        f"run.seed={seed}", f"data.seed={seed}", "run.out={out}",
    ]  # fmt: skip
    return shop.command(name, words, file="run", uses=[config_content(model.config)])


def _beginning(inputs: Inputs, cell: Cell, arm: Arm, model: Model, channel: str) -> list[Word]:
    """What a run begins with, and the overrides of model and arm. Untrained: fresh weights, looked at before step 1."""
    options = [text.replace("{channel}", channel) for text in (*model.options, *arm.options)]
    if arm.kind == "untrained":
        fresh = [text for text in options if not text.startswith("init.")]
        nothing = [f"init.{key}={value}" for key, value in NO_WEIGHTS.items()]
        return [*fresh, *nothing, "optim.steps=1", "optim.warmup_epochs=0", "run.checkpoint_every=0"]
    begins: list[Word] = [("init.weights=", inputs.init[cell.model])] if model.init else []
    return [*begins, *options]


def _embedded(
    study: WsDinoStudy, inputs: Inputs, cell: Cell, key: tuple[int, str], channel: str, source: Made, shop: Workshop
) -> Made:
    kind = study.arms[cell.arm].kind
    words: list[Word] = ["embed", "--weights", source, "--records", inputs.records[cell.screen]]
    words += ["--batch", str(study.batch), *study.embed]
    if kind == "untrained":
        words.append("--untrained")
    if kind == "frozen":
        words += ["--plan", study.models[cell.model].plan.replace("{channel}", channel)]
    seed, part = key
    step = source.path.name if source.path.name.isdecimal() else ""
    name = "-".join(filter(None, ("features", cell.screen, cell.arm, cell.model, channel, part, f"seed{seed}", step)))
    return shop.command(name, [*words, "--out", "{out}"], file="features.h5ad")
