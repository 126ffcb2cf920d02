"""All scores of one feature table of made images: what is kept of the cell, and what its neighbours change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from protloc_jax.config import ConfigError, nearest, opt
from protloc_jax.data.manifest import listed
from protloc_jax.eval.background.joined import MadeFeatures, made_features
from protloc_jax.eval.background.protocols import Classifier, Protocol, ProtocolOptions
from protloc_jax.eval.background.rows import ConditionRows
from protloc_jax.eval.background.score_classes import Bin, Classified, Crossed, bins_of, classify, crossed_pairs
from protloc_jax.eval.background.score_grid import GridScores, grid_scores
from protloc_jax.eval.background.score_svc import Mode, SvcScores, svc_options, svc_scores
from protloc_jax.eval.features import FeatureTable

PARTS = ("svc", "classifiers", "crossed", "label_free", "bins")
Progress = Callable[[str, int, int], Any]


@dataclass(frozen=True)
class ScoreOptions:
    """What is scored, and how."""

    parts: tuple[str, ...] = opt(PARTS, "svc, classifiers, crossed (pairs, transferred), label_free, bins")
    svc: tuple[str, ...] = opt(get_args(Mode), "pairwise classifiers: published, grouped")
    triplets: int = opt(0, "of different and cell_free, only so many triplets, drawn by the seed 42; 0 = all")
    classifiers: tuple[str, ...] = opt(get_args(Classifier), "of all classes at once: probe, knn")
    protocols: tuple[str, ...] = opt(get_args(Protocol), "retrained, transfer")
    folds: int = opt(0, "folds; 0 = one a group of donors; without groups as many as a class has proteins, up to five")
    donors: Literal["drop", "keep"] = opt("drop", "rows whose donor crop is on the other side of a fold: drop, keep")
    l2: float = opt(0.01, "strength of the probe's penalty")
    k: int = opt(20, "neighbours")
    resamples: int = opt(2000, "bootstrap resamples of proteins")
    level: float = opt(0.95, "level of intervals")
    seed: int = opt(0, "seed of folds and bootstrap")
    workers: int = opt(2, "threads of the pairwise classifiers")

    def __post_init__(self) -> None:
        known = {
            "parts": PARTS,
            "svc": get_args(Mode),
            "classifiers": get_args(Classifier),
            "protocols": get_args(Protocol),
        }
        problems = [
            f"{key}: '{name}' is not one of {', '.join(names)}.{nearest(name, names)}"
            for key, names in known.items()
            for name in getattr(self, key)
            if name not in names
        ]
        least = {"triplets": 0, "folds": 0, "resamples": 1, "workers": 1}
        problems += [f"{k}={getattr(self, k)}: at least {n}." for k, n in least.items() if getattr(self, k) < n]
        if not 0 < self.level < 1:
            problems.append(f"level={self.level}: between 0 and 1.")
        if problems:
            raise ConfigError(listed(problems))
        self.protocol_options("probe", groups=1, folds=5)

    def protocol_options(self, classifier: Classifier, *, groups: int, folds: int) -> ProtocolOptions:
        """Folds by the donors' groups where there are any, else by cell and protein."""
        return ProtocolOptions(
            classifier,
            l2=self.l2,
            k=self.k,
            folds=folds,
            seed=self.seed,
            group_by=("group",) if groups > 1 else ("cell", "protein"),
            donors=self.donors,
        )


@dataclass(frozen=True)
class BackgroundScores:
    """Everything that was scored, and what was not, with the reason.

    svc         mode -> condition -> pairwise classifiers
    classified  one a classifier and protocol
    crossed     classifiers of two classes, transferred; None where not asked for or impossible, as is `grid`
    bins        by the share of other cells' pixels, of the first classifier, transferred where that was asked for
    """

    made: MadeFeatures
    options: ScoreOptions
    svc: dict[str, dict[str, SvcScores]]
    classified: list[Classified]
    crossed: Crossed | None
    grid: GridScores | None
    bins: list[Bin]
    not_scored: dict[str, str]


def score_table(
    features: FeatureTable,
    options: ScoreOptions = ScoreOptions(),
    *,
    made: str | Path | None = None,
    progress: Progress | None = None,
) -> BackgroundScores:
    """Score a feature table of images of `protloc background make`.

    made      that folder, for tables without its columns (see `made_features`)
    progress  called with (what, done, total)
    Raises ValueError for a table that cannot be sorted into conditions, or has no baseline. Whatever else cannot be
    scored stands in `not_scored`.
    """
    found = made_features(features, made)
    if any((names != "").any() for names in found.mixes.values()):
        raise ValueError(
            "these are mixes of known shares (`make --mixes`), whose images are no sets of a condition: "
            "`protloc background proportions --mixes` scores them."
        )
    if "baseline" not in found.conditions:
        raise ValueError(f"no image of condition baseline, only {', '.join(found.conditions)}.")
    not_scored: dict[str, str] = {}
    folds = options.folds or (found.groups if found.groups > 1 else _folds(found.conditions["baseline"]))
    bootstrap = {"resamples": options.resamples, "level": options.level, "seed": options.seed}
    conditions = {n: r for n, r in found.conditions.items() if n != "grid"}
    svc: dict[str, dict[str, SvcScores]] = {}
    if "svc" in options.parts:
        for mode in (m for m in get_args(Mode) if m in options.svc):
            svc[mode], failed = svc_scores(
                conditions,
                found.classes,
                mode,
                svc_options(mode, groups=found.groups, folds=folds),
                triplets=options.triplets,
                workers=options.workers,
                progress=progress,
            )
            not_scored |= failed
    classified = []
    # Bins need a classifier, so they bring the first.
    wanted: list[tuple[Classifier, Protocol]] = []
    if "classifiers" in options.parts:
        wanted = [
            (c, p)
            for c in get_args(Classifier)
            for p in get_args(Protocol)
            if c in options.classifiers and p in options.protocols
        ]
    if not wanted and "bins" in options.parts and found.shares:
        wanted = [("probe", "transfer")]
    for number, (classifier, protocol) in enumerate(wanted):
        how = options.protocol_options(classifier, groups=found.groups, folds=folds)
        try:
            classified.append(classify(conditions, protocol, how, bootstrap))
        except ValueError as error:
            not_scored[f"{classifier}, {protocol}"] = str(error)
        if progress is not None:
            progress("classifiers", number + 1, len(wanted))
    crossed = grid = None
    probe = options.protocol_options("probe", groups=found.groups, folds=folds)
    if "crossed" in options.parts:
        if "crossed" not in conditions:
            not_scored["crossed"] = "no images of different or crossed"
        else:
            try:
                crossed = crossed_pairs(conditions, found.classes, probe, bootstrap, progress)
            except ValueError as error:
                not_scored["crossed"] = str(error)
    if "label_free" in options.parts:
        if "grid" not in found.conditions:
            not_scored["label_free"] = "no images of the grid"
        else:
            try:
                keep = replace(probe, donors="keep")
                grid, why = grid_scores(found.conditions["grid"], conditions["baseline"], keep)
                if why:
                    not_scored["flips"] = why
            except ValueError as error:
                not_scored["label_free"] = str(error)
    bins: list[Bin] = []
    if "bins" in options.parts:
        if not found.shares:
            not_scored["bins"] = "no column others_share"
        elif classified:
            transferred = [c for c in classified if c.protocol == "transfer"]
            bins = bins_of((transferred or classified)[0].scores, found.shares)
    for one in classified:
        not_scored |= {f"{one.classifier}, {one.protocol}: {what}": why for what, why in one.not_scored.items()}
    return BackgroundScores(found, options, svc, classified, crossed, grid, bins, not_scored)


def _folds(baseline: ConditionRows) -> int:
    """As many as the class with the fewest has proteins, from two to five."""
    of = {(c, p) for c, p in zip(baseline.label, baseline.protein, strict=True)}
    return max(2, min(5, *Counter(c for c, _ in of).values()))
