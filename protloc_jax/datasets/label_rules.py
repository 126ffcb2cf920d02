"""Which labelled images a study takes: one label or several, rare classes, images without a label; all counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from protloc_jax.config import ConfigError, check_literals, opt
from protloc_jax.data.manifest import capped


@dataclass(frozen=True)
class LabelRules:
    """Rules that turn labels as published into those of a study, applied in the order of the fields."""

    label: Literal["multi", "single"] = opt(
        "multi", "multi takes images with any number of labels; single leaves out those with more than one"
    )
    min_proteins: int = opt(0, "a class in fewer proteins than this (of those with images) is rare; 0 = none is")
    rare: Literal["drop_class", "drop_images"] = opt(
        "drop_class",
        "rare classes: drop_class takes the label away and keeps images that have another; drop_images leaves out "
        "every image with a rare class, until no class is rare",
    )
    unlabelled: Literal["drop", "keep"] = opt(
        "drop", "images without any label (left): left out and listed, or kept without labels, to pretrain on say"
    )

    def __post_init__(self) -> None:
        check_literals(self)
        if self.min_proteins < 0:
            raise ConfigError(f"min_proteins={self.min_proteins}: must be 0 or more.")


@dataclass
class Ruled:
    """Labels after the rules.

    labels   per image; () where none is left
    reasons  per image why it is left out, "" where it stays
    rare     class -> proteins that had it when it was found to be rare
    notes    what was done, with counts
    """

    labels: list[tuple[str, ...]]
    reasons: list[str]
    rare: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def apply_rules(rules: LabelRules, labels: Sequence[tuple[str, ...]], proteins: Sequence[str]) -> Ruled:
    """Apply the rules to the labels of images; `proteins` says which images count as one protein for min_proteins."""
    done = Ruled(list(labels), [""] * len(labels))
    if rules.label == "single":
        several = [i for i, own in enumerate(labels) if len(own) > 1]
        for i in several:
            done.reasons[i] = f"several labels ({'; '.join(labels[i])}) and label=single"
        if several:
            names = {proteins[i] for i in several}
            done.notes.append(f"label=single: {len(several)} images of {len(names)} proteins with several labels.")
    while rare := _rare(rules, done, proteins):
        _drop(rules, done, rare)
        if rules.rare == "drop_class":
            break  # taking a label away makes no other class rarer
    if done.rare:
        shown = capped([f"{name} ({count})" for name, count in sorted(done.rare.items())], 30)
        done.notes.append(
            f"rare={rules.rare}: {len(done.rare)} class(es) in fewer than min_proteins={rules.min_proteins} proteins "
            f"are dropped: {shown}."
        )
    bare = [i for i, own in enumerate(done.labels) if not own and not done.reasons[i]]
    if rules.unlabelled == "drop":
        for i in bare:
            lost = f" (rare: {'; '.join(labels[i])})" if labels[i] else ""
            done.reasons[i] = f"no label{lost}"
    if bare:
        verb = "left out" if rules.unlabelled == "drop" else "kept without labels"
        names = {proteins[i] for i in bare}
        done.notes.append(f"unlabelled={rules.unlabelled}: {len(bare)} images of {len(names)} proteins are {verb}.")
    return done


def _rare(rules: LabelRules, done: Ruled, proteins: Sequence[str]) -> dict[str, int]:
    """Class -> proteins, of the classes that occur in fewer proteins than asked for."""
    found: dict[str, set[str]] = {}
    for own, why, protein in zip(done.labels, done.reasons, proteins, strict=True):
        for name in own if not why else ():
            found.setdefault(name, set()).add(protein)
    return {name: len(own) for name, own in found.items() if len(own) < rules.min_proteins}


def _drop(rules: LabelRules, done: Ruled, rare: dict[str, int]) -> None:
    done.rare.update(rare)
    for i, own in enumerate(done.labels):
        gone = [name for name in own if name in rare]
        if gone and not done.reasons[i]:
            if rules.rare == "drop_images":
                done.reasons[i] = f"rare class {'; '.join(gone)}"
            else:
                done.labels[i] = tuple(name for name in own if name not in rare)
