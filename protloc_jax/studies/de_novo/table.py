"""The de novo study's results as tables: the rows of de_novo.csv, and what stands on the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from protloc_jax.eval.de_novo.top_k import KS
from protloc_jax.studies.number_texts import DASH, interval_text, p_text

TRUTH = " (true graph: upper bound)"
CONTROL = " (control)"
FAMILIES = {
    "arms": "Variants against the reference",
    "pairs": "Further pairs of variants",
    "controls": "Controls against the reference",
    "truth": "The true graph, an upper bound",
}


def called(row: Mapping[str, Any]) -> str:
    """A variant by its title, marked where it is a control or knows the truth."""
    return row["variant_title"] + (TRUTH if row["truth"] else CONTROL if row["control"] else "")


def table_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every row of scores with every setting and the published number beside, plain values only."""
    rows = []
    for row in results["rows"]:
        plain = {
            "task": row["task"],
            "line": results["tasks"][row["task"]]["line"],
            "method": row["method"],
            "variant": row["variant"],
            "recognition": row["how"],
            "control": "yes" if row["control"] else "no",
            "truth": "yes" if row["truth"] else "no",
            "classes": row["classes"],
            "images": " ".join(map(str, row["images"])),
            "seeds": " ".join(map(str, row["seeds"])),
            "draws": " ".join(row["draws"]),
        }
        for k in KS:
            own = row[f"top{k}"]
            plain |= {
                f"top-{k}": own["estimate"], f"top-{k} low": own["low"], f"top-{k} high": own["high"],
                f"top-{k} sd over seeds": own["sd_seeds"], f"top-{k} chance": own["chance"],
                f"top-{k} published": own["published"],
            }  # fmt: skip
        plain |= {
            "top-1 treatments": row["by_kind"].get("treatment"),
            "top-1 positive controls": row["by_kind"].get("positive_control"),
            "errors in the pathway": row["within"]["within"],
            "by chance": row["within"]["chance"],
            "replicate mAP": row["replicates"]["map"] if row["replicates"] else None,
            "relation recall": row["relations"]["recall"] if row["relations"] else None,
            "split": results["tasks"][row["task"]]["split"],
            "published source": results["published_source"],
            "images are": "synthetic" if results.get("synthetic") else "real",
        }
        rows.append(plain)
    return rows


def find(results: Mapping[str, Any], **wanted: Any) -> list[Mapping[str, Any]]:
    """Rows that have these values."""
    return [row for row in results["rows"] if all(row[key] == value for key, value in wanted.items())]


def hows_of(results: Mapping[str, Any], task: str) -> list[str]:
    """Ways of recognition in a task, in the order of the rows."""
    return list(dict.fromkeys(row["how"] for row in results["rows"] if row["task"] == task))


def lead_rows(results: Mapping[str, Any], task: str, how: str) -> list[dict[str, Any]]:
    """Top-1 and top-5 of every method and variant."""
    table = []
    for row in find(results, task=task, how=how):
        entry = {"method": row["method_title"], "variant": called(row)}
        for k in KS:
            own = row[f"top{k}"]
            entry[f"top-{k}"] = interval_text(own)
            if any(r[f"top{k}"]["published"] is not None for r in find(results, task=task, how=how)):
                entry[f"published top-{k}"] = DASH if own["published"] is None else f"{own['published']:.4f}"
        if len(row["by_kind"]) > 1:
            entry |= {f"top-1, {kind.replace('_', ' ')}": value for kind, value in row["by_kind"].items()}
        spread = row["top1"]["sd_seeds"]
        entry["sd, seeds"] = DASH if spread is None else f"{spread:.3f}"
        table.append(entry)
    return table


def within_rows(results: Mapping[str, Any], task: str) -> list[dict[str, Any]]:
    """Of wrong answers the share that lies within the right pathway, and the frozen measures of relations."""
    table = []
    for row in results["rows"]:
        if row["task"] != task or (row["within"]["within"] is None and not row["replicates"]):
            continue
        table.append(
            {
                "method": row["method_title"],
                "variant": called(row),
                "recognition": row["how_title"],
                "errors in the pathway": row["within"]["within"],
                "by chance": row["within"]["chance"],
                "replicates, mAP": row["replicates"]["map"] if row["replicates"] else None,
                "by chance, mAP": row["replicates"]["chance"] if row["replicates"] else None,
                "recall of relations": row["relations"]["recall"] if row["relations"] else None,
                "by chance, recall": row["relations"]["chance"] if row["relations"] else None,
            }
        )
    return table


def difference_rows(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Paired differences as printed, all k of a comparison in one row."""
    table: dict[tuple[Any, ...], dict[str, Any]] = {}
    several = len({d["task"] for d in entries}) > 1
    for d in entries:
        key = (d["task"], d["method"], d["how"], d["variant"], d["second"])
        row = table.setdefault(key, {
            **({"task": d["task_title"]} if several else {}),
            "method": d["method_title"],
            "recognition": d["how_title"],
            "difference": f"{d['variant_title']} − {d['second_title']}",
        })  # fmt: skip
        relative = "" if d["relative"] is None else f" ({100 * d['relative']:+.0f}\u00a0%)"
        row[f"top-{d['k']}"] = interval_text(d, signed=True) + (relative if d["k"] == 1 else "")
        row[f"p (Holm), top-{d['k']}"] = p_text(d["p_value_holm"])
    return list(table.values())


def control_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Controls with what was expected of them and whether it held."""
    words = {True: "passed", False: "FAILED", None: "not judged"}
    return [
        {
            "task": c["task"],
            "control": c["control"],
            "value": f"{c['value']:.4f} [{c['low']:.4f},\u00a0{c['high']:.4f}]",  # chance may be below a hundredth
            "expected": c["expected"],
            "outcome": words[c["passed"]],
        }
        for c in results["controls"]
    ]


def graph_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every plain number that is known of each graph."""
    return [
        {"graph": found["title"], **{key.replace("_", " "): value for key, value in found.items()
                                     if isinstance(value, int | float) and not isinstance(value, bool)}}
        for found in results["graphs"].values()
    ]  # fmt: skip
