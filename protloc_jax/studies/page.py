"""From scores to a page: tables and figures of `overview.score`'s results, with what a reader needs to trust them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from protloc_jax.eval.attention_maps import attention_maps, overlay, stretched
from protloc_jax.eval.evaluate import report_rows
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.knn_curve import curve_lines, curve_rows
from protloc_jax.model.encoder import Encoder
from protloc_jax.report import plots
from protloc_jax.report.html import Report

EVALUATORS = {"knn": "k-NN", "probe": "linear probe"}
HEAD = "trained head"
# A confusion matrix of more classes cannot be read on a page.
MOST_CLASSES = 40


def summary_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table that is printed and stands first on the page: one row a system, chance first."""
    rows: list[dict[str, Any]] = []
    for name, entry in results["chance"].items():
        rows.append({"features": f"chance ({name})", **_interval("k-NN", entry), **_interval("linear probe", entry)})
    for name, system in results["systems"].items():
        row: dict[str, Any] = {"features": name}
        for key, title in EVALUATORS.items():
            if key in system:
                row |= _interval(title, system[key])
        rows.append(row)
    return rows


def build(
    results: Mapping[str, Any],
    *,
    title: str,
    lead: str = "",
    best: str = "",
    log: Sequence[Mapping[str, Any]] = (),
    prototypes: int = 0,
    published: Mapping[str, float] | None = None,
    maps: Mapping[str, FeatureTable] | None = None,
    attention: tuple[Encoder, np.ndarray, Sequence[str]] | None = None,
    config: str = "",
) -> Report:
    """The page of one evaluation.

    best        the system to set off in tables and to show class by class (default: the last)
    log         lines of a run's metrics.jsonl, for the training curves; prototypes: K, for the level ln K
    published   values of a paper by name, drawn beside k-NN over k
    maps        feature tables to draw as UMAPs
    attention   (encoder, raw images [B, H, W, C], a name for each) to draw attention maps of
    config      resolved configuration, folded away at the end
    """
    synthetic = results.get("synthetic") or None
    note = "synthetic images" if synthetic else ""
    best = best or list(results["systems"])[-1]
    page = Report(title, lead, synthetic=f"All images were simulated ({synthetic})." if synthetic else None)
    _scores(page, results, best, note)
    _neighbours(page, results, published or {}, note)
    _classes(page, results, best, note)
    if log:
        _training(page, log, prototypes, note)
    for name, table in (maps or {}).items():
        labels = table.obs["labels"].astype(str).str.split(";").str[0].to_numpy()
        page.section(f"Map of the features: {name}")
        page.figure(
            plots.scatter(umap_of(table.x), labels, note=note),
            caption="UMAP (15 neighbours, cosine, seed 0) of every image; colour: the first label. Distances between "
            "far groups mean nothing.",
        )
    if attention is not None:
        _attention(page, *attention, note)
    page.section("How to read and repeat this")
    page.table(report_rows(results), caption="Every score with its choices.")
    page.details("What was asked (splits, classes missing, groups)", json.dumps(results["task"], indent=1))
    page.details("Where the features come from", json.dumps(results.get("provenance", {}), indent=1))
    if config:
        page.details("Resolved configuration", config)
    return page


def differences(page: Report, results: Mapping[str, Any]) -> None:
    """The table of paired differences, where there are any."""
    if results["differences"]:
        rows = [
            {
                "evaluator": EVALUATORS.get(d["evaluator"], HEAD),
                "difference": f"{d['first']} − {d['second']}",
                "macro-F1": d["macro_f1"]["estimate"],
                "low": d["macro_f1"]["low"],
                "high": d["macro_f1"]["high"],
                "p (Holm)": d["p_value_holm"],
            }
            for d in results["differences"]
        ]
        page.table(rows, caption="Paired differences over the same groups; p-values are Holm-corrected.")


def umap_of(x: np.ndarray) -> np.ndarray:
    """A two-dimensional UMAP [N, 2] of features [N, D] (cosine, 15 neighbours, min_dist 0.1, seed 0)."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # umap's remarks on its own threads
        import umap

        model = umap.UMAP(n_neighbors=min(15, len(x) - 1), min_dist=0.1, metric="cosine", random_state=0, n_jobs=1)
        return np.asarray(model.fit_transform(x))


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; an empty list where there is none."""
    path = Path(path)
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()] if path.is_file() else []


def _scores(page: Report, results: Mapping[str, Any], best: str, note: str) -> None:
    task = results["task"]
    split = ", ".join(f"{k}: {v}" for k, v in task["split"].items())
    page.section(
        "Scores",
        f"Macro-F1 over {len(task['label_names'])} classes on {task['test_rows']} test images of {task['test_units']} "
        f"held-out groups (column '{task['unit']}'; split {split}). Brackets: 95 % bootstrap intervals over those "
        "groups. k and the probe's strength were chosen on validation groups.",
    )
    rows = summary_rows(results)
    strong = [i for i, row in enumerate(rows) if row["features"] == best]
    page.table(rows, caption="Macro-F1 of k-NN and linear probe on test groups.", strong=strong)
    for key, title in EVALUATORS.items():
        found = [(name, system[key]["macro_f1"]) for name, system in results["systems"].items() if key in system]
        if found:
            bars = [(name, e["estimate"], _number(e["low"]), _number(e["high"])) for name, e in found]
            prior = results["chance"]["prior"]["macro_f1"]["estimate"]
            page.figure(
                plots.bars(bars, label=f"macro-F1, {title}", note=note, chance=prior),
                caption=f"{title}: macro-F1 with 95 % intervals; dashed: drawing labels by their frequency.",
            )
    differences(page, results)


def _neighbours(page: Report, results: Mapping[str, Any], published: Mapping[str, float], note: str) -> None:
    """The k-NN curves, where more than one k was tried."""
    lines = curve_lines(results)
    if not any(len(line["k"]) > 1 for line in lines.values()):
        return
    entry = next(s["knn"] for s in results["systems"].values() if "knn" in s)
    excluded = ", ".join(results["task"]["excluded_neighbours"]) or "nothing"
    page.section(
        "Number of neighbours",
        f"Cosine similarity; vote: {entry['vote']}. Neighbours of the same {excluded} are excluded. All k are scored "
        "on the same test images: only the one chosen on validation groups may be quoted as the system's score.",
    )
    prior = results["chance"]["prior"]["macro_f1"]["estimate"]
    page.figure(
        plots.over_k(lines, y_label="macro-F1, k-NN", published=published, chance=prior, note=note),
        caption="Macro-F1 of k-NN over k with 95 % intervals over held-out groups.",
    )
    page.table(curve_rows(results), caption="Every k, on test groups; the mean validation macro-F1 beside it.")


def _classes(page: Report, results: Mapping[str, Any], best: str, note: str) -> None:
    key = next((k for k in EVALUATORS if k in results["systems"][best]), None)
    if key is None:
        return
    names = results["task"]["label_names"]
    support = [results["task"]["support"][n] for n in names]
    systems = {
        name: [_number(system[key]["per_class"][c]["f1"]) for c in names]
        for name, system in results["systems"].items()
        if key in system
    }
    systems = {name: systems[name] for name in [*(n for n in systems if n != best), best]}
    page.section("Class by class")
    page.figure(
        plots.per_class(names, systems, support, label=f"F1, {EVALUATORS[key]}", note=note),
        caption="F1 of every class; in brackets the number of test images.",
    )
    confusion = results["systems"][best][key].get("confusion")
    if confusion is not None and len(names) <= MOST_CLASSES:
        page.figure(
            plots.confusion(np.asarray(confusion), names, note=note),
            caption=f"Confusion of {EVALUATORS[key]} on {best}: share of each true class, in percent from 5 % on.",
        )


def _training(page: Report, log: Sequence[Mapping[str, Any]], prototypes: int, note: str) -> None:
    page.section("Training")

    def series(key: str) -> tuple[list[float], list[float]]:
        kept = [(line["step"], line[key]) for line in log if line.get(key) is not None and "step" in line]
        return [s for s, _ in kept], [v for _, v in kept]

    shown = {title: series(key) for title, key in (("loss", "loss"), ("teacher entropy", "teacher_entropy"))}
    shown = {title: xy for title, xy in shown.items() if xy[0]}
    levels = {f"ln {prototypes} (uniform outputs)": float(np.log(prototypes))} if prototypes else {}
    if shown:
        page.figure(
            plots.curves(shown, x_label="step", y_label="nats", levels=levels, note=note),
            caption="Loss and the teacher's entropy. A collapsed run sits at the dashed line, or both fall to 0.",
        )


def _attention(page: Report, encoder: Encoder, images: np.ndarray, names: Sequence[str], note: str) -> None:
    channels = encoder.channels
    protein = channels.protein if channels.protein is not None else 0
    reference = next((i for i in range(len(channels)) if i != protein), protein)
    mean = attention_maps(encoder, images).mean
    rows = []
    for image, attention in zip(images, mean, strict=True):
        shown = [stretched(image[..., i]) for i in dict.fromkeys((reference, protein))]
        rows.append([*shown, overlay(shown[-1], attention)])
    page.section("Where the class token looks")
    page.figure(
        plots.image_grid(
            rows,
            row_names=list(names),
            column_names=[*(channels.names[i] for i in dict.fromkeys((reference, protein))), "attention"],
            note=note,
        ),
        caption="Attention of the class token in the last block, mean over heads, over the protein channel; each map "
        "is scaled to its own range.",
    )


def _interval(title: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    f1 = entry["macro_f1"]
    text = f"[{_number(f1['low']):.3f}, {_number(f1['high']):.3f}]" if f1["low"] is not None else "–"
    return {title: f1["estimate"], f"{title} 95 %": text}


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
