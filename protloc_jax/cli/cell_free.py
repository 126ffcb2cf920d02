"""`protloc data cell-free`: patches without cells, cut out of fields of view by their label images."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from protloc_jax import config as configs
from protloc_jax.cli.options import add_fields, given

SAVED = "cell_free.json"
# Of the cells only where their label images are; fields keep their own sizes.
_LABEL_OPTIONS = ("cells", "nuclei", "label_root", "label_table", "colour_labels")
_NOT_FOR_PATCHES = ("path", "masks", "sizes", "size")


def add(jobs: Any) -> None:
    """Add the sub-command's options."""
    from protloc_jax.datasets.cell_free import CellFreeConfig
    from protloc_jax.datasets.crop_config import CropConfig
    from protloc_jax.datasets.folder_config import FolderConfig
    from protloc_jax.datasets.watershed import SegmentConfig

    parser = jobs.add_parser(
        "cell-free",
        help="cut patches without cells out of fields of view",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EXAMPLES,
    )
    parser.description = (
        "One record a patch of a grid that is far enough from every cell, with its field's labels and groups and an "
        "empty mask. What each rule drops is counted, by field in dropped.csv."
    )
    parser.add_argument(
        "path", help="fields: a folder of images, a table, or records; of simulated records the fields are rendered"
    )
    add_fields(parser.add_argument_group("patches"), CellFreeConfig)  # type: ignore[arg-type]
    labels = parser.add_argument_group("label images of the cells")
    skip = tuple(field.name for field in dataclasses.fields(CropConfig) if field.name not in _LABEL_OPTIONS)
    add_fields(labels, CropConfig, skip=skip)  # type: ignore[arg-type]
    add_fields(labels, SegmentConfig)  # type: ignore[arg-type]
    add_fields(
        parser.add_argument_group("fields (as for `data pack folder`; not for records)"),  # type: ignore[arg-type]
        FolderConfig,
        skip=_NOT_FOR_PATCHES,
    )
    parser.add_argument("--check-only", action="store_true", help="place and count the patches and write nothing")
    parser.add_argument("--out", metavar="DIR", help="folder for the records")
    parser.add_argument("--workers", type=int, default=None, help="threads or processes (default: one a core)")
    parser.add_argument("--shard-size", type=int, default=0, help="records a file (default: chosen)")
    parser.add_argument("--restart", action="store_true", help="discard what DIR holds instead of going on")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Place, count and pack; returns the exit status."""
    from protloc_jax.datasets import free_patches
    from protloc_jax.datasets.cell_free import CellFreeConfig
    from protloc_jax.datasets.crop_config import CropConfig
    from protloc_jax.datasets.watershed import SegmentConfig

    fields = _fields(args)
    options = dict(given(args, CellFreeConfig))
    if isinstance(fields, Path) and "size" not in options:
        options |= _side_of_cells(fields)
    free = configs.from_mapping(CellFreeConfig, options)
    labels = {name: value for name, value in given(args, CropConfig).items() if name in _LABEL_OPTIONS}
    crop = configs.from_mapping(CropConfig, labels)
    segment = configs.from_mapping(SegmentConfig, given(args, SegmentConfig))
    if not args.out and not args.check_only:
        raise ValueError("--out DIR is needed (or --check-only).")
    work = {"workers": args.workers, "progress": not args.quiet}
    patches = free_patches.prepare(fields, free, crop, segment, **work)
    for note in patches.notes:
        print(f"note: {note}", file=sys.stderr)
    print(patches.summary())
    if args.check_only:
        return 0
    info = free_patches.pack(patches, args.out, shard_size=args.shard_size, restart=args.restart, **work)
    source = {"records": str(fields)} if isinstance(fields, Path) else {"folder": configs.to_dict(fields)}
    tree = {**source, "cell_free": configs.to_dict(free), "labels": labels, "segment": configs.to_dict(segment)}
    (Path(args.out) / SAVED).write_text(json.dumps(tree, indent=2) + "\n")
    shape = f"{info.height} x {info.width} x {len(info.channels)} {info.dtype}"
    print(f"{args.out}: {info.n:,} patches of {shape}, {info.bytes / 2**20:.1f} MiB in {len(info.shards)} shard(s).")
    return 0


def _fields(args: argparse.Namespace) -> Any:
    """A FolderConfig, or the Path of records."""
    from protloc_jax.datasets.crop_fields import is_records
    from protloc_jax.datasets.folder_config import FolderConfig

    options = given(args, FolderConfig)
    if not is_records(args.path):
        return configs.from_mapping(FolderConfig, options)
    other = sorted(set(options) - {"path"})
    if other:
        shown = ", ".join("--" + name.replace("_", "-") for name in other)
        raise configs.ConfigError(
            f"{args.path} holds records, which know their channels and labels: leave out {shown}."
        )
    return Path(args.path)


def _side_of_cells(path: Path) -> dict[str, int]:
    """Patches of simulated cells are as large as the cells' images unless another size is asked for."""
    from protloc_jax.data import records
    from protloc_jax.datasets import simulated

    with records.open(path) as opened:
        config = simulated.config_of(opened.info)
        return {"size": opened.info.height} if config is not None and config.of_cells else {}


_EXAMPLES = """examples:
  of fields with Cellpose masks, at most 20 a field:
    protloc data cell-free fields.csv --channels gfp:protein,rfp:cytosol --cells 'masks/{id}_cp_masks.png' \\
        --labels localization --most 20 --out records/patches
  of the fields that simulated single cells were cut from:
    protloc data pack simulated --preset yeast --out records/yeast
    protloc data cell-free records/yeast --out records/yeast-patches
"""
