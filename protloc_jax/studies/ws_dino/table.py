"""The WS-DINO study's results as tables: the rows of ws_dino.csv, and what stands on the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from protloc_jax.studies.number_texts import DASH, bounds_text, interval_text, p_text
from protloc_jax.studies.ws_dino.published import published_beside

METRICS = ("NSC", "NSCB")
TRUTH = " (truth: upper bound)"
TRAININGS = {"transductive": "transductive", "inductive": "compounds never trained on"}


def table_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every row of scores with every setting and the published number beside, plain values only."""
    rows = []
    for row in results["rows"]:
        number = beside(results, row)
        rows.append(
            {
                "screen": row["screen"],
                "arm": row["arm"],
                "title": row["title"],
                "kind": row["kind"],
                "truth": "yes" if row["truth"] else "no",
                "model": row["model"],
                "training": row["training"],
                "correction": row["correction"],
                "steps": row["steps"],
                "channel": row["channel"] or "all",
                "metric": row["metric"],
                "accuracy": row["estimate"],
                "low": row["low"],
                "high": row["high"],
                "correct": " ".join(map(str, row["correct"])),
                "of": row["of"],
                "chance": row["chance"],
                "compounds": row["compounds"],
                "sd over seeds": row["sd_seeds"],
                "seeds": " ".join(map(str, row["seeds"])),
                "epoch": row["epoch"],
                "published": number["value"] if number else None,
                "published setting": number["setting"] if number else None,
                "aggregation": results["config"]["aggregation"],
                "convention": results["screens"][row["screen"]]["convention"],
                "images": "synthetic" if results.get("synthetic") else "real",
            }
        )
    return rows


def beside(results: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The published number beside a row, if any."""
    return published_beside(row, results["screens"], synthetic=bool(results.get("synthetic")))


def find(results: Mapping[str, Any], **wanted: Any) -> list[Mapping[str, Any]]:
    """Rows of scores with these values."""
    return [row for row in results["rows"] if all(row[key] == value for key, value in wanted.items())]


def lead_correction(results: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """The correction under which a row stands in the first tables."""
    config = results["config"]
    return config["baseline_correction"] if row["kind"] == "baseline" else config["correction"]


def lead_rows(results: Mapping[str, Any], screen: str) -> list[dict[str, Any]]:
    """The first table of a screen: an arm and channel model a row; NSC and NSCB, transductive and inductive."""
    mine = [r for r in find(results, screen=screen, channel="") if r["correction"] == lead_correction(results, r)]
    table = []
    for arm, model in dict.fromkeys((r["arm"], r["model"]) for r in mine):
        own = [r for r in mine if (r["arm"], r["model"]) == (arm, model)]
        line: dict[str, Any] = {"arm": called(own[0]), "channels": own[0]["model_title"]}
        for training in TRAININGS:
            for metric in METRICS:
                found = next((r for r in own if (r["training"], r["metric"]) == (training, metric)), None)
                line[f"{metric}, {TRAININGS[training]}"] = score_text(found)
        for metric in METRICS:
            first = next((r for r in own if (r["training"], r["metric"]) == ("transductive", metric)), None)
            number = beside(results, first) if first else None
            line[f"published {metric}"] = f"{number['value']:.3f}{number.get('star', '')}" if number else DASH
        table.append(line)
    return without_empty(table, ("arm", "channels"))


def correction_rows(results: Mapping[str, Any], screen: str) -> list[dict[str, Any]]:
    """Correct treatments 'NSC, NSCB' of every arm and model (rows), transductive, under every correction (columns)."""
    mine = [r for r in find(results, screen=screen, channel="", training="transductive") if r["kind"] != "baseline"]
    table = []
    for arm, model in dict.fromkeys((r["arm"], r["model"]) for r in mine):
        own = [r for r in mine if (r["arm"], r["model"]) == (arm, model)]
        line: dict[str, Any] = {"arm": called(own[0]), "channels": own[0]["model_title"]}
        for name, about in results["config"]["corrections"].items():
            pair = [next((r for r in own if (r["correction"], r["metric"]) == (name, m)), None) for m in METRICS]
            line[about["title"] or name] = ", ".join(count_text(r) for r in pair)
        table.append(line)
    return table


def channel_rows(results: Mapping[str, Any], screen: str) -> list[dict[str, Any]]:
    """NSCB channel by channel and of all channels, transductive, of models of one channel each."""
    config = results["config"]
    mine = find(
        results, screen=screen, training="transductive", correction=config["correction"], metric="NSCB", each=True
    )
    table = []
    for arm, model in dict.fromkeys((r["arm"], r["model"]) for r in mine):
        own = {r["channel"]: r for r in mine if (r["arm"], r["model"]) == (arm, model)}
        line: dict[str, Any] = {"arm": called(own[""]), "channels": own[""]["model_title"]}
        line |= {c: score_text(own.get(c)) for c in results["screens"][screen]["channels"]}
        table.append(line | {"all together": score_text(own[""])})
    return table


def curve_rows(results: Mapping[str, Any], screen: str) -> list[dict[str, Any]]:
    """Last, best and mean over the checkpoints of every curve."""
    titles = {(r["arm"], r["model"]): (called(r), r["model_title"]) for r in results["rows"]}
    table = []
    for curve in (c for c in results["curves"] if c["screen"] == screen):
        arm, model = titles[curve["arm"], curve["model"]]
        table.append(
            {
                "arm": arm,
                "channels": model,
                "metric": curve["metric"],
                "last": curve["last"],
                "mean ± sd over checkpoints": f"{curve['mean_over_epochs']:.3f} ± {curve['sd_over_epochs']:.3f}",
                "best by the test metric": f"{curve['best']:.3f} (epoch {curve['best_epoch']:.3g})",
                "checkpoints": len(curve["epochs"]),
            }
        )
    return table


def difference_rows(entries: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Paired differences as printed."""
    return [
        {
            "screen": results["screens"][d["screen"]]["title"],
            "metric": d["metric"],
            "difference": f"{d['first']} − {d['second']}",
            "channels": d["model"] or DASH,
            "training": TRAININGS[d["training"]],
            "accuracy": d["estimate"],
            "95\u00a0%": bounds_text(d),
            "p": p_text(d["p_value"]),
            "p (Holm)": p_text(d["p_value_holm"]),
        }
        for d in entries
    ]


def control_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Controls with what was expected of them and whether it held."""
    words = {True: "passed", False: "FAILED", None: "not judged"}
    return [
        {
            "screen": results["screens"][c["screen"]]["title"],
            "control": c["name"],
            "what it is": c["words"],
            "metric": c["metric"],
            "accuracy": interval_text(c),
            "expected": c["expected"],
            "outcome": words[c["passed"]],
        }
        for c in results["controls"]
    ]


def label_rows(results: Mapping[str, Any], screen: str) -> list[dict[str, Any]]:
    """How fine the weak labels of a screen are."""
    table = []
    for row in (r for r in results["labels"] if r["screen"] == screen):
        apart = f", partner of another {row['partner_from']}" if row["partner_from"] else ""
        table.append(
            {
                "arm": row["title"] + (TRUTH if row["truth"] else ""),
                "weak label": row["weak_label"] + apart,
                "classes": row["classes"],
                "images a class": f"{row['smallest']:,} to {row['largest']:,}",
                "largest class": f"{row['largest_class']}: {100 * row['largest_share']:.1f} %",
                "no partner": f"{row['without_partner']:,} ({100 * row['without_partner_share']:.1f} %)",
            }
        )
    return table


def called(row: Mapping[str, Any]) -> str:
    """An arm by its title, marked where it trains on the truth."""
    return row["title"] + (TRUTH if row["truth"] else "")


def count_text(row: Mapping[str, Any] | None) -> str:
    """'93/103', the mean over seeds; a dash for None."""
    if row is None:
        return DASH
    mean = sum(row["correct"]) / len(row["correct"])
    return f"{mean:.1f}/{row['of']}" if mean % 1 else f"{mean:.0f}/{row['of']}"


def score_text(row: Mapping[str, Any] | None) -> str:
    """'93/103 = 0.903 [0.850, 0.950]'; a dash for None."""
    return DASH if row is None else f"{count_text(row)} = {interval_text(row)}"


def without_empty(table: list[dict[str, Any]], kept: Sequence[str]) -> list[dict[str, Any]]:
    """A table without the columns that hold nothing but dashes, `kept` aside."""
    used = [c for c in (table[0] if table else ()) if c in kept or any(row[c] != DASH for row in table)]
    return [{c: row[c] for c in used} for row in table]
