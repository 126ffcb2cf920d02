"""`protloc data tfds`: a data set in the files of tensorflow-datasets."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protloc_jax import config as configs

if TYPE_CHECKING:
    from protloc_jax.datasets.image_set import ImageSet


def add(jobs: Any) -> None:
    """Add the sub-command's options."""
    parser = jobs.add_parser(
        "tfds",
        help="write a data set for tensorflow-datasets (array_record; TensorFlow is not needed)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EXAMPLES,
    )
    parser.description = "Images, masks, labels, groups, ids and splits as they are in the records, 16 bit kept."
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a records folder; or a JSON file of the options that pack a folder or a simulation, as packing saves "
        "it, to read the raw images instead",
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="the data_dir of tensorflow-datasets")
    parser.add_argument("--name", default="", help="name in tensorflow-datasets (default: made from the data set's)")
    parser.add_argument("--shard-size", type=int, default=0, help="examples a file (default: 256 MiB of pixels)")
    parser.add_argument(
        "--beam", default="", metavar="RUNNER", help="write with Apache Beam: DirectRunner, FlinkRunner, SparkRunner"
    )
    parser.add_argument(
        "--beam-option", action="append", default=[], metavar="NAME=VALUE", help="an option of the Beam runner"
    )
    parser.add_argument("--restart", action="store_true", help="write over other data under this name")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Write; returns the exit status."""
    from protloc_jax.datasets import tfds_builder

    if args.shard_size < 0:
        raise ValueError(f"--shard-size {args.shard_size}: must be 0 or more.")
    data = _image_set(args.source, quiet=args.quiet)
    directory = tfds_builder.write(
        data,
        args.out,
        name=args.name,
        shard_size=args.shard_size,
        beam_runner=args.beam,
        beam_options=[f"--{option}" for option in args.beam_option],
        restart=args.restart,
        progress=not args.quiet,
    )
    split = data.manifest.table["split"].iloc[0]
    print(f"{directory}: {tfds_builder.description_of(data)}")
    print(f'read it with tfds.data_source("{directory.parent.name}", data_dir="{args.out}", split="{split}")')
    return 0


def _image_set(source: str, *, quiet: bool) -> ImageSet:
    from protloc_jax.datasets import image_set

    path = Path(source)
    if path.suffix != ".json":
        return image_set.of_records(path)
    from protloc_jax.datasets.folder_config import FolderConfig
    from protloc_jax.simulate import SimConfig

    if path.is_file() and '"preset"' in path.read_text():
        return image_set.of_simulated(configs.load_file(path, SimConfig))
    config = configs.load_file(path, FolderConfig)
    if not quiet:
        print(f"checking {config.path}", file=sys.stderr)
    return image_set.of_folder(config, progress=not quiet)


_EXAMPLES = """examples:
  protloc data tfds records/yeast --out ~/tensorflow_datasets
  a large raw set on a cluster, without packing records first (pip install 'protloc-jax[beam]'); the options of
  `protloc data pack folder` stand in a file, {"path": "raw.csv", "channels": "gfp:protein,rfp", "split_by": "plate"}:
    protloc data tfds raw.json --out /shared/tfds --beam FlinkRunner --beam-option flink_master=host:8081
"""
