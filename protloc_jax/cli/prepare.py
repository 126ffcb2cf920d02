"""`protloc data prepare`: published data sets, in the layout in which they are downloaded, become records."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from protloc_jax import config as configs
from protloc_jax.cli import join_parts
from protloc_jax.cli.options import add_fields, given

SAVED = "prepare.json"
SETS = {
    "opencell": "OpenCell fields of view: OC-FOV files and the annotation tables",
    "hpa_fov": "Human Protein Atlas fields: the 2018 challenge's, atlas-style names, or DINO4Cells' whole_images.csv",
    "hpa_sc": "Human Protein Atlas single cells: DINO4Cells' crops, or cut out of fields by --cells masks",
    "bbbc021": "BBBC021 fields: the image and mechanism tables and a TIFF a channel, prepared as WS-DINO published it",
    "rxrx1": "RxRx1 sites: metadata.csv and six PNGs each (siRNAs in four cell lines)",
    "rxrx19a": "RxRx19a sites: metadata.csv and five PNGs each (drugs against SARS-CoV-2)",
    "opencell_sc": "single cells of packed OpenCell fields, by masks or a watershed, with manual labels beside",
}


_HPA = "split-by protein (the antibody) where IDs name one, colour max"
_DEFAULTS = {
    "opencell": "split-by protein (the ENSG), um-per-pixel 0.2, unnamed-axes ZCYX",
    "hpa_fov": _HPA,
    "hpa_sc": _HPA,
    "bbbc021": "illumination estimate (window 0.3125, unit minimum), resize-factor 0.5, resample bicubic, white-point "
    "10000; treated fields train, DMSO is val (--split-by compound holds compounds out instead)",
    "rxrx1": "resize-factor 0.5 (512 to 256 pixels), resample area; split as Recursion's (`data split-de-novo` makes "
    "those of other questions)",
    "rxrx19a": "resize-factor 0.25 (1,024 to 256 pixels), resample area, um-per-pixel 0.65; all rows train (`data "
    "split-de-novo` makes splits)",
}
# What --folds keeps whole, and which rows it splits.
_FOLDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "bbbc021": ("compound", ("well_type!=negative_control",)),
    "rxrx1": ("batch", ()),
    "rxrx19a": ("plate", ()),
}
_RXRX = ("rxrx1", "rxrx19a")
_SCREENS = ("bbbc021", *_RXRX)


def add(jobs: Any) -> None:
    """Add the sub-command and the options of each data set."""
    from protloc_jax.datasets.bbbc021 import Bbbc021Config
    from protloc_jax.datasets.crop_config import CropConfig
    from protloc_jax.datasets.fetch_raw import FetchConfig
    from protloc_jax.datasets.folder_config import FolderConfig
    from protloc_jax.datasets.hpa import HpaFovConfig
    from protloc_jax.datasets.hpa_cells import HpaCellConfig
    from protloc_jax.datasets.opencell import OpenCellConfig
    from protloc_jax.datasets.row_table import PREPARATION, SHARED
    from protloc_jax.datasets.rxrx import RxRxConfig
    from protloc_jax.datasets.watershed import SegmentConfig

    parser = jobs.add_parser(
        "prepare",
        help="records of OpenCell, the Human Protein Atlas, BBBC021, RxRx1 and RxRx19a from their published files",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EXAMPLES,
    )
    parser.description = (
        "Read a published layout as it is downloaded, join labels and groups, list what is left out, and pack records. "
        "Splits keep proteins whole unless said otherwise; those of BBBC021 and RxRx1 are as published."
    )
    sets = parser.add_subparsers(dest="set", metavar="NAME", required=True)
    own = {
        "opencell": (OpenCellConfig,),
        "hpa_fov": (HpaFovConfig,),
        "hpa_sc": (HpaCellConfig, HpaFovConfig),
        "bbbc021": (Bbbc021Config,),
        **dict.fromkeys(_RXRX, (RxRxConfig,)),
    }
    for name, summary in SETS.items():
        one = sets.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        raw = "folder of records that `prepare opencell` packed" if name == "opencell_sc" else "folder of the raw files"
        one.add_argument("--raw", metavar="DIR", required=True, help=raw)
        one.add_argument("--out", metavar="DIR", help="folder for the records")
        taken: list[str] = []
        for config in own.get(name, ()):
            add_fields(one, config, skip=tuple(taken))
            taken += [row[0] for row in configs.describe(config)]
        if name in ("hpa_sc", "opencell_sc"):
            add_fields(one.add_argument_group("cells"), CropConfig)  # type: ignore[arg-type]
            add_fields(one.add_argument_group("cells without masks"), SegmentConfig)  # type: ignore[arg-type]
        if name not in ("opencell_sc", *_SCREENS):
            add_fields(one.add_argument_group("fetching"), FetchConfig)  # type: ignore[arg-type]
        if name != "opencell_sc":
            open_to = (*SHARED, *PREPARATION) if name in _SCREENS else SHARED
            group: Any = one.add_argument_group(
                "packing (as for `data pack folder`)",
                f"The layout has defaults of its own: {_DEFAULTS[name]}.",
            )
            add_fields(
                group,
                FolderConfig,
                skip=tuple(row[0] for row in configs.describe(FolderConfig) if row[0] not in open_to),
            )
        else:
            one.add_argument("--masks-out", metavar="DIR", help="also write the watershed's label images there")
        one.add_argument(
            "--folds", type=int, default=0, help=f"also write folds.parquet: this many folds by {_folds(name)[0]}"
        )
        one.add_argument("--check-only", action="store_true", help="check and count everything and write nothing")
        one.add_argument("--workers", type=int, default=None, help="threads (default: one a core)")
        one.add_argument("--shard-size", type=int, default=0, help="records a file (default: chosen)")
        one.add_argument("--restart", action="store_true", help="discard what DIR holds instead of going on")
        one.add_argument("--quiet", action="store_true", help="no progress bar")
        join_parts.add_option(one)


def run(args: argparse.Namespace) -> int:
    """Read, check and pack one data set; returns the exit status."""
    from protloc_jax.data.split_config import SplitConfig
    from protloc_jax.datasets.pack_rows import write_folds

    by, where = _folds(args.set)
    if args.folds:
        SplitConfig(kind="k_fold", by=(by,), folds=args.folds)  # refused before the work, not after
    if not args.out and not args.check_only:
        raise ValueError("--out DIR is needed (or --check-only).")
    packed, used = _opencell_cells(args) if args.set == "opencell_sc" else _from_raw(args)
    for note in packed.notes:
        print(f"note: {note}", file=sys.stderr)
    unit = "cells" if args.set.endswith("_sc") else "images"
    if packed.info is None:
        print(f"{packed.manifest.n:,} {unit} are fit to be packed.")
        _treatments(args, packed.manifest, write=False)
        return 0
    (Path(args.out) / SAVED).write_text(json.dumps({"set": args.set, "raw": args.raw, **used}, indent=2) + "\n")
    info = packed.info
    shape = f"{info.height} x {info.width} x {len(info.channels)} {info.dtype}"
    held = sum(shard.n for shard in info.shards)
    print(f"{args.out}: {held:,} {unit} of {shape}, {info.bytes / 2**20:.1f} MiB in {len(info.shards)} shard(s).")
    if args.folds:
        path, notes = write_folds(packed.manifest, args.out, args.folds, by=by, where=where)
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
        print(f"{path}: {args.folds} folds, {by}s kept whole.")
    _treatments(args, packed.manifest, write=True)
    return 0


def _folds(name: str) -> tuple[str, tuple[str, ...]]:
    return _FOLDS.get(name, ("protein", ()))


def _treatments(args: argparse.Namespace, manifest: Any, *, write: bool) -> None:
    """Of a screen: the treatments with their counts, as text and as a table beside the records."""
    if args.set in _RXRX:
        from protloc_jax.datasets import rxrx_report

        if write:
            counted = rxrx_report.perturbations(manifest)
            counted.to_csv(Path(args.out) / rxrx_report.PERTURBATIONS_FILE, index=False, lineterminator="\n")
        print("\n".join(rxrx_report.summary(manifest)))
    if args.set != "bbbc021":
        return
    from protloc_jax.datasets.bbbc021_report import TREATMENTS_FILE, summary, treatments

    if write:
        treatments(manifest).to_csv(Path(args.out) / TREATMENTS_FILE, index=False, lineterminator="\n")
    print("\n".join(summary(manifest)))


def _work(args: argparse.Namespace) -> Any:
    from protloc_jax.datasets.pack_rows import Work

    return Work(args.workers, args.shard_size, not args.quiet, args.restart, args.check_only)


def _from_raw(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """(what was packed, the options used), from raw files."""
    from protloc_jax.datasets.bbbc021 import Bbbc021Config, read_bbbc021
    from protloc_jax.datasets.crop_config import CropConfig
    from protloc_jax.datasets.folder_config import FolderConfig
    from protloc_jax.datasets.hpa import HpaFovConfig, read_hpa_fov
    from protloc_jax.datasets.hpa_cells import HpaCellConfig, read_hpa_cells
    from protloc_jax.datasets.opencell import OpenCellConfig, read_opencell
    from protloc_jax.datasets.pack_rows import pack_cells, pack_fields
    from protloc_jax.datasets.rxrx import RxRxConfig, read_rxrx1, read_rxrx19a
    from protloc_jax.datasets.watershed import SegmentConfig

    folder_options = given(args, FolderConfig)
    if args.set == "opencell":
        config = configs.from_mapping(OpenCellConfig, given(args, OpenCellConfig))
        _fetch(args, (f"_{'stack' if config.images == 'stack' else 'proj'}.tif",))
        rows = read_opencell(config, args.raw)
    elif args.set == "hpa_fov":
        config = configs.from_mapping(HpaFovConfig, given(args, HpaFovConfig))
        _fetch(args)
        rows = read_hpa_fov(config, args.raw)
    elif args.set == "bbbc021":
        config = configs.from_mapping(Bbbc021Config, given(args, Bbbc021Config))
        if folder_options.get("illumination", "estimate") != "estimate":
            config = replace(config, illumination_from="packed")  # nothing is estimated, so no other image is needed
        rows = read_bbbc021(config, args.raw)
    elif args.set in _RXRX:
        config = configs.from_mapping(RxRxConfig, given(args, RxRxConfig))
        rows = (read_rxrx1 if args.set == "rxrx1" else read_rxrx19a)(config, args.raw)
    else:
        options, segmenting = given(args, CropConfig), given(args, SegmentConfig)
        if options.get("cells") or options.get("nuclei") or segmenting:
            config = configs.from_mapping(HpaFovConfig, _of(args, HpaFovConfig, HpaCellConfig))
            crop = configs.from_mapping(CropConfig, options)
            segment = configs.from_mapping(SegmentConfig, segmenting)
            _fetch(args)
            rows = read_hpa_fov(config, args.raw)
            _say(rows)
            packed = pack_cells(rows, args.raw, args.out or "", crop, folder_options, segment, _work(args))
            used = {"config": config, "crops": crop, "segment": segment}
            return packed, {name: configs.to_dict(one) for name, one in used.items()}
        if options:
            shown = ", ".join("--" + name.replace("_", "-") for name in options)
            raise configs.ConfigError(f"{shown}: for fields and their masks; give --cells PATTERN as well.")
        config = configs.from_mapping(HpaCellConfig, _of(args, HpaCellConfig, HpaFovConfig))
        _fetch(args)
        rows = read_hpa_cells(config, args.raw)
    _say(rows)
    packed = pack_fields(rows, args.raw, args.out or "", folder_options, _work(args))
    return packed, {"config": configs.to_dict(config)}


def _fetch(args: argparse.Namespace, endings: Sequence[str] = ()) -> None:
    """Fetch the raw files first, where that is asked for."""
    from protloc_jax.datasets.fetch_raw import FetchConfig, fetch_raw
    from protloc_jax.datasets.naming import IMAGE_SUFFIXES

    config = configs.from_mapping(FetchConfig, given(args, FetchConfig))
    if config.fetch or config.fetch_tables:
        for note in fetch_raw(config, args.raw, endings=endings or IMAGE_SUFFIXES, progress=not args.quiet):
            print(note)


def _of(args: argparse.Namespace, wanted: type, other: type) -> dict[str, Any]:
    """The given options of one of two configs; ConfigError for options that only the other has."""
    own, more = given(args, wanted), given(args, other)
    if strange := [name for name in more if name not in own]:
        shown = ", ".join("--" + name.replace("_", "-") for name in strange)
        form = "fields and their masks (--cells)" if other.__name__ == "HpaFovConfig" else "crops that are cut already"
        raise configs.ConfigError(f"{shown}: only for {form}.")
    return dict(own)


def _say(rows: Any) -> None:
    for line in rows.summary():
        print(line)


def _opencell_cells(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    from protloc_jax.datasets import crops, opencell_cells
    from protloc_jax.datasets.crop_config import CropConfig
    from protloc_jax.datasets.pack_rows import Packed
    from protloc_jax.datasets.watershed import SegmentConfig

    crop = configs.from_mapping(CropConfig, given(args, CropConfig))
    segment = configs.from_mapping(SegmentConfig, given(args, SegmentConfig))
    work = _work(args)
    checked = opencell_cells.prepare(
        args.raw, crop, segment, masks_out=args.masks_out, workers=work.workers, progress=work.progress
    )
    info = None
    if not work.check_only:
        info = crops.pack(
            args.raw,
            crop,
            args.out,
            segment,
            workers=work.workers,
            shard_size=work.shard_size,
            progress=work.progress,
            restart=work.restart,
            prepared=checked,
        )
    return Packed(checked.manifest, info, checked.notes), {
        "crops": configs.to_dict(crop),
        "segment": configs.to_dict(segment),
    }


_EXAMPLES = """examples:
  fetch the projections of two OpenCell targets (7 MB), then pack them:
    protloc data prepare opencell --raw opencell/ --fetch s3://czb-opencell/microscopy/raw --fetch-anonymous \\
        --fetch-only CLTA,H1-0 --annotations annotations.csv --split-by '' --out records/two
  OpenCell as downloaded from s3://czb-opencell/microscopy/raw/, annotation tables beside; labels of grade 3:
    protloc data prepare opencell --raw opencell/ --folds 5 --out records/opencell
  single-label targets of grades 3 and 2, classes in fewer than 10 proteins left out with their images:
    protloc data prepare opencell --raw opencell/ --grades 3,2 --label single --min-proteins 10 --rare drop_images \\
        --out records/opencell_single
  the 2018 challenge; its IDs name no protein, so every image is split by itself:
    protloc data prepare hpa_fov --raw kaggle/ --without-antibody alone --out records/hpa
  the atlas at one size, split by antibody:
    protloc data prepare hpa_fov --raw atlas/ --sizes resize --size 512 --out records/hpa
  DINO4Cells' single cells; and cells cut out of fields by HPA-Cell-Segmentation's masks:
    protloc data prepare hpa_sc --raw single_cells/ --sizes resize --size 224 --out records/hpa_sc
    protloc data prepare hpa_sc --raw atlas/ --cells 'masks/{id}_cellmask.png' --side 512 --out records/hpa_sc
  BBBC021 as downloaded (plate folders and tables below one folder), also when only some plates are there:
    protloc data prepare bbbc021 --raw bbbc021/ --missing leave_out --out records/bbbc021
  RxRx1 as downloaded (metadata.csv and images/), three cell lines of it:
    protloc data prepare rxrx1 --raw rxrx1/ --lines HUVEC,RPE,HEPG2 --out records/rxrx1
  single cells of packed OpenCell fields, with a person's labels as the labels:
    protloc data prepare opencell_sc --raw records/opencell --segment nuclei --nucleus-channel nucleus --side 20um \\
        --cell-labels manual.csv --cell-labels-as labels --out records/opencell_sc
"""
