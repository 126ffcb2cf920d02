"""Top-1 and top-5 accuracy with intervals over wells, and what the wrong answers have in common with the right ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from protloc_jax.eval.de_novo.answers import Answers
from protloc_jax.eval.statistics import Difference, Interval, bootstrap, group_sums, paired_difference

KS = (1, 5)


def hits(answers: Answers, k: int) -> np.ndarray:
    """Whether the true class is among the first k [Q]."""
    return answers.rank <= k


def share_stats(hit: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Hits and rows of every group, [G, 2], groups in sorted order."""
    return group_sums(np.stack([hit, np.ones(len(hit))], axis=1), groups)[0]


def share(total: np.ndarray) -> np.ndarray:
    """Hits over rows of sums [..., 2]; NaN without rows."""
    with np.errstate(invalid="ignore"):
        return total[..., 0] / total[..., 1]


def top_k(answers: Answers, k: int, **how: Any) -> Interval:
    """The share of queries whose true class is among the first k, with its interval over the groups."""
    return bootstrap(share_stats(hits(answers, k), answers.group), share, **how)


def compare(first: Sequence[Answers], second: Sequence[Answers], k: int, **how: Any) -> Difference:
    """Top-k of one system minus another's, each over several seeds, on the same queries; paired by group.

    Entry i of both was asked the same (one draw of the shots, one seed). Queries of all entries are pooled by group, so
    that the interval is over groups and not over seeds. Raises ValueError where the systems were asked other questions.
    """
    if len(first) != len(second):
        raise ValueError(f"paired systems need the same seeds: {len(first)} and {len(second)}.")
    aligned = []
    for number, (one, two) in enumerate(zip(first, second, strict=True)):
        mine, other = (np.argsort(np.array(a.ids), kind="stable") for a in (one, two))
        if not np.array_equal(np.array(one.ids)[mine], np.array(two.ids)[other]):
            differ = sorted(set(one.ids) ^ set(two.ids))
            raise ValueError(f"entry {number}: the systems were asked about other images: {len(differ)} differ, "
                             f"first {differ[:3]}.")  # fmt: skip
        aligned.append((hits(one, k)[mine], hits(two, k)[other], one.group[mine]))
    a, b, groups = (np.concatenate(part) for part in zip(*aligned, strict=True))
    return paired_difference(share_stats(a, groups), share_stats(b, groups), share, **how)


def pooled_top_k(seeds: Sequence[Answers], k: int, **how: Any) -> Interval:
    """Top-k over the queries of several seeds, with its interval over the groups, each drawn with all its queries."""
    hit, groups = (np.concatenate(part) for part in zip(*((hits(a, k), a.group) for a in seeds), strict=True))
    return bootstrap(share_stats(hit, groups), share, **how)


def confusion_within(answers: Answers, related: np.ndarray, **how: Any) -> dict[str, Any]:
    """How often a wrong answer is of the true one's group (its pathway), beside what chance would give.

    related  group number [C] of each class, -1 = none. Only queries whose class has a relative count. Chance is the
    share of relatives among all wrong classes, averaged over the wrong answers. `excess` is the difference.
    """
    best = answers.best
    own = related[answers.true]
    relatives = np.array([(related == g).sum() - 1 if g >= 0 else 0 for g in own])
    asked = relatives > 0
    wrong = asked & (best != answers.true)
    if not wrong.any():
        return {"asked": int(asked.sum()), "wrong": 0, "within": None, "chance": None, "excess": None}
    inside = (related[best] == own)[wrong]
    chance = relatives[wrong] / (len(answers.classes) - 1)
    stats = group_sums(np.stack([inside, chance, np.ones(len(inside))], axis=1), answers.group[wrong])[0]

    def within(total: np.ndarray) -> np.ndarray:
        return share(total[..., [0, 2]])

    def excess(total: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return (total[..., 0] - total[..., 1]) / total[..., 2]

    return {
        "asked": int(asked.sum()),
        "wrong": int(wrong.sum()),
        "within": bootstrap(stats, within, **how).as_dict(),
        "chance": float(chance.mean()),
        "excess": bootstrap(stats, excess, **how).as_dict(),
    }
