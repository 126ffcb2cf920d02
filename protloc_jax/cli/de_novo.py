"""`protloc de-novo`: how well perturbations are recognised in a cell line that pretraining never saw."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protloc_jax.cli.options import add_cell_lines

if TYPE_CHECKING:
    from protloc_jax.eval.de_novo.answers import Answers
    from protloc_jax.eval.features import FeatureTable

EXAMPLES = """\
examples:
  protloc de-novo tuned --weights runs/u2os --records data/rxrx1 --split-file u2os.parquet --out scores/tuned
  protloc de-novo frozen --features u2os.h5ad --split-file u2os.parquet --groups pathways.csv --out scores/frozen
"""
RULES = ("prototype", "nearest")


def add_parser(subparsers) -> None:
    """Add the sub-commands' options."""
    parser = subparsers.add_parser(
        "de-novo",
        help="perturbations in a new cell line: fine-tuned or frozen, top-1 and top-5, retrieval",
        description="Score how well perturbations (siRNAs, compounds) are recognised in a cell line that pretraining "
        "never saw, from a few images of each: by a run fine-tuned on them, or by frozen features. Intervals are over "
        "wells, whose images are never told apart.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    jobs = parser.add_subparsers(dest="job", metavar="JOB", required=True)
    tuned = jobs.add_parser("tuned", help="the classifier of a fine-tuned run on the test images")
    tuned.description = (
        "Top-1 and top-5 accuracy of the classifier that a run trained (method.name=supervised with "
        "method.label=perturbation), on the images of one part of a split."
    )
    tuned.add_argument("--weights", required=True, metavar="DIR", help="the run, or one of its checkpoints")
    tuned.add_argument("--records", required=True, metavar="DIR", help="records folder of the images")
    tuned.add_argument("--batch", type=int, default=64, help="images a batch")
    add_cell_lines(tuned)
    frozen = jobs.add_parser("frozen", help="frozen features: prototypes, nearest neighbour, retrieval")
    frozen.description = (
        "Without any training: each test image against the training images of every perturbation (to their mean, to "
        "the nearest), whether wells of one perturbation find each other across plates, and whether known relatives "
        "are among the most similar pairs."
    )
    frozen.add_argument("--features", required=True, metavar="FILE", help="feature table of `protloc embed`")
    frozen.add_argument("--not-centred", action="store_true", help="leave the mean of the training images in")
    frozen.add_argument("--null-size", type=int, default=1000, help="random rankings of a null distribution")
    for one in (tuned, frozen):
        one.add_argument(
            "--split-file", metavar="FILE", help="file of `protloc data split`; else the images' own parts"
        )
        one.add_argument("--split-name", default="", metavar="NAME", help="which split of the file")
        one.add_argument("--part", default="test", choices=("val", "test"), help="images that are asked about")
        one.add_argument("--column", default="perturbation", help="group column with the perturbation")
        one.add_argument("--group", default="well", help="group column whose images belong together (default: well)")
        one.add_argument("--groups", metavar="CSV", help="pathways: a row a perturbation, with its group")
        one.add_argument(
            "--group-column", default="group", metavar="COLUMN", help="column of --groups (default: group)"
        )
        one.add_argument("--seed", type=int, default=0, help="seed of the bootstrap and of null distributions")
        one.add_argument("--out", required=True, metavar="DIR", help="folder for scores.json and the queries")


def run(args: argparse.Namespace) -> int:
    """Score, print and write; returns the exit status."""
    from protloc_jax.xla_flags import append_cpu_flags

    append_cpu_flags()
    from protloc_jax.data.durable import write_whole
    from protloc_jax.eval.de_novo.score import read_groups

    groups = read_groups(args.groups, column=args.column, group_column=args.group_column) if args.groups else None
    results = (_tuned if args.job == "tuned" else _frozen)(args, groups)
    out = Path(args.out)
    write_whole(out / "scores.json", (json.dumps(results, indent=1, allow_nan=False) + "\n").encode())
    _print(results)
    print(f"wrote {out}: scores.json, {', '.join(results['queries'].values())}")
    return 0


def _tuned(args: argparse.Namespace, groups: dict[str, str] | None) -> dict[str, Any]:
    from protloc_jax.data.config import DataConfig
    from protloc_jax.data.loader import open_split
    from protloc_jax.devices import set_up_compilation_cache
    from protloc_jax.eval.de_novo.answers import answers_of
    from protloc_jax.eval.de_novo.score import scored
    from protloc_jax.eval.own_classifier import load_own, own_probabilities

    set_up_compilation_cache()
    own = load_own(args.weights)
    data = DataConfig(records=args.records, split_file=args.split_file or "", split_name=args.split_name)
    with open_split(data)[0] as records:
        rows = records.manifest.rows(args.part)
        found = own_probabilities(
            own, records, rows, batch=args.batch, cell_vectors=args.cell_vectors, cell_line=args.cell_line
        )
        obs = records.manifest.table.iloc[rows].reset_index(drop=True)
        source = records.info.synthetic
    answers = answers_of(obs, found.probabilities, found.label_names, column=args.column, group=args.group)
    return {
        "what": "the run's own classifier",
        "weights": str(args.weights),
        "weights_sha256": own.encoder.provenance["weights_sha256"],
        "part": args.part,
        "source": str(source),
        "classes": list(answers.classes),
        "tuned": scored(answers, groups, seed=args.seed),
        "queries": {"tuned": _written(answers, Path(args.out), "tuned")},
    }


def _frozen(args: argparse.Namespace, groups: dict[str, str] | None) -> dict[str, Any]:
    import numpy as np

    from protloc_jax.eval.de_novo.frozen import frozen_answers
    from protloc_jax.eval.de_novo.relations import recall_of_relations, replicates
    from protloc_jax.eval.de_novo.score import scored
    from protloc_jax.eval.features import SOURCE, read

    table = read(args.features)
    parts, apart = _parts(args, table)
    support, queries = np.flatnonzero(parts == "train"), np.flatnonzero(parts == args.part)
    problems = [f"no image is in the part '{n}'." for n, r in (("train", support), (args.part, queries)) if not len(r)]
    if problems:
        raise ValueError(" ".join(problems))
    results: dict[str, Any] = {
        "what": "frozen features",
        "features": str(args.features),
        "weights_sha256": str(table.uns.get("weights_sha256", "")),
        "part": args.part,
        "source": str(table.uns.get(SOURCE, "")),
        "centred": not args.not_centred,
        "queries": {},
    }
    for rule in RULES:
        answers = frozen_answers(
            table, support, queries, rule=rule, centre=not args.not_centred, column=args.column, group=args.group,
            shared="refuse" if apart else "note",
        )  # fmt: skip
        results["classes"] = list(answers.classes)
        results[rule] = scored(answers, groups, seed=args.seed)
        results["queries"][rule] = _written(answers, Path(args.out), rule)
    try:
        found = replicates(table, queries, column=args.column, null_size=args.null_size, seed=args.seed)
        results["replicates"] = found.as_dict(seed=args.seed)
    except ValueError as error:
        results["replicates"] = {"not_scored": str(error)}
    if groups is not None:
        results["relations"] = recall_of_relations(
            table, queries, groups, column=args.column, null=args.null_size, seed=args.seed
        )
    return results


def _parts(args: argparse.Namespace, table: FeatureTable) -> tuple[Any, bool]:
    """The part of each row of a table, of the split file or its own; and whether groups must stand in one part each: a
    split file that was made image by image says so."""
    import numpy as np

    from protloc_jax.data import split_file
    from protloc_jax.data.split_file import PARTS

    if not args.split_file:
        if "split" not in table.obs:
            raise ValueError(f"{args.features} has no column 'split'; give --split-file.")
        return table.obs["split"].astype(str).to_numpy(), True
    split = split_file.read(args.split_file)
    parts = split.parts[split.number(args.split_name), split.positions([str(i) for i in table.obs["id"]])]
    return np.array(PARTS)[parts], bool(split.config.by)


def _written(answers: Answers, out: Path, name: str) -> str:
    out.mkdir(parents=True, exist_ok=True)
    return answers.write(out / f"queries_{name}.csv").name


def _print(results: dict[str, Any]) -> None:
    if results["source"]:
        print(f"SYNTHETIC IMAGES ({results['source']})")
    for name in ("tuned", *RULES):
        if name not in results:
            continue
        one = results[name]
        print(
            f"{name:<10}{one['images']:,} images of {one['groups']:,} wells, {one['classes']:,} classes: "
            + ", ".join(f"top-{k} {_interval(one[f'top{k}'])} (chance {one[f'top{k}']['chance']:.4f})" for k in (1, 5))
        )
        for kind, own in one.get("by_kind", {}).items():
            both = f"top-1 {_interval(own['top1'])}, top-5 {_interval(own['top5'])}"
            print(f"          {kind}: {own['images']:,} images, {both}")
        inside = one.get("within_groups")
        if inside and inside["within"]:
            print(
                f"          of {inside['wrong']:,} wrong answers {_interval(inside['within'])} are of the same "
                f"pathway, by chance {inside['chance']:.3f}"
            )
        for note in one["notes"]:
            print(f"note      {note}")
    found = results.get("replicates", {})
    if "map" in found:
        print(
            f"replicates mean average precision {_interval(found['interval'])}, chance {found['chance']:.3f}; "
            f"{found['groups_retrieved']} of {found['of_groups']} perturbations retrieved ({found['retrieved_where']})"
        )
    elif found:
        print(f"replicates not scored: {found['not_scored']}")
    related = results.get("relations")
    if related and related["recall"] is not None:
        print(
            f"relations  recall {related['recall']:.3f} of {related['pairs']:,} known pairs, chance "
            f"{related['chance']:.3f}, p {related['p_value']:.3f}"
        )


def _interval(entry: dict[str, Any]) -> str:
    low, high = entry["low"], entry["high"]
    return f"{entry['estimate']:.4f}" + ("" if low is None else f" [{low:.4f}, {high:.4f}]")
