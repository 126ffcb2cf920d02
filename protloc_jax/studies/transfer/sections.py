"""Sections of the transfer study's page: scores beside published ones, controls, plans, differences, fractions, k."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from protloc_jax.report.html import Report
from protloc_jax.studies.number_texts import DASH, interval_text, percent
from protloc_jax.studies.transfer import figures
from protloc_jax.studies.transfer.table import (
    EVALUATOR_WORDS,
    control_rows,
    curve_rows,
    difference_rows,
    lead_pairs,
    lead_rows,
    plan_rows,
)

FAMILIES = {
    "plans at equal width": "Channel plans of equal width",
    "backbones": "Backbones",
    "fine-tuning": "Fine-tuned against frozen",
}


def lead(page: Report, results: Mapping[str, Any], note: str) -> None:
    """The first tables, one a level, and their figures."""
    page.section(
        "Frozen and fine-tuned",
        "Macro-F1 on held-out proteins, with 95 % bootstrap intervals over those proteins. Where several channel plans "
        "ran, the row is of the plan chosen on validation proteins, else of the natural one, never of the best on "
        "test. Published: macro-F1 of arXiv:2604.10970, else of arXiv:2602.05527; what varies behind their ± is not "
        f"known. 'unknown': it was run there, but no number could be found; {DASH}: no such experiment.",
    )
    for name, level in results["levels"].items():
        rows = [row for row in lead_rows(results) if row.pop("level") == name]
        if not rows:
            continue
        shares = {r["fraction"] for pair in lead_pairs(results) for r in pair if r is not None and r["level"] == name}
        data = "all training data" if shares == {1.0} else "the largest share of the training data"
        evaluators = {row["evaluator"] for row in rows}
        hidden = {"evaluator"} if len(evaluators) == 1 else set()
        by = f" by {next(iter(evaluators))}" if hidden else ""
        star = " *: the plan was chosen on validation." if any("*" in row["channel plan"] for row in rows) else ""
        words = f"{capital(level['label'])} ({level['images']:,} images of {level['units']:,} {level['unit']}s)"
        page.table(
            rows,
            columns=[column for column in rows[0] if column not in hidden],
            caption=f"{words}: macro-F1 over {len(level['classes'])} classes{by}, {data}.{star}",
        )
        add_figure(
            page,
            figures.lead_figure(results, name, note=note),
            f"{capital(level['label'])}: the same, with 95 % intervals over proteins; hollow: published, on real "
            "images and another split.",
        )


def controls(page: Report, results: Mapping[str, Any]) -> None:
    """Controls and how they came out."""
    rows = control_rows(results)
    if not rows:
        return
    failed = [row["control"] for row in rows if row["outcome"] == "FAILED"]
    judged = sum(row["outcome"] != "not judged" for row in rows)
    page.section(
        "Controls",
        f"{len(failed)} of {judged} controls failed ({', '.join(failed)}): read what follows with that in mind."
        if failed
        else f"The {judged} judged controls came out as expected."
        if judged
        else "No control could be judged.",
    )
    page.table(rows, caption="What was expected of each control, and what came out.")


def plans(page: Report, results: Mapping[str, Any]) -> None:
    """Tables of frozen features by channel plan and backbone."""
    made = []
    leads = [frozen for frozen, _ in lead_pairs(results) if frozen is not None]
    for level, evaluator in dict.fromkeys((row["level"], row["evaluator"]) for row in leads):
        rows = plan_rows(results, level, evaluator)
        if len(rows) > 1:
            made.append((rows, f"{capital(results['levels'][level]['label'])}, {EVALUATOR_WORDS[evaluator]}"))
    if not made:
        return
    page.section(
        "Channel plans",
        "How the images' channels reach the slots of each backbone, frozen features, all training data. Plans of two "
        "passes give features twice as wide, so only plans of equal width are compared below. Colour slots take the "
        "stain that their colour stands for. Other evaluators, widths and intervals are in the full table.",
    )
    for rows, words in made:
        page.table(
            rows, caption=f"{words}: macro-F1 by plan and backbone; {DASH}: the plan does not apply or did not run."
        )


def differences(page: Report, results: Mapping[str, Any], note: str) -> None:
    """Forest plots and tables of the paired differences, by family."""
    entries = results.get("differences", ())
    if not entries:
        return
    page.section(
        "Differences",
        "Paired over the same test proteins. Filled: p < 0.05 after Holm's correction within the family (blue: the "
        "first is better, orange: the second). An interval over proteins says nothing of other pretraining seeds.",
    )
    families = dict.fromkeys(d["family"] for d in entries)
    for family in families:
        own = [d for d in entries if d["family"] == family]
        title = FAMILIES.get(family, family)
        for level in dict.fromkeys(d["level"] for d in own):
            here = [d for d in own if d["level"] == level]
            most = figures.MOST_DIFFERENCES
            more = f" The {most} largest of {len(here)}; the table has all." if len(here) > most else ""
            add_figure(
                page,
                figures.forest_figure(here, results["backbones"], note=note),
                f"{title}, {results['levels'][level]['label']}: difference in macro-F1, with 95 % intervals.{more}",
            )
        page.table(
            difference_rows(own, results["backbones"]),
            caption=f"{title}: paired differences in macro-F1, the largest first.",
            fold=f"{title}: all differences in numbers",
        )


def fractions(page: Report, results: Mapping[str, Any], note: str) -> None:
    """Curves over the share of the training data, with crossovers."""
    curves = [c for c in results.get("curves", ()) if c["points"]]
    if not curves:
        return
    page.section(
        "How much training data",
        "Frozen and fine-tuned backbones over the share of the training data; the test proteins are always the same.",
    )
    for level, about in results["levels"].items():
        own = [c for c in curves if c["level"] == level]
        if not own:
            continue
        add_figure(
            page,
            figures.fraction_figure(results, level, note=note),
            f"{capital(about['label'])}: macro-F1 over the share of the training data; bands: 95 % intervals over "
            "proteins; dotted: published, with all training data.",
        )
        crossovers = [
            {
                "backbone": results["backbones"][c["backbone"]]["title"],
                "channel plan": c["plan"],
                "evaluator": EVALUATOR_WORDS.get(c["evaluator"], c["evaluator"]),
                "crossover": DASH if c["crossover"]["fraction"] is None else percent(c["crossover"]["fraction"]),
                "in words": c["crossover"]["words"],
            }
            for c in own
            if c.get("crossover")
        ]
        if crossovers:
            page.table(crossovers, caption="Where fine-tuning starts to pay.")
        page.table(
            curve_rows(results, level),
            caption="Macro-F1 with 95 % intervals; p-values of the paired differences are Holm-corrected.",
            fold=f"The curves of {about['label']} in numbers",
        )


def neighbours(page: Report, results: Mapping[str, Any], note: str) -> None:
    """k-NN over k."""
    entries = results.get("neighbours", ())
    if not entries:
        return
    page.section(
        "Number of neighbours",
        "Every k is scored on the same test images; only the k chosen on validation proteins may be quoted as a score.",
    )
    for level, about in results["levels"].items():
        own = [n for n in entries if n["level"] == level]
        if not own:
            continue
        add_figure(
            page,
            figures.neighbour_figure(results, level, note=note),
            f"{capital(about['label'])}: macro-F1 of k-NN over k with 95 % intervals over proteins.",
        )
        ks = sorted({k for n in own for k in n["k"]})
        table = []
        for n in own:
            row = {"backbone": results["backbones"][n["backbone"]]["title"], "channel plan": n["plan"]}
            texts = {
                k: interval_text({"estimate": e, "low": low, "high": high}) + (" *" if k in n["chosen"] else "")
                for k, e, low, high in zip(n["k"], n["estimate"], n["low"], n["high"], strict=True)
            }
            table.append(row | {f"k = {k}": texts.get(k, DASH) for k in ks})
        page.table(
            table,
            caption="Macro-F1 with 95 % intervals; *: chosen on validation proteins.",
            fold=f"k-NN on {about['label']} at every k",
        )


def add_figure(page: Report, png: bytes | None, caption: str) -> None:
    """A figure, where there is one."""
    if png is not None:
        page.figure(png, caption=caption)


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]
