"""How the rows of a manifest are to be split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from protloc_jax.config import ConfigError, check_literals, opt


@dataclass(frozen=True)
class SplitConfig:
    """What kind of split, what must stay whole, and over which classes it is spread.

    Raises ConfigError naming every value that cannot be.
    """

    kind: Literal["holdout", "k_fold", "leave_one_group_out", "few_shot", "fractions", "chosen", "de_novo"] = opt(
        "holdout",
        "holdout (train, val, test once), k_fold, leave_one_group_out, few_shot (k of each class train), fractions "
        "(nested shares of one training part), or chosen (--test and --val say which rows); de_novo stands in files of "
        "`data split-de-novo`, which has options of its own",
    )
    by: tuple[str, ...] = opt(
        (), "columns no value of which may lie in two parts (several: whatever hangs together); empty = every image"
    )
    label: str = opt("labels", "column with the classes: labels, or any other; empty = no classes")
    stratify: tuple[str, ...] = opt((), "columns that are spread over the parts besides the classes")
    where: tuple[str, ...] = opt((), "use rows that meet column=a|b, column!=a or column>=0.5 only; others are unused")
    missing: Literal["refuse", "alone"] = opt(
        "refuse", "rows without a value in a column of `by`: refuse, or alone (each is a group of its own)"
    )
    shares: tuple[float, ...] = opt((0.7, 0.1, 0.2), "holdout and fractions: shares of train, val and test")
    folds: int = opt(5, "k_fold: folds; each is tested once, validates once, and trains otherwise")
    inner_by: str = opt("", "leave_one_group_out: column of finer groups by which validation rows are set aside")
    inner_share: float = opt(0.25, "leave_one_group_out: share of the training rows set aside by inner_by")
    shots: tuple[int, ...] = opt((1, 5, 10), "few_shot: groups (or images) of each class to train on, nested")
    of: Literal["groups", "examples"] = opt("groups", "few_shot: shots are whole groups, or one image of each")
    val_shots: int = opt(0, "few_shot: groups (or images) of each class to validate on")
    fractions: tuple[float, ...] = opt((0.01, 0.05, 0.1, 0.25, 0.5, 1.0), "fractions: shares of the training part")
    rare: Literal["report", "keep", "refuse"] = opt(
        "report",
        "classes that some part has to miss: report (listed), refuse, or keep (fractions: one group of every class in "
        "each)",
    )
    test: tuple[str, ...] = opt((), "chosen: rows to test, by conditions as in where")
    val: tuple[str, ...] = opt((), "chosen: rows to validate on, by conditions as in where")
    seeds: tuple[int, ...] = opt((0,), "one split, or set of splits, for each seed")

    def __post_init__(self) -> None:
        check_literals(self)
        problems = []
        shown = ",".join(f"{f:g}" for f in self.shares)
        if len(self.shares) != 3 or min(self.shares, default=0) < 0 or abs(sum(self.shares) - 1) > 1e-6:
            problems.append(
                f"shares={shown}: train,val,test as three fractions that add up to 1, for example .7,.1,.2."
            )
        elif self.shares[0] <= 0 or self.shares[2] <= 0:
            problems.append(f"shares={shown}: train and test must be above 0.")
        if self.kind == "k_fold" and self.folds < 3:
            problems.append(f"folds={self.folds}: at least 3, of which one tests and one validates.")
        if not 0 < self.inner_share < 1:
            problems.append(f"inner_share={self.inner_share:g}: must lie between 0 and 1.")
        if not self.shots or min(self.shots) < 1:
            problems.append(f"shots={list(self.shots)}: whole numbers, 1 or more.")
        if self.val_shots < 0:
            problems.append(f"val_shots={self.val_shots}: must be 0 or more.")
        if not self.fractions or not all(0 < f <= 1 for f in self.fractions):
            problems.append(f"fractions={list(self.fractions)}: must lie in (0, 1].")
        if self.rare == "keep" and self.kind != "fractions":
            problems.append("rare=keep: only for kind=fractions.")
        if self.kind == "few_shot" and not self.label:
            problems.append("kind=few_shot needs classes: give label.")
        if self.kind == "leave_one_group_out" and not self.by:
            problems.append("kind=leave_one_group_out needs by: the column whose values are left out.")
        if (self.kind == "chosen") != bool(self.test):
            problems.append("test: conditions for kind=chosen, which needs them.")
        if self.val and self.kind != "chosen":
            problems.append("val: only for kind=chosen.")
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) != len(self.seeds):
            problems.append(f"seeds={list(self.seeds)}: different whole numbers, 0 or more.")
        if problems:
            raise ConfigError("\n  ".join(problems))
