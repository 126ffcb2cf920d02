"""Settings of the de novo study: screens, graphs, cell-line vectors, methods, variants, and how they are scored.

Source: Chen, Pham, Wang & Zhang, ICCV 2025, arXiv 2507.10737, and the authors' code. What those leave open (which graph
a number used, the second split condition, the number of draws of the shots) is a key here; its default is this
project's.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Literal

from protloc_jax.config import ConfigError, check_literals, nearest, opt
from protloc_jax.studies.image_sources import ImageSource, source_problems
from protloc_jax.studies.named_sections import absent

DATASETS = ("rxrx1", "rxrx19a")
CONTROLS = ("permuted", "positive")
FROZEN = ("prototype", "nearest")
# What stands for something made: {name}, {name}/path/inside, or either after "key=".
PLACE = re.compile(r"^(?P<key>[A-Za-z0-9_.]+=)?\{(?P<name>[A-Za-z0-9_]+)\}(?:/(?P<inside>.+))?$")


@dataclasses.dataclass(frozen=True)
class Screen(ImageSource):
    """Images of one screen, and how its records are split for pretraining (empty: it is not pretrained on)."""

    title: str = opt("", "what tables call it; empty = its name")
    split: tuple[str, ...] = opt(
        (), "pretraining: words of `protloc data` that write a split file; {records} stands for the records, no --out"
    )


@dataclasses.dataclass(frozen=True)
class Task:
    """Recognising perturbations in a cell line from a few images of each."""

    title: str = opt("", "what tables call it; empty = its name")
    screen: str = opt("", "the screen whose images it is about")
    line: str = opt("", "the cell line, for tables")
    split: tuple[str, ...] = opt(
        (), "words of `protloc data` that write its split file, one split a draw of the shots; {records} as above"
    )
    draws: tuple[str, ...] = opt((), "names of the splits that are used; empty = all of the file")
    channels: tuple[str, ...] = opt(
        (), "words of `protloc convert` that fit pretrained weights to the screen's channels; empty = as they are"
    )
    variants: tuple[str, ...] = opt((), "names of the variants that take part in it; empty = all")
    published: Literal["", "u2os", "hrce", "vero"] = opt("", "which of the paper's columns it repeats")

    def __post_init__(self) -> None:
        check_literals(self)


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to pretrain, or no pretraining."""

    title: str = opt("", "what tables call it; empty = its name")
    kind: Literal["trained", "untrained"] = opt(
        "trained", "untrained: fine-tuning from scratch, features of fresh weights"
    )
    config: str = opt("", "config file of pretraining; of untrained weights the one they would have been trained by")
    options: tuple[str, ...] = opt((), "key=value overrides of that config")
    which: Literal["params", "teacher"] = opt(
        "params", "whose backbone is used afterwards: the trained one or its average"
    )
    variants: tuple[str, ...] = opt((), "names of the variants it takes part with; empty = all")
    published: Literal["", "wsl", "simclr", "byol", "moco", "mae", "scratch"] = opt("", "which of the paper's rows")

    def __post_init__(self) -> None:
        check_literals(self)


@dataclasses.dataclass(frozen=True)
class Variant:
    """What knowledge a run is given, and where."""

    title: str = opt("", "what tables call it; empty = its name")
    graph: str = opt("", "the graph; empty = none")
    stages: tuple[str, ...] = opt(("finetune",), "where the graph term acts: pretrain, finetune")
    vectors: str = opt("", "the cell-line vectors; empty = no cell-line tokens")
    options: tuple[str, ...] = opt((), "further key=value overrides, of pretraining and fine-tuning (graph.kind=...)")
    control: bool = opt(False, "a control: its table stands apart and it enters no best")
    published: Literal["", "none", "cell", "graph", "both"] = opt("", "which of the paper's ablation rows")

    def __post_init__(self) -> None:
        check_literals(self)
        wrong = [word for word in self.stages if word not in ("pretrain", "finetune")]
        if wrong or not self.stages:
            raise ConfigError(f"stages: '{', '.join(wrong)}' is not one of pretrain, finetune.")


@dataclasses.dataclass(frozen=True)
class Tuning:
    """How the shots are learned: a config of fine-tuning, with overrides (method.train=head, ...)."""

    title: str = opt("", "what tables call it; empty = its name")
    config: str = opt("", "config file of fine-tuning")
    options: tuple[str, ...] = opt((), "key=value overrides")
    variants: tuple[str, ...] = opt((), "names of the variants it is done for; empty = all")


@dataclasses.dataclass(frozen=True)
class Made:
    """Something made by a command; {name} among its words stands for what another section makes, {name}/file for a
    file in it, and both may follow a key=."""

    title: str = opt("", "what tables call it; empty = its name")
    words: tuple[str, ...] = opt((), "the command's words; no --out")
    path: str = opt("", "instead: a file or folder that exists already")


@dataclasses.dataclass(frozen=True)
class DeNovoStudy:
    """The study: every method and variant, fine-tuned and frozen, in every task."""

    name: str = opt("de-novo", "name of the study")
    out: str = opt("runs/de-novo", "folder of everything that is made")
    screens: Mapping[str, Screen] = dataclasses.field(default_factory=dict)
    pretrain_on: str = opt("", "the screen to pretrain on")
    tasks: Mapping[str, Task] = dataclasses.field(default_factory=dict)
    sources: Mapping[str, Made] = dataclasses.field(default_factory=dict)
    graphs: Mapping[str, Made] = dataclasses.field(default_factory=dict)
    vectors: Mapping[str, Made] = dataclasses.field(default_factory=dict)
    methods: Mapping[str, Method] = dataclasses.field(default_factory=dict)
    variants: Mapping[str, Variant] = dataclasses.field(default_factory=dict)
    tunings: Mapping[str, Tuning] = dataclasses.field(default_factory=dict)
    groups: str = opt("", "pathways: CSV with perturbation and group; {source}/file too; empty = none")
    group_column: str = opt("group", "column of that table with the group")
    tokens: int = opt(1, "cell-line tokens of a variant with vectors (the authors: WSL 1, SimCLR and MoCo 4, MAE 8)")
    graph: tuple[str, ...] = opt((), "key=value overrides of the graph term for all variants (graph.weight=0.01, ...)")
    reference: str = opt("", "the variant that others are compared with, for example none")
    pairs: tuple[str, ...] = opt((), "further pairs of variants that are compared: graph-shuffled, ...")
    order: tuple[str, ...] = opt((), "names of methods and variants in the order of the tables; the rest by name")
    only: tuple[str, ...] = opt((), "names of the methods that take part; empty = all")
    arms: tuple[str, ...] = opt((), "names of the variants that take part; empty = all")
    on: tuple[str, ...] = opt((), "names of the tasks that take part; empty = all; screens of others are not needed")
    runs: str = opt("", "folder with pretraining runs made elsewhere, named as the steps are; those there are used")
    seeds: tuple[int, ...] = opt((0,), "seeds of pretraining")
    frozen: tuple[str, ...] = opt(FROZEN, "recognition without training: prototype, nearest; empty = none")
    embed: tuple[str, ...] = opt(("--pooling", "mean"), "further words of `protloc embed`")
    batch: int = opt(64, "images a batch while embedding and scoring")
    controls: tuple[str, ...] = opt(
        CONTROLS,
        "permuted: perturbations exchanged between wells must score at chance; positive: the graph of `truth` must do "
        "better than its shuffle",
    )
    truth: str = opt("", "the variant with the true graph, an upper bound and the positive control; empty = none")
    shuffle: str = opt("", "the variant with a shuffled graph, which the positive control is compared with")
    resamples: int = opt(2000, "bootstrap resamples over wells")

    def __post_init__(self) -> None:
        check_literals(self)
        problems = [*absent("only", self.only, self.methods), *absent("arms", self.arms, self.variants)]
        problems += absent("on", self.on, self.tasks)
        problems += absent("order", self.order, {**self.methods, **self.variants})
        if not problems:
            for key, chosen in (("methods", self.only), ("variants", self.arms)):
                sections = getattr(self, key)
                named = [n for n in self.order if n in sections] + [n for n in sections if n not in self.order]
                object.__setattr__(self, key, {n: sections[n] for n in named if not chosen or n in chosen})
            tasks = {n: t for n, t in self.tasks.items() if not self.on or n in self.on}
            object.__setattr__(self, "tasks", tasks)
            if self.on:
                used = {self.pretrain_on, *(t.screen for t in tasks.values())}
                object.__setattr__(self, "screens", {n: s for n, s in self.screens.items() if n in used})
        problems += _unknown(self) + _impossible(self)
        if problems:
            raise ConfigError("\n  ".join(problems))


def variants_of(study: DeNovoStudy, task: str, method: str) -> dict[str, Variant]:
    """The variants that a method takes part with in a task."""
    allowed = [asked for asked in (study.methods[method].variants, study.tasks[task].variants) if asked]
    return {name: v for name, v in study.variants.items() if all(name in asked for asked in allowed)}


def tunings_of(study: DeNovoStudy, variant: str) -> dict[str, Tuning]:
    """The kinds of fine-tuning that are done for a variant."""
    return {name: t for name, t in study.tunings.items() if not t.variants or variant in t.variants}


def _unknown(study: DeNovoStudy) -> list[str]:
    """References to sections that are not there, and sections that cannot be."""
    problems = []
    for name, screen in study.screens.items():
        problems += source_problems(f"screens.{name}", screen, DATASETS)
    problems += absent("pretrain_on", (study.pretrain_on,), study.screens)
    if study.pretrain_on in study.screens and not study.screens[study.pretrain_on].split:
        problems.append(f"screens.{study.pretrain_on}.split is empty; say which images are pretrained on.")
    for name, task in study.tasks.items():
        problems += absent(f"tasks.{name}.screen", (task.screen,), study.screens)
        asked = [v for v in task.variants if not study.arms or v in study.arms]
        problems += absent(f"tasks.{name}.variants", asked, study.variants)
        if not task.split:
            problems.append(f"tasks.{name}.split is empty.")
    for name, method in study.methods.items():
        asked = [v for v in method.variants if not study.arms or v in study.arms]
        problems += absent(f"methods.{name}.variants", asked, study.variants)
        if not method.config:
            problems.append(f"methods.{name}.config is empty.")
    for name, variant in study.variants.items():
        problems += absent(f"variants.{name}.graph", (variant.graph,) * bool(variant.graph), study.graphs)
        problems += absent(f"variants.{name}.vectors", (variant.vectors,) * bool(variant.vectors), study.vectors)
    for name, tuning in study.tunings.items():
        if not tuning.config:
            problems.append(f"tunings.{name}.config is empty.")
    for key in ("reference", "truth", "shuffle"):
        named = getattr(study, key)
        if named and not study.arms:
            problems += absent(key, (named,), study.variants)
    for pair in study.pairs:
        names = pair.split("-")
        if len(names) != 2 or names[0] == names[1]:
            problems.append(f"pairs: '{pair}' is not FIRST-SECOND, the names of two variants.")
        elif not study.arms:
            problems += absent("pairs", tuple(names), study.variants)
    return problems + _places(study)


def _places(study: DeNovoStudy) -> list[str]:
    """Words that stand for what no section makes, and sections that need one another in a circle."""
    problems = []
    every = {**study.sources, **study.graphs, **study.vectors}
    if len(every) < len(study.sources) + len(study.graphs) + len(study.vectors):
        problems.append("sources, graphs and vectors need names of their own: some stand in two of them.")
    needs = {}
    for key in ("sources", "graphs", "vectors"):
        for name, made in getattr(study, key).items():
            if bool(made.words) == bool(made.path):
                problems.append(f"{key}.{name}: say one of words, path.")
            named = [
                m.group("name")
                for word in made.words
                if (m := PLACE.match(word)) and m.group("name") not in ("out", "records")
            ]
            needs[name] = named
            problems += absent(f"{key}.{name}.words", named, every)
    for name in needs:
        seen, now = set(), [name]
        while now:
            now = [n for one in now for n in needs.get(one, ()) if n not in seen]
            if name in now:
                problems.append(f"'{name}' is made of itself.")
                break
            seen.update(now)
    if (found := PLACE.match(study.groups)) is not None:
        problems += absent("groups", (found.group("name"),), every)
    return problems


def _impossible(study: DeNovoStudy) -> list[str]:
    problems = [f"{key}: name one section or more." for key in ("screens", "tasks", "methods", "variants")
                if not getattr(study, key)]  # fmt: skip
    for key, known in (("controls", CONTROLS), ("frozen", FROZEN)):
        wrong = [value for value in getattr(study, key) if value not in known]
        problems += [f"{key}: '{value}' is not one of {', '.join(known)}.{nearest(value, known)}" for value in wrong]
    if not study.seeds:
        problems.append("seeds need one value or more.")
    if not study.tunings and not study.frozen:
        problems.append("tunings and frozen are both empty: nothing would be scored.")
    if study.tokens < 1:
        problems.append(f"tokens={study.tokens}: must be 1 or more.")
    return problems
