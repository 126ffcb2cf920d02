"""How a perturbation screen is split to ask what a model knows of a cell line that it never saw."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from protloc_jax.config import ConfigError, check_literals, opt

VAL_SHOTS = {"image": 2, "well": 1, "batch": 0}
_FEW_SHOT = ("group", "shots", "val_shots", "of")
_UNUSED = {  # options that a task has no use for
    "few_shot": ("lines", "val_share", "empty"),
    "pretrain": (*_FEW_SHOT, "empty", "val_batches", "test_batches"),
    "wilds": (*_FEW_SHOT, "line", "lines", "val_share", "condition"),
}


@dataclass(frozen=True)
class DeNovoConfig:
    """Which question is asked, of which cell line, with how many examples of each perturbation.

    Raises ConfigError naming every value that cannot be.
    """

    task: Literal["few_shot", "pretrain", "wilds"] = opt(
        "few_shot",
        "few_shot (k of each perturbation of one cell line train), pretrain (all other cell lines train, this one is "
        "unused), or wilds (RxRx1 of WILDS: experiments held out, all cell lines in every part)",
    )
    line: str = opt("", "the de novo cell line: scored by few_shot, held out by pretrain")
    group: Literal["image", "well", "batch"] = opt(
        "well",
        "few_shot: what lies in one part only: image (as published; test images share wells with training images), "
        "well (its sites together), or batch (training and test come from different experiments)",
    )
    shots: tuple[int, ...] = opt(
        (1,), "few_shot: images (group=image) or wells of each perturbation to train on, nested"
    )
    val_shots: int = opt(
        -1, "few_shot: the same to validate on; -1 = 2 images or 1 well (group=batch validates on one experiment)"
    )
    of: Literal["groups", "examples"] = opt(
        "groups",
        "few_shot by well or batch: a shot is a whole well, or one image of it (its other sites are then unused)",
    )
    controls: Literal["classes", "unused"] = opt(
        "classes", "positive controls, which have a perturbation: classes like the others, or unused"
    )
    empty: Literal["unused", "class"] = opt(
        "unused", "wilds: negative controls (EMPTY): unused, or a class of their own (then classes are those of sirna)"
    )
    condition: str = opt(
        "Active SARS-CoV-2", "only rows with this disease_condition, where the data have that column; empty = all"
    )
    lines: tuple[str, ...] = opt((), "pretrain: train on these cell lines only; none named means all but line")
    val_share: float = opt(0.02, "pretrain: share of each experiment's wells set aside for validation")
    val_batches: tuple[str, ...] = opt(
        (),
        "experiments that validate; none named: by group=batch one of the training experiments, drawn by the seed; by "
        "wilds the first test experiment of each cell line, as there",
    )
    test_batches: tuple[str, ...] = opt(
        (), "group=batch and wilds: experiments that test; none named: those whose published_split is test"
    )
    label: str = opt("perturbation", "column with the classes")
    seeds: tuple[int, ...] = opt((0,), "one split, or set of nested splits, for each seed")

    def __post_init__(self) -> None:
        check_literals(self)
        problems = []
        if self.task != "wilds" and not self.line:
            problems.append(f"line: task={self.task} needs a cell line.")
        if not self.shots or min(self.shots) < 1 or len(set(self.shots)) != len(self.shots):
            problems.append(f"shots={list(self.shots)}: different whole numbers, 1 or more.")
        if self.val_shots < -1:
            problems.append(f"val_shots={self.val_shots}: must be 0 or more (-1 = by the group).")
        if self.val_shots > 0 and self.group == "batch":
            problems.append("val_shots: group=batch validates on a whole experiment.")
        if self.of == "examples" and self.group == "image":
            problems.append("of=examples: by group=image every image is one.")
        if self.line and self.line in self.lines:
            problems.append(f"lines: {self.line} is the cell line that is held out.")
        if not 0 <= self.val_share < 1:
            problems.append(f"val_share={self.val_share:g}: must lie in [0, 1).")
        if self.task == "few_shot" and self.group != "batch" and (self.val_batches or self.test_batches):
            problems.append("val_batches, test_batches: only for group=batch and task=wilds.")
        if both := sorted(set(self.val_batches) & set(self.test_batches)):
            problems.append(f"val_batches and test_batches both name {', '.join(both)}.")
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) != len(self.seeds):
            problems.append(f"seeds={list(self.seeds)}: different whole numbers, 0 or more.")
        if self.task == "wilds" and len(self.seeds) > 1:
            problems.append("seeds: nothing is drawn for task=wilds.")
        default = {field.name: field.default for field in fields(self)}
        if idle := [name for name in _UNUSED.get(self.task, ()) if getattr(self, name) != default[name]]:
            problems.append(f"{', '.join(idle)}: no use for task={self.task}.")
        if problems:
            raise ConfigError("\n  ".join(problems))

    @property
    def val(self) -> int:
        """Images or wells of each perturbation to validate on."""
        return VAL_SHOTS[self.group] if self.val_shots < 0 else self.val_shots
