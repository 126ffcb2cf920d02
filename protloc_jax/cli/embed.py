"""`protloc embed`: a feature table of records, by a trained backbone."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from protloc_jax.channels import ChannelSet
    from protloc_jax.model.encoder import Encoder


def add_parser(subparsers) -> None:
    """Add the sub-command's options."""
    parser = subparsers.add_parser(
        "embed",
        help="turn images into a feature table with a trained backbone",
        description="Encode every image of a records folder and write one feature table (AnnData or Parquet). A "
        "killed run goes on where it stopped when the same command is given again.",
    )
    parser.add_argument("--weights", required=True, metavar="DIR", help="run directory, or one of its checkpoints")
    parser.add_argument("--records", required=True, metavar="DIR", help="records folder made by `protloc data pack`")
    parser.add_argument("--out", required=True, metavar="FILE", help="feature table to write, .h5ad or .parquet")
    parser.add_argument(
        "--which",
        choices=("auto", "teacher", "params"),
        default="auto",
        help="teacher, or student (params); auto (default): the teacher, or params of a run without one",
    )
    parser.add_argument("--untrained", action="store_true", help="the same backbone as it was before training")
    parser.add_argument("--split", choices=("train", "val", "test"), help="only images of one split")
    parser.add_argument("--pooling", choices=("cls", "mean", "cls+mean"), default="cls", help="what a feature is")
    parser.add_argument(
        "--plan",
        choices=("natural", "replicate", "per-channel"),
        default="natural",
        help="how the images' channels reach the model: each in the slot of its name or role (default); one pass a "
        "channel, repeated into every slot (RGB weights); one pass a channel, alone in its slot. Passes "
        "stand side by side",
    )
    parser.add_argument("--size", type=int, default=0, metavar="PX", help="side images are brought to (0: as trained)")
    parser.add_argument("--batch", type=int, default=64, help="images a batch")
    parser.add_argument(
        "--bad",
        choices=("stop", "skip"),
        default="stop",
        help="damaged records: stop (default), or leave them out and list them in OUT.skipped.csv",
    )
    parser.add_argument(
        "--max-bad", type=float, default=0.001, metavar="SHARE", help="largest share of images that --bad skip may skip"
    )
    parser.add_argument("--part", type=int, default=4096, help="images between saved parts")


def run(args: argparse.Namespace) -> int:
    """Embed; returns the exit status."""
    from protloc_jax.xla_flags import append_cpu_flags

    append_cpu_flags()
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from protloc_jax.data import read
    from protloc_jax.devices import set_up_compilation_cache
    from protloc_jax.eval.embed import embed, skipped_file
    from protloc_jax.eval.load import load, untrained

    set_up_compilation_cache()
    if args.untrained:
        encoder = untrained(args.weights, size=args.size)
    else:
        encoder = load(args.weights, which=args.which, size=args.size)
    with read.open(args.records, tolerant=args.bad == "skip") as records:
        encoder = _planned(encoder, records.info.channel_set, args.plan)
        rows = records.manifest.rows(args.split)
        print(f"weights   {encoder.provenance['weights']}, {encoder.provenance['which']} ({encoder.channels})")
        print(f"images    {len(rows)} of {records.info.name}, channel plan: {encoder.provenance['channel_plan']}")
        columns = (TextColumn("embedding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns) as bar:
            task = bar.add_task("", total=len(rows))
            table = embed(
                encoder,
                records,
                args.out,
                rows=rows,
                pooling=args.pooling,
                batch=args.batch,
                part=args.part,
                bad=args.bad,
                max_bad=args.max_bad,
                progress=lambda done, _: bar.update(task, completed=done),
            )
    if "left_out" in table.uns:
        print(f"left out  {table.uns['left_out']} damaged images, listed in {skipped_file(args.out)}")
    print(f"wrote     {args.out}: {table.x.shape[0]} images x {table.x.shape[1]} features")
    return 0


def _planned(encoder: Encoder, channels: ChannelSet, plan: str) -> Encoder:
    """The encoder reading images of `channels` by the plan of that name."""
    from protloc_jax.channels import per_channel, replicate

    if plan == "natural":
        return encoder.for_channels(channels)
    if plan == "replicate":
        return encoder.with_plan(replicate(encoder.config.channels, channels), channels)
    return encoder.with_plan(per_channel(encoder.channels, channels), channels)
