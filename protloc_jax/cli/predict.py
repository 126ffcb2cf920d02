"""`protloc predict`: classes of new images by saved heads, or by the classifier of a fine-tuned run."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protloc_jax.cli.options import add_embedding

if TYPE_CHECKING:
    from protloc_jax.eval.features import FeatureTable
    from protloc_jax.eval.head_file import Heads
    from protloc_jax.eval.predictions import Predictions


def add_parser(subparsers) -> None:
    """Add the sub-command's options."""
    parser = subparsers.add_parser(
        "predict",
        help="classes of new images by saved heads or a fine-tuned run",
        description="Predict the classes of new images: probabilities calibrated on validation rows, decided labels, "
        "and a flag for images that are unlike those trained on. With --head (a folder heads/NAME of `protloc "
        "classify`) images are embedded as its features were, by --weights, which must be the same; or --features is "
        "read. Without --head, --weights is a supervised run and its own classifier predicts. A killed run goes on "
        "where it stopped when the same command is given again. Labels are decided from the heads' own probabilities "
        "and cuts, as they were scored; calibration changes probabilities only.",
    )
    parser.add_argument("--head", metavar="DIR", help="heads saved by `protloc classify --out` (heads/NAME)")
    parser.add_argument("--weights", metavar="DIR", help="the head's backbone, or a supervised run")
    parser.add_argument("--records", metavar="DIR", help="records folder of the new images")
    parser.add_argument("--features", metavar="FILE", help="feature table of the new images, instead of records")
    parser.add_argument("--out", required=True, metavar="FILE", help="predictions to write, .parquet or .csv")
    parser.add_argument(
        "--by",
        metavar="COLUMN,...",
        help="also one row a group (well, or plate,well) in OUT.by-COLUMN: mean, share flagged",
    )
    parser.add_argument("--uncalibrated", action="store_true", help="the heads' own probabilities")
    parser.add_argument("--split", choices=("train", "val", "test"), help="only images of one split of the records")
    add_embedding(parser, listed_in="a table beside OUT")


def run(args: argparse.Namespace) -> int:
    """Predict; returns the exit status."""
    from protloc_jax.xla_flags import append_cpu_flags

    append_cpu_flags()
    from protloc_jax.devices import set_up_compilation_cache
    from protloc_jax.eval.head_file import load_heads
    from protloc_jax.eval.predictions import beside, known_format, wells_over_plates, write_table

    _check(args)
    out = known_format(args.out)
    columns = _columns(args)
    set_up_compilation_cache()
    if args.head:
        heads = load_heads(args.head)
        table = _table_of_features(args) if args.features else _embedded(args, heads)
        found, training = _by_heads(args, heads, table), heads.features
    else:
        table, found, training = _by_own_classifier(args)
    grouped = found.by(columns) if columns else None
    summary = _said(found, training, table)
    print(f"wrote     {found.write(out)}: {len(found.obs)} images")
    if grouped is not None:
        merged = wells_over_plates(found.obs, columns)
        if merged:
            print(f"note      {merged} groups hold wells of several plates; --by plate,{args.by} keeps them apart")
        print(f"wrote     {write_table(grouped, beside(out, columns), found.facts)}: {len(grouped)} groups")
    told = out.with_name(f"{out.stem}.json")
    told.write_text(json.dumps({**summary, **found.facts}, indent=1) + "\n")
    print(f"wrote     {told}")
    return 0


def _columns(args: argparse.Namespace) -> tuple[str, ...]:
    return tuple(name.strip() for name in args.by.split(",")) if args.by else ()


def _check(args: argparse.Namespace) -> None:
    problems = []
    if bool(args.records) == bool(args.features):
        problems.append("give the new images by --records or by --features, one of them.")
    if args.records and not args.weights:
        problems.append("--records: say by --weights which backbone embeds the images.")
    if args.features and not args.head:
        problems.append("--features: say by --head which heads predict.")
    if args.features and args.weights:
        problems.append("--weights is not needed with --features, which are embedded already.")
    if args.features and (args.cell_vectors or args.cell_line):
        problems.append("--cell-vectors and --cell-line are for images; --features are embedded already.")
    if args.features and args.split:
        problems.append("--split is of records; a feature table is predicted whole.")
    if args.uncalibrated and not args.head:
        problems.append("--uncalibrated is about heads: a run's own classifier is never calibrated.")
    if problems:
        raise ValueError("\n".join(problems))


def _table_of_features(args: argparse.Namespace) -> FeatureTable:
    from protloc_jax.eval.features import read

    return read(args.features)


def _embedded(args: argparse.Namespace, heads: Heads) -> FeatureTable:
    """New images as the heads' features were made."""
    from protloc_jax.data import read
    from protloc_jax.eval.head_encoder import encoder_for

    with read.open(args.records, tolerant=args.bad == "skip") as records:
        encoder = encoder_for(heads, args.weights, records.info.channel_set)
        told = heads.features
        return _embed(args, encoder, records, told["pooling"], told.get("windows", ""), told.get("combine", "mean"))


def _embed(
    args: argparse.Namespace, encoder: Any, records: Any, pooling: str, windows: str = "", combine: Any = "mean"
) -> FeatureTable:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from protloc_jax.eval.embed import embed, left_out, skipped_file
    from protloc_jax.eval.predictions import check_columns

    check_columns(_columns(args), ["id", "split", "labels", *records.manifest.group_columns])
    out = Path(args.out)
    features = out.with_name(f"{out.stem}.features.h5ad")
    rows = records.manifest.rows(args.split)
    columns = (TextColumn("embedding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("", total=len(rows))
        table = embed(
            encoder,
            records,
            features,
            rows=rows,
            pooling=pooling,
            windows=windows,
            combine=combine,
            cell_vectors=args.cell_vectors,
            cell_line=args.cell_line,
            batch=args.batch,
            part=args.part,
            bad=args.bad,
            max_bad=args.max_bad,
            progress=lambda done, _: bar.update(task, completed=done),
        )
    if "left_out" in table.uns:
        print(f"left out  {left_out(table.uns)}, listed in {skipped_file(features)}")
    print(f"wrote     {features}: other heads can predict from it (--features)")
    return table


def _by_heads(args: argparse.Namespace, heads: Heads, table: FeatureTable) -> Predictions:
    from protloc_jax.eval.calibration import kind_of
    from protloc_jax.eval.predictions import Predictions

    calibrated = not args.uncalibrated and heads.calibration is not None
    seeds, splits = len(heads.config.seeds), len(heads.split_names)
    found = heads.predict(table, calibrated=calibrated)
    how = f"calibrated ({kind_of(heads.config)[0]})" if calibrated else "not calibrated"
    print(f"heads     {args.head}: the mean of {seeds * splits} ({seeds} seeds x {splits} splits), {how}")
    left = heads.classes_left_uncalibrated if calibrated else ()
    if left:
        print(f"          as they are for want of validation images with and without them: {', '.join(left)}")
    if not calibrated and not args.uncalibrated:
        print(f"          probabilities are the heads' own: {heads.uncalibrated}")
    facts = {
        **_of_images(table),
        "head": str(args.head),
        "features_sha256": heads.features_digest,
        "seeds": list(heads.config.seeds),
        "splits": list(heads.split_names),
        "calibration": kind_of(heads.config)[0] if calibrated else "none",
        "classes_left_uncalibrated": list(left),
        "decision": heads.config.decision,
        "thresholds": dict(zip(heads.label_names, found.thresholds_shown.tolist(), strict=True)),
        "ood": "mean over splits of distance^2 / cut; flagged above 1" if heads.detector is not None else "none",
        "ood_quantile": heads.config.ood_quantile,
    }
    return Predictions(
        obs=table.obs,
        label_names=heads.label_names,
        probabilities=found.probabilities,
        own=found.own,
        thresholds=found.thresholds,
        kind="single" if heads.config.decision == "argmax" else "multi",
        ood_score=heads.ood_scores(table),
        facts=facts,
    )


def _by_own_classifier(args: argparse.Namespace) -> tuple[FeatureTable, Predictions, dict[str, Any]]:
    import numpy as np

    from protloc_jax.data import read
    from protloc_jax.eval.own_classifier import load_own
    from protloc_jax.eval.predictions import Predictions

    own = load_own(args.weights)
    training = {"data_channels": str(own.encoder.channels), "data_um_per_pixel": own.encoder.um_per_pixel}
    with read.open(args.records, tolerant=args.bad == "skip") as records:
        own = own.for_channels(records.info.channel_set)
        table = _embed(args, own.encoder, records, own.pooling)
    print(f"classifier of {args.weights}, {own.encoder.provenance['which']}: not calibrated, no images are flagged")
    probabilities, cut = own.of_features(table.x), np.full(len(own.label_names), 0.5)
    facts = {
        **_of_images(table),
        "classifier": str(args.weights),
        "weights_sha256": own.encoder.provenance["weights_sha256"],
        "calibration": "none",
        "decision": "argmax" if own.softmax else "half",
        "ood": "none",
    }
    found = Predictions(
        obs=table.obs,
        label_names=own.label_names,
        probabilities=probabilities,
        own=probabilities,
        thresholds=cut,
        kind="single" if own.softmax else "multi",
        facts=facts,
    )
    return table, found, training


def _of_images(table: FeatureTable) -> dict[str, Any]:
    return {key: table.uns[key] for key in ("data", "data_sha256", "data_source") if table.uns.get(key)}


def _said(found: Predictions, training: Any, table: FeatureTable) -> dict[str, Any]:
    """Print the summary, and return it."""
    from protloc_jax.eval.head_encoder import data_differences
    from protloc_jax.eval.predictions import TOO_MANY

    summary = {**found.summary(), "unlike_training": data_differences(dict(training), dict(table.uns))}
    if found.facts.get("data_source"):
        print(f"SYNTHETIC IMAGES ({found.facts['data_source']})")
    classes = ", ".join(f"{name} {number}" for name, number in summary["classes"].items())
    print(f"decided   {classes}; without a label {summary['without_label']}, of {summary['images']} images")
    for line in summary["unlike_training"]:
        print(f"differs   {line}")
    share = summary["ood_share"]
    if share is None:
        print("flagged   not known: nothing says what images were trained on")
    else:
        print(
            f"flagged   {summary['ood_images']} of {summary['images']} images ({share:.1%}) are unlike those trained on"
        )
    if share is not None and share > TOO_MANY:
        print(
            f"WARNING: {share:.0%} of the images are unlike those trained on; of images like them it would be about "
            f"{1 - found.facts['ood_quantile']:.0%}. Do not trust these predictions before you know why.",
            file=sys.stderr,
        )
    return summary
