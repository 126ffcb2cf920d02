"""Settings of the transfer study: images, backbones, how they are compared, and what is not published.

Sources: Isselmann et al., arXiv 2602.05527 and 2604.10970. Their data subset, split, classifier, wiring of channels,
fine-tuning and neighbourhood sizes are not public. Every such choice is a key here; its default is this project's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from protloc_jax.config import ConfigError, check_literals, nearest, opt
from protloc_jax.eval.head_config import HeadConfig
from protloc_jax.studies.image_sources import ImageSource, source_problems
from protloc_jax.studies.named_sections import absent

ROLES = ("imagenet", "hpa_fov", "hpa_sc", "opencell", "untrained", "other")
DATASETS = ("opencell", "hpa_fov", "hpa_sc", "opencell_sc")
EVALUATORS = ("head", "knn")
LEVELS = ("fov", "cell")


@dataclasses.dataclass(frozen=True)
class ImageSet(ImageSource):
    """Images of the study: records, raw files, or single cells cut from another set."""

    of: str = opt("", "opencell_sc: the set of fields that single cells are cut from")


@dataclasses.dataclass(frozen=True)
class Level:
    """Images that are classified, and how: fields of view, or single cells."""

    images: str = opt("", "the set of images")
    label: str = opt("labels", "column with the classes")
    unit: str = opt("protein", "column of the groups: kept whole by splits, drawn by intervals")
    like: str = opt("", "another level whose splits are carried over by unit, so that no test protein trains anywhere")
    split: tuple[str, ...] = opt((), "further words of `protloc data split` (default: shares .7,.1,.2, stratified)")
    evaluators: tuple[str, ...] = opt(("head", "knn"), "head: trained heads; knn: nearest neighbours over k")
    finetune: str = opt("", "config file of fine-tuning; empty = none")
    finetune_options: tuple[str, ...] = opt((), "key=value overrides of that config")

    def __post_init__(self) -> None:
        wrong = [e for e in self.evaluators if e not in EVALUATORS]
        if wrong or not self.evaluators:
            raise ConfigError(f"evaluators={', '.join(self.evaluators)}: one or more of {', '.join(EVALUATORS)}.")


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A backbone: weights that exist, or a pretraining run of the study, or what such a run began with."""

    title: str = opt("", "what tables call it; empty = its name")
    role: Literal["imagenet", "hpa_fov", "hpa_sc", "opencell", "untrained", "other"] = opt(
        "other", "which of the papers' backbones it stands for (decides the published numbers beside it)"
    )
    weights: str = opt("", "run directory or converted checkpoint, or weights of another project")
    convert: tuple[str, ...] = opt((), "words of `protloc convert` for weights of another project (--model NAME)")
    config: str = opt("", "config file of pretraining, instead of weights")
    images: str = opt("", "with config: the set of images to pretrain on")
    part: Literal["train", "all"] = opt(
        "train",
        "with config: train = training groups only (of a level's images: of its split, so inductive); all = every "
        "image, also those tested (transductive: no labels are used)",
    )
    options: tuple[str, ...] = opt((), "with config: key=value overrides")
    untrained_of: str = opt("", "instead of weights and config: another backbone as it was before training")
    levels: tuple[str, ...] = opt(LEVELS, "levels at which it is compared")
    plans: tuple[str, ...] = opt(
        ("all",), "channel plans of frozen features; all = every plan that applies (`protloc embed --plan list`)"
    )
    finetune_plans: tuple[str, ...] = opt(("natural",), "channel plans it is fine-tuned with; empty = not fine-tuned")

    def __post_init__(self) -> None:
        check_literals(self)
        ways = [key for key in ("weights", "config", "untrained_of") if getattr(self, key)]
        problems = []
        if len(ways) != 1:
            problems.append(f"say one of weights, config, untrained_of; given: {', '.join(ways) or 'none'}.")
        if self.config and not self.images:
            problems.append("config needs images: the set to pretrain on.")
        if not self.plans:
            problems.append("plans is empty.")
        if problems:
            raise ConfigError(" ".join(problems))


@dataclasses.dataclass(frozen=True)
class TransferStudy:
    """The study: every backbone, plan, level, fraction, frozen and fine-tuned, in one table.

    Splits keep proteins whole and are made once: training, validation and test part, and nested fractions of the
    training part. What is chosen (k, thresholds, a plan) is chosen on validation proteins; test proteins are scored
    after the last epoch. Pretraining and fine-tuning repeat for every seed, heads for every seed of their own.
    """

    name: str = opt("transfer", "name of the study")
    out: str = opt("runs/transfer", "folder of everything that is made")
    images: Mapping[str, ImageSet] = dataclasses.field(default_factory=dict)
    levels: Mapping[str, Level] = dataclasses.field(default_factory=dict)
    backbones: Mapping[str, Backbone] = dataclasses.field(default_factory=dict)
    only: tuple[str, ...] = opt((), "names of the backbones that take part; empty = all")
    at: tuple[str, ...] = opt((), "levels that take part; empty = all")
    fractions: tuple[float, ...] = opt((0.01, 0.05, 0.1, 0.25, 0.5, 1.0), "shares of the training proteins, nested")
    seeds: tuple[int, ...] = opt((0,), "seeds of pretraining and of fine-tuning")
    split_seed: int = opt(0, "seed of the splits")
    head: HeadConfig = dataclasses.field(default_factory=HeadConfig)
    k: tuple[int, ...] = opt((1, 5, 10, 20, 50, 100), "k-NN: neighbourhood sizes, all reported, one chosen")
    pooling: Literal["cls", "mean", "cls+mean"] = opt("cls", "what a feature is")
    size: str = opt("0", "side that images are brought to for frozen features: 0 = as trained, a number, or native")
    batch: int = opt(64, "images a batch while embedding")
    permutations: tuple[int, ...] = opt((0,), "seeds of the random slot orders among the plans")
    controls: tuple[str, ...] = opt(
        ("permuted", "handmade"),
        "permuted: labels exchanged between proteins, must score at chance; handmade: texture against intensity "
        "features, shows whether the images and the split can tell systems apart",
    )
    source_control: str = opt(
        "", "a set of images with labels of its own, on which its backbone must do well (an upper bound); empty = none"
    )
    resamples: int = opt(2000, "bootstrap resamples over groups")
    umap: int = opt(3000, "images on a map of the features; 0 = no maps")
    umap_epochs: int = opt(2600, "epochs of a map (2600: as DINO4Cells' analysis)")
    attention: int = opt(4, "images with attention maps; 0 = none")

    def __post_init__(self) -> None:
        check_literals(self)
        problems = [*absent("only", self.only, self.backbones), *absent("at", self.at, self.levels)]
        # Config files come with their keys sorted; tables stand in the order of the papers.
        levels, backbones = dict(self.levels), dict(self.backbones)
        object.__setattr__(self, "levels", {k: levels[k] for k in sorted(levels, key=[*LEVELS, *levels].index)})
        order = sorted(backbones, key=lambda k: (ROLES.index(backbones[k].role), k))
        object.__setattr__(self, "backbones", {k: backbones[k] for k in order})
        if not problems:
            _leave_out(self)
        problems += _unknown(self)
        problems += [f"fractions={f:g}: must lie in (0, 1]." for f in self.fractions if not 0 < f <= 1]
        if not self.fractions or not self.seeds:
            problems.append("fractions and seeds need one value or more.")
        if self.size != "native" and not self.size.isdecimal():
            problems.append(f"size={self.size}: 0, a number of pixels, or native.")
        wrong = [c for c in self.controls if c not in ("permuted", "handmade")]
        problems += [f"controls: '{c}' is not one of permuted, handmade." for c in wrong]
        if problems:
            raise ConfigError("\n  ".join(problems))


def of_level(study: TransferStudy, images: str) -> str:
    """The level whose images a set is, or ''."""
    return next((name for name, level in study.levels.items() if level.images == images), "")


def _leave_out(study: TransferStudy) -> None:
    """Without the levels and backbones that do not take part, and the images that then nothing needs."""
    levels = {name: level for name, level in study.levels.items() if not study.at or name in study.at}
    wanted = set(study.only or study.backbones)
    wanted |= {b.untrained_of for name, b in study.backbones.items() if name in wanted}
    backbones = {name: b for name, b in study.backbones.items() if name in wanted}
    if study.only or study.at:
        needed = {level.images for level in levels.values()} | {b.images for b in backbones.values()}
        needed |= {study.source_control}
        needed |= {study.images[name].of for name in needed if name in study.images}
        object.__setattr__(study, "images", {n: s for n, s in study.images.items() if n in needed})
    object.__setattr__(study, "levels", levels)
    object.__setattr__(study, "backbones", backbones)


def _unknown(study: TransferStudy) -> list[str]:
    """References to sections that are not there, and sections that cannot be."""
    problems: list[str] = []

    def known(where: str, name: str, among: Mapping[str, Any]) -> None:
        if name and name not in among:
            problems.append(f"{where}={name}: no such section.{nearest(name, among)} Have: {', '.join(among)}.")

    for name, images in study.images.items():
        problems += source_problems(f"images.{name}", images, DATASETS, other="of" if images.of else "")
        known(f"images.{name}.of", images.of, study.images)
    for name, level in study.levels.items():
        if name not in LEVELS:
            problems.append(f"levels.{name}: a level is {' or '.join(LEVELS)}.{nearest(name, LEVELS)}")
        if not level.images:
            problems.append(f"levels.{name}.images is empty.")
        known(f"levels.{name}.images", level.images, study.images)
        known(f"levels.{name}.like", level.like, {n: v for n, v in study.levels.items() if n != name})
    for name, backbone in study.backbones.items():
        known(f"backbones.{name}.images", backbone.images, study.images)
        known(f"backbones.{name}.untrained_of", backbone.untrained_of, study.backbones)
        of = study.backbones.get(backbone.untrained_of)
        if of is not None and not of.config:
            problems.append(f"backbones.{name}.untrained_of={backbone.untrained_of}: that one is not trained here.")
    known("source_control", study.source_control, study.images)
    if study.source_control and not any(b.images == study.source_control for b in study.backbones.values()):
        problems.append(
            f"source_control={study.source_control}: no backbone that takes part is pretrained on these images; "
            "let one take part (only), or set source_control= to go without this control."
        )
    return problems
