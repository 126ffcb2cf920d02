"""Settings of the background study: cells, encoders, options of inference, conditions, and how they are scored.

Source: Gupta, Moses & Lu, PMLR 311 (2025) 162. The paper tries no mitigation: encoders that train on swapped
backgrounds and the options of inference are this project's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from protloc_jax.config import ConfigError, check_literals, nearest, opt
from protloc_jax.eval.background.sets import NAMES
from protloc_jax.studies.image_sources import ImageSource, source_problems
from protloc_jax.studies.named_sections import absent

DATASETS = ("hpa_sc", "opencell_sc")
PARTS = ("train", "val", "test")
CONTROLS = ("readable", "permuted", "seam")
NEEDED = ("baseline", "same", "different")
NATIVE = ("field", "same", "other", "none")


@dataclasses.dataclass(frozen=True)
class Native:
    """Names in `more` of records in which the same cells (by id) are rendered among different neighbours.

    Nothing is pasted in them, so a drop from `same` to `other` has no seam in it.
    """

    field: str = opt("", "cells in their own field")
    same: str = opt("", "cells among cells of other proteins of their class")
    other: str = opt("", "cells among cells of other classes")
    none: str = opt("", "cells alone")


@dataclasses.dataclass(frozen=True)
class Section(ImageSource):
    """Single-cell crops with masks: which proteins train, which are evaluated, and what is made of them."""

    title: str = opt("", "what tables call it; empty = its name")
    category: str = opt("primary", "column with the one class of each cell's protein")
    protein: str = opt("protein", "column with the protein")
    apart: str = opt("", "column of which training and evaluation never share a value; empty = the protein")
    classes: tuple[str, ...] = opt((), "only these classes are evaluated; empty = all")
    split: tuple[str, ...] = opt(
        (), "words of `protloc data split` that part the proteins, for example --by,protein; empty = the records' own"
    )
    split_name: str = opt("", "which split, where those words make several")
    evaluated: tuple[str, ...] = opt(("test",), f"parts that are evaluated: {', '.join(PARTS)}; train trains")
    patches: str = opt("", "name in `more`: records of patches without cells, for cell-free backgrounds")
    cell_free: tuple[str, ...] = opt(
        (),
        "instead of patches, for simulated cells: words of `protloc data cell-free` on the fields they were cut from",
    )
    native: Native = dataclasses.field(default_factory=Native)
    training: tuple[str, ...] = opt((), "key=value overrides of pretraining on these images (model.channels)")
    encoders: tuple[str, ...] = opt((), "names of the encoders that take part; empty = all")
    sets: tuple[str, ...] = opt((), "further key=value settings of the sets of these images (protloc background make)")

    def __post_init__(self) -> None:
        check_literals(self)
        wrong = [part for part in self.evaluated if part not in PARTS]
        if wrong or not self.evaluated:
            raise ConfigError(f"evaluated={','.join(self.evaluated)}: one or more of {', '.join(PARTS)}.")


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Where features come from: pretraining with some overrides, weights, or a table made elsewhere."""

    title: str = opt("", "what tables call it; empty = its name")
    kind: Literal["trained", "untrained", "frozen", "table"] = opt(
        "trained",
        "trained here; untrained: random weights of the reference; frozen: `weights` as they are; table: features of "
        "the made images computed elsewhere",
    )
    options: tuple[str, ...] = opt((), "key=value overrides of the pretraining config")
    weights: str = opt("", "frozen: a run, a converted checkpoint, or weights of another project")
    convert: tuple[str, ...] = opt((), "words of `protloc convert` for weights of another project (--model NAME)")
    plan: str = opt("natural", "frozen: channel plan by which images are read")
    size: str = opt("0", "frozen: side that images are brought to; 0 = as trained, a number of pixels, or native")
    table: str = opt("", "table: feature table with an id column; {data} in it stands for the section's name")
    inference: tuple[str, ...] = opt((), "names of the options of inference it takes part in; empty = all")

    def __post_init__(self) -> None:
        check_literals(self)
        belongs = {"options": "trained", "weights": "frozen", "convert": "frozen", "table": "table"}
        problems = [f"kind={self.kind}: {key} belongs to kind={kind}." for key, kind in belongs.items()
                    if getattr(self, key) and self.kind != kind]  # fmt: skip
        problems += [f"kind={kind}: {kind if kind == 'table' else 'weights'} is empty." for kind in ("frozen", "table")
                     if self.kind == kind and not (self.weights or self.table)]  # fmt: skip
        if self.size != "native" and not self.size.isdecimal():
            problems.append(f"size={self.size}: 0, a number of pixels, or native.")
        if problems:
            raise ConfigError(" ".join(problems))


@dataclasses.dataclass(frozen=True)
class Inference:
    """One way to turn a crop into features with given weights."""

    title: str = opt("", "what tables call it; empty = its name")
    words: tuple[str, ...] = opt((), "words of `protloc embed`, for example --pooling,centre; empty = the class token")


@dataclasses.dataclass(frozen=True)
class Classify:
    """How features are read: linear probes of all classes, and support vector machines of every pair."""

    folds: int = opt(5, "folds of whole proteins, where donors come from all of them; else one a group of donors")
    together: tuple[str, ...] = opt(
        ("cell", "protein"), "what a fold keeps whole, where donors come from all proteins: cell, protein"
    )
    l2: float = opt(1e-2, "strength of the linear probe")
    fold_seed: int = opt(0, "seed of the folds")
    pairwise: bool = opt(True, "pairwise support vector machines by the paper's protocol too, plain inference only")
    pair_images: int = opt(0, "rows of each set that they use; 0 = all (published: 1,000)")
    triplets: int = opt(0, "only so many triplets of different and cell_free, drawn by a seed; 0 = all")


@dataclasses.dataclass(frozen=True)
class BackgroundStudy:
    """The study: every encoder under every option of inference, scored in every condition.

    Fixed here before a run: the reference arm and the plain inference, with which all others are compared; the
    protocol and the drop that the headline is about; the seeds.
    """

    name: str = opt("background", "name of the study")
    out: str = opt("runs/background", "folder of everything that is made")
    data: Mapping[str, Section] = dataclasses.field(default_factory=dict)
    more: Mapping[str, ImageSource] = dataclasses.field(default_factory=dict)
    encoders: Mapping[str, Encoder] = dataclasses.field(default_factory=dict)
    inference: Mapping[str, Inference] = dataclasses.field(default_factory=dict)
    config: str = opt("", "config file of pretraining")
    options: tuple[str, ...] = opt((), "key=value overrides of that config, for every encoder")
    reference: str = opt("", "the plain encoder that others are compared with")
    plain: str = opt("", "the plain option of inference that others are compared with")
    order: tuple[str, ...] = opt((), "names of encoders, then options of inference, in the order of the tables")
    only: tuple[str, ...] = opt((), "names of the encoders that take part; empty = all")
    on: tuple[str, ...] = opt((), "names of the data sections that take part; empty = all")
    runs: str = opt("", "folder with pretraining runs made elsewhere, named as the steps are; those there are used")
    seeds: tuple[int, ...] = opt((0,), "seeds of pretraining")
    conditions: tuple[str, ...] = opt(NAMES, f"which of {', '.join(NAMES)}")
    images: int = opt(200, "images of a set (published: 1,000)")
    sets: tuple[str, ...] = opt((), "further key=value settings of the sets, as `protloc background make` takes them")
    grid: str = opt("64x8", "cells x backgrounds of the measures without labels, where conditions name the grid")
    batch: int = opt(64, "images a batch while embedding")
    classify: Classify = dataclasses.field(default_factory=Classify)
    protocol: Literal["transfer", "retrained"] = opt("transfer", "protocol of the headline; the other stands beside")
    controls: tuple[str, ...] = opt(
        CONTROLS,
        "readable: the background alone must be readable by the plain encoder, and backgrounds that contradict the "
        "label must do more harm; permuted: classes exchanged between proteins must score at chance; seam: how well "
        "pasted and natural crops are told apart by their edges",
    )
    resamples: int = opt(2000, "bootstrap resamples over proteins")
    panel: int = opt(4, "cells shown under every condition; 0 = none")

    def __post_init__(self) -> None:
        check_literals(self)
        problems = [*absent("only", self.only, self.encoders), *absent("on", self.on, self.data)]
        problems += absent("order", self.order, {**self.encoders, **self.inference})
        for name, section in self.data.items():
            problems += absent(f"data.{name}.encoders", section.encoders, self.encoders)
        if not problems:
            _put_in_order(self)
        problems += _unknown(self) + _impossible(self)
        if problems:
            raise ConfigError("\n  ".join(problems))


def encoders_of(study: BackgroundStudy, section: str) -> dict[str, Encoder]:
    """The encoders that take part with a data section."""
    asked = study.data[section].encoders
    return {name: encoder for name, encoder in study.encoders.items() if not asked or name in asked}


def inference_of(study: BackgroundStudy, encoder: Encoder) -> dict[str, Inference]:
    """The options of inference that an encoder takes part in; a table was made by one, which counts as the plain."""
    if encoder.kind == "table":
        return {study.plain: study.inference[study.plain]}
    return {name: one for name, one in study.inference.items() if not encoder.inference or name in encoder.inference}


def seeds_of(study: BackgroundStudy, encoder: Encoder) -> tuple[int, ...]:
    """The seeds of an encoder: weights and tables from elsewhere have one."""
    return study.seeds if encoder.kind in ("trained", "untrained") else study.seeds[:1]


def native_of(section: Section) -> dict[str, str]:
    """The native records that a section names, by kind."""
    return {kind: getattr(section.native, kind) for kind in NATIVE if getattr(section.native, kind)}


def _put_in_order(study: BackgroundStudy) -> None:
    """Without what does not take part; config files come with their keys sorted, tables stand as asked for."""
    for key, kept in (("encoders", study.only), ("inference", ())):
        have = getattr(study, key)
        named = [*(n for n in study.order if n in have), *(n for n in have if n not in study.order)]
        object.__setattr__(study, key, {n: have[n] for n in named if not kept or n in kept})
    object.__setattr__(study, "order", tuple(n for n in study.order if n in {**study.encoders, **study.inference}))
    data = {n: s for n, s in study.data.items() if not study.on or n in study.on}
    for name, section in data.items():
        kept = tuple(n for n in section.encoders if n in study.encoders)
        data[name] = dataclasses.replace(section, encoders=kept or section.encoders)
    object.__setattr__(study, "data", data)


def _unknown(study: BackgroundStudy) -> list[str]:
    """References to sections that are not there, and sections that cannot be."""
    problems = []
    for name, section in study.data.items():
        problems += source_problems(f"data.{name}", section, DATASETS)
        if not encoders_of(study, name):
            problems.append(f"data.{name}: none of its encoders takes part (only={','.join(study.only)}).")
        named = {"patches": section.patches, **{f"native.{kind}": more for kind, more in native_of(section).items()}}
        for key, asked in named.items():
            problems += absent(f"data.{name}.{key}", (asked,) if asked else (), study.more)
        if section.patches and section.cell_free:
            problems.append(f"data.{name}: patches and cell_free both say where cell-free patches come from; give one.")
        if native_of(section) and not (section.native.same and section.native.other):
            problems.append(f"data.{name}.native: same and other are compared; give both.")
    for name, source in study.more.items():
        problems += source_problems(f"more.{name}", source, DATASETS)
    for name, encoder in study.encoders.items():
        problems += absent(f"encoders.{name}.inference", encoder.inference, study.inference)
        if encoder.inference and study.plain and study.plain not in encoder.inference:
            problems.append(f"encoders.{name}.inference: lacks the plain one, {study.plain}.")
    for key, have in (("reference", study.encoders), ("plain", study.inference)):
        problems += absent(key, (getattr(study, key),), have)
    return problems


def _impossible(study: BackgroundStudy) -> list[str]:
    problems = [f"{key}: name one section or more." for key in ("data", "encoders", "inference")
                if not getattr(study, key)]  # fmt: skip
    for key, known in (("controls", CONTROLS), ("conditions", NAMES)):
        wrong = [value for value in getattr(study, key) if value not in known]
        problems += [f"{key}: '{value}' is not one of {', '.join(known)}.{nearest(value, known)}" for value in wrong]
    lacking = [name for name in NEEDED if name not in study.conditions]
    if lacking:
        problems.append(f"conditions: the drop needs {', '.join(NEEDED)}; lacking: {', '.join(lacking)}.")
    if any(e.kind in ("trained", "untrained") for e in study.encoders.values()) and not study.config:
        problems.append("config is empty, and encoders are trained by it.")
    reference = study.encoders.get(study.reference)
    untrained = [name for name, e in study.encoders.items() if e.kind == "untrained"]
    if untrained and reference is not None and reference.kind != "trained":
        problems.append(f"encoders.{untrained[0]}: untrained is the reference before training; {study.reference} is "
                        f"{reference.kind}.")  # fmt: skip
    if not study.seeds:
        problems.append("seeds: one or more.")
    low = {"images": 1, "panel": 0, "batch": 1, "resamples": 1}
    problems += [f"{key}={getattr(study, key)}: at least {least}." for key, least in low.items()
                 if getattr(study, key) < least]  # fmt: skip
    return problems
