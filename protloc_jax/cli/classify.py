"""`protloc classify`: train classification heads on feature tables, score them on held-out groups, keep them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from protloc_jax.cli.scored_tables import add_question, named_files, read_tables, stored_splits


def add_parser(subparsers) -> None:
    """Add the sub-command's options."""
    parser = subparsers.add_parser(
        "classify",
        help="train classification heads on feature tables, score and keep them",
        description="Train a classification head on feature tables for every split and seed at once, and score it on "
        "held-out groups: macro-F1 by image and by group with intervals over groups, class by class, with the spread "
        "over seeds and over splits each by its name. Defaults are the recipe of DINO4Cells.",
    )
    add_question(parser)
    parser.add_argument("--head", metavar="ARCH", help="linear, simple or residual (--set head.arch=...)")
    parser.add_argument("--out", metavar="DIR", help="write scores.json and each table's heads (heads/NAME)")
    parser.add_argument("--seed", type=int, default=0, help="seed of folds and bootstrap (heads: --set head.seeds=0,1)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="key=value",
        dest="settings",
        help="settings, e.g. --set head.epochs=10 --set head.decision=validation --set resamples=5000",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> int:
    """Train and score; returns the exit status."""
    from protloc_jax.cli.tables import print_heads
    from protloc_jax.config import with_overrides
    from protloc_jax.devices import set_up_compilation_cache
    from protloc_jax.eval.head_file import save_heads
    from protloc_jax.eval.heads import ClassifyConfig, classify
    from protloc_jax.studies.overview import question

    arch = [f"head.arch={args.head}"] if args.head else []
    config = with_overrides(ClassifyConfig(seed=args.seed), [*arch, *args.settings])
    stored = stored_splits(args)
    for name in named_files(args.tables):
        if Path(name).name != name or name in (".", ".."):
            raise ValueError(f"'{name}': a table's name is a folder's name here, without '/'.")
    tables = read_tables(args.tables)
    asked = question(
        tables,
        unit=args.unit,
        label=args.label,
        split=args.split,
        folds=args.folds,
        leave_out=args.leave_out,
        split_file=stored,
        split_name=args.split_name,
        seed=args.seed,
    )
    set_up_compilation_cache()
    results, heads = classify(
        asked.systems,
        asked.task,
        asked.splits,
        config,
        provenance=asked.facts["provenance"],
        progress=None if args.quiet else _show,
    )
    results |= asked.facts
    print_heads(results)
    if args.out:
        out = Path(args.out)
        for name, own in heads.items():
            print(f"wrote {save_heads(own, out / 'heads' / name)}")
        (out / "scores.json").write_text(json.dumps(results, indent=1) + "\n")
        print(f"wrote {out / 'scores.json'}")
    return 0


def _show(done: int, total: int, loss: float) -> None:
    end = "\n" if done == total else "\r"
    print(f"step {done}/{total}  loss {loss:.4f}", end=end, file=sys.stderr, flush=True)
