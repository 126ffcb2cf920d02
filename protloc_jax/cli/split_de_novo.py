"""`protloc data split-de-novo`: splits of a perturbation screen for a cell line that pretraining never saw."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from protloc_jax.cli.options import add_fields, given

EXAMPLES = """examples:
  pretraining without U2OS (EMPTY wells and U2OS are unused):
    protloc data split-de-novo records/rxrx1 --task pretrain --line U2OS --out splits/pretrain.parquet
  one-shot on U2OS by whole wells; and as published, by image (test images share wells with training images):
    protloc data split-de-novo records/rxrx1 --line U2OS --shots 1 --seeds 42,229,1234,2025,114514 --out wells.parquet
    protloc data split-de-novo records/rxrx1 --line U2OS --group image --shots 1 --out images.parquet
  training and test from different experiments:
    protloc data split-de-novo records/rxrx1 --line U2OS --group batch --shots 1,2 --out batches.parquet
  few-shot on VERO, 5 images of each treatment train and 2 validate:
    protloc data split-de-novo records/rxrx19a --line VERO --group image --shots 5 --val-shots 2 --out vero.parquet
  RxRx1 of WILDS, its 1,139 classes with EMPTY; splits "ood" and "id":
    protloc data split-de-novo records/rxrx1 --task wilds --empty class --out wilds.parquet
then: protloc pretrain ... data.split_file=FILE, protloc evaluate ... --split-file FILE --split-name NAME
"""


def add(jobs: Any) -> None:
    """Add the sub-command."""
    from protloc_jax.data.de_novo_config import DeNovoConfig

    parser = jobs.add_parser(
        "split-de-novo",
        help="splits of a perturbation screen for a cell line that pretraining never saw",
        description="Write a split file of a screen (columns perturbation, cell_line, batch, well, well_type, as `data "
        "prepare rxrx1` makes them), and print what its parts hold and share.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("records", metavar="RECORDS", help="folder of records, or a manifest (.parquet)")
    parser.add_argument("--out", metavar="FILE.parquet", required=True, help="split file to write")
    add_fields(parser, DeNovoConfig)


def run(args: argparse.Namespace) -> int:
    """Make the splits, print the report, write the file; returns the exit status."""
    from protloc_jax.config import from_mapping
    from protloc_jax.data import de_novo_report
    from protloc_jax.data import info as info_file
    from protloc_jax.data import manifest as manifests
    from protloc_jax.data.de_novo_config import DeNovoConfig
    from protloc_jax.data.de_novo_splits import de_novo_splits

    config = from_mapping(DeNovoConfig, given(args, DeNovoConfig))
    path = Path(args.records)
    manifest = manifests.read(path / info_file.MANIFEST_FILE if path.is_dir() else path)
    found = de_novo_splits(manifest, config, about={"data": path.name})
    found.write(args.out)
    print("\n".join(de_novo_report.lines(found)))
    print(f"wrote {args.out} (digest {found.digest[:16]}, manifest {found.manifest_digest[:16]})")
    return 0
