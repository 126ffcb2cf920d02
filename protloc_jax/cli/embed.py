"""`protloc embed`: a feature table of records, by a trained backbone."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Literal

from protloc_jax.cli.options import add_embedding

if TYPE_CHECKING:
    import numpy as np

    from protloc_jax.data.manifest import Manifest


def add_parser(subparsers) -> None:
    """Add the sub-command's options."""
    parser = subparsers.add_parser(
        "embed",
        help="turn images into a feature table with a trained backbone",
        description="Encode every image of a records folder and write one feature table (AnnData or Parquet). A "
        "killed run goes on where it stopped when the same command is given again.",
    )
    parser.add_argument(
        "--weights",
        required=True,
        metavar="DIR",
        help="run directory, or one of its checkpoints; DIR@sha256:DIGEST pins it",
    )
    parser.add_argument("--records", required=True, metavar="DIR", help="records folder made by `protloc data pack`")
    parser.add_argument("--out", metavar="FILE", help="feature table to write, .h5ad or .parquet")
    parser.add_argument(
        "--which",
        choices=("auto", "teacher", "params"),
        default="auto",
        help="teacher, or student (params); auto (default): the teacher, or params of a run without one",
    )
    parser.add_argument("--untrained", action="store_true", help="the same backbone as it was before training")
    parser.add_argument("--split", choices=("train", "val", "test"), help="only images of one split")
    parser.add_argument(
        "--split-file",
        metavar="FILE",
        help="only images that some split of this file uses (of `protloc data split`, split-de-novo, ...)",
    )
    parser.add_argument(
        "--pooling",
        choices=("cls", "mean", "cls+mean", "centre", "cls+centre"),
        default="cls",
        help="what a feature is: the class token, the mean patch token, that weighted by how much of each patch the "
        "cell covers (centre; records need masks), or two of them side by side",
    )
    _add_cells(parser)
    parser.add_argument(
        "--plan",
        default="natural",
        metavar="PLAN",
        help="how the images' channels reach the model's slots: natural (by name or role; default), natural+copy "
        "(the rest filled in turn), per-channel and replicate (one pass a channel, alone in its slot or in all), "
        "colour (RGB weights: g protein, b nucleus), permuted:SEED, slots:r=,g=gfp,b=nucleus, "
        "passes:gfp,0,0,0;0,0,nucleus,0. 'list' shows all that apply, with the width of their features, and stops",
    )
    parser.add_argument(
        "--size",
        type=_size,
        default=0,
        metavar="PX|native",
        help="side images are brought to (0: as trained; native: as they are, neither resized nor cropped)",
    )
    parser.add_argument(
        "--windows",
        default="",
        metavar="WINDOWS",
        help="encode fixed windows of every image at native size instead of the whole: ws_dino (the four crops of "
        "WS-DINO's evaluation, scaled from 512 x 640), grid:RxC (equal windows without overlap), or "
        "y0:y1,x0:x1;y0:y1,x0:x1;... in pixels",
    )
    parser.add_argument(
        "--combine",
        choices=("mean", "median", "lower-median"),
        help="how the windows' features become the image's (default: mean; WS-DINO takes lower-median, as torch.median "
        "does: of an even number the lower of the two middle values)",
    )
    add_embedding(parser, listed_in="OUT.skipped.csv")


def _add_cells(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--attend",
        choices=("all", "cell"),
        default="all",
        help="cell: in every block only patches of the cell's mask may be attended to (and the class token and "
        "registers); records need masks",
    )
    parser.add_argument(
        "--attend-min-share",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="with --attend cell: patches of which the cell covers no more than this are hidden (0: any pixel counts)",
    )
    parser.add_argument(
        "--input",
        choices=("whole", "masked", "masked:0", "masked:median"),
        default="whole",
        help="masked: pixels outside of the cell, other cells too, are 0 (masked:median: the image's median of pixels "
        "without cells) before the image is normalised; records need masks",
    )


def run(args: argparse.Namespace) -> int:
    """Embed; returns the exit status."""
    from protloc_jax.xla_flags import append_cpu_flags

    append_cpu_flags()
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from protloc_jax.channel_plans import plan_lines, shown, unused
    from protloc_jax.data import read
    from protloc_jax.devices import set_up_compilation_cache
    from protloc_jax.eval.embed import embed, left_out, skipped_file
    from protloc_jax.eval.load import load, untrained
    from protloc_jax.eval.planned import planned, plans_of
    from protloc_jax.eval.windows import windows_of

    if args.plan != "list" and not args.out:
        raise ValueError("--out FILE: say which feature table to write, .h5ad or .parquet.")
    size = _size_of(args)
    set_up_compilation_cache()
    if args.untrained:
        encoder = untrained(args.weights, size=size)
    else:
        encoder = load(args.weights, which=args.which, size=size)
    with read.open(args.records, tolerant=args.bad == "skip") as records:
        channels = records.info.channel_set
        if args.plan == "list":
            print(f"weights   {encoder.provenance['weights']} ({encoder.channels})\nimages    {channels}")
            print("\n".join(plan_lines(plans_of(encoder.config, encoder.slots, channels), encoder.dim)))
            return 0
        encoder = planned(encoder, channels, args.plan)
        encoder = encoder.for_cells(attend=args.attend, min_share=args.attend_min_share, input=args.input)
        rows = _rows(args, records.manifest)
        print(f"weights   {encoder.provenance['weights']}, {encoder.provenance['which']} ({encoder.channels})")
        if "weights_sha256" in encoder.provenance:
            print(f"digest    sha256:{encoder.provenance['weights_sha256']}")
        print(f"images    {len(rows)} of {records.info.name}, channel plan: {encoder.provenance['channel_plan']}")
        if encoder.plan is not None:
            passes, left = len(encoder.plan.passes), unused(encoder.plan, channels)
            print(f"passes    {shown(encoder.plan)}: {encoder.dim} = {passes} x {encoder.config.shape.dim} numbers")
            if left:
                print(f"not used  {', '.join(left)}")
        elif encoder.config.stem == "channels":
            print(f"tokens    of {len(encoder.channels)} channels: {encoder.channels}")
        if encoder.config.cell_tokens:
            print(f"lines     {encoder.config.cell_tokens} cell token(s) of vectors of width {encoder.config.cell_dim}")
        elif args.cell_vectors:
            print(f"lines     {args.cell_vectors} is not looked at: the weights have no cell tokens")
        for key, value in encoder.cells.facts(encoder.config).items():
            print(f"cells     {key.replace('_', ' ')}: {value}")
        if args.windows:
            boxes = windows_of(args.windows, (records.info.height, records.info.width), encoder.config.patch)
            places = "; ".join(box.text for box in boxes)
            print(f"windows   {len(boxes)} of {records.info.height} x {records.info.width}: {places}")
            print(f"combined  {args.combine or 'mean'}")
        columns = (TextColumn("embedding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns) as bar:
            task = bar.add_task("", total=len(rows))
            table = embed(
                encoder,
                records,
                args.out,
                rows=rows,
                pooling=args.pooling,
                windows=args.windows,
                combine=args.combine or "mean",
                cell_vectors=args.cell_vectors,
                cell_line=args.cell_line,
                batch=args.batch,
                part=args.part,
                bad=args.bad,
                max_bad=args.max_bad,
                progress=lambda done, _: bar.update(task, completed=done),
            )
    if "left_out" in table.uns:
        print(f"left out  {left_out(table.uns)}, listed in {skipped_file(args.out)}")
    print(f"wrote     {args.out}: {table.x.shape[0]} images x {table.x.shape[1]} features")
    return 0


def _rows(args: argparse.Namespace, manifest: Manifest) -> np.ndarray:
    """Numbers of the images that are asked for."""
    if not args.split_file:
        return manifest.rows(args.split)
    if args.split:
        raise ValueError("--split and --split-file: the parts of a file are not those of the records; use one of them.")
    from protloc_jax.data import split_file

    return split_file.read(args.split_file).used(manifest)


def _size_of(args: argparse.Namespace) -> int | Literal["native"]:
    """The side that images are brought to; windows are parts of images as they are."""
    if args.combine and not args.windows:
        raise ValueError("--combine says how windows become one feature; give --windows as well.")
    if args.windows and args.size not in (0, "native"):
        raise ValueError(f"--size {args.size}: windows are parts of images at native size; leave --size out.")
    return "native" if args.windows else args.size


def _size(text: str) -> int | Literal["native"]:
    """A side in pixels, or the word for images as they are."""
    return "native" if text == "native" else int(text)
