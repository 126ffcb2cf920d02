"""The error of estimated shares on mixes of known shares, among cells of the other class and on the cells' own crops.

A linear classifier is fitted on baseline images and gives the shares of every mix (`mix_sets`). What the error under
`crossed` exceeds that under `self_paste`, of the same cells, is the neighbours' part. L1 is the sum of absolute
differences (0 to 2), KL is KL(truth, estimate) by the rule of `proportions`. Ours; the paper compares two models
without a truth (section 4.5).

Where cells and donors come from groups of proteins, the classifier of a mix is fitted on the other groups. Without
groups it leaves out the mix's proteins, where every class then still has a training row; else it has seen them, which
is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from protloc_jax.config import to_dict
from protloc_jax.data.manifest import capped
from protloc_jax.eval import scores, statistics
from protloc_jax.eval.background.joined import MadeFeatures, made_features
from protloc_jax.eval.background.mix_sets import MIXED
from protloc_jax.eval.background.mixes import errors
from protloc_jax.eval.background.proportions import Estimator, MixErrors
from protloc_jax.eval.background.rows import ConditionRows
from protloc_jax.eval.background.score_output import plain
from protloc_jax.eval.background.share_analysis import class_scores
from protloc_jax.eval.background.share_cells import ShareOptions
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.probe import fit_probe

Measure = Literal["l1", "kl"]
_CROSSED, _OWN = MIXED


class MeanErrors(NamedTuple):
    """Means over mixes under both conditions, and crossed - self_paste, the same mixes drawn for both."""

    crossed: statistics.Interval
    self_paste: statistics.Interval
    difference: statistics.Difference


@dataclass(frozen=True)
class MixScores:
    """Errors on mixes.

    mixes    [G] names; cells [G]; seen [G]: the classifier was fitted on proteins of the mix
    each     estimator -> condition -> errors of each mix; means: estimator -> measure -> means over mixes
    grouped  the classifiers' folds are the groups of proteins that mixes were drawn from
    left_out mix -> why
    """

    made: MadeFeatures
    options: ShareOptions
    mixes: tuple[str, ...]
    cells: np.ndarray
    seen: np.ndarray
    each: dict[Estimator, dict[str, MixErrors]]
    means: dict[Estimator, dict[Measure, MeanErrors]]
    grouped: bool
    left_out: dict[str, str]


def score_mixes(
    features: FeatureTable, options: ShareOptions | None = None, *, made: str | Path | None = None
) -> MixScores:
    """Errors of all three estimators on the mixes of a feature table of `protloc background make --mixes`.

    made   that folder, for tables without its columns. Of the options l2, resamples, level and seed are used
    Mixes whose cells are not the same in both conditions are left out, with the reason. Raises ValueError for a table
    without baseline images or mixes, and where no two mixes are left.
    """
    options = options or ShareOptions()
    found = made_features(features, made)
    lacking = [name for name in ("baseline", *MIXED) if name not in found.conditions]
    if not found.mixes or lacking:
        what = f"no image of {', '.join(lacking)}" if lacking else "no column 'mix'"
        raise ValueError(f"{what}: mixes of known shares are made by `protloc background make --mixes N`.")
    rows, mix_of, donors_of, left_out = _paired(found)
    names = sorted(set(mix_of[_CROSSED]))
    if len(names) < 2:
        why = f" Left out: {capped([f'{n} ({w})' for n, w in left_out.items()])}." if left_out else ""
        raise ValueError(f"{len(names)} mixes with the same cells in {' and '.join(MIXED)}; two are needed.{why}")
    base = found.conditions["baseline"]
    masks, fold_of, seen, grouped = training_rows(base, rows, mix_of, donors_of, names)
    number = {c: i for i, c in enumerate(found.classes)}
    target = np.array([number[c] for c in base.label])
    path = fit_probe(
        base.features, scores.one_hot(target, len(number)), kind="multinomial", l2=[options.l2], train=masks
    )
    each: dict[Estimator, dict[str, MixErrors]] = {e: {} for e in get_args(Estimator)}
    for condition in MIXED:
        own, mix = rows[condition], mix_of[condition]
        logits = np.empty((len(own), len(number)))
        fold = np.array([fold_of[m] for m in mix])
        for f in np.unique(fold).tolist():
            logits[fold == f] = class_scores(path, own.features[fold == f], fold=f)
        who = {"centre_class": own.label, "mix": mix.astype(str)}
        for estimator, by in each.items():
            by[condition] = errors(logits, who, found.classes, estimator=estimator)
    how: dict[str, Any] = {"resamples": options.resamples, "level": options.level, "seed": options.seed}
    means: dict[Estimator, dict[Measure, MeanErrors]] = {
        estimator: {m: _means(getattr(by[_CROSSED], m), getattr(by[_OWN], m), how) for m in get_args(Measure)}
        for estimator, by in each.items()
    }
    cells = np.array([int((mix_of[_CROSSED] == name).sum()) for name in names])
    return MixScores(found, options, tuple(names), cells, seen, each, means, grouped, left_out)


def as_dict(found: MixScores) -> dict[str, Any]:
    """The means and what they rest on, ready for JSON."""
    seen = int(found.seen.sum())
    if found.grouped:
        training = "baseline images of the other groups of proteins"
    elif not seen:
        training = "baseline images of other proteins than the mix's"
    else:
        training = f"baseline images; for {seen} of {len(found.mixes)} mixes their own proteins among them"
    return plain(
        {
            "synthetic": found.made.synthetic,
            "made": found.made.about,
            "options": {k: v for k, v in to_dict(found.options).items() if k in ("l2", "resamples", "level", "seed")},
            "classes": found.made.classes,
            "mixes": len(found.mixes),
            "cells": int(found.cells.sum()),
            "training": training,
            "mixes_of_proteins_trained_on": seen,
            "left_out": found.left_out,
            "missing": {"count": len(found.made.missing), "ids": found.made.missing[:1000]},
            "extra": {"count": len(found.made.extra), "ids": found.made.extra[:1000]},
            "errors": {
                estimator: {
                    measure: {
                        _CROSSED: one.crossed.as_dict(),
                        _OWN: one.self_paste.as_dict(),
                        "crossed_minus_self_paste": {
                            **one.difference.interval.as_dict(),
                            "p_value": one.difference.p_value,
                        },
                    }
                    for measure, one in by.items()
                }
                for estimator, by in found.means.items()
            },
        }
    )


def mix_rows(found: MixScores) -> list[dict[str, Any]]:
    """One row a mix, condition and estimator: errors, and per class the true share and the estimate."""
    rows = []
    for estimator, by in found.each.items():
        for condition, one in by.items():
            for g, name in enumerate(found.mixes):
                row: dict[str, Any] = {"mix": name, "condition": condition, "estimator": estimator}
                row |= {"cells": int(found.cells[g]), "proteins_trained_on": bool(found.seen[g])}
                row |= {"l1": float(one.l1[g]), "kl": float(one.kl[g])}
                for i, label in enumerate(found.made.classes):
                    row[f"true: {label}"] = float(one.truth[g, i])
                    row[f"estimate: {label}"] = float(one.estimate[g, i])
                rows.append(row)
    return rows


def _paired(
    found: MadeFeatures,
) -> tuple[dict[str, ConditionRows], dict[str, np.ndarray], dict[str, np.ndarray], dict[str, str]]:
    """Rows of the mixes with the same cells in both conditions, their mixes, donors' proteins, and mixes left out."""
    cells: dict[str, dict[str, list[str]]] = {c: {} for c in MIXED}
    for condition in MIXED:
        for name, cell in zip(found.mixes[condition], found.conditions[condition].cell, strict=True):
            if name:
                cells[condition].setdefault(name, []).append(cell)
    left_out = {}
    for name in sorted(set(cells[_CROSSED]) | set(cells[_OWN])):
        own = [sorted(cells[c].get(name, [])) for c in MIXED]
        if own[0] != own[1]:
            left_out[name] = f"{len(own[0])} cells in {_CROSSED} and {len(own[1])} in {_OWN}, not the same"
    rows, mix_of, donors_of = {}, {}, {}
    for condition in MIXED:
        names = found.mixes[condition]
        kept = np.array([bool(n) and n not in left_out for n in names], bool)
        rows[condition], mix_of[condition] = found.conditions[condition].take(kept), names[kept]
        donors_of[condition] = found.donors_of[condition][kept]
    return rows, mix_of, donors_of, left_out


def training_rows(
    base: ConditionRows,
    rows: dict[str, ConditionRows],
    mix_of: dict[str, np.ndarray],
    donors_of: dict[str, np.ndarray],
    names: list[str],
) -> tuple[np.ndarray, dict[str, int], np.ndarray, bool]:
    """Training rows [F, N] of the baseline, each mix's fold, whether that has seen the mix's proteins, if by group.

    rows, mix_of, donors_of   condition -> rows of mixes, their mix, and their donors' proteins
    """
    label = base.label.astype(str)
    classes = np.unique(label)
    groups, proteins = {}, {}
    for name in names:
        at = {c: mix_of[c] == name for c in MIXED}
        groups[name] = {g for c in MIXED for g in rows[c].group[at[c]]}
        proteins[name] = {p for c in MIXED for p in rows[c].protein[at[c]]}
        proteins[name] |= {p for c in MIXED for p in donors_of[c][at[c]]}
    grouped = all(len(g) == 1 and "" not in g for g in groups.values()) and "" not in set(base.group)
    masks: list[np.ndarray] = []
    fold_of, place, seen = {}, {}, []
    for name in names:
        key = tuple(sorted(groups[name] if grouped else proteins[name]))
        mask = ~np.isin((base.group if grouped else base.protein).astype(str), key)
        whole = len(np.unique(label[mask])) == len(classes)
        if not whole:
            key, mask = (), np.ones(len(base), bool)
        if key not in place:
            place[key] = len(masks)
            masks.append(mask)
        fold_of[name] = place[key]
        seen.append(not whole)
    return np.stack(masks), fold_of, np.array(seen), grouped and not any(seen)


def _means(crossed: np.ndarray, own: np.ndarray, how: dict[str, Any]) -> MeanErrors:
    """Means of errors [G], bootstrapped over the G mixes."""
    one, two = (np.stack([values, np.ones_like(values)], axis=1) for values in (crossed, own))

    def mean(total: np.ndarray) -> np.ndarray:
        return total[..., 0] / total[..., 1]

    return MeanErrors(
        statistics.bootstrap(one, mean, **how),
        statistics.bootstrap(two, mean, **how),
        statistics.paired_difference(one, two, mean, **how),
    )
