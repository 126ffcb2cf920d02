"""The pairwise classifiers of every condition, as published and grouped, averaged by both rules."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, cast

import numpy as np

from protloc_jax.eval.background import averaging
from protloc_jax.eval.background.averaging import ClassMeans, class_means
from protloc_jax.eval.background.pairwise import PUBLISHED, By, PairScore, SvmOptions, columns_of, pairwise_scores
from protloc_jax.eval.background.rows import ConditionRows
from protloc_jax.eval.background.spec import CONDITIONS

Mode = Literal["published", "grouped"]
TRIPLETS = ("different", "cell_free")


class SvcScores(NamedTuple):
    """One condition's pairs, or triplets.

    of       how many there are; fewer scores than that are a sample
    text     averaged over classes as the paper's text says; table1 as its table 1 does (None: not one of its
             conditions, or a sample)
    """

    condition: str
    mode: Mode
    scores: list[PairScore]
    of: int
    text: ClassMeans
    table1: ClassMeans | None


def svc_options(mode: Mode, *, groups: int, folds: int) -> SvmOptions:
    """PUBLISHED, or standardised features in folds of the donors' groups (without groups: of cells and proteins, and
    training rows that share a crop with the tested ones are purged)."""
    if mode == "published":
        return PUBLISHED
    if groups > 1:
        return SvmOptions(folds=folds, group_by=("group",))
    return SvmOptions(folds=folds, group_by=("cell", "protein"), purge_by=("crop",))


def svc_scores(
    conditions: Mapping[str, ConditionRows],
    classes: Sequence[str],
    mode: Mode,
    options: SvmOptions,
    *,
    triplets: int = 0,
    workers: int = 1,
    progress: Callable[[str, int, int], Any] | None = None,
) -> tuple[dict[str, SvcScores], dict[str, str]]:
    """Scores of every condition that may be re-trained, and why the others could not be scored.

    triplets   of different and cell_free, only so many, drawn by the options' seed; 0 takes all
    """
    found, not_scored = {}, {}
    for name, rows in conditions.items():
        if name not in CONDITIONS or "retrained" not in CONDITIONS[name].protocols:
            continue
        by: By = "triplet" if name in TRIPLETS else "pair"
        has = tuple(c for c in classes if c in rows.classes)
        per_class = options
        if mode == "published" and options.rows_per_class is not None:
            per_class = replace(options, rows_per_class=max(options.folds, options.rows_per_class))
        try:
            scores = pairwise_scores(
                rows,
                per_class,
                by=by,
                classes=has,
                triplets=triplets,
                workers=workers,
                progress=None if progress is None else (lambda d, n, name=name: progress(f"{mode} {name}", d, n)),
            )
        except ValueError as error:
            not_scored[f"svc {mode}, {name}"] = str(error)
            continue
        thirds = set(rows.background) - {""} if by == "triplet" else {""}
        of = sum(len(thirds - set(pair)) for pair in itertools.combinations(has, 2))
        found[name] = _averaged(name, mode, scores, of, has)
    return found, not_scored


def _averaged(name: str, mode: Mode, scores: list[PairScore], of: int, classes: tuple[str, ...]) -> SvcScores:
    if len(scores) < of:
        return SvcScores(name, mode, scores, of, _sampled(scores, classes), None)
    columns: dict[str, Any] = columns_of(scores)
    # Conditions of ours are averaged as `same` is: every pair counts for both of its classes.
    condition = cast(averaging.Condition, name if CONDITIONS[name].published else "same")
    how: dict[str, Any] = {**columns, "classes": classes, "condition": condition}
    table1 = class_means(**how, rule="paper_table1") if CONDITIONS[name].published else None
    return SvcScores(name, mode, scores, of, class_means(**how), table1)


def _sampled(scores: list[PairScore], classes: tuple[str, ...]) -> ClassMeans:
    """The text's rule over the triplets that were drawn; classes in none of them have no value."""
    values = {c: [s.mean for s in scores if c in (s.first, s.second)] for c in classes}
    present = tuple(c for c in classes if values[c])
    means = np.array([np.mean(values[c]) for c in present])
    rows = np.array([len(values[c]) for c in present])
    return ClassMeans(present, means, rows, *averaging.mean_and_spread(means), 0)
