"""`protloc evaluate`: score feature tables side by side."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from protloc_jax.cli.scored_tables import add_question, read_tables, stored_splits


def add_parser(subparsers) -> None:
    """Add the sub-command's options."""
    parser = subparsers.add_parser(
        "evaluate",
        help="score feature tables with k-NN and linear probes",
        description="Score feature tables of the same images with k-NN and a linear probe: macro-F1 with intervals "
        "over held-out groups, class by class, with chance and paired differences. k and the probe's strength are "
        "chosen on validation groups only.",
    )
    add_question(parser)
    parser.add_argument("--out", metavar="FILE", help="write all scores as JSON (for `protloc report`)")
    parser.add_argument("--records", metavar="DIR", help="also score hand-made features of these records")
    parser.add_argument(
        "--exclude",
        metavar="COLUMN,...",
        help="k-NN: images with an equal value in one of these columns never vote for each other ('none': all may; "
        "default: well, field, and protein where the label is the protein's)",
    )
    parser.add_argument(
        "--choose",
        action="append",
        default=[],
        metavar="NAME=TABLE,TABLE,...",
        help="one more row: the table (channel plan) chosen on the validation groups of every split; 'NAME=all'",
    )
    parser.add_argument(
        "--equal-width",
        choices=("pairs", "random", "pca"),
        default="",
        help="tables of unequal width: compare only those of one width (pairs), or bring all to the narrowest by a "
        "random projection or by principal components of training rows",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of folds and bootstrap")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="key=value",
        dest="settings",
        help="evaluation settings, e.g. --set k=5,20 --set resamples=5000",
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate; returns the exit status."""
    from protloc_jax.cli.tables import print_scores
    from protloc_jax.config import with_overrides
    from protloc_jax.data import read as records_file
    from protloc_jax.devices import set_up_compilation_cache
    from protloc_jax.eval.baselines import handmade_tables
    from protloc_jax.eval.evaluate import EvaluateConfig
    from protloc_jax.studies.overview import score

    config = with_overrides(EvaluateConfig(seed=args.seed), args.settings)
    stored = stored_splits(args)
    excluded = None
    if args.exclude is not None:
        excluded = [name.strip() for name in args.exclude.split(",") if name.strip() not in ("", "none")]
    set_up_compilation_cache()
    tables = read_tables(args.tables)
    if args.records:
        # Rows that were left out for damage are not asked for again; any other damage still stops.
        left_out = any("left_out" in table.uns for table in tables.values())
        with records_file.open(args.records, tolerant=left_out) as records:
            wanted = set(next(iter(tables.values())).obs["id"].astype(str))
            rows = [i for i, name in enumerate(records.manifest.ids) if name in wanted]
            tables = {**handmade_tables(records, rows), **tables}
    results = score(
        tables,
        unit=args.unit,
        label=args.label,
        split=args.split,
        folds=args.folds,
        leave_out=args.leave_out,
        exclude=excluded,
        split_file=stored,
        split_name=args.split_name,
        config=config,
        equal_width=args.equal_width,
        choices=_choices(args.choose, list(tables)),
        seed=args.seed,
    )
    if args.out:
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        Path(args.out).write_text(json.dumps(results, indent=1) + "\n")
    print_scores(results)
    if args.out:
        print(f"wrote {args.out}")
    return 0


def _choices(items: list[str], tables: list[str]) -> dict[str, list[str]]:
    """{row's name: tables to choose among} of the words 'NAME=TABLE,TABLE'."""
    found: dict[str, list[str]] = {}
    for item in items:
        name, sep, among = item.partition("=")
        if not sep or not name or not among:
            raise ValueError(f"--choose {item}: write NAME=TABLE,TABLE,... or NAME=all.")
        if name in found:
            raise ValueError(f"--choose {item}: the name '{name}' is given twice.")
        found[name] = tables if among == "all" else [n.strip() for n in among.split(",")]
    return found
