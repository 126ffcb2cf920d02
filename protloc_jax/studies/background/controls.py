"""Controls of the background study: does the harness see backgrounds, and stay quiet where there is nothing?"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from protloc_jax.config import to_dict
from protloc_jax.data import read as read_records
from protloc_jax.data.durable import write_whole
from protloc_jax.eval import statistics as bootstraps
from protloc_jax.eval.background.joined import MadeFeatures
from protloc_jax.eval.background.seam import edge_features, seam_score
from protloc_jax.eval.scores import balanced_accuracy_of
from protloc_jax.studies.background import scores
from protloc_jax.studies.background import statistics as stats
from protloc_jax.studies.background.config import BackgroundStudy
from protloc_jax.studies.background.inputs import Inputs
from protloc_jax.studies.background.results import Counts
from protloc_jax.studies.named_sections import title_of
from protloc_jax.studies.steps import Made, Workshop

FILE = "control.json"
PASTED = ("self_paste", "same", "different")
MOST_CROPS = 600  # of each kind that a detector of seams sees


def readable(study: BackgroundStudy, data: str, counts: Counts) -> list[dict[str, Any]]:
    """The cell's class must be readable from its background alone, by the plain encoder: above chance.

    Retrained: in untouched crops neighbours are of the cell's own protein. Where they are not (pooled screens), this
    control fails, and there is no cue to lose.
    """
    own = counts["retrained"].get("background_only")
    if own is None:
        return []
    found = bootstraps.bootstrap(own, stats.accuracy, resamples=study.resamples).as_dict()
    chance = 1 / own.shape[-1]
    return [{
        "data": title_of(study.data, data), "control": "background alone, retrained", "value": found["estimate"],
        "low": found["low"], "high": found["high"], "expected": f"above chance, {chance:.3f}",
        "passed": bool(found["low"] is not None and found["low"] > chance),
    }]  # fmt: skip


def contradicted(study: BackgroundStudy, data: str, made: MadeFeatures, table: Made, shop: Workshop) -> dict[str, Any]:
    """Backgrounds of the other of two classes must do more harm than those of a third (classifiers of two classes)."""

    def work(folder: Path) -> None:
        found = scores.crossed(made, study.classify)
        if "different" not in found.counts or "crossed" not in found.counts:
            write_whole(folder / FILE, b"{}")
            return
        own = bootstraps.paired_difference(
            found.counts["different"], found.counts["crossed"], balanced_accuracy_of, resamples=study.resamples
        )
        means = {name: float(balanced_accuracy_of(c.sum(axis=0))) for name, c in found.counts.items()}
        write_whole(folder / FILE, json.dumps({**own.interval.as_dict(), "means": means}).encode())

    settings = [to_dict(study.classify), study.resamples]
    made_step = shop.compute(f"control-crossed-{data}", work, settings=settings, uses=[table])
    found = json.loads((made_step.path / FILE).read_text())
    base = {"data": title_of(study.data, data), "control": "different - crossed, two classes, transferred"}
    if not found:
        return {**base, "value": None, "low": None, "high": None, "expected": "above 0", "passed": None}
    low = found["low"]
    return {**base, "value": found["estimate"], "low": low, "high": found["high"], "expected": "above 0",
            "passed": bool(low is not None and low > 0), "means": found["means"]}  # fmt: skip


def permuted(study: BackgroundStudy, data: str, made: MadeFeatures, table: Made, shop: Workshop) -> dict[str, Any]:
    """With classes exchanged between proteins, the baseline must score at chance.

    Where proteins stand in several folds it says nothing: any grouping of known proteins can be learnt.
    """

    def work(folder: Path) -> None:
        found = scores.score(_only(made, ("baseline",)), study.classify, shuffle=0)
        counts = stats.stacked([found.counts["retrained"]["baseline"]])
        own = bootstraps.bootstrap(counts, stats.accuracy, resamples=study.resamples).as_dict()
        write_whole(folder / FILE, json.dumps({**own, "chance": 1 / len(found.classes)}).encode())

    settings = [to_dict(study.classify), study.resamples]
    step = shop.compute(f"control-permuted-{data}", work, settings=settings, uses=[table])
    found = json.loads((step.path / FILE).read_text())
    inside = found["low"] is not None and found["low"] <= found["chance"] <= found["high"]
    apart = made.groups > 1 or "protein" in study.classify.together
    return {
        "data": title_of(study.data, data), "control": "classes exchanged between proteins, baseline, retrained",
        "value": found["estimate"], "low": found["low"], "high": found["high"],
        "expected": f"chance, {found['chance']:.3f}" if apart else "anything: proteins stand in several folds",
        "passed": bool(inside) if apart else None,
    }  # fmt: skip


def seams(study: BackgroundStudy, inputs: Inputs, data: str, shop: Workshop) -> list[dict[str, Any]]:
    """How well crops of each pasted condition, and of native neighbours, are told from natural ones by the cell's edge.

    A number beside the drop, no test that can be passed: at chance means that pasting left no trace on the edge.
    """
    images = inputs.images[data]
    native = {kind: made for (own, kind), made in inputs.native.items() if own == data}

    def work(folder: Path) -> None:
        found = {}
        natural = _edges(images.path, "baseline", "centre_protein")
        for condition in PASTED:
            pasted = _edges(images.path, condition, "centre_protein")
            if pasted is not None and natural is not None:
                found[f"pasted: {condition} against baseline"] = seam_score(
                    natural[0], pasted[0], (natural[1], pasted[1])
                )._asdict()
        if "same" in native and "other" in native:
            same, other = (_edges(native[k].path, "", study.data[data].protein) for k in ("same", "other"))
            if same is not None and other is not None:
                found["native: other against same neighbours"] = seam_score(
                    same[0], other[0], (same[1], other[1])
                )._asdict()
        write_whole(folder / FILE, json.dumps(found).encode())

    step = shop.compute(f"control-seam-{data}", work, settings=MOST_CROPS, uses=[images, *native.values()])
    found: Mapping[str, Any] = json.loads((step.path / FILE).read_text())
    return [{"data": title_of(study.data, data), "crops": name, **one} for name, one in found.items()]


def _edges(records: Path, condition: str, protein: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Edge features and proteins of at most MOST_CROPS crops of a condition ('': all), the same choice every time."""
    with read_records.open(records) as source:
        table = source.manifest.table
        rows = np.flatnonzero(table["condition"].astype(str) == condition) if condition else np.arange(source.n)
        if not len(rows):
            return None
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:MOST_CROPS])
        x = edge_features((source[int(r)] for r in rows), (source.mask(int(r)) for r in rows))
        return x, table[protein].astype(str).to_numpy()[rows]


def _only(made: MadeFeatures, names: tuple[str, ...]) -> MadeFeatures:
    return dataclasses.replace(made, conditions={n: r for n, r in made.conditions.items() if n in names}, shares={})
