"""Sections of the WS-DINO study's page, drawn from its plain dict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from protloc_jax.report.html import Report
from protloc_jax.studies.number_texts import DASH
from protloc_jax.studies.ws_dino import figures, published, table

FAMILIES = {
    "arms": "Arms against the reference",
    "pairs": "Further pairs of arms",
    "truth": "Arms that train on the truth, against the reference (controls)",
    "models": "Channel models",
}


def lead(page: Report, results: Mapping[str, Any], note: str) -> None:
    """The first tables, one a screen, and their figures."""
    config = results["config"]
    about = config["corrections"][config["correction"]]
    baseline = config["baseline_correction"] or "none"
    page.section(
        "Mechanism of action by the nearest treatment",
        "NSC: the nearest treatment of another compound has the right mechanism. NSCB: of another compound and batch; "
        "mechanisms of one batch only are dropped. Correct treatments (mean over seeds) of all, and their share with a "
        "95 % bootstrap interval over compounds.",
        f"Features of each channel corrected by {about['title'] or config['correction']} ({about['steps'] or 'none'}), "
        f"baselines by {baseline}; aggregation {config['aggregation']}; "
        f"last checkpoint; seeds {', '.join(map(str, config['seeds']))}. Compounds never trained on: in "
        f"{config['folds']} folds the treatments of held-out compounds ask, by the backbone of that fold.",
    )
    for name, screen in results["screens"].items():
        rows = table.lead_rows(results, name)
        if not rows:
            continue
        own = table.find(results, screen=name, channel="", training="transductive")
        chance = [f"{m} {next(r['chance'] for r in own if r['metric'] == m):.3f}" for m in table.METRICS]
        dropped = next(r["dropped"] for r in own if r["metric"] == "NSCB")
        without = f" NSCB is without {', '.join(dropped)}." if dropped else ""
        beside = any("published NSC" in row or "published NSCB" in row for row in rows)
        source = f" Published: {published.LOGS}, epoch {published.EPOCH}, one run. {published.FOOTNOTE}"
        paper = source if beside else ""
        page.table(
            rows,
            caption=f"{screen['title']}: {screen['compounds']} compounds, {screen['mechanisms']} mechanisms, "
            f"{screen['batches']} batches, {screen['trained']:,} images that train, {screen['controls']:,} of the "
            f"negative control; batch convention {screen['convention']}. Chance: {', '.join(chance)}.{without}{paper}",
        )
        add_figure(page, figures.lead_figure(results, name, note=note), f"{screen['title']}: the same.")


def controls(page: Report, results: Mapping[str, Any]) -> None:
    """Controls and how they came out."""
    rows = table.control_rows(results)
    if not rows:
        return
    failed = [f"{row['control']} ({row['metric']})" for row in rows if row["outcome"] == "FAILED"]
    page.section(
        "Controls",
        f"{len(failed)} of {len(rows)} controls failed ({', '.join(dict.fromkeys(failed))}): read all else with that "
        "in mind."
        if failed
        else f"None of {len(rows)} controls failed.",
    )
    page.table(rows, caption="What was expected of each control, and what came out.")


def differences(page: Report, results: Mapping[str, Any], note: str) -> None:
    """Forest plots and tables of the paired differences."""
    entries = results["differences"]
    if not entries:
        return
    page.section(
        "Differences",
        "Paired over the same compounds, seeds averaged. Filled: p < 0.05 after Holm's correction within the family "
        "(one kind of comparison, screen and metric); blue: the first is better, orange: the second. The interval says "
        "how the difference varies over compounds, not over seeds.",
    )
    for family, title in FAMILIES.items():
        own = [d for d in entries if d["family"] == family]
        if not own:
            continue
        for screen, metric in dict.fromkeys((d["screen"], d["metric"]) for d in own):
            here = [d for d in own if (d["screen"], d["metric"]) == (screen, metric)]
            words = f"{title}, {results['screens'][screen]['title']}: difference in {metric}, with 95 % intervals."
            add_figure(page, figures.forest_figure(here, note=note), words)
        page.table(
            table.difference_rows(own, results),
            caption=f"{title}: paired differences in accuracy.",
            fold=f"{title}: all differences in numbers",
        )


def curves(page: Report, results: Mapping[str, Any], note: str) -> None:
    """Accuracy over epochs."""
    if not results["curves"]:
        return
    page.section(
        "Over the epochs",
        "Filled: the last checkpoint, which is the result. Star: the best one, picked by this very metric on the very "
        "treatments that it is scored on; the distance between the two is what such a choice flatters. Dashed: trains "
        "on the truth.",
    )
    for name, screen in results["screens"].items():
        rows = table.curve_rows(results, name)
        if rows:
            figure = figures.curve_figure(results, name, note=note)
            add_figure(page, figure, f"{screen['title']}: accuracy over passes, mean over seeds (thin: each seed).")
            page.table(rows, caption=f"{screen['title']}: last, mean and best checkpoint.")


def corrections(page: Report, results: Mapping[str, Any]) -> None:
    """Every correction, and what it does to batches and biology."""
    config = results["config"]["corrections"]
    if len(config) < 2 and not results["facts"]["mixing"]:
        return
    steps = "; ".join(f"{about['title'] or name}: {about['steps'] or 'none'}" for name, about in config.items())
    page.section("Normalisations", f"Fitted on the negative control, channel by channel. {steps}.")
    for name, screen in results["screens"].items():
        rows = table.correction_rows(results, name)
        if rows:
            page.table(
                rows,
                caption=f"{screen['title']}: correct treatments by NSC and NSCB, transductive. Only the first was "
                "fixed before the run.",
            )
        mixing = _of_screen(results["facts"]["mixing"], name)
        if mixing:
            page.table(
                mixing,
                caption=f"{screen['title']}: batches against biology in the features of {_shown(results, name)}. "
                f"{results['facts']['mixing_words']}",
            )


def channels(page: Report, results: Mapping[str, Any]) -> None:
    """Every channel's model alone."""
    tables = {name: table.channel_rows(results, name) for name in results["screens"]}
    if not any(tables.values()):
        return
    page.section("Channel by channel", "Models of one channel each, scored alone and with their features side by side.")
    for name, rows in tables.items():
        if rows:
            page.table(rows, caption=f"{results['screens'][name]['title']}: NSCB, transductive.")


def mechanisms(page: Report, results: Mapping[str, Any], note: str) -> None:
    """Confusion between mechanisms."""
    titled = False
    for name, arm in results["facts"]["shown"].items():
        if arm is None:
            continue
        for metric in table.METRICS:
            rows = table.find(
                results, screen=name, arm=arm["arm"], model=arm["model"], training="transductive", metric=metric,
                channel="", correction=results["config"]["correction"],
            )  # fmt: skip
            if rows and not titled:
                page.section("Mechanism by mechanism")
                titled = True
            for row in rows:
                words = f"{results['screens'][name]['title']}, {table.called(row)}, {row['model_title']}: {metric}"
                page.figure(
                    figures.confusion_figure(row, note=note),
                    caption=f"{words}, share of the treatments of each true mechanism, in percent from 5\u00a0% on.",
                )


def labels(page: Report, results: Mapping[str, Any]) -> None:
    """How fine the weak labels are."""
    tables = {name: table.label_rows(results, name) for name in results["screens"]}
    if not any(tables.values()):
        return
    page.section(
        "How fine the weak labels are",
        "Over the images that train. No partner: images without any other permissible image of their label, which get "
        "what data.partner_fallback says.",
    )
    for name, rows in tables.items():
        if rows:
            page.table(rows, caption=f"{results['screens'][name]['title']}: weak labels.")


def retrieval(page: Report, results: Mapping[str, Any]) -> None:
    """Mean average precision of treatments."""
    rows = results["facts"]["retrieval"]
    if not rows:
        return
    page.section("Retrieval", results["facts"]["retrieval_words"])
    for name, screen in results["screens"].items():
        own = _of_screen(rows, name)
        if own:
            page.table(own, caption=f"{screen['title']}: mean average precision, transductive, first correction.")


def published_numbers(page: Report, results: Mapping[str, Any]) -> None:
    """What is published, with its status."""
    like = [n for n, s in results["screens"].items() if published.fits(s, synthetic=bool(results.get("synthetic")))]
    page.section(
        "Published numbers",
        "On BBBC021, one model a channel, four windows a field, whitening on DMSO, 103 and 92 treatments; trained on "
        "the images that are scored, one run, the checkpoint chosen on the test metric. "
        + (
            "They stand beside the rows above that were made alike."
            if like
            else "No screen here is that one (38 compounds, 12 mechanisms, 2,528 real images), so nothing is compared."
        ),
    )
    page.table(
        published.epoch_rows(),
        caption=f"{published.LOGS} of {published.PAPER}: NSC / NSCB by epoch and weak label. {published.FOOTNOTE}",
        real=True,
    )
    page.table(
        published.channel_rows(),
        columns=["weak label", *published.CHANNEL_NAMES, "all"],
        caption=f"{published.LOGS}: NSCB of single channels at epoch {published.EPOCH}.",
        real=True,
    )
    page.table(
        [{key: value or DASH for key, value in row.items()} for row in published.PUBLISHED["others"]],
        caption="Other methods on BBBC021, and where each number was found. Numbers without any source are left out.",
        real=True,
    )


def add_figure(page: Report, png: bytes | None, caption: str) -> None:
    """A figure, where there is one."""
    if png is not None:
        page.figure(png, caption=caption)


def _shown(results: Mapping[str, Any], screen: str) -> str:
    """The arm and model that a screen's pictures show, in words."""
    shown, config = results["facts"]["shown"][screen], results["config"]
    names = ((config[part][shown[key]]["title"], shown[key]) for part, key in (("arms", "arm"), ("models", "model")))
    return ", ".join(title or name for title, name in names)


def _of_screen(rows: Sequence[Mapping[str, Any]], screen: str) -> list[dict[str, Any]]:
    """The rows of a screen, without its name."""
    return [{k: v for k, v in row.items() if k != "screen"} for row in rows if row["screen"] == screen]
