"""The background study's results as tables: the rows of background.csv, and what stands on the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from protloc_jax.studies.background.published import CONDITIONS as PUBLISHED_CONDITIONS
from protloc_jax.studies.number_texts import DASH, interval_text, p_text

TITLES = {
    "baseline": "untouched",
    "same": "same",
    "different": "different",
    "masked": "masked",
    "cell_free": "cell-free",
    "crossed": "crossed",
    "random_b": "random",
    "background_only": "background alone",
    "others_masked": "others removed",
    "self_paste": "pasted on itself",
    "native_field": "native: own field",
    "native_same": "native: same class",
    "native_other": "native: other class",
    "native_none": "native: alone",
}
TERMS = {
    "drop": "same − different",
    "clean_drop": "untouched − different",
    "native_drop": "native: same − other",
    "artifact": "artefact: untouched − same",
    "cue_lost": "cue lost: same − masked",
    "interference": "interference: masked − different",
    "neighbour_effect": "neighbours: cell-free − different",
}
PARTS = ("artifact", "cue_lost", "interference", "neighbour_effect")
FREE = {
    "cosine_same_cell": "cosine, one cell",
    "cosine_same_background": "cosine, one background",
    "variance_cell": "variance by cell",
    "variance_background": "variance by background",
    "retrieval": "cell found again",
    "retrieval_chance": "by chance",
    "flips": "answers changed",
    "worst_flips": "on any background",
}


def table_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every accuracy of every system, condition and protocol, plain values only."""
    images = "synthetic" if results.get("synthetic") else "real"
    return [
        {
            "data": row["data"],
            "encoder": row["encoder"],
            "inference": row["inference"],
            "kind": row["kind"],
            "title": row["title"],
            "protocol": protocol,
            "condition": condition,
            "balanced_accuracy": entry["estimate"],
            "low": entry["low"],
            "high": entry["high"],
            "by_seed": " ".join("" if v is None else f"{v:.4f}" for v in entry["seeds"]),
            "seeds": " ".join(map(str, row["seeds"])),
            "proteins": row["proteins"],
            "classes": len(row["classes"]),
            "left_out": row["left_out"].get(protocol, {}).get(condition),
            "images": images,
        }
        for row in results["rows"]
        for protocol, own in row["conditions"].items()
        for condition, entry in own.items()
    ]


def of_data(results: Mapping[str, Any], data: str) -> list[Mapping[str, Any]]:
    """The systems of a data section."""
    return [row for row in results["rows"] if row["data"] == data]


def pairwise_rows(results: Mapping[str, Any], data: str) -> list[dict[str, Any]]:
    """The paper's table: pairwise accuracies of ours by the text's rule, and the published ones by the same rule."""
    ours = "synthetic" if results.get("synthetic") else "real"
    rows = []
    for row in of_data(results, data):
        if row["svc"]:
            rows.append(_pairwise(row["title"], ours, {c: v["text"] for c, v in row["svc"].items()}))
    published: dict[str, dict[str, Any]] = {}
    for entry in results["published"]:
        if entry["rule"] == "text":
            published.setdefault(entry["model"], {})[entry["condition"]] = entry
    return rows + [_pairwise(f"{model} (published)", "real", own) for model, own in published.items()]


def accuracy_rows(results: Mapping[str, Any], data: str, protocol: str) -> list[dict[str, Any]]:
    """One row a system: balanced accuracy of every condition."""
    rows = of_data(results, data)
    names = list(dict.fromkeys(c for row in rows for c in row["conditions"].get(protocol, {})))
    found = []
    for row in rows:
        own = row["conditions"].get(protocol, {})
        found.append({"features": row["title"], **{TITLES.get(c, c): own.get(c, {}).get("estimate") for c in names}})
    return found


def drop_rows(results: Mapping[str, Any], data: str, protocol: str) -> list[dict[str, Any]]:
    """One row a system: the drops with their intervals."""
    rows = of_data(results, data)
    names = [n for n in ("drop", "clean_drop", "native_drop") if any(n in r["drops"].get(protocol, {}) for r in rows)]
    return [
        {"features": row["title"],
         **{TERMS[n]: interval_text(row["drops"].get(protocol, {}).get(n), signed=True) for n in names}}
        for row in rows
    ] if names else []  # fmt: skip


def mitigation_rows(results: Mapping[str, Any], data: str, protocol: str, quantity: str) -> list[dict[str, Any]]:
    """One row a system: its drop against the plain one's, the share that is gone, and what it costs."""
    entries = {
        (c["encoder"], c["inference"], c["quantity"]): c
        for c in results["comparisons"]
        if c["data"] == data and c["protocol"] == protocol
    }
    rows = []
    for row in of_data(results, data):
        key = (row["encoder"], row["inference"])
        drop = row["drops"].get(protocol, {}).get(quantity)
        if drop is None:
            continue
        own = entries.get((*key, quantity))

        def cost(condition: str, key: tuple[str, str] = key) -> str:
            return interval_text(entries.get((*key, f"cost_{condition}")), signed=True)

        rows.append(
            {
                "features": row["title"] + (" (plain)" if row["reference"] else ""),
                "drop": interval_text(drop, signed=True),
                "difference": interval_text(own, signed=True),
                "p (Holm)": p_text(own["p_value_holm"]) if own else DASH,
                "share removed": interval_text(own["removed"]) if own else DASH,
                "untouched": cost("baseline"),
                "same": cost("same"),
                "others removed": cost("others_masked"),
            }
        )
    return rows


def part_rows(results: Mapping[str, Any], data: str, protocol: str) -> list[dict[str, Any]]:
    """The decomposition of every system, and of the paper's models."""
    rows = [
        {"features": row["title"], "images": "synthetic" if results.get("synthetic") else "real",
         **{TERMS[t]: interval_text(row["drops"].get(protocol, {}).get(t), signed=True) for t in PARTS}}
        for row in of_data(results, data)
    ]  # fmt: skip
    for model, terms in results["published_decomposition"].items():
        rows.append(
            {"features": f"{model} (published, pairwise)", "images": "real",
             **{TERMS[t]: f"{terms[t]:+.3f}" for t in PARTS}}
        )  # fmt: skip
    return rows


def free_rows(results: Mapping[str, Any], data: str) -> list[dict[str, Any]]:
    """Measures that need no labels."""
    return [
        {"features": row["title"], **{title: row["label_free"].get(key) for key, title in FREE.items()}}
        for row in of_data(results, data)
        if row["label_free"]
    ]


def bin_rows(results: Mapping[str, Any], data: str) -> list[dict[str, Any]]:
    """Balanced accuracy of `different`, transferred, by the share of other cells' pixels."""
    rows = []
    for row in of_data(results, data):
        own = [b for b in row["bins"] if b["condition"] == "different"]
        if own:
            rows.append({"features": row["title"],
                         **{f"{b['low']:.2f}–{b['high']:.2f}": b["balanced_accuracy"] for b in own}})  # fmt: skip
    return rows


def _pairwise(title: str, images: str, own: Mapping[str, Any]) -> dict[str, Any]:
    def text(condition: str) -> str:
        entry = own.get(condition)
        if entry is None or entry["mean"] is None:
            return DASH
        spread = entry["spread"]
        return f"{entry['mean']:.3f}" + ("" if spread is None else f"\u00a0±\u00a0{spread:.3f}")

    gap = DASH
    if own.get("same") and own.get("different"):
        gap = f"{own['same']['mean'] - own['different']['mean']:+.3f}"
    return {
        "features": title,
        "images": images,
        **{TITLES[c]: text(c) for c in PUBLISHED_CONDITIONS},
        "same − different": gap,
    }
