"""The transfer study's results as tables: every row with its settings, the lead rows, differences, controls, curves.

`results` is the plain dict that the study's runner hands over; intervals are {"estimate", "low", "high"}, with None
where a bound is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from protloc_jax.config import nearest
from protloc_jax.studies.number_texts import DASH, bounds_text, interval_text, p_text, percent
from protloc_jax.studies.transfer.published import NATURAL_PLANS, PUBLISHED, published_beside, published_text

# What stands in the lead table of a level: the paper's evaluator where it ran, else the next that did.
EVALUATORS = {"fov": ("head", "probe", "knn"), "cell": ("knn", "head", "probe")}
EVALUATOR_WORDS = {"head": "trained head", "knn": "k-NN", "probe": "linear probe"}


def check(results: Mapping[str, Any]) -> None:
    """Raise ValueError naming every part of `results` that refers to a level or backbone it does not describe."""
    problems = []
    for part in ("rows", "curves", "neighbours", "differences", "controls"):
        for number, entry in enumerate(results.get(part, ())):
            for key, known in (("level", results["levels"]), ("backbone", results["backbones"])):
                if key in entry and entry[key] not in known:
                    problems.append(f"{part}[{number}].{key}='{entry[key]}'{nearest(entry[key], list(known))}")
    if problems:
        raise ValueError("results that name an unknown level or backbone: " + "; ".join(problems))


def table_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every row with every setting and the published number beside, plain values only: the lines of transfer.csv.

    Unknown values are None. "protein macro-F1" is that of whole proteins (one vote each).
    """
    backbones, published = results["backbones"], results.get("published", PUBLISHED)
    rows = []
    for row in results["rows"]:
        about, level = backbones[row["backbone"]], results["levels"][row["level"]]
        number = published_beside(row, backbones, published)
        by_unit = row.get("by_unit") or {}
        rows.append(
            {
                "level": row["level"],
                "backbone": row["backbone"],
                "title": about["title"],
                "pretraining": about["pretraining"],
                "model": about["model"],
                "plan": row["plan"],
                "passes": row["passes"],
                "width": row["width"],
                "mode": row["mode"],
                "fraction": row["fraction"],
                "evaluator": row["evaluator"],
                "macro-F1": row["macro_f1"]["estimate"],
                "low": row["macro_f1"]["low"],
                "high": row["macro_f1"]["high"],
                "protein macro-F1": by_unit.get("estimate"),
                "protein low": by_unit.get("low"),
                "protein high": by_unit.get("high"),
                "accuracy": row.get("accuracy"),
                "mean average precision": row.get("mean_average_precision"),
                "sd over pretraining seeds": row.get("sd_pretraining_seeds"),
                "sd over head seeds": row.get("sd_head_seeds"),
                "seeds": row.get("seeds"),
                "published": number["value"] if number else None,
                "published relation": number.get("relation", "=") if number else None,
                "published spread": number.get("spread") if number else None,
                "published source": f"{number.get('paper', '')} {number['source']}".strip() if number else None,
                "chosen": row.get("chosen", ""),
                "settings": row.get("settings", ""),
                "classes": len(level["classes"]),
                "split": level["split"],
                "images": "synthetic" if results.get("synthetic") else "real",
            }
        )
    return rows


def pick(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The row that stands for several channel plans: the one chosen on validation, else a natural plan, else the first.

    Never the one that scores best on test images. None for no rows.
    """

    def rank(row: Mapping[str, Any]) -> int:
        plans = list(NATURAL_PLANS)
        return -1 if row.get("chosen") else plans.index(row["plan"]) if row["plan"] in plans else len(plans)

    return min(rows, key=rank, default=None)


def lead_pairs(results: Mapping[str, Any]) -> list[tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]]:
    """One (frozen row, fine-tuned row) a level and backbone, each at its largest fraction; None where there is none.

    The evaluator is the level's usual one where it ran. Where no plan was chosen on validation, one that was fine-tuned
    too is preferred; the fine-tuned row is of the frozen one's evaluator and plan where there is one. Backbones without
    any row at a level are left out.
    """
    pairs = []
    for level in results["levels"]:
        for backbone in results["backbones"]:
            own = [r for r in results["rows"] if (r["level"], r["backbone"]) == (level, backbone)]
            candidates = _of_first_evaluator(_largest([r for r in own if r["mode"] == "frozen"]), level)
            tuned = _largest([r for r in own if r["mode"] != "frozen"])
            if not any(r.get("chosen") for r in candidates):
                both = {r["plan"] for r in tuned}
                candidates = [r for r in candidates if r["plan"] in both] or candidates
            frozen = pick(candidates)
            if frozen is None:
                tuned = _of_first_evaluator(tuned, level)
            else:
                tuned = _agreeing(tuned, "evaluator", frozen["evaluator"])
                tuned = _agreeing(tuned, "plan", frozen["plan"])
            # A new head on the fine-tuned backbone is the closer comparison; the fine-tuned model's own stands in.
            second = pick(_agreeing(tuned, "mode", "finetuned"))
            if frozen is not None or second is not None:
                pairs.append((frozen, second))
    return pairs


def lead_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tables that stand first: one row a level and backbone, frozen and fine-tuned, published numbers beside.

    A plan that was chosen on validation has a star.
    """
    backbones, published = results["backbones"], results.get("published", PUBLISHED)
    table = []
    for pair in lead_pairs(results):
        first = next(row for row in pair if row is not None)
        line = {
            "level": first["level"],
            "backbone": backbones[first["backbone"]]["title"],
            "pretraining": backbones[first["backbone"]]["pretraining"],
            "channel plan": _of_both(pair, "plan"),
            "evaluator": _of_both(pair, "evaluator"),
        }
        for words, row in zip(("frozen", "fine-tuned"), pair, strict=True):
            line[words] = interval_text(row["macro_f1"] if row else None)
            line[f"published, {words}"] = (published_text(row, backbones, published) if row else "") or DASH
        table.append(line)
    return table


def plan_rows(results: Mapping[str, Any], level: str, evaluator: str) -> list[dict[str, Any]]:
    """Macro-F1 of frozen features by channel plan (rows) and backbone (columns), at the largest fraction.

    Slots that are mere colours are filled by the stain a colour stands for, so their plans stand under the names of the
    corresponding natural ones.
    """
    rows = _largest([
        r for r in results["rows"]
        if (r["level"], r["evaluator"], r["mode"]) == (level, evaluator, "frozen")
    ])  # fmt: skip
    names = [b for b in results["backbones"] if any(r["backbone"] == b for r in rows)]
    table = []
    for plan in sorted({_as_natural(r["plan"]) for r in rows}, key=_plan_order):
        line: dict[str, Any] = {"channel plan": plan}
        for name in names:
            found = next((r for r in rows if (_as_natural(r["plan"]), r["backbone"]) == (plan, name)), None)
            line[results["backbones"][name]["title"]] = found["macro_f1"]["estimate"] if found else None
        table.append(line)
    return table


def difference_text(difference: Mapping[str, Any], backbones: Mapping[str, Mapping[str, Any]]) -> str:
    """'first − second', backbones by title, what both begin with (a backbone, or up to a colon or comma) once."""
    first, second = (backbones[n]["title"] if (n := difference[key]) in backbones else n for key in ("first", "second"))
    ends = [i + 2 for i in range(len(first) - 1) if first[i : i + 2] in (": ", ", ")]
    begins = [first[:end] for end in ends] + [f"{about['title']} " for about in backbones.values()]
    shared = [b for b in begins if first.startswith(b) and second.startswith(b) and len(second) > len(b)]
    return f"{first} − {second.removeprefix(max(shared, key=len, default=''))}"


def difference_rows(
    entries: Sequence[Mapping[str, Any]], backbones: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Paired differences as printed, the largest first."""
    return [
        {
            "level": d["level"],
            "evaluator": EVALUATOR_WORDS.get(d["evaluator"], d["evaluator"]),
            "difference": difference_text(d, backbones),
            "macro-F1": d["estimate"],
            "95\u00a0%": bounds_text(d),
            "p": p_text(d.get("p_value")),
            "p (Holm)": p_text(d.get("p_value_holm")),
        }
        for d in sorted(entries, key=lambda d: -d["estimate"])
    ]


def curve_rows(results: Mapping[str, Any], level: str) -> list[dict[str, Any]]:
    """The fraction curves of a level in numbers, one row a backbone and fraction."""
    rows = []
    for curve in [c for c in results.get("curves", ()) if c["level"] == level]:
        for point in curve["points"]:
            difference = point.get("difference")
            rows.append(
                {
                    "backbone": results["backbones"][curve["backbone"]]["title"],
                    "channel plan": curve["plan"],
                    "training data": percent(point["fraction"]),
                    "images": point["images"],
                    "proteins": point["units"],
                    "frozen": interval_text(point["frozen"]),
                    "fine-tuned": interval_text(point.get("finetuned")),
                    "difference": interval_text(difference, signed=True),
                    "p (Holm)": p_text(difference.get("p_value_holm")) if difference else DASH,
                }
            )
    return rows


def control_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Controls with what was expected of them and whether it held."""
    words = {True: "passed", False: "FAILED", None: "not judged"}
    return [
        {
            "level": c["level"],
            "control": c["name"],
            "what it is": c["words"],
            "macro-F1": interval_text(c["macro_f1"]),
            "expected": c["expected"],
            "outcome": words[c["passed"]],
        }
        for c in results.get("controls", ())
    ]


def _largest(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    most = max((r["fraction"] for r in rows), default=1.0)
    return [r for r in rows if r["fraction"] == most]


def _of_first_evaluator(rows: Sequence[Mapping[str, Any]], level: str) -> list[Mapping[str, Any]]:
    for evaluator in EVALUATORS.get(level, EVALUATORS["fov"]):
        found = [r for r in rows if r["evaluator"] == evaluator]
        if found:
            return found
    return list(rows)


def _as_natural(plan: str) -> str:
    return plan.replace("colour-per-channel", "per-channel").replace("colour", "natural")


def _plan_order(plan: str) -> tuple[int, str]:
    """Natural plans first, then replication, then random order and anything else, each by name."""
    kinds = ("per-channel", "natural", "replicate", "permuted")
    return next((i for i, kind in enumerate(kinds) if plan.startswith(kind)), len(kinds)), plan


def _agreeing(rows: Sequence[Mapping[str, Any]], key: str, value: Any) -> Sequence[Mapping[str, Any]]:
    """The rows with that value, or all of them where none has it."""
    return [r for r in rows if r[key] == value] or rows


def _of_both(pair: Sequence[Mapping[str, Any] | None], key: str) -> str:
    """A setting of both rows in words, told apart where they differ."""
    shown = [str(EVALUATOR_WORDS.get(row[key]) or row[key]) for row in pair if row is not None]
    first = next(row for row in pair if row is not None)
    shown[0] = f"{shown[0]} *" if key == "plan" and first.get("chosen") else shown[0]
    return shown[0] if len({text.removesuffix(" *") for text in shown}) == 1 else f"{shown[0]}; tuned: {shown[1]}"
