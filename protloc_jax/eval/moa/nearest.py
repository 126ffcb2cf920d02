"""Mechanism of action by the nearest other treatment: NSC and NSCB, their per-well forms, and chance.

NSC   not the same compound: the nearest neighbour by cosine among treatments of other compounds must share the query's
      mechanism
NSCB  not the same compound nor batch: treatments of the query's batch are no neighbours either. Mechanisms that stand
      in one batch only could never be right, and are dropped from queries and candidates

Rules. Of candidates whose cosines agree within 1e-12 the first in the order of the treatments wins; `tied` counts
the queries at which these disagree about the answer. A query without any candidate is wrong, and counted in
`without_candidate`; one whose candidates hold no right answer is wrong too, and counted in `unanswerable`.

Sources: Ljosa et al., J. Biomol. Screen. 18 (2013) 1321 (NSC); Ando, McLean & Berndl, bioRxiv 161422 (2017) (NSCB).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from protloc_jax.config import nearest as nearest_word
from protloc_jax.eval import statistics
from protloc_jax.eval.moa.columns import some
from protloc_jax.eval.moa.treatments import Treatments

Classes = Literal["several_batches", "all"]
TIE = 1e-12


@dataclass(frozen=True)
class MoaScore:
    """What the nearest permissible neighbour of every query says.

    metric       "NSC", "NSCB", ...
    names        [Q] queries; `compound` [Q] theirs
    target       [Q] the right answer, `predicted` [Q] the neighbour's ('' without candidate)
    neighbour    [Q] names ('' without candidate); similarity [Q] its cosine; margin [Q] its lead over the next
                 candidate (NaN where there is none)
    correct      [Q] bool
    chance       expected accuracy of a random permissible neighbour
    dropped      mechanisms that are neither queries nor candidates
    """

    metric: str
    names: tuple[str, ...]
    compound: np.ndarray
    target: np.ndarray
    predicted: np.ndarray
    neighbour: np.ndarray
    similarity: np.ndarray
    margin: np.ndarray
    correct: np.ndarray
    chance: float
    without_candidate: int
    unanswerable: int
    tied: int
    dropped: tuple[str, ...] = ()

    @property
    def hits(self) -> int:
        """Correct queries."""
        return int(self.correct.sum())

    @property
    def of(self) -> int:
        """Queries."""
        return len(self.correct)

    @property
    def accuracy(self) -> float:
        return self.hits / self.of

    def interval(self, *, resamples: int = 2000, level: float = 0.95, seed: int = 0) -> statistics.Interval:
        """Bootstrap interval of the accuracy over compounds.

        The queries are drawn by compound, with the neighbours that they have in the whole set: it says how the score
        would vary over compounds asked about, not over reference sets.
        """
        return statistics.bootstrap(self._per_compound(), _ratio, resamples=resamples, level=level, seed=seed)

    def minus(self, other: MoaScore, *, resamples: int = 2000, level: float = 0.95, seed: int = 0) -> Any:
        """The paired difference of accuracies over compounds, a `statistics.Difference`.

        ValueError lists the queries that only one of the scores has.
        """
        if self.names != other.names:
            differing = sorted(set(self.names) ^ set(other.names))
            raise ValueError(
                f"{self.metric}: the two systems have other queries: {some(differing) or 'in other order'}."
            )
        return statistics.paired_difference(
            self._per_compound(), other._per_compound(), _ratio, resamples=resamples, level=level, seed=seed
        )

    def confusion(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """Counts [L, L + 1] (rows: truth; last column: no candidate) and the L names, pooled over queries."""
        names = tuple(sorted({*self.target, *self.predicted} - {""}))
        at = {name: i for i, name in enumerate(names)} | {"": len(names)}
        counts = np.zeros((len(names), len(names) + 1), np.int64)
        np.add.at(counts, ([at[t] for t in self.target], [at[p] for p in self.predicted]), 1)
        return counts, names

    def as_dict(self, **interval: Any) -> dict[str, Any]:
        """Everything, ready for JSON; `interval` are the options of `interval`."""
        counts, names = self.confusion()
        lines = zip(
            self.names,
            self.target,
            self.neighbour,
            self.predicted,
            self.similarity,
            self.margin,
            self.correct,
            strict=True,
        )
        keys = ("query", "answer", "neighbour", "predicted", "cosine", "margin", "correct")
        queries = [dict(zip(keys, map(_plain, line), strict=True)) for line in lines]
        return {
            "metric": self.metric,
            "correct": self.hits,
            "of": self.of,
            "accuracy": self.accuracy,
            "interval": self.interval(**interval).as_dict() | {"over": "compounds, neighbours fixed"},
            "chance": self.chance,
            "without_candidate": self.without_candidate,
            "unanswerable": self.unanswerable,
            "tied": self.tied,
            "dropped": list(self.dropped),
            "confusion": {"names": list(names), "counts": counts.tolist(), "last_column": "no candidate"},
            "queries": queries,
        }

    def _per_compound(self) -> np.ndarray:
        sums, _ = statistics.group_sums(np.stack([self.correct, np.ones(self.of)], axis=1), self.compound)
        return sums


def nsc(treatments: Treatments) -> MoaScore:
    """Not-same-compound accuracy. ValueError for a profile of length 0 or fewer than one query."""
    return scored(treatments, treatments.moa, _differ(treatments.compound), metric="NSC")


def nscb(treatments: Treatments, *, classes: Classes = "several_batches") -> MoaScore:
    """Not-same-compound-and-batch accuracy.

    classes  "several_batches" drops mechanisms that stand in one batch only; "all" keeps them as queries, wrong by
             construction, and as candidates: the count over all treatments that some reports give
    """
    if classes not in get_args(Classes):
        words = get_args(Classes)
        raise ValueError(f"classes='{classes}': not one of {', '.join(words)}.{nearest_word(str(classes), words)}")
    dropped = single_batch_classes(treatments) if classes == "several_batches" else ()
    kept = treatments.take(~np.isin(treatments.moa, list(dropped)))
    permitted = _differ(kept.compound) & _differ(kept.batch)
    name = "NSCB" if classes == "several_batches" else "NSCB, all classes"
    return scored(kept, kept.moa, permitted, metric=name, dropped=dropped)


def not_same_plate_or_well(wells: Treatments) -> MoaScore:
    """Compound retrieval: the nearest well of another plate and another position must hold the query's compound.

    Where replicates share a position on their plates, only other doses of the compound can be right.
    """
    if wells.plate is None or wells.position is None:
        raise ValueError("not-same-plate-or-well compares wells; make them with `wells_of`.")
    permitted = _differ(wells.plate) & _differ(wells.position)
    return scored(wells, wells.compound, permitted, metric="compound, not same plate or well")


def single_batch_classes(treatments: Treatments) -> tuple[str, ...]:
    """The mechanisms all of whose treatments are in one batch, in order."""
    return tuple(sorted(m for m in set(treatments.moa) if len(set(treatments.batch[treatments.moa == m].tolist())) < 2))


def cosines(profiles: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Cosine similarities [T, T] in float64. ValueError lists profiles of length 0, which have no direction."""
    x = np.asarray(profiles, np.float64)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    if not (length > 0).all():
        raise ValueError(
            f"profiles of length 0 have no direction: {some([names[i] for i in np.flatnonzero(length <= 0)])}."
        )
    x = x / length
    return x @ x.T


def scored(
    treatments: Treatments, target: np.ndarray, permitted: np.ndarray, *, metric: str, dropped: tuple[str, ...] = ()
) -> MoaScore:
    """The score of any answers [T] and any rule of who may be whose neighbour, permitted [T, T] bool."""
    n = len(treatments)
    if not n:
        raise ValueError(f"{metric}: no treatments are left to ask about (dropped: {', '.join(dropped) or 'none'}).")
    permitted = permitted & ~np.eye(n, dtype=bool)
    similar = np.where(permitted, cosines(treatments.profiles, treatments.names), -np.inf)
    best = similar.max(axis=1)
    having = np.isfinite(best)
    level = permitted & (similar >= best[:, None] - TIE)
    row = level.argmax(axis=1)
    right = target[:, None] == target[None]
    second = np.where(np.arange(n) == row[:, None], -np.inf, similar).max(axis=1)
    predicted = np.where(having, target[row], "").astype(object)
    candidates = permitted.sum(axis=1)
    disagree = having & (level & (target[None] != predicted[:, None])).any(axis=1)
    return MoaScore(
        metric,
        treatments.names,
        treatments.compound,
        target,
        predicted,
        np.where(having, np.array(treatments.names, object)[row], ""),
        np.where(having, best, np.nan),
        np.where(np.isfinite(second), best - np.where(np.isfinite(second), second, 0), np.nan),
        having & (predicted == target),
        float(np.mean((permitted & right).sum(axis=1) / np.maximum(candidates, 1))),
        int((~having).sum()),
        int((~(permitted & right).any(axis=1)).sum()),
        int(disagree.sum()),
        dropped,
    )


def _differ(values: np.ndarray) -> np.ndarray:
    return values[:, None] != values[None]


def _ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and value != value else value
