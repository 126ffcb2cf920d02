"""Shares of every protein's cells per class with and without background, and how far the two are apart.

One linear classifier is fitted for each of two feature tables of the same cells (crops as they are, and masked) on
cells of proteins of exactly one class. It then gives the shares of proteins of several classes, by the three estimators
of `proportions`; KL(original, other) says how far both are apart.

Source: Gupta, Moses & Lu, PMLR 311 (2025) 162, sections 3.6 and 4.5, appendix E, and its code. When comparing with
`PUBLISHED`:

- The text labels each cell and takes shares (`hard`). The code has one row a protein, perhaps a mean profile
  (`mean_profile`), perhaps one cell.
- The 1,531 proteins are called multiply localised, but the table of labels has 1,271 of those. Most likely they are all
  labelled proteins outside the 15 single classes (`targets=others`).
- "Fewer than five proteins" does not give these 15 classes from that table; `classes` names them.
- The masked crops go through a network that never saw masked crops: part of the divergence is that shift, not a removed
  confounder. Nothing in it says which model is right; mixes of known shares do (`share_errors`).
- Theirs is a layer trained by Adam without penalty on unscaled features, ours a converged fit with a penalty on
  standardised ones, and whole proteins are held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import numpy as np

from protloc_jax.data.manifest import capped
from protloc_jax.eval import scores, statistics
from protloc_jax.eval.background import proportions
from protloc_jax.eval.background.proportions import Disagreement, Estimator
from protloc_jax.eval.background.share_cells import Joined, Roles, ShareOptions, join_tables, roles_of
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.probe import ProbePath, fit_probe

TABLES = ("original", "other")
MACRO = {
    "precision": scores.macro_precision_of,
    "recall": scores.balanced_accuracy_of,
    "f1": scores.macro_f1_of,
}
PUBLISHED: dict[str, Any] = {
    "source": "Gupta, Moses & Lu, PMLR 311 (2025) 162, section 4.5, appendix E; its notebook analyze_lr",
    "data": "PIFiA features of yeast cells, masked crops as the other table, 15 classes",
    "kl": {
        "n": 1531, "mean": 0.800, "sd": 0.947, "min": 0.003, "q25": 0.187, "median": 0.479, "q75": 1.047, "max": 9.752,
    },
    "substantial": 0.146,
    "held_out": {
        "original": {"precision": 0.833, "recall": 0.707, "f1": 0.758},
        "other": {"precision": 0.645, "recall": 0.372, "f1": 0.428},
    },
}  # fmt: skip


class HeldOut(NamedTuple):
    """Precision, recall and F1 of both tables on held-out proteins, means over the classes that occur among them.

    counts      table -> [G, 3, L] true positives, false positives, false negatives of each held-out protein
    macro       table -> measure -> interval over proteins; difference: original - other, the same proteins drawn
    not_tested  classes without a held-out protein
    """

    proteins: tuple[str, ...]
    counts: dict[str, np.ndarray]
    macro: dict[str, dict[str, statistics.Interval]]
    difference: dict[str, statistics.Difference]
    not_tested: tuple[str, ...]


class Compared(NamedTuple):
    """One estimator: shares [G, L] of the proteins by both tables, their disagreement, and its distribution."""

    original: np.ndarray
    other: np.ndarray
    found: Disagreement
    kl: dict[str, float]


@dataclass(frozen=True)
class ShareAnalysis:
    """Everything found. `proteins` [G] are those estimated, `cells` [G] their numbers of cells.

    other_classes   estimated proteins that have a class which the classifiers lack
    unconverged     tables whose fit stopped early
    """

    options: ShareOptions
    cells_of: Joined
    roles: Roles
    training_cells: int
    held_out: HeldOut
    proteins: tuple[str, ...]
    cells: np.ndarray
    by: dict[Estimator, Compared]
    other_classes: tuple[str, ...]
    unconverged: tuple[str, ...]


def analyse_shares(
    original: FeatureTable, other: FeatureTable, options: ShareOptions | None = None, *, proteins: Sequence[str] = ()
) -> ShareAnalysis:
    """Fit both classifiers, score them on held-out proteins, fit them on all, and estimate shares.

    proteins   estimate these, whatever their classes; they do not train. Without, `options.targets`
    Raises ValueError as `join_tables` and `roles_of` do.
    """
    options = options or ShareOptions()
    cells = join_tables(original, other, options)
    roles = roles_of(cells, options, proteins)
    protein = cells.protein.astype(str)
    target = np.array([roles.own.get(p, -1) for p in protein.tolist()])
    held = np.isin(protein, list(roles.held)) & (target >= 0)
    wanted = np.isin(protein, roles.targets)
    trains, rows = np.flatnonzero(target >= 0), np.flatnonzero(wanted)
    hot = scores.one_hot(target[trains], len(roles.classes))
    # Fold 0 leaves the held-out proteins out; fold 1 has all.
    folds = np.stack([~held[trains], np.ones(len(trains), bool)])
    logits, counts, unconverged = {}, {}, []
    tested = np.flatnonzero(held)
    for name in TABLES:
        x = getattr(cells, name)
        path = fit_probe(x[trains], hot, kind="multinomial", l2=[options.l2], train=folds)
        if not path.converged.all():
            unconverged.append(name)
        answers = class_scores(path, x[tested], fold=0).argmax(axis=1)
        both = [scores.one_hot(c, len(roles.classes)) for c in (target[tested], answers)]
        counts[name], _ = statistics.group_sums(scores.row_counts(*both), protein[tested])
        logits[name] = class_scores(path, x[rows], fold=1)
    by = {}
    for estimator in get_args(Estimator):
        one, two = (proportions.shares_by_group(logits[n], protein[rows], estimator=estimator)[0] for n in TABLES)
        found = proportions.disagreement(one, two)
        by[estimator] = Compared(one, two, found, distribution(found.kl))
    names, sizes = np.unique(protein[rows], return_counts=True)
    lacking = tuple(p for p in roles.targets if set(roles.labels[p]) - set(roles.classes))
    return ShareAnalysis(
        options,
        cells,
        roles,
        len(trains),
        _held_out(counts, tuple(sorted(roles.held)), roles, options),
        tuple(map(str, names)),
        sizes,
        by,
        lacking,
        tuple(unconverged),
    )


def class_scores(path: ProbePath, x: np.ndarray, *, fold: int, step: int = 0) -> np.ndarray:
    """A multinomial probe's scores float64 [N, L] before the softmax.

    Raises ValueError where a class had no training row in the fold: it has no score.
    """
    unfitted = np.flatnonzero(~np.isnan(path.constant[fold]))
    if unfitted.size:
        raise ValueError(f"fold {fold}: no training row of classes {capped([str(c) for c in unfitted])}.")
    mean, scale = path.mean[fold].astype(np.float64), path.scale[fold].astype(np.float64)
    return (np.asarray(x, np.float64) - mean) / scale @ path.weight[step, fold].T + path.bias[step, fold]


def distribution(values: np.ndarray) -> dict[str, float]:
    """n, mean, sample standard deviation (NaN for one value), minimum, quartiles and maximum."""
    low, *quartiles, high = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist()
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    names = ("q25", "median", "q75")
    middle = dict(zip(names, quartiles, strict=True))
    return {"n": len(values), "mean": float(np.mean(values)), "sd": spread, "min": low, **middle, "max": high}


def _held_out(counts: dict[str, np.ndarray], who: tuple[str, ...], roles: Roles, options: ShareOptions) -> HeldOut:
    both = counts["original"], counts["other"]
    how: dict[str, Any] = {"resamples": options.resamples, "level": options.level, "seed": options.seed}
    macro = {n: {m: statistics.bootstrap(c, of, **how) for m, of in MACRO.items()} for n, c in counts.items()}
    difference = {m: statistics.paired_difference(*both, of, **how) for m, of in MACRO.items()}
    tested = {roles.own[p] for p in who}
    return HeldOut(who, counts, macro, difference, tuple(c for i, c in enumerate(roles.classes) if i not in tested))
