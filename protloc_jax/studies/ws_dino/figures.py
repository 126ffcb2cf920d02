"""The WS-DINO study's figures as PNG bytes, drawn from its plain dict; None where there is nothing to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from protloc_jax.report import curve_plots, epoch_plots, map_plots, plots
from protloc_jax.studies.number_texts import triple
from protloc_jax.studies.ws_dino.published import PUBLISHED, fits
from protloc_jax.studies.ws_dino.table import TRAININGS, beside, called, find, lead_correction

ALPHA = 0.05


def lead_figure(results: Mapping[str, Any], screen: str, *, note: str = "") -> bytes | None:
    """NSC and NSCB of every arm and channel model, transductive and inductive, published values beside."""
    mine = [r for r in find(results, screen=screen, channel="") if r["correction"] == lead_correction(results, r)]
    several = len({r["model"] for r in mine if r["kind"] != "baseline"}) > 1
    rows = []
    for arm, model, training in dict.fromkeys((r["arm"], r["model"], r["training"]) for r in mine):
        own = [r for r in mine if (r["arm"], r["model"], r["training"]) == (arm, model, training)]
        words = [called(own[0]), *([own[0]["model_title"]] if several and own[0]["kind"] != "baseline" else [])]
        words += [TRAININGS[training]] if training != "transductive" else []
        published = {r["metric"]: n["value"] for r in own if (n := beside(results, r)) is not None}
        rows.append((", ".join(words), {r["metric"]: triple(r) for r in own}, published))
    return curve_plots.paired_dots(rows, label="accuracy over treatments", note=note, wrap=44) if rows else None


def forest_figure(entries: Sequence[Mapping[str, Any]], *, note: str = "") -> bytes | None:
    """Paired differences, the largest first."""
    several = len({d["model"] for d in entries}) > 1
    rows = []
    for d in sorted(entries, key=lambda d: -d["estimate"]):
        words = [f"{d['first']} − {d['second']}", *([d["model"]] if several and d["model"] else [])]
        words += [TRAININGS[d["training"]]] if d["training"] != "transductive" else []
        rows.append((", ".join(words), *triple(d), d["p_value_holm"] < ALPHA))
    return curve_plots.forest(rows, label="difference in accuracy", note=note) if rows else None


def curve_figure(results: Mapping[str, Any], screen: str, *, note: str = "") -> bytes | None:
    """Accuracy over epochs, one panel a metric and channel model; truth arms dashed, published epochs beside."""
    titles = {(r["arm"], r["model"]): r for r in results["rows"]}
    own = [c for c in results["curves"] if c["screen"] == screen]
    like = fits(results["screens"][screen], synthetic=bool(results.get("synthetic")))
    panels = []
    for model, metric in dict.fromkeys((c["model"], c["metric"]) for c in own):
        lines = {}
        for curve in (c for c in own if (c["model"], c["metric"]) == (model, metric)):
            row = titles[curve["arm"], model]
            lines[called(row)] = epoch_plots.EpochLine(
                curve["epochs"], curve["mean"], curve["by_seed"], dashed=row["truth"]
            )
        title = next(r["model_title"] for (_, m), r in titles.items() if m == model)
        levels = {}
        if like and next(r["each"] for (_, m), r in titles.items() if m == model):
            levels = {f"published mean, {arm}": PUBLISHED["means"][arm][metric][0] for arm in ("none", "compound")}
        panels.append(epoch_plots.EpochPanel(f"{title}: {metric}", lines, levels))
    return epoch_plots.epoch_curves(panels, y_label="accuracy over treatments", note=note) if panels else None


def confusion_figure(row: Mapping[str, Any], *, note: str = "") -> bytes:
    """The confusion matrix over mechanisms of a row; queries without any candidate are left out."""
    names = row["confusion"]["names"]
    counts = np.asarray(row["confusion"]["counts"])[:, : len(names)]
    return plots.confusion(counts, names, note=note)


def map_figure(maps: Mapping[str, tuple[np.ndarray, Sequence[str]]], *, what: str, note: str = "") -> bytes:
    """Maps of fields {title: (points [N, 2], a value each)}; fields without a value (controls) are grey."""
    return map_plots.feature_maps(maps, other="control", legend=what, note=note)
