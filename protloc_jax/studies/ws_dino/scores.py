"""Scores of one cell of the WS-DINO study: NSC and NSCB of every seed, treatment by treatment.

Answers are kept for each treatment, so that any two cells can be compared compound by compound afterwards.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from protloc_jax.data.durable import write_whole
from protloc_jax.eval import statistics
from protloc_jax.eval.moa.nearest import MoaScore, nsc, nscb
from protloc_jax.eval.moa.treatments import Treatments

METRICS: dict[str, Callable[[Treatments], MoaScore]] = {"NSC": nsc, "NSCB": nscb}
FILE = "scores.json"


@dataclasses.dataclass(frozen=True)
class Answers:
    """Answers of S seeds about the same Q treatments by one metric.

    names, compound, answer  [Q] text
    predicted                [S][Q] text, "" without a candidate
    chance                   [S] expected accuracy of a random permissible neighbour
    dropped                  mechanisms that are neither queries nor candidates
    """

    names: tuple[str, ...]
    compound: tuple[str, ...]
    answer: tuple[str, ...]
    predicted: tuple[tuple[str, ...], ...]
    chance: tuple[float, ...]
    unanswerable: int
    dropped: tuple[str, ...]

    @property
    def correct(self) -> np.ndarray:
        """[S, Q] bool."""
        return np.array([[p == a for p, a in zip(own, self.answer, strict=True)] for own in self.predicted], bool)

    @property
    def counts(self) -> np.ndarray:
        """Correct answers and queries of every compound (sorted by name) and seed, [G, S, 2]."""
        right = self.correct.T[..., None].astype(float)
        both = np.concatenate([right, np.ones_like(right)], axis=2)
        return statistics.group_sums(both, np.asarray(self.compound))[0]


def score(treatments: Sequence[Treatments], held_out: Sequence[frozenset[str]] | None = None) -> dict[str, MoaScore]:
    """NSC and NSCB of one backbone, or of one backbone a fold pooled over the compounds that each has not seen.

    held_out  per fold the compounds whose treatments are asked about; None: one backbone, all of them
    """
    found = {}
    for name, metric in METRICS.items():
        each = [metric(one) for one in treatments]
        if held_out is not None:
            each = [only(one, kept) for one, kept in zip(each, held_out, strict=True)]
        found[name] = pooled(each)
    return found


def only(score: MoaScore, compounds: frozenset[str]) -> MoaScore:
    """A score's queries of some compounds; its chance level stays that of all queries."""
    kept = np.isin(score.compound, sorted(compounds))
    arrays = ("compound", "target", "predicted", "neighbour", "similarity", "margin", "correct")
    return dataclasses.replace(
        score,
        names=tuple(n for n, k in zip(score.names, kept, strict=True) if k),
        **{key: getattr(score, key)[kept] for key in arrays},
    )


def pooled(parts: Sequence[MoaScore]) -> MoaScore:
    """Scores of different queries as one, in the order of the queries' names; chance is the mean over queries."""
    if len(parts) == 1:
        return parts[0]
    names = [name for part in parts for name in part.names]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"queries that several folds ask about: {', '.join(repeated)}.")
    order = np.argsort(np.asarray(names, object), kind="stable")
    arrays = ("compound", "target", "predicted", "neighbour", "similarity", "margin", "correct")
    joined = {key: np.concatenate([getattr(part, key) for part in parts])[order] for key in arrays}
    sizes = [part.of for part in parts]
    return dataclasses.replace(
        parts[0],
        names=tuple(names[i] for i in order),
        **joined,
        chance=float(np.average([part.chance for part in parts], weights=sizes)),
        unanswerable=sum(part.unanswerable for part in parts),
        dropped=tuple(sorted({name for part in parts for name in part.dropped})),
    )


def answers(seeds: Sequence[MoaScore]) -> Answers:
    """The answers of several seeds. ValueError where they were not asked about the same treatments."""
    order = [np.argsort(np.asarray(one.names, object), kind="stable") for one in seeds]
    names = [tuple(one.names[i] for i in own) for one, own in zip(seeds, order, strict=True)]
    if any(own != names[0] for own in names):
        raise ValueError("seeds were not asked about the same treatments.")
    first, by = seeds[0], order[0]
    return Answers(
        names[0],
        tuple(map(str, first.compound[by])),
        tuple(map(str, first.target[by])),
        tuple(tuple(map(str, one.predicted[own])) for one, own in zip(seeds, order, strict=True)),
        tuple(one.chance for one in seeds),
        max(one.unanswerable for one in seeds),
        first.dropped,
    )


def write(found: Mapping[str, Answers], folder: Path) -> None:
    """Write answers by metric; `read` reads them."""
    text = {metric: dataclasses.asdict(own) for metric, own in found.items()}
    write_whole(folder / FILE, (json.dumps(text) + "\n").encode())


def read(folder: Path) -> dict[str, Answers]:
    """What `write` wrote."""

    def frozen(value: Any) -> Any:
        return tuple(map(frozen, value)) if isinstance(value, list) else value

    text = json.loads((folder / FILE).read_text())
    return {metric: Answers(**{k: frozen(v) for k, v in own.items()}) for metric, own in text.items()}


def mean_accuracy(counts: np.ndarray) -> np.ndarray:
    """The mean over seeds [...] of the accuracy of counts [..., S, 2]."""
    return (counts[..., 0] / counts[..., 1]).mean(axis=-1)


def interval(own: Answers, *, resamples: int) -> statistics.Interval:
    """The accuracy, mean over seeds, with its interval over the compounds that are asked about."""
    return statistics.bootstrap(own.counts, mean_accuracy, resamples=resamples)


def difference(one: Answers, two: Answers, *, resamples: int) -> statistics.Difference:
    """One minus two on the same compounds, each the mean over its seeds.

    ValueError naming treatments that only one of them was asked about.
    """
    differing = sorted(set(one.names) ^ set(two.names))
    if differing:
        raise ValueError(f"treatments that only one of two cells was asked about: {', '.join(differing)}.")
    s = int(np.lcm(len(one.predicted), len(two.predicted)))
    # A mean over seeds does not change where all of them are repeated as often.
    first, second = (np.tile(own.counts, (1, s // own.counts.shape[1], 1)) for own in (one, two))
    return statistics.paired_difference(first, second, mean_accuracy, resamples=resamples)
