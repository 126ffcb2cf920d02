"""`protloc moa`: mechanism of action of a screen's treatments by their nearest neighbours."""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protloc_jax.cli.scored_tables import named_files

if TYPE_CHECKING:
    from protloc_jax.eval.features import FeatureTable
    from protloc_jax.eval.moa.columns import Columns


def add_parser(subparsers) -> None:
    """Add the sub-command's options."""
    parser = subparsers.add_parser(
        "moa",
        help="mechanism of action of a compound screen: NSC, NSCB, retrieval",
        description="Score how well treatments find treatments of other compounds (NSC), and of other batches too "
        "(NSCB), that share their mechanism of action; and, as mean average precision, how well replicates stand out "
        "from untreated wells. Several tables are channels of one system, joined by id.",
    )
    parser.add_argument("tables", nargs="+", metavar="[NAME=]FILE", help="feature tables of the channels")
    parser.add_argument(
        "--aggregation",
        default="ws_dino",
        metavar="NAME|LEVELS",
        help="from images to treatments: ws_dino (default), wells, wells_median, median, mean, or levels such as "
        "'plate,treatment:mean > treatment:median'",
    )
    parser.add_argument(
        "--convention",
        default="ws_dino",
        metavar="NAME",
        help="a treatment on plates of several batches: ws_dino (all its wells, median batch; default), joined (all, a "
        "batch of its own), dose_series (without positive-control wells), per_batch (crossed designs: a treatment in "
        "each of its batches)",
    )
    parser.add_argument("--steps", default="", metavar="STEPS", help="correct each table first, e.g. 'whiten:0'")
    parser.add_argument(
        "--controls",
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="with --steps: rows it is fitted on, e.g. well_type=negative_control",
    )
    parser.add_argument(
        "--share", type=float, default=1.0, help="with --steps: share of each plate's control wells to fit on"
    )
    parser.add_argument(
        "--blocks", default="1", metavar="N|auto", help="with --steps: columns fitted apart (auto: one block a pass)"
    )
    parser.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="[NAME=]FILE,...",
        help="another system (its channels' tables), compared over compounds; corrected alike",
    )
    parser.add_argument("--records", metavar="DIR", help="images of the tables, for --baseline and the page's gallery")
    parser.add_argument("--baseline", action="store_true", help="also score intensity and nuclei counts of --records")
    parser.add_argument("--wells", action="store_true", help="also ask every well")
    parser.add_argument("--all-classes", action="store_true", help="also NSCB over all mechanisms")
    parser.add_argument("--no-map", action="store_true", help="leave mean average precision out")
    parser.add_argument("--doses", action="store_true", help="also distance from untreated wells over dose")
    parser.add_argument("--neighbours", metavar="FILE.csv", help="write every query's nearest reference treatments")
    parser.add_argument(
        "--ask",
        choices=("labelled", "unlabelled"),
        default="labelled",
        help="whose neighbours: treatments with a mechanism (default), or those without",
    )
    parser.add_argument("--k", type=int, default=5, help="neighbours a query")
    parser.add_argument(
        "--columns",
        default="",
        metavar="FIELD=COLUMN,...",
        help="other names of compound, concentration, moa, batch, plate, well, well_type",
    )
    parser.add_argument("--out", metavar="FILE.json", help="write all scores")
    parser.add_argument("--page", metavar="FILE.html", help="write a page with confusion matrix, gallery and doses")
    parser.add_argument("--seed", type=int, default=0, help="seed of bootstrap, null distributions and shares")
    parser.add_argument(
        "--set", action="append", default=[], metavar="key=value", dest="settings", help="e.g. --set null_size=100000"
    )


def run(args: argparse.Namespace) -> int:
    """Score; returns the exit status."""
    from protloc_jax.cli.tables import print_moa
    from protloc_jax.config import with_overrides
    from protloc_jax.data import read as records_file
    from protloc_jax.eval.moa.dose_response import dose_responses
    from protloc_jax.eval.moa.evaluation import MoaConfig, joined_tables
    from protloc_jax.eval.moa.measured import measured_table
    from protloc_jax.studies.moa_scores import moa_results

    if args.baseline and not args.records:
        raise ValueError("--baseline measures images; say where they are with --records DIR.")
    if bool(args.steps) != bool(args.controls):
        raise ValueError("--steps and --controls belong together: say what is done, and on which rows it is fitted.")
    config = MoaConfig(
        aggregation=args.aggregation,
        convention=args.convention,
        wells=args.wells,
        all_classes=args.all_classes,
        average_precision=not args.no_map,
        seed=args.seed,
    )
    config = with_overrides(config, args.settings)
    columns = _columns(args.columns)
    channels = {name: _corrected(_read(file), args) for name, file in named_files(args.tables).items()}
    others = {}
    for item in args.compare:
        name, sep, files = item.partition("=")
        files = (files if sep else item).split(",")
        name = name if sep else Path(files[0]).stem
        own = {str(i): _corrected(_read(file), args) for i, file in enumerate(files)}
        others[name] = joined_tables(own, columns=columns)
    measured = None
    if args.baseline:
        wanted = set(next(iter(channels.values())).obs["id"].astype(str))
        with records_file.open(args.records) as records:
            rows = [i for i, name in enumerate(records.manifest.ids) if name in wanted]
            if len(rows) < len(wanted):
                raise ValueError(f"{args.records} holds {len(rows)} of the table's {len(wanted)} images.")
            measured = measured_table(records, rows, columns=columns)
    whole, results = moa_results(channels, config, columns=columns, others=others, measured=measured)
    if args.doses:
        try:
            results["doses"] = dose_responses(whole, columns=columns, seed=args.seed)
        except ValueError as error:
            results["doses"] = {"not_scored": str(error)}
    found = _references(whole, config, columns, args) if args.neighbours or args.page else None
    if found is not None:
        results["neighbours"] = found.table()
    print_moa(results)
    if args.neighbours and found is not None:
        _write_csv(Path(args.neighbours), found.table())
        print(f"wrote {args.neighbours}")
    if args.out:
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        Path(args.out).write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
        print(f"wrote {args.out}")
    if args.page:
        print(f"wrote {_page(args, results, found, whole, columns)}")
    return 0


def _read(file: str) -> FeatureTable:
    from protloc_jax.eval.features import read

    return read(file)


def _corrected(table: FeatureTable, args: argparse.Namespace) -> FeatureTable:
    """The table after --steps, fitted on its own controls."""
    if not args.steps:
        return table
    from protloc_jax.eval import corrections

    controls = corrections.controls_of(table.obs, args.controls)
    if args.blocks != "auto" and not args.blocks.isdigit():
        raise ValueError(f"--blocks {args.blocks}: write a number, or auto.")
    made = corrections.fit(
        args.steps,
        table,
        controls,
        blocks="auto" if args.blocks == "auto" else int(args.blocks),
        share=args.share,
        seed=args.seed,
        words=", ".join(args.controls),
    )
    return made.apply(table)


def _columns(text: str) -> Columns:
    import dataclasses

    from protloc_jax.config import nearest
    from protloc_jax.eval.moa.columns import Columns

    fields = [f.name for f in dataclasses.fields(Columns) if f.name != "controls"]
    given, problems = {}, []
    for item in filter(None, (part.strip() for part in text.split(","))):
        field, sep, column = item.partition("=")
        if not sep or field not in fields:
            problems.append(f"'{item}': write FIELD=COLUMN, FIELD one of {', '.join(fields)}.{nearest(field, fields)}")
        given[field] = column
    if problems:
        raise ValueError("--columns " + " ".join(problems))
    return Columns(**given)


def _references(whole: FeatureTable, config: Any, columns: Columns, args: argparse.Namespace) -> Any:
    from protloc_jax.eval.moa import aggregate
    from protloc_jax.eval.moa.references import references
    from protloc_jax.eval.moa.treatments import treatments_of

    aggregation = aggregate.parse(config.aggregation)
    reference = treatments_of(whole, aggregation, convention=config.convention, columns=columns)
    queries = reference
    if args.ask == "unlabelled":
        queries = treatments_of(whole, aggregation, convention=config.convention, which="unlabelled", columns=columns)
    return references(queries, reference, k=args.k)


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]) if rows else ["query"], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _page(args: argparse.Namespace, results: Any, found: Any, whole: FeatureTable, columns: Columns) -> Path:
    from protloc_jax.data import read as records_file
    from protloc_jax.studies.moa_pictures import gallery, page

    picture = None
    if args.records:
        with records_file.open(args.records) as records:
            picture = gallery(found, whole, records, columns=columns)
    first = next(iter(results["systems"].values()))
    made = page(
        results,
        title="Mechanism of action",
        confusion=first["metrics"]["nsc"]["confusion"],
        doses=results.get("doses"),
        picture=picture,
        neighbours=results["neighbours"],
    )
    return made.write(args.page)
