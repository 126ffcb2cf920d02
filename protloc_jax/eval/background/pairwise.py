"""Pairwise linear support vector machines: how well two classes can be told apart in one background condition.

A classifier is trained anew for every pair of classes (or triplet: two classes on backgrounds of a third) within the
condition, so a drop between conditions is a loss of separability, not a transfer gap.

published   scikit-learn's SVC with linear kernel, C = 1, at most 100,000 iterations, seed 42, features as they are;
            the first 1,000 rows of each set; 5 stratified folds without shuffling, rows not grouped (`PUBLISHED`).
            Rows of one cell, protein or donor lie on both sides of the split
grouped     the default: stratified folds of whole groups joined by cell, donor and protein, features standardised
            by the training rows (a linear SVM at fixed C depends on the scale of features)

Source: Gupta, Moses & Lu, PMLR 311 (2025) 162, section 3.4, and its code (run_svm.py).
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from protloc_jax.config import nearest
from protloc_jax.data.manifest import listed
from protloc_jax.datasets.ordered_map import ordered_map
from protloc_jax.eval.background.folds import Fold, Link, check_links, grouped_folds
from protloc_jax.eval.background.rows import ConditionRows

Split = Literal["grouped", "published"]
Classifier = Literal["svc", "linear_svc"]
By = Literal["pair", "triplet"]


@dataclass(frozen=True)
class SvmOptions:
    """How a pair is classified and cross-validated.

    split           "grouped" (by `group_by`, `purge_by`: see `folds`) or "published" (stratified, in the order given)
    classifier      "svc" (libsvm: hinge loss, free bias) or "linear_svc" (liblinear: squared hinge, penalised bias)
    rows_per_class  the first so many rows of each set; None takes all
    """

    split: Split = "grouped"
    classifier: Classifier = "svc"
    standardise: bool = True
    folds: int = 5
    c: float = 1.0
    max_iterations: int = 100_000
    seed: int = 42
    rows_per_class: int | None = None
    group_by: tuple[Link, ...] = ("cell", "donor", "protein")
    purge_by: tuple[Link, ...] = ()

    def __post_init__(self) -> None:
        problems = []
        for name, known in (("split", get_args(Split)), ("classifier", get_args(Classifier))):
            value = getattr(self, name)
            if value not in known:
                problems.append(f"{name}={value!r}: not one of {', '.join(known)}.{nearest(str(value), known)}")
        if self.folds < 2 or self.max_iterations < 1 or not self.c > 0:
            problems.append(f"folds={self.folds} (2 or more), max_iterations={self.max_iterations}, c={self.c} (> 0).")
        if self.rows_per_class is not None and self.rows_per_class < self.folds:
            problems.append(f"rows_per_class={self.rows_per_class} is less than folds={self.folds}.")
        if problems:
            raise ValueError(listed(problems))
        check_links(group_by=self.group_by, purge_by=self.purge_by)


PUBLISHED = SvmOptions(split="published", standardise=False, rows_per_class=1000)


class PairScore(NamedTuple):
    """How well two classes are told apart.

    background         '' for a pair
    fold_accuracy [F]; mean and sd: their mean and population standard deviation
    balanced_accuracy  of the pooled out-of-fold predictions
    rows [2]           rows of the first and the second class; groups: joined groups (rows where not grouped)
    purged             rows left out of training, summed over folds
    one_sided          folds whose test rows are of one class only
    unconverged        folds in which the solver stopped at its iteration limit
    """

    first: str
    second: str
    background: str
    fold_accuracy: np.ndarray
    mean: float
    sd: float
    balanced_accuracy: float
    rows: tuple[int, int]
    groups: int
    purged: int
    one_sided: int
    unconverged: int


class _Task(NamedTuple):
    first: str
    second: str
    background: str
    numbers: np.ndarray
    rows: ConditionRows  # without features: those are gathered when the pair is fitted
    counts: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.first} / {self.second}" + (f" on {self.background}" if self.background else "")


def pairwise_scores(
    rows: ConditionRows,
    options: SvmOptions = SvmOptions(),
    *,
    by: By = "pair",
    classes: Sequence[str] = (),
    triplets: int = 0,
    workers: int = 1,
    progress: Callable[[int, int], Any] | None = None,
) -> list[PairScore]:
    """Scores of every unordered pair of classes, or of every pair on every background class that is neither of both.

    by        "pair" (baseline, same, masked: all rows of both classes) or "triplet" (different, cell-free: the rows
              of both classes on one background class at a time)
    classes   which, in the order that decides who comes first (default: all, sorted)
    triplets  by="triplet": only so many, drawn by the seed; 0 takes all
    workers   threads (the solvers release the interpreter lock); progress(done, total) is called after every task
    Raises ValueError listing all classes, sets and splits that cannot be scored, before anything is fitted.
    """
    from sklearn.exceptions import ConvergenceWarning

    tasks = _tasks(rows, by, tuple(classes) or rows.classes, options)
    if by == "triplet" and 0 < triplets < len(tasks):
        chosen = np.random.default_rng(options.seed).permutation(len(tasks))[:triplets]
        tasks = [tasks[i] for i in np.sort(chosen)]
    problems, prepared = [], []
    for task in tasks:
        try:
            prepared.append((task, _folds(task, options)))
        except ValueError as error:
            problems.append(f"{task}: {error}")
    if problems:
        raise ValueError(listed(problems))
    results = []
    with warnings.catch_warnings():
        # Counted in `unconverged`. Set once here: filters belong to the process, not to a thread.
        warnings.simplefilter("ignore", ConvergenceWarning)
        work = ordered_map(
            lambda task: _score(rows.features, task[0], task[1], options),
            prepared,
            workers,
            at_once=8 * max(1, workers),
        )
        for done, score in enumerate(work, start=1):
            results.append(score)
            if progress is not None:
                progress(done, len(prepared))
    return results


def columns_of(scores: Sequence[PairScore]) -> dict[str, np.ndarray]:
    """The columns `first`, `second`, `background` (text) and `accuracy` [P] of scores, as `averaging` takes them."""
    texts = {name: np.array([getattr(s, name) for s in scores], object) for name in ("first", "second", "background")}
    return {**texts, "accuracy": np.array([s.mean for s in scores], np.float64)}


def _tasks(rows: ConditionRows, by: By, classes: tuple[str, ...], options: SvmOptions) -> list[_Task]:
    if by not in get_args(By):
        raise ValueError(f"by={by!r}: not one of {', '.join(get_args(By))}.{nearest(str(by), get_args(By))}")
    have = rows.classes
    problems = [f"no rows of class '{c}'.{nearest(str(c), have)}" for c in classes if c not in have]
    if len(set(classes)) != len(classes) or len(classes) < 2:
        problems.append(f"classes must be two or more different ones, got {', '.join(map(str, classes))}.")
    # Backgrounds of classes that are not asked for are used as well: they contradict neither class.
    backgrounds = sorted(set(rows.background) - {""}) if by == "triplet" else [""]
    if not backgrounds:
        problems.append("no row has a background class, so there are no triplets.")
    of = {
        (c, b): np.flatnonzero((rows.label == c) & ((rows.background == b) | (by == "pair")))[: options.rows_per_class]
        for c in classes
        for b in backgrounds
        if c != b
    }
    sets = {f"{c} on {b}" if b else f"{c}": len(members) for (c, b), members in of.items()}
    few = [f"{name}: {n} rows for {options.folds} folds." for name, n in sets.items() if n < options.folds]
    if problems or few:
        raise ValueError(listed(problems or few))
    bare = replace(rows, features=np.empty((len(rows), 0), np.float32))
    tasks = []
    for first, second in itertools.combinations(classes, 2):
        for b in backgrounds:
            if b not in (first, second):
                one, two = of[first, b], of[second, b]
                both = np.concatenate([one, two])
                tasks.append(_Task(first, second, b, both, bare.take(both), (len(one), len(two))))
    return tasks


def _folds(task: _Task, options: SvmOptions) -> tuple[list[Fold], int]:
    if options.split == "grouped":
        links = {"group_by": options.group_by, "purge_by": options.purge_by}
        return grouped_folds(task.rows, folds=options.folds, seed=options.seed, **links)
    from sklearn.model_selection import StratifiedKFold

    second = np.repeat([0, 1], task.counts)
    cut = StratifiedKFold(options.folds, shuffle=False).split(second, second)
    return [Fold(train, test, 0) for train, test in cut], len(task.rows)


def _score(features: np.ndarray, task: _Task, split: tuple[list[Fold], int], options: SvmOptions) -> PairScore:
    folds, groups = split
    target = np.repeat([0, 1], task.counts)
    predicted = np.full(len(target), -1)
    unconverged = one_sided = 0
    for train, test, _ in folds:
        x, held = features[task.numbers[train]], features[task.numbers[test]]
        if options.standardise:
            mean, spread = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
            spread = np.where(spread > 0, spread, 1.0)
            x, held = (x - mean) / spread, (held - mean) / spread
        model, stopped = _fit(x, target[train], options)
        unconverged += stopped
        predicted[test] = model.predict(held)
        one_sided += len(set(target[test])) < 2
    right = predicted == target
    accuracy = np.array([right[fold.test].mean() for fold in folds])
    balanced = float(np.mean([right[target == side].mean() for side in (0, 1)]))
    purged = sum(fold.purged for fold in folds)
    return PairScore(
        task.first,
        task.second,
        task.background,
        accuracy,
        float(accuracy.mean()),
        float(accuracy.std()),
        balanced,
        task.counts,
        groups,
        purged,
        one_sided,
        unconverged,
    )


def _fit(x: np.ndarray, y: np.ndarray, options: SvmOptions) -> tuple[Any, bool]:
    """The fitted classifier, and whether it stopped at its iteration limit."""
    from sklearn.svm import SVC, LinearSVC

    limits = {"C": options.c, "max_iter": options.max_iterations, "random_state": options.seed}
    if options.classifier == "svc":
        model = SVC(kernel="linear", **limits).fit(x, y)
        return model, bool(model.fit_status_)
    model = LinearSVC(dual="auto", **limits).fit(x, y)
    return model, bool(np.max(model.n_iter_) >= options.max_iterations)
