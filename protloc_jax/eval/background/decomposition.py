"""Where a drop between background conditions comes from: differences of conditions, paired over proteins.

artifact          baseline - same          pasting itself: seam, intensity matching, statistics of another crop
cue_lost          same - masked            what neighbours of the same class contribute
interference      masked - different       what neighbours of another class destroy beyond that
neighbour_effect  cell_free - different    the same backgrounds without and with cells

The first three add up to baseline - different. For PIFiA's published accuracies the four are .011, .056, .041 and .058.
Source of the conditions: Gupta, Moses & Lu, PMLR 311 (2025) 162, sections 3.3 and 4; the decomposition is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args

import numpy as np

from protloc_jax.config import nearest
from protloc_jax.data.manifest import capped, listed
from protloc_jax.eval import statistics
from protloc_jax.eval.background.protocols import ConditionScore
from protloc_jax.eval.scores import balanced_accuracy_of

TERMS: dict[str, tuple[str, str]] = {
    "artifact": ("baseline", "same"),
    "cue_lost": ("same", "masked"),
    "interference": ("masked", "different"),
    "neighbour_effect": ("cell_free", "different"),
}


class Decomposition(NamedTuple):
    """terms: name -> `statistics.Difference`; holm: name -> p-value adjusted for all terms; proteins: how many."""

    terms: dict[str, statistics.Difference]
    holm: dict[str, float]
    proteins: int


def decompose(
    stats: Mapping[str, Any],
    *,
    metric: statistics.Metric = balanced_accuracy_of,
    terms: Sequence[str] = tuple(TERMS),
    resamples: int = 2000,
    level: float = 0.95,
    method: statistics.Method = "bca",
    seed: int = 0,
) -> Decomposition:
    """Each term with a bootstrap interval over proteins, the same proteins drawn for both of its conditions.

    stats   condition -> additive statistics [G, ...], row g the same protein everywhere (see `aligned`)
    metric  of their sum; for counts [G, 3, L] balanced accuracy
    Raises ValueError listing unknown terms, conditions that they lack, and unequal shapes.
    """
    problems = [f"no term '{t}'.{nearest(t, TERMS)}" for t in terms if t not in TERMS]
    wanted = list(dict.fromkeys(c for t in terms if t in TERMS for c in TERMS[t]))
    problems += [f"no condition '{c}'.{nearest(c, stats)}" for c in wanted if c not in stats]
    arrays = {c: np.asarray(stats[c], np.float64) for c in wanted if c in stats}
    shapes = {c: list(a.shape) for c, a in arrays.items()}
    if len({tuple(s) for s in shapes.values()}) > 1:
        problems.append(f"statistics of unequal shape: {shapes}.")
    if method not in get_args(statistics.Method):
        problems.append(f"method={method!r}: not one of {', '.join(get_args(statistics.Method))}.")
    if not terms:
        problems.append(f"no term asked for; there are {', '.join(TERMS)}.")
    if problems:
        raise ValueError(listed(problems))
    how: dict[str, Any] = {"resamples": resamples, "level": level, "method": method, "seed": seed}
    found = {}
    for t in terms:
        higher, lower = TERMS[t]
        found[t] = statistics.paired_difference(arrays[higher], arrays[lower], metric, **how)
    adjusted = statistics.holm([d.p_value for d in found.values()])
    holm = {t: float(p) for t, p in zip(found, adjusted, strict=True)}
    return Decomposition(found, holm, len(next(iter(arrays.values()))))


def aligned(scored: Mapping[str, ConditionScore]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Counts [G, 3, L] of every condition over the same G proteins, and their names.

    Raises ValueError listing the proteins that some conditions lack, and classes that differ: a paired comparison
    over the proteins that happen to be left would be another question.
    """
    tables = {name: score.per_protein() for name, score in scored.items()}
    every = sorted(set().union(*(names for _, names in tables.values())))
    problems = []
    for name, (_, names) in tables.items():
        missing = sorted(set(every) - set(names))
        if missing:
            problems.append(f"{name}: no scored row of proteins {capped([str(m) for m in missing])}.")
    classes = {name: score.classes for name, score in scored.items()}
    if len(set(classes.values())) > 1:
        problems.append(f"conditions of other classes: {classes}.")
    if problems:
        raise ValueError(listed(problems))
    return {name: counts for name, (counts, _) in tables.items()}, np.asarray(every)
