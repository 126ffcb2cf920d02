"""Scores of one feature table of the background study: counts a protein, condition and protocol, kept for pairing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from protloc_jax.data.durable import write_whole
from protloc_jax.eval.background.joined import MadeFeatures
from protloc_jax.eval.background.protocols import ConditionScore, ProtocolOptions, retrained, transfer
from protloc_jax.eval.background.rows import ConditionRows
from protloc_jax.eval.background.score_classes import Crossed, bins_of, classify, crossed_pairs
from protloc_jax.eval.background.score_grid import grid_scores
from protloc_jax.eval.background.score_svc import svc_options, svc_scores
from protloc_jax.eval.background.spec import GRID
from protloc_jax.eval.features import FeatureTable
from protloc_jax.studies.background.config import NATIVE, Classify

FILE = "scores.json"
PROTOCOLS = ("transfer", "retrained")
PUBLISHED = ("baseline", "same", "different", "masked", "cell_free")
# Intervals are taken later, over seeds and proteins together: of what `classify` gives only the counts are kept.
_NO_BOOTSTRAP = {"resamples": 1, "level": 0.95, "seed": 0}


@dataclasses.dataclass(frozen=True)
class TableScores:
    """What is known of one table.

    classes, proteins  names, L and G
    counts             protocol -> condition -> true positives, false positives, false negatives [G, 3, L] a protein
    left_out, purged   protocol -> condition -> tested rows without a prediction, training rows left out
    cells              protocol -> rows right and rows tested [2, L, L], by class of the cell and of the background
    pulled             protocol -> wrong answers, and those among them that name the background's class
    bins               rows of condition, low, high, rows, balanced_accuracy, by share of other cells' pixels
    label_free         measures on the grid, by name; svc: rows of condition, first, second, background, mean, ...
    svc_means          condition -> mean, spread by the paper's text, and the same of its table 1 (or null)
    not_scored         what could not be scored -> the reason
    """

    classes: tuple[str, ...]
    proteins: tuple[str, ...]
    counts: Mapping[str, Mapping[str, np.ndarray]]
    left_out: Mapping[str, Mapping[str, int]]
    purged: Mapping[str, Mapping[str, int]]
    cells: Mapping[str, np.ndarray]
    pulled: Mapping[str, tuple[int, int]]
    bins: tuple[Mapping[str, Any], ...]
    label_free: Mapping[str, float]
    svc: tuple[Mapping[str, Any], ...]
    svc_means: Mapping[str, Any]
    not_scored: Mapping[str, str]


def score(found: MadeFeatures, options: Classify, *, pairwise: bool = False, shuffle: int | None = None) -> TableScores:
    """Score a table of made images under both protocols.

    pairwise  also by support vector machines of every pair
    shuffle   seed by which classes are exchanged between proteins (a control)
    Raises ValueError where the baseline cannot be scored; other conditions that cannot stand in `not_scored`.
    """
    conditions = {name: rows for name, rows in found.conditions.items() if name != GRID.name}
    if shuffle is not None:
        conditions = exchanged(conditions, shuffle)
    how = _options(options, found.groups)
    scored, failed = _both(conditions, how)
    classes, proteins, counts = aligned(scored)
    # Their edges are quantiles of all rows: of conditions that every system has, so that bins are the same for all.
    shares = {name: own for name, own in found.shares.items() if name in ("baseline", "same", "different")}
    free, why = _free(found, how) if shuffle is None else ({}, "")
    if why:
        failed["label-free"] = why
    svc, means, pairs_failed = _svc(conditions, found, options) if pairwise else ((), {}, {})
    return TableScores(
        classes,
        proteins,
        counts,
        {p: {c: s.left_out for c, s in own.items()} for p, own in scored.items()},
        {p: {c: s.purged for c, s in own.items()} for p, own in scored.items()},
        {p: _by_background(own["different"], conditions["different"]) for p, own in scored.items()
         if "different" in own},
        {p: _pulled(own["different"], conditions["different"]) for p, own in scored.items() if "different" in own},
        tuple(b._asdict() for b in bins_of(scored["transfer"], shares)) if shuffle is None else (),
        free,
        svc,
        means,
        failed | pairs_failed,
    )  # fmt: skip


def score_native(tables: Mapping[str, FeatureTable], *, category: str, protein: str, options: Classify) -> TableScores:
    """Score cells that are rendered among neighbours of several kinds, all kinds on the same cells.

    tables: kind (`NATIVE`) -> features whose ids are the cells'. The classifier is fitted on cells in their own field,
    or among their like where these were not rendered. Classes with one protein among these cells cannot be trained and
    tested on different ones: they are left out and stand in `not_scored`, as does a protocol that is not possible.
    Raises ValueError for lacking columns and for no shared cell.
    """
    ids = {kind: table.obs["id"].astype(str).tolist() for kind, table in tables.items()}
    shared = sorted(set.intersection(*(set(own) for own in ids.values())))
    if not shared:
        raise ValueError(f"the native records {', '.join(tables)} share no cell (id).")
    conditions = {}
    for kind in (k for k in NATIVE if k in tables):
        obs = tables[kind].obs
        lacking = [c for c in (category, protein) if c not in obs]
        if lacking:
            raise ValueError(f"native records '{kind}' lack the columns {', '.join(lacking)}.")
        at = {name: i for i, name in enumerate(ids[kind])}
        rows = np.array([at[name] for name in shared])
        label, name = (obs[c].iloc[rows].astype(str).to_numpy() for c in (category, protein))
        conditions[f"native_{kind}"] = ConditionRows(tables[kind].x[rows], label, np.array(shared), name)
    conditions, failed = _of_several_proteins(conditions)
    how, clean = _options(options, 1), next(iter(conditions))
    scored: dict[str, dict[str, ConditionScore]] = {}
    if len(conditions[clean].classes) < 2:
        failed["native"] = "fewer than two classes have two proteins among these cells."
    for protocol, run in (("transfer", transfer), ("retrained", retrained)) if "native" not in failed else ():
        try:
            scored[protocol] = run(conditions, how, baseline=clean)
        except ValueError as error:
            failed[f"native, {protocol}"] = str(error)
    classes, proteins, counts = aligned(scored) if scored else ((), (), {})
    return TableScores(
        classes, proteins, {p: counts.get(p, {}) for p in PROTOCOLS}, {}, {}, {}, {}, (), {}, (), {}, failed
    )


def crossed(found: MadeFeatures, options: Classify) -> Crossed:
    """Classifiers of two classes, fitted on the baseline, on backgrounds of third classes and of each other."""
    conditions = {name: rows for name, rows in found.conditions.items() if name != GRID.name}
    return crossed_pairs(conditions, found.classes, _options(options, found.groups), _NO_BOOTSTRAP)


def _of_several_proteins(conditions: Mapping[str, ConditionRows]) -> tuple[dict[str, ConditionRows], dict[str, str]]:
    """The rows of classes with two proteins or more, the same in every condition; the others, with the reason."""
    base = next(iter(conditions.values()))
    of = {c: len(set(base.protein[base.label == c])) for c in base.classes}
    few = [c for c, count in of.items() if count < 2]
    why = {
        f"native, {c}": "one protein of the class among these cells: none to train on while it is tested." for c in few
    }
    return {name: rows.take(~np.isin(rows.label, few)) for name, rows in conditions.items()}, why


def exchanged(conditions: Mapping[str, ConditionRows], seed: int) -> dict[str, ConditionRows]:
    """The same rows with classes exchanged between the proteins of each group, so that folds stay as they are."""
    base = conditions["baseline"]
    of = {p: (g, c) for p, g, c in zip(base.protein, base.group, base.label, strict=True)}
    rng, new = np.random.default_rng(seed), {}
    for group in sorted({g for g, _ in of.values()}):
        names = sorted(p for p, (g, _) in of.items() if g == group)
        labels = [of[name][1] for name in names]
        new |= dict(zip(names, [labels[i] for i in rng.permutation(len(labels))], strict=True))
    return {
        name: dataclasses.replace(rows, label=np.array([new.get(p, "") for p in rows.protein], object))
        for name, rows in conditions.items()
    }


def aligned(
    scored: Mapping[str, Mapping[str, ConditionScore]],
) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, dict[str, np.ndarray]]]:
    """Classes, proteins and counts of every condition over the same proteins; one without a row counts nothing."""
    tables = {(p, c): s.per_protein() for p, own in scored.items() for c, s in own.items()}
    proteins = tuple(sorted({str(name) for _, names in tables.values() for name in names}))
    at = {name: i for i, name in enumerate(proteins)}
    counts: dict[str, dict[str, np.ndarray]] = {p: {} for p in scored}
    for (p, c), (values, names) in tables.items():
        padded = np.zeros((len(proteins), *values.shape[1:]))
        padded[[at[str(name)] for name in names]] = values
        counts[p][c] = padded
    return next(iter(next(iter(scored.values())).values())).classes, proteins, counts


def write(found: TableScores, folder: Path) -> None:
    """Write scores; `read` reads them."""
    plain = {f.name: _plain(getattr(found, f.name)) for f in dataclasses.fields(found)}
    write_whole(folder / FILE, (json.dumps(plain) + "\n").encode())


def read(folder: Path) -> TableScores:
    """What `write` wrote."""
    raw = json.loads((folder / FILE).read_text())
    raw |= {key: tuple(raw[key]) for key in ("classes", "proteins", "bins", "svc")}
    raw["counts"] = {p: {c: np.asarray(v) for c, v in own.items()} for p, own in raw["counts"].items()}
    raw["cells"] = {p: np.asarray(v) for p, v in raw["cells"].items()}
    raw["pulled"] = {p: tuple(v) for p, v in raw["pulled"].items()}
    return TableScores(**raw)


def _options(options: Classify, groups: int) -> ProtocolOptions:
    """Folds are the groups that cells and donors were dealt into; whole proteins where there are none."""
    if groups > 1:
        return ProtocolOptions(l2=options.l2, seed=options.fold_seed, folds=groups, group_by=("group",))
    whole: Any = options.together
    return ProtocolOptions(l2=options.l2, seed=options.fold_seed, folds=options.folds, group_by=whole)


def _both(
    conditions: Mapping[str, ConditionRows], how: ProtocolOptions
) -> tuple[dict[str, dict[str, ConditionScore]], dict[str, str]]:
    scored, failed = {}, {}
    for protocol in PROTOCOLS:
        own = classify(conditions, protocol, how, _NO_BOOTSTRAP)  # type: ignore[arg-type]
        scored[protocol] = own.scores
        failed |= {f"{protocol}, {what}": why for what, why in own.not_scored.items()}
    return scored, failed


def _by_background(own: ConditionScore, rows: ConditionRows) -> np.ndarray:
    at = {name: i for i, name in enumerate(own.classes)}
    found = np.zeros((2, len(at), len(at)))
    for target, predicted, b in zip(own.target, own.predicted, rows.background, strict=True):
        if predicted >= 0 and b in at:
            found[:, target, at[b]] += predicted == target, 1
    return found


def _pulled(own: ConditionScore, rows: ConditionRows) -> tuple[int, int]:
    name = np.asarray(own.classes, object)
    wrong = (own.predicted >= 0) & (own.predicted != own.target)
    return int(wrong.sum()), int((name[own.predicted[wrong]] == rows.background[wrong]).sum())


def _free(found: MadeFeatures, how: ProtocolOptions) -> tuple[dict[str, float], str]:
    """Label-free measures of the grid, where there is one, and why there are none, or no flips."""
    if GRID.name not in found.conditions:
        return {}, ""
    try:
        own, why = grid_scores(found.conditions[GRID.name], found.conditions["baseline"],
                               dataclasses.replace(how, donors="keep"))  # fmt: skip
    except ValueError as error:
        return {}, str(error)
    measures = {
        "cells": own.cells,
        "backgrounds": own.backgrounds,
        "cosine_same_cell": own.standardised.same_cell,
        "cosine_same_background": own.standardised.other_cell_same_background,
        "variance_cell": own.variance.cell,
        "variance_background": own.variance.background,
        "retrieval": own.retrieval_elsewhere.accuracy,
        "retrieval_chance": own.retrieval_elsewhere.chance,
    }
    if own.flips is not None:
        measures |= {"flips": own.flips.mean, "worst_flips": own.flips.worst_of_k}
    return measures, why


def _svc(
    conditions: Mapping[str, ConditionRows], found: MadeFeatures, options: Classify
) -> tuple[tuple[Mapping[str, Any], ...], dict[str, Any], dict[str, str]]:
    """Pairwise support vector machines of the paper's conditions, their rows and means."""
    how = svc_options("grouped", groups=found.groups, folds=found.groups if found.groups > 1 else options.folds)
    how = dataclasses.replace(how, rows_per_class=options.pair_images or None)
    used = {name: rows for name, rows in conditions.items() if name in PUBLISHED}
    scored, failed = svc_scores(used, found.classes, "grouped", how, triplets=options.triplets, workers=2)
    keys = ("first", "second", "background", "mean", "sd", "balanced_accuracy", "unconverged")
    rows: list[Mapping[str, Any]] = []
    means: dict[str, Any] = {}
    for name, own in scored.items():
        rows += [{"condition": name, **{key: getattr(one, key) for key in keys}} for one in own.scores]
        both = (own.text, own.table1)
        means[name] = {
            "of": own.of,
            "scored": len(own.scores),
            **{key: None if m is None else [_number(m.mean), _number(m.spread)]
               for key, m in zip(("text", "paper_table1"), both, strict=True)},
            "classes": {c: _number(v) for c, v in zip(own.text.classes, own.text.accuracy, strict=True)},
        }  # fmt: skip
    return tuple(rows), means, failed


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value
