"""Settings of the WS-DINO study: screens, channel models, arms, corrections, and how they are scored.

Source: Cross-Zamirski et al., arXiv 2209.07819, and the authors' code and logs. What those leave open (the rule that
picks a checkpoint, the number of seeds, rows on compounds never trained on) is a key here; its default is this
project's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from protloc_jax.config import ConfigError, check_literals, nearest, opt
from protloc_jax.studies.image_sources import ImageSource, source_problems
from protloc_jax.studies.named_sections import absent

DATASETS = ("bbbc021",)
TRAININGS = ("transductive", "inductive")
CONTROLS = ("permuted", "positive")
BASELINES = ("count", "texture")


@dataclasses.dataclass(frozen=True)
class Screen(ImageSource):
    """A compound screen: its images, the columns that describe them, and the arms that run on it."""

    title: str = opt("", "what tables call it; empty = its name")
    arms: tuple[str, ...] = opt((), "names of the arms that run on it; empty = all")
    compound: str = opt("compound", "column with the compound")
    concentration: str = opt("concentration", "column with the concentration; compound and concentration: a treatment")
    moa: str = opt("moa", "column with the mechanism of action, which scores are about")
    batch: str = opt("batch", "column with the imaging week or batch")
    plate: str = opt("plate", "column with the plate")
    well: str = opt("well", "column with the well")
    well_type: str = opt("well_type", "column that tells controls from treatments, where there is one")
    negative: tuple[str, ...] = opt(("DMSO",), "compounds that are the negative control")
    convention: Literal["", "ws_dino", "joined", "dose_series", "per_batch"] = opt(
        "", "the study's key of this name for this screen; per_batch for a crossed design; empty = the study's"
    )

    def __post_init__(self) -> None:
        check_literals(self)


@dataclasses.dataclass(frozen=True)
class Model:
    """How channels become features: one model a channel, features side by side; or one model of all channels.

    In options and plan, {channel} stands for the channel's name.
    """

    title: str = opt("", "what tables call it; empty = its name")
    channels: Literal["each", "all"] = opt("each", "each: a model a channel; all: one model of all channels")
    config: str = opt("", "config file of pretraining")
    options: tuple[str, ...] = opt((), "key=value overrides of that config, for every arm")
    init: str = opt("", "weights to begin with: a run, a converted checkpoint, or weights of another project")
    convert: tuple[str, ...] = opt((), "words of `protloc convert` for weights of another project (--model NAME)")
    plan: str = opt("natural", "channel plan by which the weights to begin with are read, frozen")
    training: tuple[str, ...] = opt(TRAININGS, f"kinds of training it takes part in: {', '.join(TRAININGS)}")

    def __post_init__(self) -> None:
        check_literals(self)
        wrong = [word for word in self.training if word not in TRAININGS]
        if wrong:
            raise ConfigError(f"training: '{', '.join(wrong)}' is not one of {', '.join(TRAININGS)}.")


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to make a backbone: pretraining with some overrides, or no training at all.

    `truth`: the labels that it trains on are those that scores are about. It is an upper bound: marked in every table,
    and compared only as a control.
    """

    title: str = opt("", "what tables call it; empty = its name")
    kind: Literal["trained", "frozen", "untrained"] = opt(
        "trained", "trained; frozen: the weights to begin with, as they are; untrained: random weights"
    )
    options: tuple[str, ...] = opt((), "key=value overrides of pretraining, after the model's")
    truth: bool = opt(False, "trains on the mechanism of action itself")
    with_controls: bool = opt(
        False, "trains on images of the negative control too, which an adversary of batches looks at"
    )
    weak_label: str = opt("", "column of the weak label, for the table of label granularity; empty = none")
    partner_from: str = opt("", "column in which partners must differ, for the same table; empty = none")
    models: tuple[str, ...] = opt((), "names of the models it takes part with; empty = all")
    training: tuple[str, ...] = opt(TRAININGS, f"kinds of training it takes part in: {', '.join(TRAININGS)}")
    published: Literal["", "none", "treatment", "compound", "moa"] = opt(
        "", "which of the authors' rows it repeats, by its weak label; empty = none of them"
    )

    def __post_init__(self) -> None:
        check_literals(self)
        problems = [
            f"training: '{t}' is not one of {', '.join(TRAININGS)}." for t in self.training if t not in TRAININGS
        ]
        if self.kind != "trained" and (self.options or self.truth or self.weak_label):
            problems.append(f"kind={self.kind}: options, truth and weak_label belong to kind=trained.")
        if problems:
            raise ConfigError(" ".join(problems))


@dataclasses.dataclass(frozen=True)
class Correction:
    """A normalisation of the features of each channel, fitted on the negative control."""

    title: str = opt("", "what tables call it; empty = its name")
    steps: str = opt("", "steps as `protloc correct` takes them, for example whiten:0; empty = none")


@dataclasses.dataclass(frozen=True)
class WsDinoStudy:
    """The study: every screen, arm, channel model and correction, scored by NSC and NSCB.

    transductive  trained on all treated images, which are then scored (as published)
    inductive     folds of whole compounds: the treatments of held-out compounds are looked up among the others, by the
                  backbone that saw neither their images nor their labels; pooled over folds
    """

    name: str = opt("ws-dino", "name of the study")
    out: str = opt("runs/ws-dino", "folder of everything that is made")
    screens: Mapping[str, Screen] = dataclasses.field(default_factory=dict)
    models: Mapping[str, Model] = dataclasses.field(default_factory=dict)
    arms: Mapping[str, Arm] = dataclasses.field(default_factory=dict)
    corrections: Mapping[str, Correction] = dataclasses.field(default_factory=dict)
    correction: str = opt("", "the correction of the first tables; fixed before the run")
    reference: str = opt("", "the arm that others are compared with, for example dino")
    pairs: tuple[str, ...] = opt((), "further pairs of arms that are compared: compound_other_batch-compound, ...")
    order: tuple[str, ...] = opt((), "names of arms in the order of the tables; the rest follow by name")
    only: tuple[str, ...] = opt((), "names of the arms that take part; empty = all")
    on: tuple[str, ...] = opt((), "names of the screens that take part; empty = all")
    runs: str = opt("", "folder with pretraining runs made elsewhere, named as the steps are; those there are used")
    train_on: Literal["annotated", "treated", "all"] = opt(
        "annotated",
        "images to train on: of treatments with a mechanism of action (as published), of all compounds, or all, the "
        "negative control included (which an adversary on controls needs)",
    )
    training: tuple[str, ...] = opt(TRAININGS, f"which of {', '.join(TRAININGS)}")
    folds: int = opt(5, "inductive: folds of compounds, spread over mechanisms; 3 or more")
    fold_seed: int = opt(0, "seed of the folds")
    seeds: tuple[int, ...] = opt((0,), "seeds of pretraining")
    embed: tuple[str, ...] = opt(
        ("--windows", "ws_dino", "--combine", "lower-median"), "further words of `protloc embed`"
    )
    batch: int = opt(64, "images a batch while embedding")
    aggregation: str = opt("ws_dino", "from fields to treatments, as `protloc moa` names it")
    convention: Literal["ws_dino", "joined", "dose_series", "per_batch"] = opt(
        "ws_dino", "the batch of a treatment that stands in several (taxol), as `protloc moa` names it"
    )
    curve: int = opt(10, "checkpoints of each transductive run that are scored too, evenly spaced; 0 = the last only")
    baselines: tuple[str, ...] = opt(BASELINES, "count: cell count and intensities; texture: hand-made texture")
    baseline_correction: str = opt("standardise:plate", "correction of the baselines, steps as in corrections")
    controls: tuple[str, ...] = opt(
        CONTROLS,
        "permuted: mechanisms exchanged between compounds must score at chance; positive: arms that train on the truth "
        "must score above the reference",
    )
    permutations: int = opt(200, "exchanges of the mechanisms")
    resamples: int = opt(2000, "bootstrap resamples over compounds")
    maps: int = opt(3000, "fields on a map of the features; 0 = no maps")
    umap_epochs: int = opt(2600, "epochs of a map")
    attention: int = opt(3, "fields with attention maps; 0 = none")

    def __post_init__(self) -> None:
        check_literals(self)
        problems = [*absent("only", self.only, self.arms), *absent("on", self.on, self.screens)]
        problems += absent("order", self.order, self.arms)
        # Config files come with their keys sorted; tables stand in the order that is asked for.
        named = [*self.order, *(name for name in self.arms if name not in self.order)]
        if not problems:
            arms = {n: self.arms[n] for n in named if not self.only or n in self.only}
            object.__setattr__(self, "arms", arms)
            object.__setattr__(self, "screens", {n: s for n, s in self.screens.items() if not self.on or n in self.on})
            first = sorted(self.corrections, key=lambda n: n != self.correction)
            object.__setattr__(self, "corrections", {n: self.corrections[n] for n in first})
        problems += _unknown(self, named) + _impossible(self)
        if problems:
            raise ConfigError("\n  ".join(problems))


def arms_of(study: WsDinoStudy, screen: str) -> dict[str, Arm]:
    """The arms that run on a screen."""
    asked = study.screens[screen].arms
    return {name: arm for name, arm in study.arms.items() if not asked or name in asked}


def models_of(study: WsDinoStudy, arm: Arm) -> dict[str, Model]:
    """The channel models that an arm takes part with; frozen weights need weights to begin with."""
    chosen = {name: m for name, m in study.models.items() if not arm.models or name in arm.models}
    return {name: m for name, m in chosen.items() if m.init} if arm.kind == "frozen" else chosen


def trainings_of(study: WsDinoStudy, arm: Arm, model: Model) -> list[str]:
    """The kinds of training of an arm with a model; without training, what is scored does not depend on it."""
    asked = [t for t in study.training if t in arm.training and t in model.training]
    return asked if arm.kind == "trained" else [TRAININGS[0]]


def _unknown(study: WsDinoStudy, arms: list[str]) -> list[str]:
    """References to sections that are not there, and sections that cannot be."""
    every = dict.fromkeys(arms)
    problems = []
    for name, screen in study.screens.items():
        problems += source_problems(f"screens.{name}", screen, DATASETS)
        problems += absent(f"screens.{name}.arms", screen.arms, every)
    for name, model in study.models.items():
        if not model.config:
            problems.append(f"models.{name}.config is empty.")
        if model.convert and not model.init:
            problems.append(f"models.{name}.convert: means nothing without init.")
    for name, arm in study.arms.items():
        problems += absent(f"arms.{name}.models", arm.models, study.models)
        if arm.kind == "frozen" and study.models and not models_of(study, arm):
            problems.append(f"arms.{name}: none of its models has weights to begin with (models.NAME.init).")
    if study.corrections or study.correction:
        problems += absent("correction", (study.correction,), study.corrections)
    if study.reference:
        problems += absent("reference", (study.reference,), every)
    for pair in study.pairs:
        named = pair.split("-")
        if len(named) != 2 or named[0] == named[1]:
            problems.append(f"pairs: '{pair}' is not FIRST-SECOND, the names of two arms.")
        else:
            problems += absent("pairs", tuple(named), every)
    return problems


def _impossible(study: WsDinoStudy) -> list[str]:
    problems = [f"{key}: name one section or more." for key in ("screens", "models", "arms", "corrections")
                if not getattr(study, key)]  # fmt: skip
    for key, known in (("training", TRAININGS), ("controls", CONTROLS), ("baselines", BASELINES)):
        wrong = [value for value in getattr(study, key) if value not in known]
        problems += [f"{key}: '{value}' is not one of {', '.join(known)}.{nearest(value, known)}" for value in wrong]
    if not study.training or not study.seeds:
        problems.append("training and seeds need one value or more.")
    if "inductive" in study.training and study.folds < 3:
        problems.append(f"folds={study.folds}: 3 or more.")
    counts = ("curve", "maps", "attention", "permutations")
    problems += [f"{key}={getattr(study, key)}: must be 0 or more." for key in counts if getattr(study, key) < 0]
    return problems
