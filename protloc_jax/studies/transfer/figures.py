"""The transfer study's figures as PNG bytes, drawn from its plain dict; None where there is nothing to draw."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from protloc_jax.eval.attention_maps import attention_maps, overlay, seen, stretched
from protloc_jax.eval.features import FeatureTable
from protloc_jax.model.encoder import Encoder
from protloc_jax.report import curve_plots, map_plots, plots
from protloc_jax.studies.feature_map import EPOCHS, hpa_umap, single_labels
from protloc_jax.studies.transfer.published import PUBLISHED, number_text, published_beside
from protloc_jax.studies.transfer.table import EVALUATOR_WORDS, difference_text, lead_pairs

Attention = tuple[str, Encoder, np.ndarray, Sequence[str]]

ALPHA = 0.05
# A confusion matrix of more classes cannot be read on a page, nor can more differences in one figure.
MOST_CLASSES, MOST_DIFFERENCES = 40, 40
ROLE_WORDS = {"hpa_fov": "HPA FOV", "hpa_sc": "HPA single cell", "imagenet": "ImageNet", "opencell": "OpenCell"}
_WRAP = 15  # characters of a column's name over the attention panels


def lead_figure(results: Mapping[str, Any], level: str, *, note: str = "") -> bytes | None:
    """Frozen and fine-tuned macro-F1 of every backbone at a level, published values beside."""
    backbones, published = results["backbones"], results.get("published", PUBLISHED)
    rows = []
    for pair in lead_pairs(results):
        first = next(row for row in pair if row is not None)
        if first["level"] == level:
            found = {w: r for w, r in zip(("frozen", "fine-tuned"), pair, strict=True) if r is not None}
            numbers = {w: published_beside(r, backbones, published) for w, r in found.items()}
            rows.append(
                (
                    backbones[first["backbone"]]["title"],
                    {words: _triple(row["macro_f1"]) for words, row in found.items()},
                    {words: n["value"] for words, n in numbers.items() if n is not None},
                )
            )
    return curve_plots.paired_dots(rows, label="macro-F1", note=note) if rows else None


def forest_figure(
    differences: Sequence[Mapping[str, Any]], backbones: Mapping[str, Mapping[str, Any]], *, note: str = ""
) -> bytes | None:
    """Paired differences of one level and family, the largest first; the `MOST_DIFFERENCES` largest in size."""
    several = len({d["evaluator"] for d in differences}) > 1
    kept = sorted(differences, key=lambda d: -abs(d["estimate"]))[:MOST_DIFFERENCES]
    rows = []
    for d in sorted(kept, key=lambda d: -d["estimate"]):
        which = f" ({EVALUATOR_WORDS.get(d['evaluator'], d['evaluator'])})" if several else ""
        p = d.get("p_value_holm")
        rows.append((f"{difference_text(d, backbones)}{which}", *_triple(d), p is not None and p < ALPHA))
    return curve_plots.forest(rows, label="difference in macro-F1", note=note) if rows else None


def fraction_figure(results: Mapping[str, Any], level: str, *, note: str = "") -> bytes | None:
    """Frozen and fine-tuned scores over the share of the training data, one panel a curve of the level."""
    backbones, published = results["backbones"], results.get("published", PUBLISHED)
    own = [c for c in results.get("curves", ()) if c["level"] == level and c["points"]]
    several = len({c["evaluator"] for c in own}) > 1
    panels = []
    for curve in own:
        points = sorted(curve["points"], key=lambda p: p["fraction"])
        lines = {"frozen": _line([p["frozen"] for p in points])}
        if any(p.get("finetuned") for p in points):
            lines["fine-tuned"] = _line([p.get("finetuned") for p in points])
        levels = {}
        for mode, words in (("frozen", "frozen"), ("finetuned", "fine-tuned")):
            entry = published_beside({**curve, "mode": mode, "fraction": 1.0}, backbones, published)
            if entry and words in lines:
                levels[f"published, {words}: {number_text(entry)}"] = entry["value"]
        at = (curve.get("crossover") or {}).get("fraction")
        which = f", {EVALUATOR_WORDS.get(curve['evaluator'], curve['evaluator'])}" if several else ""
        panels.append(
            curve_plots.Panel(
                f"{backbones[curve['backbone']]['title']}\n{curve['plan']}{which}",
                [p["fraction"] for p in points],
                lines,
                {} if at is None else {"crossover": at},
                levels,
            )
        )
    return curve_plots.fraction_curves(panels, note=note) if panels else None


def neighbour_figure(results: Mapping[str, Any], level: str, *, note: str = "") -> bytes | None:
    """k-NN over k, one curve a backbone: the plan of its lead row where that has a curve, else its first."""
    plans = {row["backbone"]: row["plan"] for row, _ in lead_pairs(results) if row and row["level"] == level}
    own = [n for n in results.get("neighbours", ()) if n["level"] == level]
    series = {}
    for backbone in dict.fromkeys(n["backbone"] for n in own):
        mine = [n for n in own if n["backbone"] == backbone]
        one = next((n for n in mine if n["plan"] == plans.get(backbone)), mine[0])
        name = f"{results['backbones'][backbone]['title']}\n{one['plan']}"
        bounds = {key: [np.nan if v is None else v for v in one[key]] for key in ("estimate", "low", "high")}
        series[name] = {"k": one["k"], "chosen": one["chosen"], **bounds}
    lines = {
        f"published, {ROLE_WORDS.get(e['role'], e['role'])}: {number_text(e)}": e["value"]
        for e in results.get("published", PUBLISHED)
        if e["level"] == level and e.get("evaluator", "knn" if level == "cell" else "") == "knn" and e["value"]
    }
    return plots.over_k(series, y_label="macro-F1, k-NN", published=lines, note=note) if series else None


def class_systems(results: Mapping[str, Any], level: str) -> dict[str, Mapping[str, Any]]:
    """The rows to show class by class: the best frozen lead row of a level, and the same backbone fine-tuned.

    The best is picked by its test score, for display only. Empty where no row has scores of classes.
    """
    pairs = [(f, t) for f, t in lead_pairs(results) if f and f["level"] == level and f.get("per_class")]
    if not pairs:
        return {}
    frozen, tuned = max(pairs, key=lambda pair: pair[0]["macro_f1"]["estimate"])
    title = results["backbones"][frozen["backbone"]]["title"]
    found = {f"{title}, frozen": frozen}
    if tuned is not None and tuned.get("per_class"):
        found[f"{title}, fine-tuned"] = tuned
    return found


def class_figure(systems: Mapping[str, Mapping[str, Any]], classes: Sequence[str], *, note: str = "") -> bytes:
    """F1 by class of a few rows; the support stands beside each class."""
    values = {name: [_number(row["per_class"].get(c, {}).get("f1")) for c in classes] for name, row in systems.items()}
    first = next(iter(systems.values()))["per_class"]
    support = [first.get(c, {}).get("support", 0) for c in classes]
    return plots.per_class(classes, values, support, label="F1", note=note)


def confusion_figure(row: Mapping[str, Any], classes: Sequence[str], *, note: str = "") -> bytes | None:
    """The confusion matrix of a row; None where it has none (several labels an image) or cannot be read."""
    if row.get("confusion") is None or len(classes) > MOST_CLASSES:
        return None
    return plots.confusion(np.asarray(row["confusion"]), classes, note=note)


def map_figure(maps: Mapping[str, FeatureTable], *, epochs: int = EPOCHS, note: str = "") -> bytes:
    """UMAPs of feature tables with the published settings; images without exactly one label are grey."""
    drawn = {}
    for name, table in maps.items():
        labels = table.obs["labels"].fillna("") if "labels" in table.obs else [""] * len(table.obs)
        drawn[name] = (hpa_umap(table.x, epochs=epochs), single_labels(list(labels)))
    return map_plots.feature_maps(drawn, note=note)


def attention_figure(attention: Sequence[Attention], *, note: str = "") -> bytes:
    """The same images seen by several backbones: their channels, then where each class token looks.

    attention: (name, encoder, raw images [B, H, W, C] as that encoder's channels, a name an image). Of several passes
    the first that reads the protein is shown. What an encoder does not see (outside its centre crop, or a remainder
    smaller than a patch) stays grey. Raises ValueError naming the backbones whose images differ from the first's.
    """
    first_name, first, images, names = attention[0]
    other = [n for n, _, x, own in attention if list(own) != list(names) or x.shape[:3] != images.shape[:3]]
    if other:
        raise ValueError(
            f"attention needs the same images for all; others than {first_name}'s have {', '.join(other)}."
        )
    channels = [[stretched(image[..., i]) for i in range(len(first.channels))] for image in images]
    columns = []
    for _, encoder, own, _ in attention:
        protein = encoder.channels.protein if encoder.channels.protein is not None else 0
        mean = attention_maps(encoder, own, pass_number=_reading_pass(encoder, encoder.channels.names[protein])).mean
        columns.append([_laid_over(stretched(i[..., protein]), a, encoder) for i, a in zip(own, mean, strict=True)])
    rows = [[*shown, *(column[i] for column in columns)] for i, shown in enumerate(channels)]
    titles = [*first.channels.names, *(textwrap.fill(name, _WRAP, break_on_hyphens=False) for name, *_ in attention)]
    return plots.image_grid(rows, row_names=list(names), column_names=titles, cell=1.5, note=note)


def _laid_over(image: np.ndarray, attention: np.ndarray, encoder: Encoder) -> np.ndarray:
    """The overlay on the part of a grey image [H, W] that an encoder sees; the rest dim: [H, W, 3]."""
    rows, columns = seen(image.shape, encoder)
    whole = np.repeat(0.45 * image[..., None], 3, axis=2)
    whole[rows, columns] = overlay(image[rows, columns], attention)
    return whole


def _reading_pass(encoder: Encoder, channel: str) -> int:
    passes = encoder.plan.passes if encoder.plan else ()
    return next((number for number, slots in enumerate(passes) if channel in slots), 0)


def _line(entries: Sequence[Mapping[str, Any] | None]) -> curve_plots.Line:
    return curve_plots.Line(
        *([_number(e[key]) if e else np.nan for e in entries] for key in ("estimate", "low", "high"))
    )


def _triple(entry: Mapping[str, Any]) -> tuple[float, float, float]:
    return _number(entry["estimate"]), _number(entry["low"]), _number(entry["high"])


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
