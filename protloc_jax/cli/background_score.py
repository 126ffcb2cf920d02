"""`protloc background score`: what a feature table keeps of the cell, and what its neighbours change."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add(jobs: Any) -> None:
    """Add the sub-command's options."""
    parser = jobs.add_parser(
        "score",
        help="score a feature table of made images",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_settings(),
    )
    parser.description = (
        "Score features of images of `background make`: pairwise classifiers as published, probes and k-NN under both "
        "protocols with intervals over proteins, drops and their parts, measures without labels."
    )
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings, listed below")
    parser.add_argument("--features", required=True, metavar="TABLE", help="feature table (.h5ad, .parquet, .csv)")
    parser.add_argument("--made", metavar="DIR", help="folder of `background make`, for a table with only `id`")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for background.json and the CSV tables")
    parser.add_argument("--parts", metavar="A,B,...", help="svc, classifiers, crossed, label_free, bins (default: all)")
    parser.add_argument("--svc", metavar="A,B", help="published, grouped (default: both)")
    parser.add_argument("--triplets", type=int, metavar="N", help="only N triplets a condition, drawn by a fixed seed")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> int:
    """Score, print and write; returns the exit status."""
    from protloc_jax.config import from_mapping, to_dict, with_overrides
    from protloc_jax.data.durable import write_whole
    from protloc_jax.devices import set_up_compilation_cache
    from protloc_jax.eval.background import score, score_output
    from protloc_jax.eval.features import read
    from protloc_jax.studies.csv_table import csv_text

    given: dict[str, Any] = {}
    for name in ("parts", "svc"):
        if getattr(args, name) is not None:
            given[name] = [word.strip() for word in getattr(args, name).split(",") if word.strip()]
    if args.triplets is not None:
        given["triplets"] = args.triplets
    options = with_overrides(
        from_mapping(score.ScoreOptions, {**to_dict(score.ScoreOptions()), **given}), args.settings
    )
    table = read(args.features)
    set_up_compilation_cache()
    with _Shown(not args.quiet) as shown:
        found = score.score_table(table, options, made=args.made, progress=shown)
    results = score_output.as_dict(found)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    _print(results)
    write_whole(out / "background.json", (json.dumps(results, indent=1, allow_nan=False) + "\n").encode())
    written = ["background.json"]
    tables = score_output.table_rows(found)
    for name in score_output.TABLES:
        path = out / f"{name}.csv"
        if name in tables:
            write_whole(path, csv_text(tables[name]).encode())
            written.append(path.name)
        else:
            path.unlink(missing_ok=True)  # of an earlier call that scored more
    print(f"wrote {out}: {', '.join(written)}")
    return 0


class _Shown:
    """One progress bar a part."""

    def __init__(self, on: bool):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=Console(stderr=True), disable=not on)
        self.tasks: dict[str, Any] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self.tasks:
            self.tasks[what] = self.bar.add_task(what, total=total)
        self.bar.update(self.tasks[what], completed=done)

    def __enter__(self) -> _Shown:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()


def _print(results: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True)
    console.width = max(console.width, 150)

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    tag = "SYNTHETIC IMAGES. " if results["synthetic"] else ""
    made, sets = results["made"], results["made"].get("sets", {})
    if made:
        say(
            f"images    of {made['records']} (digest {made['records_sha256'][:16]}), {made['rows']}; "
            f"seed {sets['seed']}, standardise {sets['standardise']}, units {sets['units']}, groups {sets['groups']}"
        )
    for what, words in (("missing", "made images that the table lacks"), ("extra", "rows that are no made image")):
        if results[what]["count"]:
            shown = ", ".join(results[what]["ids"][:5])
            say(f"{what:<10}{results[what]['count']:,} {words}, left out: {shown}, ...")
    rows = results["summary"]
    table = Table(title=f"{tag}Accuracy by condition, {len(results['classes'])} classes", title_justify="left")
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "condition" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console.print(table)
    say("svc: mean over pairs of two classes (chance .5); probe and knn: balanced accuracy over all classes;")
    say("pairs transfer: two classes, fitted on the baseline. Intervals are bootstraps over proteins.")
    for mode, by in results["svc"].items():
        for name, one in by.items():
            if one["scored"] < one["of"]:
                say(f"svc {mode}, {name}: {one['scored']} of {one['of']} triplets, drawn by seed 42")
    for one in results["classifiers"]:
        head = f"{one['classifier']} {one['protocol']}"
        left = {name: n for name, n in one["left_out"].items() if n}
        if left:
            say(f"{head}: rows left out (donor trained on): {', '.join(f'{k} {v:,}' for k, v in left.items())}")
        for drop in one["drops"]:
            say(f"{head}: {drop['higher']} - {drop['lower']} = {_with_interval(drop)}")
        for term, part in (one["decomposition"] or {}).items():
            say(f"{head}: {term.replace('_', ' ')} {_with_interval(part)}")
    for drop in (results["crossed"] or {"drops": []})["drops"]:
        say(f"pairs transfer: {drop['higher']} - {drop['lower']} = {_with_interval(drop)}")
    free = results["label_free"]
    if free:
        variance, retrieval = free["variance"], free["retrieval"]
        say(
            f"grid {free['cells']} x {free['backgrounds']}: cosine gap {free['cosines_standardised']['gap']:+.3f}; "
            f"variance by cell {variance['cell']:.3f}, by background {variance['background']:.3f}; same cell retrieved "
            f"{retrieval['accuracy']:.3f} (chance {retrieval['chance']:.3f})"
            + (f"; predictions flip on any background {free['flips']['worst_of_k']:.3f}" if free["flips"] else "")
        )
    for what, why in results["not_scored"].items():
        # The whole list stands in background.json.
        first, *more = why.splitlines()
        say(f"not scored: {what}: {first if not more else f'{first} {more[0].strip()}'}" + (" ..." if more[1:] else ""))


def _with_interval(entry: dict[str, Any]) -> str:
    interval = "" if entry["low"] is None else f" [{entry['low']:+.3f}, {entry['high']:+.3f}]"
    return f"{entry['estimate']:+.3f}{interval}, p (Holm) {entry['p_value_holm']:.3f}"


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _settings() -> str:
    from protloc_jax.config import describe
    from protloc_jax.eval.background.score import ScoreOptions

    lines = ["settings:"]
    for key, _, default, text in describe(ScoreOptions):
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        lines.append(f"  {key}={shown}\n      {text}")
    return "\n".join(lines)
