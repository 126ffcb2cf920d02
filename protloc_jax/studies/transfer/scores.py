"""Scores of one cell of the transfer study: heads and k-NN on the tables of all pretraining seeds, by fraction.

Counts of true positives, false positives and false negatives are kept for every protein, repeat (pretraining seed x
head seed) and class, so that any two cells can be compared protein by protein afterwards.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from protloc_jax.data.durable import write_whole
from protloc_jax.data.split_file import SplitFile
from protloc_jax.data.splits import Split
from protloc_jax.eval import outcome, scores, statistics
from protloc_jax.eval.evaluate import EvaluateConfig, System, outcome_of, plain
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.head_config import HeadConfig
from protloc_jax.eval.head_training import train_heads
from protloc_jax.eval.heads import asked_of, summarised, tested
from protloc_jax.eval.outcome import Outcome, Task
from protloc_jax.studies.overview import question

SCORES, COUNTS = "scores.json", "counts.npz"


@dataclasses.dataclass(frozen=True)
class Scoring:
    """How cells of a level are scored."""

    evaluators: tuple[str, ...]
    head: HeadConfig
    k: tuple[int, ...]
    label: str
    unit: str
    resamples: int

    @property
    def neighbours(self) -> EvaluateConfig:
        """k-NN as `protloc evaluate` does it."""
        return EvaluateConfig(evaluators=("knn",), k=self.k, fixed_k=max(self.k), resamples=self.resamples)

    def interval(self, counts: np.ndarray) -> dict[str, Any]:
        """The interval over groups of the mean over repeats of macro-F1, of counts [G, S, 3, L] or [G, 3, L]."""
        by_repeat = counts if counts.ndim == 4 else counts[:, None]
        return statistics.bootstrap(by_repeat, mean_over_repeats, resamples=self.resamples).as_dict()


class Scored(NamedTuple):
    """Entries by (evaluator, fraction name), their counts [G, S, 3, L], and the G tested groups."""

    entries: dict[tuple[str, str], dict[str, Any]]
    counts: dict[tuple[str, str], np.ndarray]


def score(tables: Sequence[FeatureTable], file: SplitFile, names: Sequence[str], scoring: Scoring) -> Scored:
    """Score the tables of all pretraining seeds on the splits `names` of a file (all test the same groups)."""
    named = {str(i): table for i, table in enumerate(tables)}
    asked = [
        question(named, unit=scoring.unit, label=scoring.label, split_file=file, split_name=name) for name in names
    ]
    task, splits = asked[0].task, [one.splits[0] for one in asked]
    systems = list(asked[0].systems.values())
    entries: dict[tuple[str, str], dict[str, Any]] = {}
    counts: dict[tuple[str, str], np.ndarray] = {}
    if "head" in scoring.evaluators:
        made, found = _heads(systems, task, splits, scoring)
        entries |= {("head", name): entry for name, entry in zip(names, made, strict=True)}
        counts |= {("head", name): c for name, c in zip(names, found, strict=True)}
    if "knn" in scoring.evaluators:
        for name, split in zip(names, splits, strict=True):
            entries["knn", name], counts["knn", name] = _neighbours(systems, task, split, scoring)
    return Scored(entries, counts)


def score_probabilities(
    tables: Sequence[FeatureTable],
    probabilities: Sequence[np.ndarray],
    file: SplitFile,
    name: str,
    scoring: Scoring,
) -> Scored:
    """Score probabilities [N, L] of all rows of each table (those of a run's own classifier) on one split.

    Thresholds as the head's settings say: 0.5, tuned on validation rows, or the likeliest class.
    """
    named = {str(i): table for i, table in enumerate(tables)}
    asked = question(named, unit=scoring.unit, label=scoring.label, split_file=file, split_name=name)
    task, split = asked_of(asked.task, scoring.head), asked.splits[0]
    ids = {row: i for i, row in enumerate(tables[0].obs["id"].astype(str))}
    labelled = np.asarray([ids[row] for row in _labelled_ids(tables[0], scoring.label)])
    outcomes, validation = [], []
    for values in probabilities:
        own = values[labelled]
        cut = np.full((1, task.hot.shape[1]), 0.5)
        if scoring.head.decision == "validation":
            cut[0] = scores.best_thresholds(task.hot[split.val], own[split.val])
        outcomes.append(outcome.pooled([own[split.test]], task, [split], cut=cut))
        validation.append(_validation(own[split.val], task, split, cut[0]))
    entry, counts = summarised(outcomes, task, [split], scoring.interval)
    entry |= _repeats(counts, len(probabilities), validation, split, task)
    return Scored({("own head", name): entry}, {("own head", name): counts})


def write(scored: Scored, folder: Path) -> None:
    """Write entries and counts; `read` reads them."""
    text = [{"evaluator": e, "split": name, **entry} for (e, name), entry in scored.entries.items()]
    write_whole(folder / SCORES, (json.dumps(plain(text), indent=1) + "\n").encode())
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{f"{e}|{name}": array for (e, name), array in scored.counts.items()})  # type: ignore
    write_whole(folder / COUNTS, buffer.getvalue())


def read(folder: Path) -> Scored:
    """What `write` wrote."""
    listed = json.loads((folder / SCORES).read_text())
    with np.load(folder / COUNTS, allow_pickle=False) as file:
        arrays: dict[tuple[str, str], np.ndarray] = {}
        for key in file.files:
            evaluator, _, name = key.partition("|")
            arrays[evaluator, name] = file[key]
    return Scored({(e["evaluator"], e["split"]): e for e in listed}, arrays)


def mean_over_repeats(counts: np.ndarray) -> np.ndarray:
    """The mean over repeats [...] of the macro-F1 of counts [..., S, 3, L]."""
    return scores.macro_f1_of(counts).mean(axis=-1)


def _heads(
    systems: Sequence[System], task: Task, splits: Sequence[Split], scoring: Scoring
) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """Entry and counts of every split; all splits and head seeds of a table are one program."""
    config = scoring.head
    task = asked_of(task, config)
    by_split: list[list[Outcome]] = [[] for _ in splits]
    validation: list[list[float]] = [[] for _ in splits]
    for system in systems:
        x = np.asarray(system.x, np.float32)
        trained = train_heads(x, task.hot, [split.train for split in splits], config)
        for f, split in enumerate(splits):
            one = dataclasses.replace(
                trained,
                params={k: {p: a[:, f : f + 1] for p, a in own.items()} for k, own in trained.params.items()},
                mean=trained.mean[f : f + 1],
                scale=trained.scale[f : f + 1],
            )
            outcomes, cuts = tested(one, x, task, [split])
            by_split[f] += outcomes
            for s in range(len(config.seeds)):
                held = one.probabilities(x[split.val], seed=s, fold=0)
                validation[f].append(_validation(held, task, split, cuts[s, 0]))
    entries, counts = [], []
    for outcomes, held, split in zip(by_split, validation, splits, strict=True):
        entry, own = summarised(outcomes, task, [split], scoring.interval)
        entries.append(entry | _repeats(own, len(systems), held, split, task))
        counts.append(own)
    return entries, counts


def _neighbours(
    systems: Sequence[System], task: Task, split: Split, scoring: Scoring
) -> tuple[dict[str, Any], np.ndarray]:
    """k-NN of every table: the k chosen on validation rows for each, and the whole curve as the mean over tables."""

    def kept(counts: np.ndarray) -> dict[str, Any]:
        return {"counts": counts, "estimate": None, "low": None, "high": None}

    made = [outcome_of("knn", system, task, [split], scoring.neighbours, kept) for system in systems]
    entry, counts = summarised(made, task, [split], scoring.interval)
    chosen = [o.facts["k"][0] for o in made]
    curves = [o.facts["by_k"] for o in made]
    ks = [row["k"] for row in curves[0]]
    values = [
        scoring.interval(np.stack([curve[i]["macro_f1"]["counts"] for curve in curves], axis=1)) for i in range(len(ks))
    ]
    entry["by_k"] = {"k": ks, **{key: [v[key] for v in values] for key in ("estimate", "low", "high")}}
    entry["by_k"]["chosen"] = sorted(set(chosen))
    held = [float(np.nanmax([row["validation_macro_f1"] or np.nan for row in curve])) for curve in curves]
    return entry | _repeats(counts, len(systems), held, split, task), counts


def _repeats(
    counts: np.ndarray, pretrained: int, validation: Sequence[float], split: Split, task: Task
) -> dict[str, Any]:
    """Spread over pretraining seeds and over head seeds apart, the validation score that choices go by, sizes."""
    each = scores.macro_f1_of(counts.sum(axis=0)).reshape(pretrained, -1)
    unit = np.asarray(task.unit)
    return {
        "repeats": int(each.size),
        "sd_pretraining_seeds": _sd(each.mean(axis=1)),
        "sd_head_seeds": _sd(each.mean(axis=0)),
        "by_pretraining_seed": each.mean(axis=1).tolist(),
        "validation_macro_f1": float(np.mean(validation)),
        "train_images": len(split.train),
        "train_units": len(np.unique(unit[split.train])),
    }


def _validation(values: np.ndarray, task: Task, split: Split, cut: np.ndarray) -> float:
    truth = task.hot[split.val]
    return float(np.nan_to_num(scores.macro_f1(truth, scores.decide(values, kind=task.kind, threshold=cut))))


def _sd(values: np.ndarray) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _labelled_ids(table: FeatureTable, label: str) -> list[str]:
    """Ids of the rows that have a label, in order, as `question` keeps them."""
    filled = table.obs[label].fillna("").astype(str) != ""
    return list(table.obs["id"].astype(str)[filled])
