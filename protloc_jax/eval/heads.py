"""Trained heads scored on held-out groups: every split and seed, image-level and group-level, with what "+-" means.

For each split a head is trained on its training rows for every seed; thresholds, where they are tuned, come from its
validation rows; its test rows are scored once, after the last epoch. Scores are pooled over the splits (out-of-fold)
for each seed, and their mean over seeds is what is reported: seeds are never averaged into one better predictor.
Intervals are bootstraps over groups of that mean. Spread over seeds and over splits stand apart, each by its name.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from protloc_jax.config import check_literals, opt, to_dict
from protloc_jax.data.splits import Split
from protloc_jax.eval import evaluate, outcome, scores, statistics
from protloc_jax.eval.evaluate import System
from protloc_jax.eval.head_calibration import fit_on_validation
from protloc_jax.eval.head_config import HeadConfig
from protloc_jax.eval.head_file import Heads, heads_of
from protloc_jax.eval.head_training import Progress, TrainedHeads, train_heads
from protloc_jax.eval.outcome import Outcome, Task


@dataclasses.dataclass(frozen=True)
class ClassifyConfig:
    """The head, and how uncertainty is measured."""

    head: HeadConfig = dataclasses.field(default_factory=HeadConfig)
    resamples: int = opt(2000, "bootstrap resamples")
    level: float = opt(0.95, "coverage of the intervals")
    interval: Literal["bca", "percentile"] = opt("bca", "kind of bootstrap interval")
    seed: int = opt(0, "seed of the bootstrap")

    def __post_init__(self) -> None:
        check_literals(self)
        if self.resamples < 1 or not 0 < self.level < 1:
            raise ValueError(f"resamples={self.resamples} must be positive, level={self.level} between 0 and 1.")


class Classified(NamedTuple):
    """Scores as one plain dict, ready for JSON, and the trained heads of every table."""

    results: dict[str, Any]
    heads: dict[str, Heads]


def classify(
    tables: Mapping[str, System],
    task: Task,
    splits: Sequence[Split],
    config: ClassifyConfig | None = None,
    *,
    provenance: Mapping[str, Mapping[str, Any]] | None = None,
    progress: Progress | None = None,
) -> Classified:
    """Train and score heads on every table, on the same rows and splits, and compare tables in pairs (later - earlier).

    provenance: what is known of each table's features, kept with its heads. Raises ValueError for what `evaluate_table`
    refuses, for thresholds to tune without validation rows, and for one class a row asked of rows with several labels.
    """
    config = config or ClassifyConfig()
    evaluate.check(tables, task, splits, None)
    _check(task, splits, config.head)
    asked = asked_of(task, config.head)
    if config.head.labels == "permuted":
        asked = dataclasses.replace(asked, labels=permuted_labels(task.hot, task.unit, seed=config.head.permutation))
    uncertainty = {"resamples": config.resamples, "level": config.level, "method": config.interval, "seed": config.seed}

    def interval(counts: np.ndarray) -> dict[str, Any]:
        """The interval of the mean over seeds of macro-F1, of counts [G, S, 3, L] (without seeds: [G, 3, L])."""
        by_seed = counts if counts.ndim == 4 else counts[:, None]
        return statistics.bootstrap(by_seed, _mean_over_seeds, **uncertainty).as_dict()

    results: dict[str, Any] = {
        "task": outcome.describe(asked, splits),
        "settings": to_dict(config),
        "control": "labels permuted over groups" if config.head.labels == "permuted" else "",
        "chance": {n: outcome.scored(o, asked, splits, interval) for n, o in outcome.chance(asked, splits).items()},
        "systems": {},
        "differences": [],
    }
    counts: dict[str, np.ndarray] = {}
    heads: dict[str, Heads] = {}
    for name, system in tables.items():
        x = np.asarray(system.x, np.float32)
        trained = train_heads(x, asked.hot, _fit_rows(splits, config.head), config.head, progress=progress)
        outcomes, cuts = tested(trained, x, asked, splits)
        entry, counts[name] = summarised(outcomes, asked, splits, interval)
        # Macro-F1 and its cuts stay those of the heads' own probabilities, calibrated or not.
        fitted = fit_on_validation(trained, x, asked, splits)
        steps = {"steps": trained.steps.tolist(), "last_loss": _last_loss(trained).tolist()}
        about = {"about": dict(system.about), "features": x.shape[1]}
        results["systems"][name] = {**about, "head": {**entry, **steps, "thresholds": cuts.tolist(), **fitted.results}}
        heads[name] = heads_of(
            trained,
            cuts,
            calibration=fitted.calibration,
            detector=fitted.detector,
            label_names=task.label_names,
            split_names=tuple(s.name or str(i) for i, s in enumerate(splits)),
            features=(provenance or {}).get(name),
            about={"split": dict(task.split), "unit": task.unit_name, "control": results["control"]},
        )
    pairs = [(b, a) for a, b in itertools.combinations(tables, 2)]
    found = [statistics.paired_difference(counts[a], counts[b], _mean_over_seeds, **uncertainty) for a, b in pairs]
    corrected = statistics.holm([difference.p_value for difference in found])
    results["differences"] = [
        {
            "evaluator": "head",
            "first": a,
            "second": b,
            "macro_f1": difference.interval.as_dict(),
            "p_value": difference.p_value,
            "p_value_holm": float(p),
        }
        for (a, b), difference, p in zip(pairs, found, corrected, strict=True)
    ]
    return Classified(evaluate.plain(results), heads)


def asked_of(task: Task, config: HeadConfig) -> Task:
    """The task as a head decides it: class by class it may name several classes, or none, where every row has one."""
    return task if config.decision == "argmax" else dataclasses.replace(task, kind="multi")


def permuted_labels(labels: Any, groups: Any, *, seed: int) -> np.ndarray:
    """Labels [N, L] in which each group has those of another, drawn at random: a control that must score at chance.

    The i-th row of a group gets the label of the i-th row of the other (counted round where that has fewer), so that
    rows of one group stay as alike as they were.
    """
    labels = np.asarray(labels)
    number = np.unique(np.asarray(groups), return_inverse=True)[1]
    members = np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1])
    result = np.empty_like(labels)
    for rows, other in zip(members, np.random.default_rng(seed).permutation(len(members)), strict=True):
        result[rows] = labels[members[other][np.arange(len(rows)) % len(members[other])]]
    return result


def tested(
    trained: TrainedHeads, x: np.ndarray, task: Task, splits: Sequence[Split]
) -> tuple[list[Outcome], np.ndarray]:
    """The pooled outcome of every seed, and the cuts [S, F, L]."""
    seeds, hot = trained.config.seeds, task.hot
    cuts = np.full((len(seeds), len(splits), hot.shape[1]), 0.5)
    outcomes = []
    for s in range(len(seeds)):
        tested = [trained.probabilities(x[split.test], seed=s, fold=f) for f, split in enumerate(splits)]
        if trained.config.decision == "validation":
            for f, split in enumerate(splits):
                cuts[s, f] = scores.best_thresholds(hot[split.val], trained.probabilities(x[split.val], seed=s, fold=f))
        outcomes.append(outcome.pooled(tested, task, splits, cut=cuts[s]))
    return outcomes, cuts


def summarised(outcomes: Sequence[Outcome], task: Task, splits: Sequence[Split], interval) -> tuple[dict, np.ndarray]:
    """All scores as the mean over seeds, and the counts [G, S, 3, L] by group."""

    def kept(counts: np.ndarray) -> dict[str, Any]:
        return {"counts": counts, "low": None, "high": None}

    each = [outcome.scored(made, task, splits, kept) for made in outcomes]
    rows = np.stack([entry["macro_f1"]["counts"] for entry in each], axis=1)
    units = np.stack([entry["by_unit"]["macro_f1"]["counts"] for entry in each], axis=1)
    of_seed = {"image": scores.macro_f1_of(rows.sum(axis=0)), "unit": scores.macro_f1_of(units.sum(axis=0))}
    by_split = np.asarray([[part["macro_f1"] for part in entry["by_split"]] for entry in each])
    mean_of_split = by_split.mean(axis=0)
    first = each[0]["by_unit"]
    entry = {
        "macro_f1": interval(rows),
        **{key: _mean(each, key) for key in ("accuracy", "balanced_accuracy", "mean_average_precision")},
        "by_unit": {
            "macro_f1": interval(units),
            "accuracy": float(np.mean([one["by_unit"]["accuracy"] for one in each])),
            **{key: first[key] for key in ("units", "units_of_mixed_labels_left_out")},
        },
        "over_seeds": {
            "what": "standard deviation over seeds of the pooled macro-F1, same splits",
            **{f"{level}_macro_f1": _spread(values) for level, values in of_seed.items()},
        },
        "over_splits": {
            "what": "standard deviation over splits of their macro-F1, each the mean over seeds",
            "image_macro_f1": _spread(mean_of_split),
        },
        "by_split": [
            {**{key: part[key] for key in ("name", "test_rows")}, "macro_f1": float(mean_of_split[i])}
            for i, part in enumerate(each[0]["by_split"])
        ],
        "per_class": _per_class(rows, each, task, interval),
    }
    if "confusion" in each[0]:
        entry["confusion"] = np.mean([one["confusion"] for one in each], axis=0)
        entry["rows_without_prediction"] = _mean(each, "rows_without_prediction")
    return entry, rows


def _per_class(rows: np.ndarray, each: Sequence[dict], task: Task, interval) -> dict[str, dict[str, Any]]:
    """F1 with its interval, precision, recall and number predicted as means over seeds; support in rows and units."""
    found: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(task.label_names):
        own = [entry["per_class"][name] for entry in each]
        one = interval(rows[..., i : i + 1])
        found[name] = {key: float(np.mean([o[key] for o in own])) for key in ("f1", "precision", "recall", "predicted")}
        found[name] |= {"low": one["low"], "high": one["high"], "support": own[0]["support"], "units": own[0]["units"]}
    return found


def _mean_over_seeds(counts: np.ndarray) -> np.ndarray:
    """The mean over seeds [...] of the macro-F1 of counts [..., S, 3, L]."""
    return scores.macro_f1_of(counts).mean(axis=-1)


def _mean(each: Sequence[Mapping[str, Any]], key: str) -> float:
    return float(np.mean([entry[key] for entry in each]))


def _spread(values: np.ndarray) -> dict[str, Any]:
    """Mean, standard deviation (of a sample; none of one value) and the values."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "sd": sd, "values": values.tolist()}


def _last_loss(trained: TrainedHeads) -> np.ndarray:
    """Mean training loss [S, F] of the last epoch's steps."""
    found = np.zeros(trained.loss.shape[:2])
    for f, steps in enumerate(trained.steps):
        found[:, f] = trained.loss[:, f, steps - steps // trained.config.epochs : steps].mean(axis=-1)
    return found


def _fit_rows(splits: Sequence[Split], config: HeadConfig) -> list[np.ndarray]:
    both = config.fit_rows == "train_and_validation"
    return [np.concatenate([split.train, split.val]) if both else split.train for split in splits]


def _check(task: Task, splits: Sequence[Split], config: HeadConfig) -> None:
    problems = []
    if config.decision == "argmax" and task.kind == "multi":
        rows = np.flatnonzero(task.hot.sum(axis=1) > 1)
        problems.append(
            f"decision=argmax names one class a row, and {len(rows)} rows have several labels (the first is row "
            f"{rows[0] if len(rows) else '-'}); use half or validation."
        )
    without = [split.name or str(i) for i, split in enumerate(splits) if not len(split.val)]
    if config.decision == "validation" and without:
        problems.append(f"decision=validation needs validation rows, which these splits lack: {', '.join(without)}.")
    if problems:
        raise ValueError("\n".join(problems))
