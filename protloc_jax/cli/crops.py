"""`protloc data crops`: single cells cut out of fields of view by their masks."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from protloc_jax import config as configs
from protloc_jax.cli.options import add_fields, given

SAVED = "crops.json"
# Fields keep their own sizes, and the masks are label images (cells, nuclei).
_NOT_FOR_CROPS = ("path", "masks", "sizes", "size")


def add(jobs: Any) -> None:
    """Add the sub-command's options."""
    from protloc_jax.datasets.crop_config import CropConfig
    from protloc_jax.datasets.folder_config import FolderConfig
    from protloc_jax.datasets.watershed import SegmentConfig

    parser = jobs.add_parser(
        "crops",
        help="cut single cells out of fields of view by their masks",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EXAMPLES,
    )
    parser.description = (
        "One record a cell, with a mask: 1 the cell, 2 other cells, 0 neither. What is left out is counted and listed "
        "in left_out.csv."
    )
    parser.add_argument("path", nargs="?", default=None, help="fields: a folder of images, a table, or records")
    parser.add_argument("--config", metavar="FILE", help=f"options of a saved {SAVED}; those given here win")
    add_fields(parser.add_argument_group("cells"), CropConfig)  # type: ignore[arg-type]
    add_fields(parser.add_argument_group("cells without masks"), SegmentConfig)  # type: ignore[arg-type]
    add_fields(
        parser.add_argument_group("fields (as for `data pack folder`; not for records)"),  # type: ignore[arg-type]
        FolderConfig,
        skip=_NOT_FOR_CROPS,
    )
    parser.add_argument(
        "--masks-out", metavar="DIR", help="also write the watershed's label images there, to look at and to mend"
    )
    parser.add_argument("--check-only", action="store_true", help="check and count everything and write nothing")
    parser.add_argument("--out", metavar="DIR", help="folder for the records")
    parser.add_argument("--workers", type=int, default=None, help="threads (default: one a core)")
    parser.add_argument("--shard-size", type=int, default=0, help="records a file (default: chosen)")
    parser.add_argument("--restart", action="store_true", help="discard what DIR holds instead of going on")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Cut and pack; returns the exit status."""
    from protloc_jax.datasets import crops
    from protloc_jax.datasets.crop_config import CropConfig
    from protloc_jax.datasets.watershed import SegmentConfig

    saved = _saved(args.config) if args.config else {}
    crop = configs.from_mapping(CropConfig, {**saved.get("crops", {}), **given(args, CropConfig)})
    segment = configs.from_mapping(SegmentConfig, {**saved.get("segment", {}), **given(args, SegmentConfig)})
    fields = _fields(args, saved)
    if not args.out and not args.check_only:
        raise ValueError("--out DIR is needed (or --check-only).")
    checked = crops.prepare(
        fields, crop, segment, masks_out=args.masks_out, workers=args.workers, progress=not args.quiet
    )
    for note in checked.notes:
        print(f"note: {note}", file=sys.stderr)
    print(_summary(checked))
    if args.check_only:
        return 0
    info = crops.pack(
        fields,
        crop,
        args.out,
        segment,
        workers=args.workers,
        shard_size=args.shard_size,
        progress=not args.quiet,
        restart=args.restart,
        prepared=checked,
    )
    source = {"records": str(fields)} if isinstance(fields, Path) else {"folder": configs.to_dict(fields)}
    tree = {**source, "crops": configs.to_dict(crop), "segment": configs.to_dict(segment)}
    (Path(args.out) / SAVED).write_text(json.dumps(tree, indent=2) + "\n")
    shape = f"{info.height} x {info.width} x {len(info.channels)} {info.dtype}"
    print(f"{args.out}: {info.n:,} cells of {shape}, {info.bytes / 2**20:.1f} MiB in {len(info.shards)} shard(s).")
    return 0


def _fields(args: argparse.Namespace, saved: Mapping[str, Any]) -> Any:
    """A FolderConfig, or the Path of records."""
    from protloc_jax.datasets.crop_fields import is_records
    from protloc_jax.datasets.folder_config import FolderConfig

    options = given(args, FolderConfig)
    path = options.get("path") or saved.get("records") or ""
    if path and is_records(path):
        other = sorted(set(options) - {"path"})
        if other:
            shown = ", ".join("--" + name.replace("_", "-") for name in other)
            raise configs.ConfigError(f"{path} holds records, which know their channels and labels: leave out {shown}.")
        return Path(path)
    return configs.from_mapping(FolderConfig, {**saved.get("folder", {}), **options})


def _saved(path: str) -> dict[str, Any]:
    try:
        tree = json.loads(Path(path).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise configs.ConfigError(f"{path}: not a saved {SAVED} ({error}).") from error
    if not isinstance(tree, dict) or "crops" not in tree:
        raise configs.ConfigError(f"{path}: not a saved {SAVED} (no 'crops' in it).")
    return tree


def _summary(checked: Any) -> str:
    """How many cells were found, and where those went that are left out."""
    from protloc_jax.datasets.crop_plan import REASONS

    fields = checked.manifest.table["field"].nunique()
    lines = [f"{checked.found:,} cells found, {checked.manifest.n:,} to cut out of {fields:,} fields."]
    lines += [f"  {n:,} left out: {REASONS[k]}" for k, n in sorted(checked.counts.items()) if k in REASONS]
    if checked.counts.get("note"):
        lines.append(f"  {checked.counts['note']:,} labels lie in several pieces; left_out.csv says what was done")
    return "\n".join(lines)


_EXAMPLES = """examples:
  Cellpose masks beside a table of fields, 20 um boxes, cells at the border left out:
    protloc data crops fields.csv --channels nucleus,gfp:protein --um-per-pixel 0.2 \\
        --cells 'masks/{id}_cp_masks.png' --side 20um --out records/cells
  boxes of 1.5 cells, brought to 128 pixels, other cells taken out, at most 20 cells a field:
    protloc data crops fields.csv --channels nucleus,gfp:protein --cells cell_mask --nuclei nucleus_mask \\
        --box scaled --masked others --max-cells 20 --out records/cells
  masks for crops that one has already (here of yeast, cells of some 20 pixels found in a cytosol channel: sigma 1.5,
  0.8 x Otsu, seeds 7 pixels apart); crops whose centre shows no cell, or one of too little or too much, are listed:
    protloc data crops cells.csv --channels gfp:protein,rfp:cytosol --segment nuclei --nucleus-channel rfp \\
        --nucleus-diameter 20 --smooth 0.075 --seed-distance 0.35 --threshold-from zero \\
        --select centre --centre field --side 64 --margin 0 --min-coverage 0.05 --max-coverage 0.95 --out records/cells
  crops with a mask of the cell alone, a file a channel in a folder a protein (PIFiA's layout):
    protloc data pack folder cells/ --pattern '{folder}/{protein}_{channel}_{cell}.tiff' \\
        --channels gfp:protein,nucleus,cytosol --files gfp=ch1,nucleus=ch2,cytosol=ch3 \\
        --masks '{folder}/{protein}_mask_{cell}.tiff' --out records/cells
  fields that are records already; no masks, nuclei found by a watershed:
    protloc data crops records/fields --segment nuclei --side 64 --out records/nuclei
"""
