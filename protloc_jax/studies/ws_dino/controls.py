"""Controls of the WS-DINO study: does it see an effect, and does it stay quiet where there is none?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from protloc_jax.eval.moa.treatments import Treatments
from protloc_jax.studies.ws_dino.scores import METRICS


def exchanged(treatments: Treatments, rng: np.random.Generator) -> Treatments:
    """The mechanisms exchanged between compounds: all treatments of a compound get those of another, by dose.

    A compound's i-th treatment takes the mechanism of the other's i-th, or of its last where it has fewer.
    """
    names = sorted(set(treatments.compound.tolist()))
    own = {name: np.flatnonzero(treatments.compound == name) for name in names}
    moa = treatments.moa.copy()
    for name, other in zip(names, rng.permutation(names), strict=True):
        given = treatments.moa[own[str(other)]]
        moa[own[name]] = given[np.minimum(np.arange(len(own[name])), len(given) - 1)]
    return dataclasses.replace(treatments, moa=moa)


def permuted(treatments: Treatments, *, permutations: int, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Accuracy under exchanged mechanisms by metric, with its chance level, averaged over `permutations` exchanges.

    passed  NSC: the mean excess over chance is within 3 of its standard errors of 0, which it must be, for any two
            compounds are as likely to share a mechanism as any other two. NSCB, which drops mechanisms and so does not
            keep to that rule exactly: the chance level lies within the middle 95 % of the accuracies
    """
    rng = np.random.default_rng(seed)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in METRICS}
    skipped = dict.fromkeys(METRICS, 0)
    for _ in range(permutations):
        other = exchanged(treatments, rng)
        for name, metric in METRICS.items():
            try:
                one = metric(other)
            except ValueError:  # by chance every mechanism stands in one batch only: nothing is left to ask about
                skipped[name] += 1
                continue
            found[name].append((one.accuracy, one.chance))
    return {
        name: _judged(np.array(values), skipped[name], exact=name == "NSC")
        for name, values in found.items()
        if len(values) > 1
    }


def _judged(values: np.ndarray, skipped: int, *, exact: bool) -> dict[str, Any]:
    accuracy, chance = values.T
    excess = accuracy - chance
    low, high = (float(q) for q in np.quantile(accuracy, (0.025, 0.975)))
    error = excess.std(ddof=1) / np.sqrt(len(excess))
    quiet = abs(excess.mean()) <= max(3 * error, 1e-9) if exact else low <= chance.mean() <= high
    return {
        "accuracy": float(accuracy.mean()),
        "low": low,
        "high": high,
        "chance": float(chance.mean()),
        "permutations": len(values),
        "skipped": skipped,
        "passed": bool(quiet),
    }


def permuted_rows(cells: Mapping[tuple[str, str], dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of the control "mechanisms exchanged", of cells named (screen, words)."""
    return [
        {
            "screen": screen,
            "name": "mechanisms exchanged",
            "words": f"{words}: mechanisms exchanged between compounds, {own['permutations']} times",
            "metric": metric,
            "estimate": own["accuracy"],
            "low": own["low"],
            "high": own["high"],
            "expected": f"chance ({own['chance']:.3f})",
            "passed": own["passed"],
        }
        for (screen, words), found in cells.items()
        for metric, own in found.items()
    ]


def positive_rows(differences: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the control "upper bound": arms that train on the truth must score above the reference."""
    return [
        {
            "screen": d["screen"],
            "name": "upper bound",
            "words": f"{d['first']} minus {d['second']}, {d['model']}, {d['training']}",
            "metric": d["metric"],
            "estimate": d["estimate"],
            "low": d["low"],
            "high": d["high"],
            "expected": "above 0: the labels that are asked for must help",
            "passed": None if d["low"] is None else bool(d["low"] > 0),
        }
        for d in differences
        if d["truth"] and d["training_key"] == "transductive"
    ]
