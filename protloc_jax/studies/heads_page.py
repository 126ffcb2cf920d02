"""From trained heads' scores (`protloc classify`) to a page: tables and figures, what varies each by its name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from protloc_jax.eval.features import FeatureTable
from protloc_jax.report import class_plots, plots
from protloc_jax.report.html import Report
from protloc_jax.studies.page import MOST_CLASSES, differences, umap_of

HEADS = {"linear": "linear heads", "simple": "MLP heads", "residual": "residual heads"}
DECISIONS = {
    "half": "Every class above 0.5 is predicted",
    "validation": "Per class, the threshold with the best F1 on validation rows decides",
    "argmax": "The likeliest class is predicted",
}
CONTROL = (
    "Every group of images was given the labels of another group, drawn at random, before any head was trained. Scores "
    "above chance would mean that labels leak from training to test rows."
)


def is_heads(results: Mapping[str, Any]) -> bool:
    """Whether results are those of `protloc classify` (each system has a head) and not of `protloc evaluate`."""
    return bool(results["systems"]) and all("head" in system for system in results["systems"].values())


def head_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a system, chance first: macro-F1 by image and by group with intervals, mAP, spreads."""
    unit, level = results["task"]["unit"], round(100 * results["settings"]["level"])
    rows = []
    entries = [(f"chance ({name})", entry) for name, entry in results["chance"].items()]
    for name, entry in [*entries, *((name, system["head"]) for name, system in results["systems"].items())]:
        by_unit = entry["by_unit"]["macro_f1"]
        row = {"features": name, "by image": entry["macro_f1"]["estimate"]}
        row |= {f"{level} %": _bracket(entry["macro_f1"]), f"by {unit}": by_unit["estimate"]}
        # Headings of one table differ: the second interval says whose it is.
        row |= {f"{level} % ({unit})": _bracket(by_unit), "mAP": entry.get("mean_average_precision")}
        for over in ("over_seeds", "over_splits"):
            found = entry.get(over, {}).get("image_macro_f1", {})
            row[f"sd {over.replace('_', ' ')}"] = found.get("sd")
        rows.append(row)
    return rows


def setting_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How the heads of all systems were made, one setting a row: head, training, decision, seeds."""
    head = results["settings"]["head"]
    of_arch = {
        "linear": "",
        "simple": f" {'-'.join(map(str, head['hidden']))}, dropout {head['dropout']:g}",
        "residual": f" {head['n_layers']} layers of {head['n_units']}",
    }[head["arch"]]
    values = {
        "head": f"{head['arch']}{of_arch}" + (", two stages" if head["groups"] else ""),
        "loss": head["loss"],
        "draw": head["draw"].replace("_", " "),
        "epochs": head["epochs"],
        "batch": head["batch"],
        "lr": f"{head['lr']:g}",
        "fitted on": head["fit_rows"].replace("_", " "),
        "decision": head["decision"],
        "seeds": ", ".join(map(str, head["seeds"])),
        "labels": head["labels"],
        "bootstrap": f"{results['settings']['resamples']} resamples, {results['settings']['interval']}",
    }
    return [{"setting": key, "value": str(value)} for key, value in values.items()]


def feature_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a system: width of its features and what is known of them (layer, pooling, channel plan)."""
    return [
        {"features": name, "width": system["features"]}
        | {key.replace("_", " "): value for key, value in system.get("about", {}).items()}
        for name, system in results["systems"].items()
    ]


def build(
    results: Mapping[str, Any],
    *,
    title: str,
    lead: str = "",
    best: str = "",
    maps: Mapping[str, FeatureTable] | None = None,
) -> Report:
    """The page of one `protloc classify`.

    best  the system to set off in tables and to show class by class (default: the last)
    maps  feature tables to draw as UMAPs, by name
    """
    synthetic = results.get("synthetic") or None
    control = results.get("control") or ""
    best = best or list(results["systems"])[-1]
    note = ", ".join(filter(None, ["synthetic images" if synthetic else "", f"control: {control}" if control else ""]))
    page = Report(title, lead, synthetic=f"All images were simulated ({synthetic})." if synthetic else None)
    if control:
        page.section(f"This is a control: {control}", CONTROL)
    _scores(page, results, best, note)
    _spread(page, results)
    _classes(page, results, best, note)
    _thresholds(page, results, best)
    for name, table in (maps or {}).items():
        labels = table.obs["labels"].astype(str).str.split(";").str[0].to_numpy()
        page.section(f"Map of the features: {name}")
        page.figure(
            plots.scatter(umap_of(table.x), labels, note=note),
            caption="UMAP (15 neighbours, cosine, seed 0) of every image; colour: the first label. Distances between "
            "far groups mean nothing.",
        )
    page.section("How to read and repeat this")
    page.table(feature_rows(results), caption="The features of every system.")
    page.table(setting_rows(results), caption="How the heads of all systems were made.")
    page.details("What was asked (splits, classes missing, groups)", json.dumps(results["task"], indent=1))
    page.details("All settings", json.dumps(results["settings"], indent=1))
    page.details("Where the features come from", json.dumps(results.get("provenance", {}), indent=1))
    return page


def _scores(page: Report, results: Mapping[str, Any], best: str, note: str) -> None:
    task, settings = results["task"], results["settings"]
    head, unit, level = settings["head"], task["unit"], round(100 * settings["level"])
    split = ", ".join(f"{k}: {v}" for k, v in task["split"].items())
    left_out = max(s["head"]["by_unit"]["units_of_mixed_labels_left_out"] for s in results["systems"].values())
    page.section(
        "Scores",
        f"Macro-F1 over {len(task['label_names'])} classes of {HEADS[head['arch']]} trained on frozen features; "
        f"{task['test_rows']} test images of {task['test_units']} held-out groups (column '{unit}'; split {split}). "
        f"{DECISIONS[head['decision']]}. Scores are means over {len(head['seeds'])} seeds after the last "
        f"epoch, pooled over {len(task['splits'])} split(s); brackets are {level} % bootstrap intervals over the "
        "groups, and do not contain the spread over seeds.",
        f"By {unit}: probabilities are averaged over the images of a group before the decision."
        + (f" {left_out} groups of mixed labels are left out there." if left_out else ""),
    )
    rows = head_rows(results)
    strong = [i for i, row in enumerate(rows) if row["features"] == best]
    words = "Macro-F1 on test groups; mAP: mean average precision over classes; sd: standard deviation."
    tag = f"Control: {results['control']}. " if results.get("control") else ""
    page.table(rows, caption=tag + words, strong=strong)
    for words, of in (("by image", lambda e: e["macro_f1"]), (f"by {unit}", lambda e: e["by_unit"]["macro_f1"])):
        bars = [(name, *_bounds(of(system["head"]))) for name, system in results["systems"].items()]
        prior = of(results["chance"]["prior"])["estimate"]
        page.figure(
            plots.bars(bars, label=f"macro-F1, {words}", note=note, chance=prior),
            caption=f"Macro-F1 {words} with {level} % intervals; dashed: drawing labels by their frequency.",
        )
    differences(page, results)


def _spread(page: Report, results: Mapping[str, Any]) -> None:
    """Seed by seed and split by split, where there are several."""
    seeds, splits = results["settings"]["head"]["seeds"], results["task"]["splits"]
    entries = {name: system["head"] for name, system in results["systems"].items()}
    first = next(iter(entries.values()))
    if len(seeds) < 2 and len(splits) < 2:
        return
    page.section("What varies")
    if len(seeds) > 1:
        rows = [
            {"features": name, **{f"seed {s}": v for s, v in zip(seeds, _values(entry, "over_seeds"), strict=True)},
             "sd": entry["over_seeds"]["image_macro_f1"]["sd"]}
            for name, entry in entries.items()
        ]  # fmt: skip
        page.table(rows, caption=f"Macro-F1 by image, seed by seed. sd: {first['over_seeds']['what']}.")
    if len(splits) > 1:
        rows = [
            {"features": name, **{part["name"]: part["macro_f1"] for part in entry["by_split"]},
             "sd": entry["over_splits"]["image_macro_f1"]["sd"]}
            for name, entry in entries.items()
        ]  # fmt: skip
        page.table(rows, caption=f"Macro-F1 by image, split by split. sd: {first['over_splits']['what']}.")


def _classes(page: Report, results: Mapping[str, Any], best: str, note: str) -> None:
    task = results["task"]
    names, own = task["label_names"], results["systems"][best]["head"]
    keys = {"estimate": "f1", "low": "low", "high": "high"}
    order = [*(name for name in results["systems"] if name != best), best]
    systems = {
        name: {to: [results["systems"][name]["head"]["per_class"][c][at] for c in names] for to, at in keys.items()}
        for name in order
    }
    classes = own["per_class"]
    page.section("Class by class")
    page.figure(
        class_plots.class_intervals(
            names,
            systems,
            [task["support"][c] for c in names],
            units=[classes[c]["units"] for c in names],
            label="F1 by image",
            note=note,
        ),
        caption=f"F1 of every class with its interval over groups; in brackets the number of test images and of groups "
        f"({task['unit']}) that carry it.",
    )
    rows = [
        {
            "class": c,
            "F1": classes[c]["f1"],
            f"{round(100 * results['settings']['level'])} %": _bracket({"estimate": 0, **classes[c]}),
            "precision": classes[c]["precision"],
            "recall": classes[c]["recall"],
            "images": classes[c]["support"],
            task["unit"]: classes[c]["units"],
            "predicted": round(classes[c]["predicted"]),
        }
        for c in names
    ]
    page.table(rows, caption=f"{best}: means over seeds; predicted: images that the heads give the class to.")
    if "confusion" in own and len(names) <= MOST_CLASSES:
        lost = own["rows_without_prediction"]
        page.figure(
            plots.confusion(np.asarray(own["confusion"]), names, note=note),
            caption=f"Confusion of {best}, mean over seeds: share of each true class, in percent from 5 % on."
            + (f" {lost:g} images without a prediction are not in it." if lost else ""),
        )


def _thresholds(page: Report, results: Mapping[str, Any], best: str) -> None:
    """Where the cuts were tuned: by class, over all seeds and splits."""
    if results["settings"]["head"]["decision"] != "validation":
        return
    names = results["task"]["label_names"]
    cuts = np.asarray(results["systems"][best]["head"]["thresholds"], float).reshape(-1, len(names))
    page.section("Thresholds", "Chosen class by class on the validation rows of every split, for every seed.")
    rows = [
        {"class": c, "mean": float(cuts[:, i].mean()), "lowest": float(cuts[:, i].min()),
         "highest": float(cuts[:, i].max())}
        for i, c in enumerate(names)
    ]  # fmt: skip
    page.table(rows, caption=f"{best}: thresholds over {len(cuts)} heads (seeds and splits).")


def _values(entry: Mapping[str, Any], over: str) -> list[float]:
    return entry[over]["image_macro_f1"]["values"]


def _bracket(score: Mapping[str, Any]) -> str:
    # Not to be broken over two lines of a narrow column.
    return "–" if score["low"] is None else f"[{score['low']:.3f},\N{NO-BREAK SPACE}{score['high']:.3f}]"


def _bounds(score: Mapping[str, Any]) -> tuple[float, float, float]:
    """Estimate, low and high; NaN where unknown."""
    estimate, low, high = (float("nan") if score[key] is None else score[key] for key in ("estimate", "low", "high"))
    return estimate, low, high
