"""`protloc data join`: the parts that several tasks packed (--part) become one set of records."""

from __future__ import annotations

import argparse
from typing import Any

EXAMPLE = """example, a Slurm array of eight tasks and what makes one set of their parts:
  sbatch --array=1-8 --wrap 'protloc data pack folder cells.csv --channels gfp:protein,dna \\
      --part $SLURM_ARRAY_TASK_ID/8 --out parts/$SLURM_ARRAY_TASK_ID'
  protloc data join parts/* --out records/cells
"""


def add(jobs: Any) -> None:
    """Add the sub-command."""
    parser = jobs.add_parser(
        "join",
        help="one set of records of the parts that several tasks packed (--part)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EXAMPLE,
    )
    parser.description = (
        "Manifest, order, bytes and digests are those that one task would have written. Shards are linked where the "
        "file system can, else copied; the parts may be deleted afterwards."
    )
    parser.add_argument("parts", nargs="+", metavar="PART", help="the folders of all parts, in any order")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder for the records")
    parser.add_argument("--restart", action="store_true", help="discard what DIR holds")


def add_option(parser: Any) -> None:
    """Add --part to a command that packs."""
    parser.add_argument(
        "--part", metavar="I/N", help="write only the I-th of N parts (array jobs); `protloc data join` makes one set"
    )


def run(args: argparse.Namespace) -> int:
    """Join; returns the exit status."""
    from protloc_jax.data import parts

    info = parts.join(args.parts, args.out, restart=args.restart)
    size = f"{info.bytes / 2**20:.1f} MiB in {len(info.shards)} shard(s)"
    print(f"{args.out}: {info.n:,} records, {size}, of {len(args.parts)} part(s).")
    return 0
