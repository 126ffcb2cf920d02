"""`protloc correct`: normalise and batch-correct feature tables; fitted on controls, applied, scored."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

EXAMPLES = """steps, joined by '+':
  standardise[:COLUMN]  mean and sd of controls, over all or by plate; on=all: of all rows; ddof=0: divided by n
  robust[:COLUMN]       median and MAD, as pycytominer's mad_robustize
  whiten[:LAMBDA]       principal axes of the controls over their spread; components=, moment=n-1|n. sphere: turned back
  coral:COLUMN          each batch's second moments to those of all controls; lambda=, source_lambda=
  tvn:COLUMN            DeepProfiler's whitening and CORAL; efaar:COLUMN Recursion's; harmony:COLUMN Harmony
examples:
  protloc correct fit week1.h5ad --steps standardise:plate+whiten:1 --controls role=dmso --share 0.5 --out c.npz
  protloc correct fit features.h5ad --steps whiten --controls compound=DMSO --blocks auto --out ws_dino.npz
  protloc correct apply c.npz week1.h5ad --out week1_corrected.h5ad
  protloc correct apply c.npz week2.h5ad --controls role=dmso --out week2_corrected.h5ad
  protloc correct score before=week1.h5ad after=week1_corrected.h5ad --batch plate --label moa --out mixing.json
"""


def add_parser(subparsers: Any) -> None:
    """Add the sub-command and its jobs."""
    parser = subparsers.add_parser(
        "correct",
        help="normalise and batch-correct feature tables, fitted on control rows",
        description="Fit a correction on the control rows of a feature table (ours, or another tool's), keep it, apply "
        "it to tables made alike, and score how batches mix and labels hold. Controls that were fitted on are marked "
        "(fitted_on) and do not score.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    jobs = parser.add_subparsers(dest="job", metavar="JOB", required=True)
    fit = jobs.add_parser("fit", help="fit on controls and write a correction (.npz)")
    fit.add_argument("table", metavar="FEATURES", help="feature table (.h5ad, .parquet, .csv, .tsv)")
    fit.add_argument("--steps", required=True, metavar="STEPS", help="steps joined by '+', for example whiten:1")
    _add_controls(fit, required=True, more="the rows fitted on")
    fit.add_argument("--out", required=True, metavar="FILE.npz", help="correction to write")
    fit.add_argument(
        "--blocks",
        default="1",
        metavar="N|auto",
        help="fit every block of columns by itself: so many, or one for each pass of the channel plan (default: 1)",
    )
    fit.add_argument(
        "--share",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="share of each plate's control wells to fit on; the others stay for scores (default: 1)",
    )
    fit.add_argument("--seed", type=int, default=0, help="which wells --share takes")
    apply = jobs.add_parser("apply", help="correct a table")
    apply.add_argument("correction", metavar="CORRECTION.npz", help="file of `protloc correct fit`")
    apply.add_argument("table", metavar="FEATURES", help="feature table made as the one fitted on")
    _add_controls(apply, required=False, more="plates or batches that are new are fitted on their own controls")
    apply.add_argument(
        "--refit",
        choices=("new", "all"),
        default="new",
        help="with --controls: fit new groups only (default), or all that this table has",
    )
    apply.add_argument("--out", required=True, metavar="FILE", help="table to write (.h5ad, .parquet)")
    score = jobs.add_parser("score", help="batches mixed against labels kept, before and after")
    score.add_argument("tables", nargs="+", metavar="[NAME=]FILE", help="feature tables of the same rows")
    score.add_argument("--batch", required=True, metavar="COLUMN", help="column of the batches")
    score.add_argument("--label", required=True, metavar="COLUMN", help="column of the biology")
    score.add_argument("--plate", default="plate", metavar="COLUMN", help="held out where a model tells batches")
    score.add_argument("--where", action="append", default=[], metavar="CONDITION", help="rows, e.g. role!=dmso")
    score.add_argument("--k", type=int, default=20, help="neighbours (default: 20)")
    score.add_argument("--out", metavar="FILE", help="write all numbers as JSON")


def _add_controls(parser: argparse.ArgumentParser, *, required: bool, more: str) -> None:
    parser.add_argument(
        "--controls",
        action="append",
        default=[],
        required=required,
        metavar="COLUMN=VALUE[,VALUE]",
        help=f"control rows: {more}; several conditions must all hold",
    )


def run(args: argparse.Namespace) -> int:
    """Do one job; returns the exit status."""
    return {"fit": _fit, "apply": _apply, "score": _score}[args.job](args)


def _fit(args: argparse.Namespace) -> int:
    from protloc_jax.eval.corrections import controls_of, fit, parse
    from protloc_jax.eval.features import read

    steps = parse(args.steps)
    if Path(args.out).suffix != ".npz":
        raise ValueError(f"--out {args.out}: a correction is written to a file that ends in .npz.")
    table = read(args.table)
    controls = controls_of(table.obs, args.controls)
    blocks = args.blocks if args.blocks == "auto" else _whole(args.blocks)
    correction = fit(
        steps, table, controls, blocks=blocks, share=args.share, seed=args.seed, words=" ".join(args.controls)
    )
    correction.save(args.out)
    about, number = correction.about, len(correction.chains)
    print(f"steps     {correction.text}")
    print(f"features  {correction.width}{f' in {number} blocks, each fitted by itself' if number > 1 else ''}")
    print(
        f"rows      {about['fitted_on_controls']:,} of {about['control_rows']:,} controls fitted on, "
        f"{about['rows']:,} in all"
    )
    for text in about["steps_fitted_on_all_rows"]:
        print(f"note: {text} is fitted on all rows, treated ones too: what it gives for them is transductive")
    _notes(correction.notes)
    print(f"wrote {args.out} (digest {correction.digest[:16]})")
    return 0


def _apply(args: argparse.Namespace) -> int:
    from protloc_jax.eval.corrections import FITTED_ON, controls_of, load
    from protloc_jax.eval.features import known_format, read

    known_format(args.out)
    correction, table = load(args.correction), read(args.table)
    controls = controls_of(table.obs, args.controls) if args.controls else None
    done = correction.apply(table, controls=controls, refit=args.refit)
    done.write(args.out)
    print(f"steps     {correction.text} (digest {correction.digest[:16]})")
    said = done.uns["correction_notes"][-1]
    for column, groups in said["fitted_here"].items():
        print(f"fitted here on this table's controls: {column} {', '.join(groups)}")
    _notes(said["notes"][len(correction.notes) :])
    print(
        f"{int(done.obs[FITTED_ON].sum()):,} of {len(done.obs):,} rows were fitted on ({FITTED_ON}): they do not score"
    )
    print(f"wrote {args.out}")
    return 0


def _score(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from protloc_jax.cli.scored_tables import read_tables
    from protloc_jax.data.manifest import capped
    from protloc_jax.eval.corrections.comparison import MEASURES, compare

    results = compare(
        read_tables(args.tables),
        batch=args.batch,
        label=args.label,
        plate=args.plate,
        k=args.k,
        where=tuple(args.where),
    )
    tag = "SYNTHETIC IMAGES. " if results["synthetic"] else ""
    left = results["rows_left_out_as_fitted_on"]
    table = Table(
        title=f"{tag}{results['rows']:,} rows, {results['batches']} batches ({args.batch}), {results['labels']} labels "
        f"({args.label}, {results['labelled_rows']:,} rows); {left:,} rows left out as fitted on",
        title_justify="left",
    )
    table.add_column("measure", no_wrap=True)
    for name in (*results["tables"], "by chance", "wanted"):
        table.add_column(name, justify="right")
    for key, (words, wanted) in MEASURES.items():
        own = [system[key] for system in results["tables"].values()]
        shown = ["-" if v is None else f"{v:.3f}" for v in (*(e["found"] for e in own), own[-1]["chance"])]
        table.add_row(words, *shown, wanted)
    Console(soft_wrap=True).print(table)
    alone = results["labels_in_one_batch"]
    if alone:
        print(
            f"note: {len(alone)} of {results['labels']} labels lie in one {args.batch} only: where they do, batches "
            f"cannot be mixed without mixing labels ({capped(alone)})"
        )
    if args.out:
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        Path(args.out).write_text(json.dumps(results, indent=1) + "\n")
        print(f"wrote {args.out}")
    return 0


def _whole(text: str) -> int:
    if not text.isdigit():
        raise ValueError(f"--blocks {text}: a whole number, or auto.")
    return int(text)


def _notes(notes: Any, most: int = 12) -> None:
    for note in notes[:most]:
        print(f"note: {note}", file=sys.stderr)
    if len(notes) > most:
        print(f"note: ... and {len(notes) - most} more", file=sys.stderr)
