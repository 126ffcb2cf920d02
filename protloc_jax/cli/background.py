"""`protloc background`: make images of cells on other backgrounds, and score any encoder's features of them."""

from __future__ import annotations

import argparse
from typing import Any

from protloc_jax.cli import background_proportions, background_score


def add_parser(subparsers: Any) -> None:
    """Add `background` and its own sub-commands."""
    parser = subparsers.add_parser("background", help="does an encoder see the cell, or its neighbours?")
    parser.description = (
        "Background robustness: `make` writes single cells on other backgrounds as records, any encoder embeds them "
        "(`protloc embed`, or another tool by --images), `score` measures what its features make of them. "
        "`proportions` compares shares of cells per class with and without background."
    )
    jobs = parser.add_subparsers(dest="job", metavar="JOB", required=True)
    _add_make(jobs)
    background_score.add(jobs)
    background_proportions.add(jobs)


def _add_make(jobs: Any) -> None:
    parser = jobs.add_parser(
        "make",
        help="write the images of every condition as records",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_settings(),
    )
    parser.description = (
        "From records of single-cell crops with masks, write the images of every background condition as one folder "
        "of records. Every draw is pure by seed; the same command goes on after a kill."
    )
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings of the sets, listed below")
    parser.add_argument("--data", required=True, metavar="RECORDS", help="single-cell crops with masks")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the records")
    parser.add_argument("--patches", metavar="RECORDS", help="patches without cells, of the crops' size and columns")
    parser.add_argument("--class", dest="class_column", default="labels", metavar="COLUMN", help="default: the label")
    parser.add_argument(
        "--protein", dest="protein_column", default="protein", metavar="COLUMN", help="default: protein"
    )
    parser.add_argument("--classes", default="", metavar="A,B,...", help="only these classes")
    parser.add_argument(
        "--conditions", default="", metavar="A,B,...", help="only these (default: all that can be made)"
    )
    parser.add_argument("--split", choices=("train", "val", "test"), help="only crops of one split (default: all)")
    parser.add_argument("--split-file", metavar="FILE", help="the split of a file of `protloc data split`")
    parser.add_argument("--split-name", default="", metavar="NAME", help="which of the file's splits")
    parser.add_argument(
        "--mixes",
        type=int,
        metavar="N",
        help="instead of the conditions: baseline images, and N mixes of cells of two classes in known shares, crossed "
        "and pasted on themselves",
    )
    parser.add_argument("--mix-cells", type=int, metavar="N", help="cells a mix (default: 100)")
    parser.add_argument("--grid", default="64x8", metavar="NxK", help="grid of N cells on K backgrounds (64x8)")
    parser.add_argument("--channel", default="", help="channel of the intensity filter (default: the protein's)")
    parser.add_argument("--floor", type=float, metavar="VALUE", help="drop crops whose mean is lower")
    parser.add_argument(
        "--fields", metavar="RECORDS", help="full fields; the floor is a percentile of their pixels (published)"
    )
    parser.add_argument("--percentile", type=float, default=5.0, help="of --fields (published: 5)")
    parser.add_argument("--per", choices=("pixel", "image"), default="pixel", help="distribution of --fields")
    parser.add_argument("--min-coverage", type=float, default=0.05, metavar="SHARE", help="least share of the cell")
    parser.add_argument("--max-coverage", type=float, default=0.95, metavar="SHARE", help="largest share of the cell")
    parser.add_argument(
        "--spill",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="raise all images of a channel by one constant until no more than this share of pixel values falls below "
        "0, where they are clipped (default: 1, nothing is raised)",
    )
    parser.add_argument(
        "--images", metavar="FOLDER", help="also write TIFFs (channels x height x width) and images.csv"
    )
    parser.add_argument("--check-only", action="store_true", help="draw and count everything, write nothing")
    parser.add_argument("--workers", type=int, default=None, help="encoding threads (default: one a core)")
    parser.add_argument("--shard-size", type=int, default=0, help="records a file (default: chosen)")
    parser.add_argument("--restart", action="store_true", help="discard what DIR holds instead of going on")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Do one job; returns the exit status."""
    jobs = {"make": _make, "score": background_score.run, "proportions": background_proportions.run}
    return jobs[args.job](args)


def _make(args: argparse.Namespace) -> int:
    from contextlib import ExitStack

    from protloc_jax.config import with_overrides
    from protloc_jax.data import read as records_file
    from protloc_jax.data.local_path import local_folder
    from protloc_jax.data.packing_progress import Progress
    from protloc_jax.devices import set_up_compilation_cache
    from protloc_jax.eval.background import made
    from protloc_jax.eval.background.cells import CellsConfig, channel_of
    from protloc_jax.eval.background.crop_filters import intensity_floor
    from protloc_jax.eval.background.image_files import write_images
    from protloc_jax.eval.background.mix_sets import MixPlan

    sets = with_overrides(made.COMPARABLE, args.settings)
    grid = _grid(args.grid)
    if args.split_file and not args.split:
        raise ValueError("--split-file needs --split: which part of it.")
    if args.split_name and not args.split_file:
        raise ValueError(f"--split-name {args.split_name}: needs --split-file.")
    if args.floor is not None and args.fields:
        raise ValueError("--floor and --fields both say what is too dim; give one of them.")
    if args.mix_cells is not None and args.mixes is None:
        raise ValueError("--mix-cells goes with --mixes N.")
    mixes = None if args.mixes is None else MixPlan(args.mixes, 100 if args.mix_cells is None else args.mix_cells)
    out = local_folder(args.out)
    set_up_compilation_cache()
    with ExitStack() as stack:
        records = stack.enter_context(records_file.open(args.data))
        patches = stack.enter_context(records_file.open(args.patches)) if args.patches else None
        floor = args.floor or 0.0
        if args.fields:
            fields = stack.enter_context(records_file.open(args.fields))
            channel = channel_of(fields, args.channel or records.info.channel_set.names[channel_of(records, "")])
            planes = (fields.read(row)[..., channel] for row in range(fields.n))
            floor = intensity_floor(planes, percentile=args.percentile, per=args.per)
        cells = CellsConfig(
            class_column=args.class_column,
            protein_column=args.protein_column,
            classes=_words(args.classes),
            channel=args.channel,
            floor=floor,
            min_coverage=args.min_coverage,
            max_coverage=args.max_coverage,
        )
        rows, rows_are = _rows(records, args)
        prepared = made.prepare_made(
            records,
            sets,
            cells,
            patches=patches,
            rows=rows,
            rows_are=rows_are,
            conditions=_words(args.conditions),
            grid=grid,
            spill=args.spill,
            mixes=mixes,
        )
        _say(prepared, floor_given=args.floor is not None or bool(args.fields), floor=floor)
        if args.check_only:
            return 0
        info, clipped = made.write_made(
            prepared,
            out,
            workers=args.workers,
            shard_size=args.shard_size,
            progress=not args.quiet,
            restart=args.restart,
        )
    share = (clipped.below + clipped.above) / clipped.of
    print(
        f"clipped   {clipped.below:,} values below 0 and {clipped.above:,} above the range, "
        f"of {clipped.of:,} ({share:.2%})"
    )
    if share > 0.01 and sets.units == "pooled":
        print("          --spill 0.001 raises the images, so that dark pixels are kept")
    print(f"wrote     {out}: {info.n:,} images, {info.bytes / 2**20:.1f} MiB in {len(info.shards)} shard(s)")
    if args.images:
        with records_file.open(out) as records, Progress(not args.quiet, "TIFFs", 0, info.n) as bar:
            table = write_images(records, args.images, progress=lambda done, _: bar.advance(1))
        print(f"wrote     {table}")
    return 0


def _rows(records: Any, args: argparse.Namespace) -> tuple[Any, str]:
    """Row numbers (None: all), and in words which."""
    if not args.split:
        return None, "all"
    if not args.split_file:
        return records.manifest.rows(args.split), f"split {args.split}"
    from protloc_jax.data import split_file

    found = split_file.read(args.split_file)
    words = f"{args.split} of {args.split_file} (digest {found.digest[:16]})"
    import numpy as np

    part = found.applied(records.manifest, args.split_name).table["split"].to_numpy()
    rows = np.flatnonzero(part == args.split)
    if not len(rows):
        raise ValueError(f"{words}: no rows.")
    return rows, words


def _say(prepared: Any, *, floor_given: bool, floor: float) -> None:
    """What was taken, what was left out and why, and how images will be made."""
    from collections import Counter

    from protloc_jax.eval.background.cells import counted

    taken, config = prepared.taken, prepared.config
    about = prepared.about
    tag = "SYNTHETIC IMAGES. " if prepared.simulated else ""
    proteins = len(set(taken.cells.proteins.tolist()))
    print(
        f"cells     {tag}{len(taken.cells.ids):,} crops of {proteins} proteins, {len(taken.classes)} classes "
        f"({about['records']}, {about['rows']}, digest {about['records_sha256'][:16]})"
    )
    if taken.left_out:
        print(f"          {counted(taken.left_out)}")
    for name, crops in taken.lonely.items():
        print(f"          class '{name}' has fewer than two proteins ({crops} crops)")
    print(f"floor     {floor:g}" if floor_given else "floor     none: no crop is too dim (--fields or --floor)")
    if prepared.ready.patches is not None:
        print(f"patches   {len(prepared.ready.patches.ids):,}. {counted(prepared.patches_left)}")
    print(f"sets      seed {config.seed}, standardise {config.standardise}, units {config.units}; {_groups(config)}")
    if any(about["raised_by"]):
        print(f"raised    by {', '.join(f'{lift:.1f}' for lift in about['raised_by'])} (channels in order)")
    sizes = Counter()
    for part in prepared.planned.parts:
        sizes[part.condition.name] += len(part.numbers)
    for name, n in sizes.items():
        print(f"  {name:<16}{n:>10,} images")
    for name, why in prepared.planned.left_out.items():
        print(f"  {name:<16}  left out: {why}")


def _groups(config: Any) -> str:
    if config.groups == 1:
        return "donors from all proteins (one group: folds by protein share donor crops)"
    return f"donors from the cell's own of {config.groups} groups of proteins"


def _grid(text: str) -> tuple[int, int]:
    cells, _, backgrounds = text.partition("x")
    if not (cells.isdigit() and backgrounds.isdigit()):
        raise ValueError(f"--grid {text}: write cells x backgrounds, for example 64x8.")
    return int(cells), int(backgrounds)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _settings() -> str:
    from protloc_jax.config import describe
    from protloc_jax.eval.background.made import COMPARABLE

    lines = ["settings (of which standardise=all, units=pooled, groups=0 differ from the published ones):"]
    for key, _, _, text in describe(type(COMPARABLE)):
        lines.append(f"  {key}={getattr(COMPARABLE, key)}\n      {text}")
    lines += [
        "",
        "Published: standardise=pasted groups=1 (with units=pooled here: standardised pixels fit no integer image).",
        "Baseline and masked then keep their raw intensities, so only classifiers fitted within a condition compare.",
    ]
    return "\n".join(lines)
