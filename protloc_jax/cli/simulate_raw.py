"""`protloc data simulate PRESET --layout raw`: simulated cells as the files of the real data set."""

from __future__ import annotations

import argparse
from typing import Any


def add(parser: Any) -> None:
    """Add the options of the layout to the parser of `protloc data simulate`."""
    parser.add_argument(
        "--layout",
        choices=("records", "raw"),
        default="records",
        help="records to train on (default), or the files and tables of the real data set that the preset stands for",
    )
    parser.add_argument(
        "--truth-masks", action="store_true", help="with --layout raw: label images of nuclei and cells as well"
    )


def run(args: argparse.Namespace, config: Any) -> int:
    """Write the raw layout; returns the exit status."""
    from protloc_jax.datasets.raw_writer import TRUTH_FILE, write_raw

    refused = [name for name, given in (("--shard-size", args.shard_size), ("--restart", args.restart)) if given]
    if refused:
        raise ValueError(f"{', '.join(refused)}: only with --layout records.")
    done = write_raw(config, args.out, truth_masks=args.truth_masks, workers=args.workers, progress=not args.quiet)
    kept = f" ({done.kept:,} were there)" if done.kept else ""
    print(
        f"{args.out}: {done.images:,} synthetic images in {done.files:,} files{kept}, with {', '.join(done.tables)}; "
        f"the truth is in {TRUTH_FILE}."
    )
    return 0
