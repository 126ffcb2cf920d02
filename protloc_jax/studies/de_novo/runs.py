"""The steps of the de novo study after its inputs: pretraining, fine-tuning, features and scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from protloc_jax.studies.backbones import config_content
from protloc_jax.studies.de_novo.config import DeNovoStudy, Variant, tunings_of, variants_of
from protloc_jax.studies.de_novo.inputs import Inputs
from protloc_jax.studies.steps import Made, Word, Workshop, given

# A run that leaves its fresh weights as they are.
NO_TRAINING = ("optim.steps=1", "optim.warmup_epochs=0", "optim.lr=0", "optim.min_lr=0", "run.checkpoint_every=0")


class Cell(NamedTuple):
    """What one row of scores is made of.

    how: the name of a tuning, or "frozen"
    """

    task: str
    method: str
    variant: str
    how: str


class Pretraining(NamedTuple):
    """What decides a pretraining run beside its seed: variants that differ in fine-tuning only share it."""

    method: str
    vectors: str
    graph: str
    options: tuple[str, ...]


Key = tuple[int, str]  # seed of pretraining, name of the draw


def cells_of(study: DeNovoStudy) -> list[Cell]:
    """Every cell of the study, in the order of the tables.

    Frozen features do not depend on what acts in fine-tuning, so of variants that share their pretraining the first is
    scored frozen.
    """
    cells = []
    for task in study.tasks:
        for method in study.methods:
            seen: set[Pretraining] = set()
            for name, variant in variants_of(study, task, method).items():
                cells += [Cell(task, method, name, how) for how in tunings_of(study, name)]
                own = pretraining_of(method, variant)
                if study.frozen and own not in seen:
                    cells.append(Cell(task, method, name, "frozen"))
                seen.add(own)
    return cells


def pretraining_of(method: str, variant: Variant) -> Pretraining:
    """The pretraining that a variant needs."""
    inside = variant.graph if "pretrain" in variant.stages else ""
    return Pretraining(method, variant.vectors, inside, variant.options if inside else ())


def pretrain(study: DeNovoStudy, inputs: Inputs, shop: Workshop) -> dict[tuple[Pretraining, int], Made]:
    """Runs by what decides them and by seed."""
    wanted = dict.fromkeys(pretraining_of(c.method, study.variants[c.variant]) for c in cells_of(study))
    jobs = [(one, seed) for one in wanted for seed in study.seeds]
    with shop.phase("pretraining", len(jobs)):
        return {(one, seed): _pretrained(study, inputs, one, seed, shop) for one, seed in jobs}


def score(
    study: DeNovoStudy, inputs: Inputs, runs: dict[tuple[Pretraining, int], Made], shop: Workshop
) -> dict[Cell, dict[Key, Made]]:
    """Folders of scores by cell, then by seed and draw."""
    jobs = [(cell, seed, draw) for cell in cells_of(study) for seed in study.seeds for draw in inputs.draws[cell.task]]
    found: dict[Cell, dict[Key, Made]] = {}
    steps = 2 + max(bool(task.channels) for task in study.tasks.values())
    with shop.phase("scores", steps * len(jobs)):
        for cell, seed, draw in jobs:
            run = runs[pretraining_of(cell.method, study.variants[cell.variant]), seed]
            weights = fitted(study, cell, run, seed, shop)
            made = (_frozen if cell.how == "frozen" else _tuned)(study, inputs, cell, weights, seed, draw, shop)
            found.setdefault(cell, {})[seed, draw] = made
    return found


def knowledge(study: DeNovoStudy, inputs: Inputs, *, vectors: str, graph: str, options: Sequence[str]) -> list[Word]:
    """Overrides that give a run cell-line vectors and a graph; none for what is empty."""
    words: list[Word] = []
    if vectors:
        words.append(("data.cell_vectors=", inputs.known[vectors]))
    if graph:
        words += [("graph.file=", inputs.known[graph]), *study.graph, *options]
    return words


def _pretrained(study: DeNovoStudy, inputs: Inputs, one: Pretraining, seed: int, shop: Workshop) -> Made:
    method = study.methods[one.method]
    parts = ("pretrain", one.method, one.vectors, one.graph, *(o.replace("=", "-") for o in one.options))
    name = "-".join(filter(None, (*parts, f"seed{seed}")))
    if study.runs and (elsewhere := Path(study.runs) / name).is_dir():
        shop.say(f"{name}: made elsewhere, {elsewhere}")
        return given(elsewhere)
    words: list[Word] = [
        "pretrain", "--config", method.config, ("data.records=", inputs.records[study.pretrain_on]),
        ("data.split_file=", inputs.pretraining), *method.options,
        *([f"model.cell_tokens={study.tokens}"] if one.vectors else []),
        *knowledge(study, inputs, vectors=one.vectors, graph=one.graph, options=one.options),
        *(NO_TRAINING if method.kind == "untrained" else ()), f"run.seed={seed}", f"data.seed={seed}", "run.out={out}",
    ]  # fmt: skip
    return shop.command(name, words, file="run", uses=[config_content(method.config)])


def fitted(study: DeNovoStudy, cell: Cell, run: Made, seed: int, shop: Workshop) -> Made:
    """A run's weights for the channels of the task's screen."""
    words = study.tasks[cell.task].channels
    if not words:
        return run
    return shop.command(f"channels-{cell.task}-{cell.method}-{cell.variant}-seed{seed}",
                        ["convert", run, *words, "--out", "{out}"], file="weights")  # fmt: skip


def _named(cell: Cell, seed: int, draw: str) -> str:
    return "-".join((cell.task, cell.method, cell.variant, cell.how, draw, f"seed{seed}"))


def _tuned(study: DeNovoStudy, inputs: Inputs, cell: Cell, weights: Made, seed: int, draw: str, shop: Workshop) -> Made:
    """Fine-tune from the pretrained weights, which no earlier fine-tuning has touched, and score the last epoch."""
    variant, tuning = study.variants[cell.variant], study.tunings[cell.how]
    inside = variant.graph if "finetune" in variant.stages else ""
    records, split = inputs.records[study.tasks[cell.task].screen], inputs.splits[cell.task]
    words: list[Word] = [
        "pretrain", "--config", tuning.config, ("data.records=", records), ("data.split_file=", split),
        f"data.split_name={draw}", ("init.weights=", weights), f"init.which={study.methods[cell.method].which}",
        *tuning.options,
        *knowledge(study, inputs, vectors=variant.vectors, graph=inside, options=variant.options),
        f"run.seed={seed}", f"data.seed={seed}", "run.out={out}",
    ]  # fmt: skip
    name = _named(cell, seed, draw)
    run = shop.command(f"finetune-{name}", words, file="run", uses=[config_content(tuning.config)])
    asked: list[Word] = ["de-novo", "tuned", "--weights", run, "--records", records, "--split-file", split]
    asked += ["--split-name", draw, "--batch", str(study.batch), *_groups(study, inputs), "--out", "{out}"]
    return shop.command(f"scores-{name}", asked, file="scores")


def features(study: DeNovoStudy, inputs: Inputs, cell: Cell, weights: Made, seed: int, shop: Workshop) -> Made:
    """The feature table of a cell's pretrained weights: of the images that the task's splits use."""
    records = inputs.records[study.tasks[cell.task].screen]
    words: list[Word] = ["embed", "--weights", weights, "--which", study.methods[cell.method].which]
    words += ["--records", records, "--split-file", inputs.splits[cell.task], "--batch", str(study.batch)]
    name = "-".join(("features", cell.task, cell.method, cell.variant, f"seed{seed}"))
    return shop.command(name, [*words, *study.embed, "--out", "{out}"], file="features.h5ad")


def _frozen(
    study: DeNovoStudy, inputs: Inputs, cell: Cell, weights: Made, seed: int, draw: str, shop: Workshop
) -> Made:
    table = features(study, inputs, cell, weights, seed, shop)
    asked: list[Word] = ["de-novo", "frozen", "--features", table, "--split-file", inputs.splits[cell.task]]
    asked += ["--split-name", draw, *_groups(study, inputs), "--out", "{out}"]
    return shop.command(f"scores-{_named(cell, seed, draw)}", asked, file="scores")


def _groups(study: DeNovoStudy, inputs: Inputs) -> list[Word]:
    return [] if inputs.groups is None else ["--groups", inputs.groups, "--group-column", study.group_column]
