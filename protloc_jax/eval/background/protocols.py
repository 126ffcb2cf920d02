"""Two protocols for many classes, on the same folds of the same centre cells.

retrained  a classifier is fitted and tested inside each condition: is the class still in the features? (The paper's
           idea, with all classes at once.)
transfer   the classifier of the baseline's training folds is applied to each condition's held-out cells: does a
           classifier made on real crops survive another background? Far harsher; the only protocol for crossed
           backgrounds, in which a fresh classifier would read the label off the background

Folds are dealt once, over the baseline's rows, by whole joined groups; a row of any condition lies in the fold of its
centre cell. A donor crop must not be on both sides: `donors="drop"` leaves rows out and counts them (retrained:
training rows whose donor is a donor or a cell of a tested row, or whose cell is its donor; transfer: tested rows whose
donor was trained on).

Sources: Gupta, Moses & Lu, PMLR 311 (2025) 162, section 3.4 (retrained); the transfer protocol is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from protloc_jax.config import nearest
from protloc_jax.data.manifest import capped, listed
from protloc_jax.eval import scores, statistics
from protloc_jax.eval.background.folds import Link, check_links, grouped_folds, shared
from protloc_jax.eval.background.rows import ConditionRows
from protloc_jax.eval.knn import knn_scores
from protloc_jax.eval.probe import fit_probe

Classifier = Literal["probe", "knn"]
Donors = Literal["drop", "keep"]
Protocol = Literal["retrained", "transfer"]


@dataclass(frozen=True)
class ProtocolOptions:
    """How both protocols classify and split.

    classifier  "probe" (multinomial linear probe on standardised features, strength `l2`) or "knn" (`k` neighbours)
    group_by    what ties baseline rows to one fold; donors: see the module
    """

    classifier: Classifier = "probe"
    l2: float = 1e-2
    k: int = 20
    folds: int = 5
    seed: int = 0
    group_by: tuple[Link, ...] = ("cell", "protein")
    donors: Donors = "drop"

    def __post_init__(self) -> None:
        problems = []
        for name, known in (("classifier", get_args(Classifier)), ("donors", get_args(Donors))):
            value = getattr(self, name)
            if value not in known:
                problems.append(f"{name}={value!r}: not one of {', '.join(known)}.{nearest(str(value), known)}")
        if self.folds < 2 or self.k < 1 or not self.l2 > 0:
            problems.append(f"folds={self.folds} (2 or more), k={self.k} (1 or more), l2={self.l2} (> 0).")
        if problems:
            raise ValueError(listed(problems))
        check_links(group_by=self.group_by)


@dataclass(frozen=True)
class ConditionScore:
    """Out-of-fold predictions of one condition under one protocol.

    target, predicted [N] class numbers (predicted -1: the row was left out); protein, cell [N]; fold [N];
    left_out: tested rows without a prediction; purged: training rows left out, summed over folds.
    """

    condition: str
    protocol: Protocol
    classes: tuple[str, ...]
    target: np.ndarray
    predicted: np.ndarray
    protein: np.ndarray
    cell: np.ndarray
    fold: np.ndarray
    left_out: int
    purged: int

    def per_protein(self) -> tuple[np.ndarray, np.ndarray]:
        """Counts [G, 3, L] of true positives, false positives and false negatives per protein, and the G names."""
        kept = self.predicted >= 0
        hot = [scores.one_hot(x[kept], len(self.classes)) for x in (self.target, self.predicted)]
        return statistics.group_sums(scores.row_counts(*hot), self.protein[kept].astype(str))

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall over classes of the pooled out-of-fold predictions."""
        return float(scores.balanced_accuracy_of(self.per_protein()[0].sum(axis=0)))

    def interval(self, *, resamples: int = 2000, level: float = 0.95, seed: int = 0) -> statistics.Interval:
        """Bootstrap interval of the balanced accuracy over proteins."""
        stats = self.per_protein()[0]
        return statistics.bootstrap(stats, scores.balanced_accuracy_of, resamples=resamples, level=level, seed=seed)


def retrained(
    conditions: Mapping[str, ConditionRows],
    options: ProtocolOptions = ProtocolOptions(),
    *,
    baseline: str = "baseline",
) -> dict[str, ConditionScore]:
    """Fit and test within each condition: name -> ConditionScore.

    conditions: name -> rows, one of them `baseline`, whose rows decide the folds. Raises ValueError listing all
    cells and classes that the baseline lacks, and folds that cannot be trained.
    """
    fold, classes = _shared_folds(conditions, options, baseline)
    problems, planned = [], {}
    for name, rows in conditions.items():
        target = _numbers(rows, classes)
        masks, purged = np.zeros((options.folds, len(rows)), bool), 0
        for f in range(options.folds):
            train, test = np.flatnonzero(fold[name] != f), np.flatnonzero(fold[name] == f)
            if options.donors == "drop":
                clear = train[~shared(rows, train, test, ("crop",))]
                purged += len(train) - len(clear)
                train = clear
            masks[f, train] = True
            lost = sorted(set(target) - set(target[train]))
            if lost:
                problems.append(f"{name}, fold {f}: no training row of {capped([classes[i] for i in lost])}.")
        planned[name] = target, masks, purged
    if problems:
        raise ValueError(listed(problems))
    results = {}
    for name, (target, masks, purged) in planned.items():
        rows = conditions[name]
        tested = [np.flatnonzero(fold[name] == f) for f in range(options.folds)]
        held = [rows.features[t] for t in tested]
        predicted = np.full(len(rows), -1)
        for t, answer in zip(tested, _predict(rows.features, target, masks, held, classes, options), strict=True):
            predicted[t] = answer
        results[name] = _result(name, "retrained", classes, rows, target, predicted, fold[name], purged)
    return results


def transfer(
    conditions: Mapping[str, ConditionRows],
    options: ProtocolOptions = ProtocolOptions(),
    *,
    baseline: str = "baseline",
) -> dict[str, ConditionScore]:
    """Fit on the baseline's training folds, test on every condition's held-out cells: name -> ConditionScore.

    Arguments and errors as in `retrained`; also refused are conditions of which `donors="drop"` leaves no row of a
    class to be tested. (Of donors drawn over all cells, one in `folds` lies in its cell's fold; the other rows go.)
    """
    fold, classes = _shared_folds(conditions, options, baseline)
    base = conditions[baseline]
    masks = np.stack([fold[baseline] != f for f in range(options.folds)])
    fold_of = dict(zip(base.cell, fold[baseline], strict=True))
    problems, tested = [], {}
    for name, rows in conditions.items():
        kept = np.ones(len(rows), bool)
        if options.donors == "drop":
            # A donor that is no baseline cell (a patch without cells) was never trained on.
            own = np.fromiter((fold_of.get(d, f) for d, f in zip(rows.donor, fold[name], strict=True)), int, len(rows))
            kept = own == fold[name]
        lost = sorted(set(rows.label) - set(rows.label[kept]))
        if lost:
            problems.append(f"{name}: every donor of {capped(lost)} was trained on; keep donors within folds.")
        tested[name] = [np.flatnonzero(kept & (fold[name] == f)) for f in range(options.folds)]
    if problems:
        raise ValueError(listed(problems))
    held = [np.concatenate([conditions[n].features[tested[n][f]] for n in conditions]) for f in range(options.folds)]
    answers = _predict(base.features, _numbers(base, classes), masks, held, classes, options)
    results = {}
    starts = [0] * options.folds
    for name, rows in conditions.items():
        predicted = np.full(len(rows), -1)
        for f, numbers in enumerate(tested[name]):
            predicted[numbers] = answers[f][starts[f] : starts[f] + len(numbers)]
            starts[f] += len(numbers)
        results[name] = _result(name, "transfer", classes, rows, _numbers(rows, classes), predicted, fold[name], 0)
    return results


def _shared_folds(
    conditions: Mapping[str, ConditionRows], options: ProtocolOptions, baseline: str
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The fold of every row of every condition, and the classes."""
    if baseline not in conditions:
        raise ValueError(f"no condition '{baseline}'.{nearest(baseline, conditions)} Given: {', '.join(conditions)}.")
    base = conditions[baseline]
    problems = []
    known = {cell: (label, protein) for cell, label, protein in zip(base.cell, base.label, base.protein, strict=True)}
    for name, rows in conditions.items():
        missing = sorted({str(c) for c in rows.cell if c not in known})
        if missing:
            problems.append(f"{name}: cells that {baseline} lacks: {capped(missing)}.")
        of_row = zip(rows.cell, rows.label, rows.protein, strict=True)
        other = sorted({str(c) for c, label, protein in of_row if known.get(c, (label, protein)) != (label, protein)})
        if other:
            problems.append(f"{name}: cells with another class or protein than in {baseline}: {capped(other)}.")
        if rows.features.shape[1] != base.features.shape[1]:
            problems.append(f"{name}: {rows.features.shape[1]} features, {baseline} has {base.features.shape[1]}.")
    if problems:
        raise ValueError(listed(problems))
    made, _ = grouped_folds(base, folds=options.folds, seed=options.seed, group_by=options.group_by)
    fold_of = {base.cell[row]: f for f, fold in enumerate(made) for row in fold.test}
    folds = {n: np.fromiter((fold_of[c] for c in rows.cell), int, len(rows)) for n, rows in conditions.items()}
    return folds, base.classes


def _predict(
    x: np.ndarray,
    target: np.ndarray,
    masks: np.ndarray,
    held: Sequence[np.ndarray],
    classes: tuple[str, ...],
    options: ProtocolOptions,
) -> list[np.ndarray]:
    """Class numbers of the held-out features of each fold, by classifiers fitted on the rows of `masks` [F, N]."""
    hot = scores.one_hot(target, len(classes))
    if options.classifier == "probe":
        path = fit_probe(x, hot, kind="multinomial", l2=[options.l2], train=masks)
        # Filled up to one size, so that one compiled program scores all folds (and many calls).
        most = -(-max(len(h) for h in held) // 256) * 256
        filled = [np.pad(h, ((0, most - len(h)), (0, 0))) for h in held]
        each: list[Any] = [path.scores(h, fold=f)[: len(held[f])] for f, h in enumerate(filled)]
    else:
        each = [knn_scores(x[mask], hot[mask], h, k=options.k) for mask, h in zip(masks, held, strict=True)]
    return [np.asarray(s).argmax(axis=1) for s in each]


def _numbers(rows: ConditionRows, classes: tuple[str, ...]) -> np.ndarray:
    at = {name: i for i, name in enumerate(classes)}
    return np.fromiter((at[label] for label in rows.label), int, len(rows))


def _result(name, protocol: Protocol, classes, rows, target, predicted, fold, purged) -> ConditionScore:
    left_out = int((predicted < 0).sum())
    return ConditionScore(
        name, protocol, classes, target, predicted, rows.protein, rows.cell, fold, left_out, int(purged)
    )
