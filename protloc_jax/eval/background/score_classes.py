"""Many classes at once: both protocols with intervals over proteins, drops, their parts, and crossed backgrounds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from protloc_jax.eval import statistics
from protloc_jax.eval.background.decomposition import TERMS, Decomposition, aligned, decompose
from protloc_jax.eval.background.protocols import (
    Classifier,
    ConditionScore,
    Protocol,
    ProtocolOptions,
    retrained,
    transfer,
)
from protloc_jax.eval.background.rows import ConditionRows
from protloc_jax.eval.background.spec import CONDITIONS
from protloc_jax.eval.scores import balanced_accuracy_of, recall_of

DROPS = (("baseline", "different"), ("same", "different"))
_BINS = 4


class Drop(NamedTuple):
    """Balanced accuracy of `higher` minus that of `lower`, the same proteins drawn for both; p-value after Holm."""

    higher: str
    lower: str
    difference: statistics.Difference
    holm: float


class Classified(NamedTuple):
    """One classifier under one protocol.

    intervals      condition -> balanced accuracy over proteins; recall: condition -> per class [L]
    decomposition  of what the conditions allow; None where no term can be had
    not_scored     what could not be compared or scored, with the reason
    """

    classifier: Classifier
    protocol: Protocol
    options: ProtocolOptions
    scores: dict[str, ConditionScore]
    intervals: dict[str, statistics.Interval]
    recall: dict[str, np.ndarray]
    drops: list[Drop]
    decomposition: Decomposition | None
    not_scored: dict[str, str]


class Crossed(NamedTuple):
    """Classifiers of two classes, fitted on the baseline and applied; counts are summed over all pairs.

    counts [G, 3, L] per condition: of the same G proteins; drops: baseline - others. In `crossed` each of both classes
    stands on the other's background, in `different` on those of third classes.
    """

    classes: tuple[str, ...]
    counts: dict[str, np.ndarray]
    intervals: dict[str, statistics.Interval]
    drops: list[Drop]
    left_out: dict[str, int]
    pairs: int


class Bin(NamedTuple):
    """Rows of one condition whose share of other cells' pixels lies in [low, high)."""

    condition: str
    low: float
    high: float
    rows: int
    proteins: int
    balanced_accuracy: float


def classify(
    conditions: Mapping[str, ConditionRows],
    protocol: Protocol,
    options: ProtocolOptions,
    bootstrap: Mapping[str, Any],
) -> Classified:
    """Score every condition that the protocol may use; `bootstrap`: resamples, level, seed.

    Of a condition that cannot be scored the reason is kept, and the others are scored. Raises ValueError where the
    baseline itself cannot be.
    """
    score = retrained if protocol == "retrained" else transfer
    usable = {n: r for n, r in conditions.items() if n in CONDITIONS and protocol in CONDITIONS[n].protocols}
    # Over all classes, crossed backgrounds are those of `different`.
    usable.pop("crossed", None)
    not_scored: dict[str, str] = {}
    try:
        scores = score(usable, options)
    except ValueError:
        scores = score({"baseline": usable["baseline"]}, options) if "baseline" in usable else score(usable, options)
        for name in (n for n in usable if n != "baseline"):
            try:
                scores[name] = score({"baseline": usable["baseline"], name: usable[name]}, options)[name]
            except ValueError as error:
                not_scored[name] = str(error)
    drops, decomposition = [], None
    pairs = {}
    for higher, lower in DROPS:
        if higher in scores and lower in scores:
            try:
                counts, _ = aligned({name: scores[name] for name in (higher, lower)})
                pairs[higher, lower] = counts[higher], counts[lower]
            except ValueError as error:
                not_scored[f"{higher} - {lower}"] = str(error)
    drops = compared(pairs, bootstrap)
    terms = [t for t, needed in TERMS.items() if all(c in scores for c in needed)]
    if terms:
        try:
            counts, _ = aligned({c: scores[c] for c in dict.fromkeys(c for t in terms for c in TERMS[t])})
            decomposition = decompose(counts, terms=terms, **bootstrap)
        except ValueError as error:
            not_scored["decomposition"] = str(error)
    return Classified(
        options.classifier,
        protocol,
        options,
        scores,
        {name: s.interval(**bootstrap) for name, s in scores.items()},
        {name: recall_of(s.per_protein()[0].sum(axis=0)) for name, s in scores.items()},
        drops,
        decomposition,
        not_scored,
    )


def compared(
    pairs: Mapping[tuple[str, str], tuple[np.ndarray, np.ndarray]], bootstrap: Mapping[str, Any]
) -> list[Drop]:
    """Paired differences of counts [G, 3, L], with p-values adjusted for all of them."""
    found = [statistics.paired_difference(*counts, balanced_accuracy_of, **bootstrap) for counts in pairs.values()]
    adjusted = statistics.holm([d.p_value for d in found])
    return [Drop(*names, d, float(p)) for names, d, p in zip(pairs, found, adjusted, strict=True)]


def crossed_pairs(
    conditions: Mapping[str, ConditionRows],
    classes: Sequence[str],
    options: ProtocolOptions,
    bootstrap: Mapping[str, Any],
    progress: Callable[[str, int, int], Any] | None = None,
) -> Crossed:
    """Transfer between every two classes: a classifier of crops as they are meets same, third and crossed backgrounds.

    Raises ValueError for a pair whose rows cannot be scored.
    """
    used = {n: conditions[n] for n in ("baseline", "same", "masked", "different", "crossed") if n in conditions}
    proteins = sorted(set(conditions["baseline"].protein))
    at = {name: i for i, name in enumerate(proteins)}
    counts = {n: np.zeros((len(proteins), 3, len(classes))) for n in used}
    left_out = dict.fromkeys(used, 0)
    pairs = list(itertools.combinations(range(len(classes)), 2))
    for done, pair in enumerate(pairs, start=1):
        names = [classes[i] for i in pair]
        own = {}
        for condition, rows in used.items():
            wanted = np.isin(rows.label, names)
            if condition == "crossed":
                wanted &= np.isin(rows.background, names)
            elif condition == "different":
                wanted &= ~np.isin(rows.background, names)
            if wanted.any():
                own[condition] = rows.take(wanted)
        scored = transfer(own, options)
        for condition, score in scored.items():
            table, who = score.per_protein()
            # Its classes come sorted by name.
            columns = [classes.index(c) for c in score.classes]
            counts[condition][np.ix_([at[p] for p in who], range(3), columns)] += table
            left_out[condition] += score.left_out
        if progress is not None:
            progress("crossed", done, len(pairs))
    counts = {n: c for n, c in counts.items() if c.any()}
    compare = {
        ("baseline", n): (counts["baseline"], counts[n]) for n in ("same", "different", "crossed") if n in counts
    }
    intervals = {n: statistics.bootstrap(c, balanced_accuracy_of, **bootstrap) for n, c in counts.items()}
    return Crossed(tuple(classes), counts, intervals, compared(compare, bootstrap), left_out, len(pairs))


def bins_of(scores: Mapping[str, ConditionScore], shares: Mapping[str, np.ndarray]) -> list[Bin]:
    """Balanced accuracy by the share of other cells' pixels: quarters of all rows that show other cells, and none.

    The edges are those of all conditions together, so that one bin is the same everywhere.
    """
    used = {n: s for n, s in scores.items() if n in shares and (shares[n] > 0).any()}
    if not used:
        return []
    positive = np.concatenate([shares[n][shares[n] > 0] for n in used])
    inner = np.unique(np.quantile(positive, np.linspace(0, 1, _BINS + 1)[1:-1]))
    edges = [0.0, float(np.nextafter(0, 1)), *map(float, inner), 1.0 + 1e-9]
    found = []
    for name, score in used.items():
        for low, high in itertools.pairwise(edges):
            inside = (shares[name] >= low) & (shares[name] < high) & (score.predicted >= 0)
            right = (score.predicted == score.target)[inside]
            target = score.target[inside]
            recalls = [right[target == c].mean() for c in np.unique(target)]
            value = float(np.mean(recalls)) if recalls else float("nan")
            proteins = len(set(score.protein[inside].tolist()))
            found.append(Bin(name, low if low > 1e-9 else 0.0, min(high, 1.0), int(inside.sum()), proteins, value))
    return found
