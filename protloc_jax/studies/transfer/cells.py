"""The steps of the transfer study, from raw files to features: commands of this package, done once each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from protloc_jax.channel_plans import plan_of
from protloc_jax.channels import ChannelPlan, ChannelSet
from protloc_jax.config import from_mapping
from protloc_jax.data import info as record_info
from protloc_jax.eval.planned import plans_of
from protloc_jax.model.config import VitConfig
from protloc_jax.model.vocabulary import entries
from protloc_jax.studies.backbones import config_content, weights_of
from protloc_jax.studies.image_sources import is_there, records_of
from protloc_jax.studies.steps import Made, Word, Workshop
from protloc_jax.studies.transfer.config import Backbone, TransferStudy, of_level
from protloc_jax.train.channel_passes import slots_of
from protloc_jax.train.checkpoint_files import load_meta


class Cell(NamedTuple):
    """One cell of the study: features of one backbone, by one plan, frozen or fine-tuned on a fraction.

    fraction: None for frozen features, which serve all fractions.
    """

    level: str
    backbone: str
    plan: str
    fraction: float | None


class Features(NamedTuple):
    """The feature tables of a cell, one a seed, their seeds, and (fine-tuned) the runs they come from."""

    tables: list[Made]
    seeds: tuple[int, ...]
    runs: list[Made]
    wiring: ChannelPlan


class Inputs(NamedTuple):
    """Records by image set, split files by level, weights by backbone and seed."""

    records: dict[str, Made]
    splits: dict[str, Made]
    weights: dict[tuple[str, int], Made]


def refuse_missing(study: TransferStudy) -> None:
    """Raise FileNotFoundError for every folder, file and config that the study names and that is not there."""
    named = {f"images.{n}.{key}": getattr(s, key) for n, s in study.images.items() for key in ("records", "raw")}
    named |= {
        f"backbones.{n}.{key}": getattr(b, key) for n, b in study.backbones.items() for key in ("weights", "config")
    }
    named |= {f"levels.{n}.finetune": level.finetune for n, level in study.levels.items()}
    lacking = [f"{key}={path}" for key, path in named.items() if path and not is_there(path)]
    if lacking:
        listed = "\n  ".join(lacking)
        raise FileNotFoundError(f"{len(lacking)} of the study's inputs do not exist:\n  {listed}")


def prepare(study: TransferStudy, shop: Workshop) -> dict[str, Made]:
    """Records of every set of images."""
    made: dict[str, Made] = {}
    waiting = dict(study.images)
    with shop.phase("images", len(waiting)):
        while waiting:
            ready = {n: s for n, s in waiting.items() if not s.of or s.of in made}
            if not ready:
                raise ValueError(f"images: {', '.join(waiting)} are cut from one another.")
            for name, images in ready.items():
                made[name] = records_of(name, images, shop, raw=made[images.of] if images.of else None)
                del waiting[name]
    return made


def split(study: TransferStudy, records: dict[str, Made], shop: Workshop) -> dict[str, Made]:
    """The split file of every level: nested fractions, groups whole; or those of another level carried over."""
    made: dict[str, Made] = {}
    first = [name for name, level in study.levels.items() if not level.like]
    with shop.phase("splits", len(study.levels)):
        for name in (*first, *(n for n in study.levels if n not in first)):
            level = study.levels[name]
            words: list[Word] = ["data", "split", records[level.images], "--by", level.unit, "--label", level.label]
            if level.like:
                if level.like not in made:
                    raise ValueError(f"levels.{name}.like={level.like}: itself like another level.")
                words += ["--like", made[level.like]]
            else:
                shares = ",".join(f"{f:g}" for f in sorted({*study.fractions, 1.0}))
                words += ["--kind", "fractions", "--fractions", shares, "--seeds", str(study.split_seed), *level.split]
            made[name] = shop.command(f"split-{name}", [*words, "--out", "{out}"], file="split.parquet")
    return made


def weights(
    study: TransferStudy, records: dict[str, Made], splits: dict[str, Made], shop: Workshop
) -> dict[tuple[str, int], Made]:
    """Weights of every backbone and seed: given, converted, or pretrained here."""
    made: dict[tuple[str, int], Made] = {}
    trained = {name: b for name, b in study.backbones.items() if b.config}
    others = {name: b for name, b in study.backbones.items() if b.weights}
    with shop.phase("backbones", len(others) + len(trained) * len(study.seeds)):
        for name, backbone in others.items():
            made[name, study.seeds[0]] = weights_of(name, backbone.weights, backbone.convert, shop)
        for seed in study.seeds:
            for name, backbone in trained.items():
                made[name, seed] = _pretrained(study, name, backbone, seed, records, splits, shop)
    return made


def seeds_of(study: TransferStudy, name: str) -> tuple[int, ...]:
    """The pretraining seeds of a backbone: weights from elsewhere have one."""
    return study.seeds[:1] if study.backbones[name].weights else study.seeds


def frozen(study: TransferStudy, inputs: Inputs, shop: Workshop) -> dict[Cell, Features]:
    """Features of every backbone at every level by every plan."""
    jobs: list[tuple[Cell, ChannelPlan]] = []
    for level_name, level in study.levels.items():
        channels = record_info.load(inputs.records[level.images].path).channel_set
        for name, backbone in study.backbones.items():
            if level_name in backbone.levels:
                wirings = _plans(study, inputs, name, channels, backbone.plans)
                jobs += [(Cell(level_name, name, text, None), wiring) for text, wiring in wirings.items()]
    found: dict[Cell, Features] = {}
    with shop.phase("features", sum(len(seeds_of(study, cell.backbone)) for cell, _ in jobs)):
        for cell, wiring in jobs:
            seeds = seeds_of(study, cell.backbone)
            tables = [_embedded(study, inputs, cell, seed, shop) for seed in seeds]
            found[cell] = Features(tables, seeds, [], wiring)
    return found


def finetuned(study: TransferStudy, inputs: Inputs, shop: Workshop) -> dict[Cell, Features]:
    """Features of backbones fine-tuned on every fraction, at the levels that ask for it."""
    cells = [
        Cell(level_name, name, plan, fraction)
        for level_name, level in study.levels.items()
        for name, backbone in study.backbones.items()
        for plan in backbone.finetune_plans
        for fraction in study.fractions
        if level.finetune and level_name in backbone.levels and not backbone.untrained_of
    ]
    found: dict[Cell, Features] = {}
    with shop.phase("fine-tuning", 2 * len(cells) * len(study.seeds)):
        for cell in cells:
            runs = [_tuned(study, inputs, cell, seed, shop) for seed in study.seeds]
            tables = [
                _embedded(study, inputs, cell, seed, shop, run) for seed, run in zip(study.seeds, runs, strict=True)
            ]
            level = study.levels[cell.level]
            channels = record_info.load(inputs.records[level.images].path).channel_set
            wirings = _plans(study, inputs, cell.backbone, channels, (cell.plan,))
            found[cell] = Features(tables, study.seeds, runs, wirings[cell.plan])
    return found


def model_of(study: TransferStudy, inputs: Inputs, name: str) -> tuple[VitConfig, ChannelSet]:
    """A backbone's transformer, and its slots (of one with tokens of every channel, its vocabulary)."""
    of = study.backbones[name].untrained_of or name
    meta = load_meta(_of_seed(inputs, of, study.seeds[0]).path)
    model = from_mapping(VitConfig, meta["config"]["model"])
    return model, slots_of(meta) if model.stem == "joint" else entries(model.channel_names)


def split_name(fraction: float) -> str:
    """The name of a fraction's split in a split file."""
    return f"fraction={fraction:g}"


def _pretrained(
    study: TransferStudy,
    name: str,
    backbone: Backbone,
    seed: int,
    records: dict[str, Made],
    splits: dict[str, Made],
    shop: Workshop,
) -> Made:
    level = of_level(study, backbone.images)
    words: list[Word] = ["pretrain", "--config", backbone.config, ("data.records=", records[backbone.images])]
    if backbone.part == "all":
        words.append("data.split=all")
    elif level:
        words += [("data.split_file=", splits[level]), f"data.split_name={split_name(1.0)}"]
    words += [*backbone.options, f"run.seed={seed}", f"data.seed={seed}", "run.out={out}"]
    return shop.command(f"pretrain-{name}-seed{seed}", words, file="run", uses=[config_content(backbone.config)])


def _plans(
    study: TransferStudy, inputs: Inputs, name: str, images: ChannelSet, texts: Sequence[str]
) -> dict[str, ChannelPlan]:
    """The plans that texts mean for a backbone and images; "all" is every plan that applies."""
    model, slots = model_of(study, inputs, name)
    every = plans_of(model, slots, images, seeds=study.permutations) if "all" in texts else {}
    return {**every, **{text: plan_of(text, slots, images) for text in texts if text != "all"}}


def _embedded(
    study: TransferStudy, inputs: Inputs, cell: Cell, seed: int, shop: Workshop, run: Made | None = None
) -> Made:
    backbone, level = study.backbones[cell.backbone], study.levels[cell.level]
    of = backbone.untrained_of or cell.backbone
    source = run or inputs.weights[of, seed]
    words: list[Word] = ["embed", "--weights", source, "--records", inputs.records[level.images]]
    words += ["--pooling", study.pooling, "--batch", str(study.batch)]
    if run is None:
        words += ["--plan", cell.plan, "--size", study.size]
    if backbone.untrained_of:
        words.append("--untrained")
    tuned = "" if cell.fraction is None else f"-tuned-{cell.fraction:g}"
    name = f"features-{cell.level}-{cell.backbone}-{cell.plan}{tuned}-seed{seed}"
    return shop.command(name, [*words, "--out", "{out}"], file="features.h5ad")


def _tuned(study: TransferStudy, inputs: Inputs, cell: Cell, seed: int, shop: Workshop) -> Made:
    level = study.levels[cell.level]
    assert cell.fraction is not None
    words: list[Word] = [
        "pretrain", "--config", level.finetune, ("data.records=", inputs.records[level.images]),
        ("data.split_file=", inputs.splits[cell.level]), f"data.split_name={split_name(cell.fraction)}",
        ("init.weights=", _of_seed(inputs, cell.backbone, seed)),
        # Weights with tokens of every channel read all channels at once and have no slots that a plan could fill.
        *([f"init.plan={cell.plan}"] if model_of(study, inputs, cell.backbone)[0].stem == "joint" else []),
        *level.finetune_options, f"run.seed={seed}", f"data.seed={seed}", "run.out={out}",
    ]  # fmt: skip
    name = f"finetune-{cell.level}-{cell.backbone}-{cell.plan}-{cell.fraction:g}-seed{seed}"
    return shop.command(name, words, file="run", uses=[config_content(level.finetune)])


def _of_seed(inputs: Inputs, name: str, seed: int) -> Made:
    """The weights of a seed; weights from elsewhere serve all seeds."""
    own = inputs.weights.get((name, seed))
    return own or next(made for (backbone, _), made in inputs.weights.items() if backbone == name)
