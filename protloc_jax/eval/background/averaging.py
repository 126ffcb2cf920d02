"""From the accuracies of pairs or triplets to one number a class and one a condition, by two rules.

text          every class over all pairs (or triplets) in which it takes part, on all background classes that are
              neither of the two; the paper's stated rule, and what its supplementary table 2 shows
paper_table1  what the paper's table 1 shows. Baseline and masked: only pairs in which the class comes first, so that
              the last class has none. Different and cell-free: only the first background of each pair that is neither
              class. Same: as in the text

The spread is three standard errors over classes (sample standard deviation / sqrt(classes)). Classes share pairs, so
it is no confidence interval; it is here to be compared with the published one.

Source: Gupta, Moses & Lu, PMLR 311 (2025) 162, section 3.4, table 1, supplementary table 2, and its
summary notebook.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from protloc_jax.config import nearest
from protloc_jax.data.manifest import listed

Rule = Literal["text", "paper_table1"]
Condition = Literal["baseline", "same", "different", "masked", "cell_free"]
_ON_THIRD = ("different", "cell_free")


class ClassMeans(NamedTuple):
    """Means of classes, and of the condition.

    classes (those with a value), accuracy [L] float64, rows [L] pairs or triplets behind each;
    mean of the L values, spread: 3 standard errors over them (NaN for one class);
    dropped: rows whose background is one of the two classes.
    """

    classes: tuple[str, ...]
    accuracy: np.ndarray
    rows: np.ndarray
    mean: float
    spread: float
    dropped: int


def class_means(
    *,
    first: Any,
    second: Any,
    accuracy: Any,
    classes: Sequence[str],
    condition: Condition,
    background: Any = None,
    rule: Rule = "text",
) -> ClassMeans:
    """Average accuracies [P] of pairs (first [P], second [P]) or triplets (with background [P]) over classes.

    classes    all classes, in the order of the report
    condition  different and cell-free need backgrounds; the others must have none ('' or None)
    Raises ValueError listing unknown classes and pairs or triplets that are missing, double or without a number: each
    pair of classes is needed once, on every background class that occurs and is neither of them.
    """
    for name, value, known in (("rule", rule, get_args(Rule)), ("condition", condition, get_args(Condition))):
        if value not in known:
            raise ValueError(f"{name}={value!r}: not one of {', '.join(known)}.{nearest(str(value), known)}")
    one, two = (np.asarray(column, object) for column in (first, second))
    third = np.full(len(one), "", object) if background is None else np.asarray(background, object)
    values = np.asarray(accuracy, np.float64)
    if not one.shape == two.shape == third.shape == values.shape == (len(one),):
        raise ValueError(
            f"columns of unequal length: {[list(c.shape) for c in (one, two, third, values)]} "
            "(first, second, background, accuracy)."
        )
    own = (third == one) | (third == two)
    kept = np.flatnonzero(~own)
    _check(one[kept], two[kept], third[kept], values[kept], tuple(classes), condition)
    if rule == "paper_table1" and condition in _ON_THIRD:
        seen: dict[frozenset, int] = {}
        for row in kept:
            seen.setdefault(frozenset((one[row], two[row])), int(row))
        kept = np.array(sorted(seen.values()))
    only_first = rule == "paper_table1" and condition in ("baseline", "masked")
    taking_part = {c: kept[(one[kept] == c) | ((two[kept] == c) & (not only_first))] for c in classes}
    present = tuple(c for c in classes if len(taking_part[c]))
    means = np.array([values[taking_part[c]].mean() for c in present])
    counts = np.array([len(taking_part[c]) for c in present])
    return ClassMeans(present, means, counts, *mean_and_spread(means), int(own.sum()))


def mean_and_spread(values: Any) -> tuple[float, float]:
    """Mean of class values [L], and three standard errors of it over classes (NaN for fewer than two)."""
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"class values must be [L] with one class or more, got {list(values.shape)}.")
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return float(values.mean()), float(3 * error)


def _check(one, two, third, values, classes: tuple[str, ...], condition: Condition) -> None:
    """Every pair of classes once, on every background class that occurs (without backgrounds: once)."""
    problems = [f"class '{c}' is named twice." for c, n in Counter(classes).items() if n > 1]
    for name in sorted({*one, *two} - set(classes), key=str):
        problems.append(f"'{name}' is not among the classes.{nearest(str(name), classes)}")
    on_third = condition in _ON_THIRD
    odd = sum((b not in ("", None)) != on_third for b in third)
    if odd:
        problems.append(f"condition '{condition}': {odd} rows {'without' if on_third else 'with'} a background class.")
    if problems:
        raise ValueError(listed(problems))
    backgrounds = sorted(set(third)) if on_third else [""]
    keys = Counter((frozenset((a, b)), c or "") for a, b, c in zip(one, two, third, strict=True))
    for key, c in itertools.product(itertools.combinations(classes, 2), backgrounds):
        if c not in key and (times := keys.pop((frozenset(key), c), 0)) != 1:
            problems.append(f"{' / '.join(key)}{f' on {c}' if c else ''}: {times or 'no'} rows, one is needed.")
    problems += [f"{' / '.join(sorted(pair))}: a class paired with itself." for pair, _ in keys]
    for row in np.flatnonzero(~np.isfinite(values)):
        problems.append(f"{one[row]} / {two[row]}{f' on {third[row]}' if third[row] else ''}: no finite accuracy.")
    if problems:
        raise ValueError(listed(problems))
