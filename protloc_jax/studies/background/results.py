"""From the scored tables of the background study to plain rows: accuracies, drops, comparisons, classes, controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from protloc_jax.studies.background import statistics as stats
from protloc_jax.studies.background.config import BackgroundStudy
from protloc_jax.studies.background.runs import System
from protloc_jax.studies.background.scores import PROTOCOLS, TableScores
from protloc_jax.studies.named_sections import title_of


class Scored(NamedTuple):
    """Scores of a system: of the made images and of the native ones (None without), a seed each."""

    system: System
    seeds: tuple[int, ...]
    made: list[TableScores]
    native: list[TableScores] | None


Counts = dict[str, dict[str, np.ndarray]]  # protocol -> condition -> [G, S, 3, L]


def counts_of(scored: Scored) -> tuple[Counts, list[str]]:
    """Counts of every condition that all seeds have, native ones among them, over the same proteins; those left out.

    Native cells are of the same proteins or fewer; a protein without one counts nothing there.
    """
    every = [*scored.made, *(scored.native or [])]
    proteins = tuple(sorted({p for one in every for p in one.proteins}))
    classes = tuple(sorted({c for one in every for c in one.classes}))
    found: Counts = {}
    lost: set[str] = set()
    for group in (scored.made, scored.native or []):
        for protocol in PROTOCOLS if group else ():
            names = dict.fromkeys(c for one in group for c in one.counts[protocol])
            for name in names:
                if all(name in one.counts[protocol] for one in group):
                    own = [_placed(one, one.counts[protocol][name], proteins, classes) for one in group]
                    found.setdefault(protocol, {})[name] = stats.stacked(own)
                else:
                    lost.add(f"{protocol}, {name}")
    return found, sorted(lost)


def row(study: BackgroundStudy, scored: Scored, counts: Counts) -> dict[str, Any]:
    """One system: accuracy of every condition, every drop, label-free measures, rows left out."""
    system = scored.system
    how = {"resamples": study.resamples}
    conditions = {p: {c: stats.interval(x, **how) for c, x in own.items()} for p, own in counts.items()}
    drops = {
        p: {
            name: stats.drop_interval(own[high], own[low], **how)
            for name, (high, low) in stats.DROPS.items()
            if high in own and low in own
        }
        for p, own in counts.items()
    }
    free = {key: float(np.mean([one.label_free[key] for one in scored.made])) for key in _shared(scored)}
    return {
        **names(study, system),
        "seeds": list(scored.seeds),
        "classes": list(scored.made[0].classes),
        "proteins": len(scored.made[0].proteins),
        "conditions": conditions,
        "drops": drops,
        "label_free": free,
        "svc": _svc(scored),
        "left_out": {p: _largest([one.left_out.get(p, {}) for one in scored.made]) for p in PROTOCOLS},
        "purged": {p: _largest([one.purged.get(p, {}) for one in scored.made]) for p in PROTOCOLS},
        "pulled": {p: pulled(scored.made, p) for p in PROTOCOLS},
        "bins": _bins(scored.made),
        "not_scored": {k: v for one in (*scored.made, *(scored.native or [])) for k, v in one.not_scored.items()},
    }


def names(study: BackgroundStudy, system: System) -> dict[str, Any]:
    """Keys and titles of a system."""
    encoder, inference = (title_of(study.encoders, system.encoder), title_of(study.inference, system.inference))
    plain = system.inference == study.plain
    return {
        **system._asdict(),
        "data_title": title_of(study.data, system.data),
        "encoder_title": encoder,
        "inference_title": inference,
        "title": encoder if plain else f"{encoder}, {inference}",
        "kind": study.encoders[system.encoder].kind,
        "reference": plain and system.encoder == study.reference,
    }


def comparisons(
    study: BackgroundStudy, every: Mapping[System, Counts], protocols: Sequence[str] = PROTOCOLS
) -> list[dict[str, Any]]:
    """Every system against the plain one on the same proteins; Holm within a data section, protocol and quantity."""
    found: list[dict[str, Any]] = []
    for system, counts in every.items():
        plain = every[System(system.data, study.reference, study.plain)]
        if counts is plain:
            continue
        for protocol in protocols:
            own = stats.compared(counts[protocol], plain[protocol], resamples=study.resamples)
            for quantity, entry in own.items():
                found.append({**names(study, system), "protocol": protocol, "quantity": quantity, **entry})
    stats.with_holm(found, ("data", "protocol", "quantity"))
    return found


def by_class(study: BackgroundStudy, scored: Scored) -> dict[str, Any]:
    """Accuracy of `different` by class of the cell and of the background, and the recall of each class elsewhere.

    `pairs`: of the pairwise machines the accuracy of each two classes, mean over backgrounds. Seeds are pooled.
    """
    first = scored.made[0]
    found: dict[str, Any] = {"data": scored.system.data, "classes": list(first.classes), "backgrounds": {}}
    for protocol in PROTOCOLS:
        if protocol in first.cells:
            right, tested = np.sum([one.cells[protocol] for one in scored.made], axis=0)
            share = np.divide(right, tested, out=np.full_like(right, np.nan), where=tested > 0)
            found["backgrounds"][protocol] = [[None if v != v else float(v) for v in line] for line in share]
    found["recall"] = {
        c: [
            _recall(np.sum([one.counts[study.protocol][c] for one in scored.made], axis=0), i)
            for i in range(len(first.classes))
        ]
        for c in first.counts[study.protocol]
    }
    found["pairs"] = {c: _pair_matrix(scored.made, c) for c in ("same", "different")}
    return found


def pulled(made: Sequence[TableScores], protocol: str) -> dict[str, Any] | None:
    """Of the wrong answers of `different` the share that names the background's class, and the share by chance."""
    counts = [one.pulled[protocol] for one in made if protocol in one.pulled]
    wrong, named = (sum(part) for part in zip(*counts, strict=True)) if counts else (0, 0)
    if not wrong:
        return None
    return {"wrong": wrong, "share": named / wrong, "chance": 1 / (len(made[0].classes) - 1)}


def _placed(one: TableScores, counts: np.ndarray, proteins: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    out = np.zeros((len(proteins), 3, len(classes)))
    rows = [proteins.index(p) for p in one.proteins]
    out[np.ix_(rows, range(3), [classes.index(c) for c in one.classes])] = counts
    return out


def _shared(scored: Scored) -> list[str]:
    first = scored.made[0].label_free
    return [key for key in first if all(key in one.label_free for one in scored.made)]


def _largest(each: Sequence[Mapping[str, int]]) -> dict[str, int]:
    return {key: max(one.get(key, 0) for one in each) for key in dict.fromkeys(k for one in each for k in one)}


def _recall(counts: np.ndarray, place: int) -> float | None:
    right, _, missed = counts.sum(axis=0)[:, place]
    return float(right / (right + missed)) if right + missed else None


def _svc(scored: Scored) -> dict[str, Any]:
    """Means over seeds of the pairwise accuracies, by condition."""
    found = {}
    for condition in scored.made[0].svc_means:
        each = [one.svc_means[condition] for one in scored.made if condition in one.svc_means]
        found[condition] = {"of": each[0]["of"], "scored": each[0]["scored"]}
        for rule in ("text", "paper_table1"):
            values = [one[rule] for one in each if one[rule] is not None]
            spreads = [s for _, s in values if s is not None]
            found[condition][rule] = None if not values else {
                "mean": float(np.mean([m for m, _ in values])),
                "spread": float(np.mean(spreads)) if spreads else None,
            }  # fmt: skip
    return found


def _bins(made: Sequence[TableScores]) -> list[dict[str, Any]]:
    rows: dict[tuple[str, float, float], list[Mapping[str, Any]]] = {}
    for one in made:
        for entry in one.bins:
            rows.setdefault((entry["condition"], entry["low"], entry["high"]), []).append(entry)
    return [
        {"condition": c, "low": low, "high": high, "rows": own[0]["rows"],
         "balanced_accuracy": float(np.mean([e["balanced_accuracy"] for e in own]))}
        for (c, low, high), own in rows.items() if own[0]["rows"]
    ]  # fmt: skip


def _pair_matrix(made: Sequence[TableScores], condition: str) -> list[list[float | None]] | None:
    classes = list(made[0].classes)
    values: dict[tuple[int, int], list[float]] = {}
    for one in made:
        for pair in one.svc:
            if pair["condition"] == condition:
                a, b = sorted((classes.index(pair["first"]), classes.index(pair["second"])))
                values.setdefault((a, b), []).append(pair["mean"])
    if not values:
        return None
    size = range(len(classes))
    return [[float(np.mean(values[min(a, b), max(a, b)])) if (min(a, b), max(a, b)) in values else None for b in size]
            for a in size]  # fmt: skip
