"""`protloc data`: pack images into records, check them, and look at them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from protloc_jax import config as configs
from protloc_jax.cli import (
    cell_free,
    crops,
    join_parts,
    prepare,
    quality,
    sheet,
    simulate_knowledge,
    simulate_raw,
    split,
    split_de_novo,
    tfds,
)
from protloc_jax.cli.options import add_fields as _add_fields
from protloc_jax.cli.options import given as _given

# Jobs with files of their own.
JOBS = {
    "prepare": prepare,
    "join": join_parts,
    "crops": crops,
    "cell-free": cell_free,
    "split": split,
    "split-de-novo": split_de_novo,
    "qc": quality,
    "sheet": sheet,
    "tfds": tfds,
    "simulate-knowledge": simulate_knowledge,
}


def add_parser(subparsers: Any) -> None:
    """Add `data` and its own sub-commands."""
    from protloc_jax.datasets.folder_config import FolderConfig
    from protloc_jax.simulate import SimConfig

    parser = subparsers.add_parser("data", help="pack, verify and look at image records")
    parser.description = "Turn images into records (checked, sharded, with digests), verify records, look at them."
    jobs = parser.add_subparsers(dest="job", metavar="JOB", required=True)

    pack = jobs.add_parser("pack", help="write records from a data set")
    pack.description = (
        "Write records. Everything is checked before anything is written; when the command is interrupted, the same "
        "command goes on where it stopped."
    )
    kinds = pack.add_subparsers(dest="kind", metavar="DATASET", required=True)
    folder = kinds.add_parser(
        "folder",
        help="a folder of images, an OME-Zarr plate, or a CSV, TSV or Parquet table of paths",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_FOLDER_EXAMPLES,
    )
    folder.description = (
        "PNG, JPEG, TIFF, OME-TIFF, OME-Zarr and (with the extra bioio) vendor formats, 8 and 16 bit kept. Bad files "
        "and rows are all named at once."
    )
    folder.add_argument("path", nargs="?", default=None, help="the folder or table")
    folder.add_argument("--config", metavar="FILE", help="options of a saved folder.json; those given here win")
    _add_fields(folder, FolderConfig, skip=("path",))
    folder.add_argument("--check-only", action="store_true", help="check everything and write nothing")
    simulated = kinds.add_parser("simulated", help="simulated cells (no download)")
    _add_fields(simulated, SimConfig)
    alias = jobs.add_parser("simulate", help="simulated cells, as records or in the raw layout of the real data set")
    alias.add_argument("preset", help=configs.describe(SimConfig)[0][3])
    simulate_raw.add(alias)
    _add_fields(alias, SimConfig, skip=("preset",))
    for one in (folder, simulated, alias):
        one.add_argument("--out", metavar="DIR", help="folder for the records", required=one is not folder)
        one.add_argument("--workers", type=int, default=None, help="threads or processes (default: one a core)")
        one.add_argument("--shard-size", type=int, default=0, help="records a file (default: chosen)")
        one.add_argument("--restart", action="store_true", help="discard what DIR holds instead of going on")
        one.add_argument("--quiet", action="store_true", help="no progress bar")
        join_parts.add_option(one)

    verify = jobs.add_parser("verify", help="compare every byte of records with their digests")
    verify.description = "Exit status 0: every digest agrees; 1: damaged, with the shards and records named."
    verify.add_argument("records", nargs="+", metavar="DIR")
    verify.add_argument("--quiet", action="store_true", help="no progress bar")

    show = jobs.add_parser("show", help="counts, intensities and a contact sheet of records")
    show.add_argument("records", metavar="DIR")
    show.add_argument("--png", metavar="FILE", help="write a contact sheet: channels in false colour, and a composite")
    show.add_argument("--split", default=None, help="only this split in the contact sheet")
    show.add_argument("--rows", type=int, default=8, help="images in the contact sheet (default 8)")
    show.add_argument(
        "--stretch",
        choices=("dataset", "image"),
        default="dataset",
        help="contrast from the whole data set (comparable; default) or from each image (dim ones become visible)",
    )
    show.add_argument("--tile", type=int, default=160, help="size of one picture in pixels (default 160)")
    for job in JOBS.values():
        job.add(jobs)


def run(args: argparse.Namespace) -> int:
    """Do one job; returns the exit status."""
    if getattr(args, "out", None):
        from protloc_jax.data.local_path import local_folder

        args.out = local_folder(args.out)
    if not getattr(args, "part", None):
        return _run(args)
    from protloc_jax.data import parts

    if getattr(args, "layout", "records") == "raw":
        raise ValueError("--part is for records; a raw layout is written as a whole.")
    with parts.only(parts.parse(args.part)):
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    if args.job == "verify":
        return _verify(args)
    if args.job in JOBS:
        return JOBS[args.job].run(args)
    if args.job == "show":
        from protloc_jax.cli.show_records import show

        return show(args.records, png=args.png, split=args.split, rows=args.rows, tile=args.tile, stretch=args.stretch)
    if args.job == "pack" and args.kind == "folder":
        return _pack_folder(args)
    return _pack_simulated(args)


def _pack_folder(args: argparse.Namespace) -> int:
    from protloc_jax.datasets import folder
    from protloc_jax.datasets.folder_config import FolderConfig

    given = _given(args, FolderConfig)
    if args.config:
        saved = configs.load_file(args.config, FolderConfig)
        config = configs.from_mapping(FolderConfig, {**configs.to_dict(saved), **given})
    else:
        config = configs.from_mapping(FolderConfig, given)
    if not args.out and not args.check_only:
        raise ValueError("--out DIR is needed (or --check-only).")
    checked = folder.prepare(config, workers=args.workers, progress=not args.quiet)
    for note in checked.notes:
        print(f"note: {note}", file=sys.stderr)
    if args.check_only:
        print(f"{checked.manifest.n:,} images are fit to be packed.")
        return 0
    info = folder.pack(
        config,
        args.out,
        workers=args.workers,
        shard_size=args.shard_size,
        progress=not args.quiet,
        restart=args.restart,
        prepared=checked,
    )
    _finish(Path(args.out), "folder.json", config, info)
    return 0


def _pack_simulated(args: argparse.Namespace) -> int:
    from protloc_jax.datasets import simulated
    from protloc_jax.simulate import SimConfig

    config = configs.from_mapping(SimConfig, _given(args, SimConfig))
    if getattr(args, "layout", "records") == "raw":
        return simulate_raw.run(args, config)
    for note in simulated.notes_of(config):
        print(f"note: {note}", file=sys.stderr)
    info = simulated.pack(
        config,
        args.out,
        workers=args.workers,
        shard_size=args.shard_size,
        progress=not args.quiet,
        restart=args.restart,
    )
    _finish(Path(args.out), "simulated.json", config, info)
    return 0


def _finish(out: Path, name: str, config: Any, info: Any) -> None:
    (out / name).write_text(configs.to_json(config))
    shape = f"{info.height} x {info.width} x {len(info.channels)} {info.dtype}"
    held = sum(shard.n for shard in info.shards)
    print(f"{out}: {held:,} records of {shape}, {info.bytes / 2**20:.1f} MiB in {len(info.shards)} shard(s).")


def _verify(args: argparse.Namespace) -> int:
    from protloc_jax.data import records

    good = True
    for directory in args.records:
        report = records.verify(directory, progress=not args.quiet)
        for line in report.lines():
            print(f"{directory}: {line}")
        good = good and report.ok
    return 0 if good else 1


_FOLDER_EXAMPLES = """examples:
  a table with one multi-channel file a row, splits made by field of view:
    protloc data pack folder cells.csv --channels gfp:protein,rfp:cytosol --labels localization \\
        --split-by field --split-fractions .7,.1,.2 --out records/yeast
  one file a channel, named by a pattern:
    protloc data pack folder images/ --pattern '{plate}_{well}_{site}_{channel}.png' \\
        --channels nucleus,green:protein --out records/screen
  an OME-Zarr plate of z-stacks, splits made by well:
    protloc data pack folder plate.zarr --channels nucleus,green:protein --projection max \\
        --split-by well --out records/plate
  a table without paths; files are named by its columns:
    protloc data pack folder images.csv --pattern 'cells/{id}_{channel}.png' --channels red,green,blue --out records/hpa
  a Cell Painting plate as the gallery has it (FileName_/PathName_ or URL_ columns), what was in its wells, 0.65 um:
    protloc data pack folder s3://cellpainting-gallery/.../load_data.csv --channels dna,er,rna,agp,mito \\
        --fetch-from s3://cellpainting-gallery --anonymous --plate-map platemap/ --barcode barcode_platemap.csv \\
        --um-per-pixel 0.6 --target-um-per-pixel 0.65 --out records/jump
"""
