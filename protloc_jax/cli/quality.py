"""`protloc data qc`: quality control of records, as tables to filter by and a page to look at."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from protloc_jax.cli.options import add_fields, given

EXAMPLES = """examples:
  protloc data qc records/screen --out qc/screen
  protloc data qc records/screen --control treatment --positive DMSO --negative siPLK1 --out qc/screen
then leave out what was flagged:
  protloc data split records/screen --join qc/screen/qc_images.parquet --where qc_pass=true --out split.parquet
"""


def add(jobs: Any) -> None:
    """Add the sub-command."""
    from protloc_jax.datasets.quality import QualityConfig

    parser = jobs.add_parser(
        "qc",
        help="quality control: focus, saturation, empty fields, plate effects; tables and a page",
        description="Measure every image, flag those that stand out of their plate, map the plates. Writes qc_images, "
        "qc_wells (Parquet and CSV), qc_plates, qc_edges, qc_controls (CSV) and quality.html into DIR.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("records", metavar="RECORDS", help="folder of records")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder to write")
    parser.add_argument("--config", metavar="FILE", help="options of a saved quality.json; those given here win")
    parser.add_argument("--workers", type=int, default=None, help="threads (default: one a core)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_fields(parser, QualityConfig)


def run(args: argparse.Namespace) -> int:
    """Measure, flag, write tables and the page; returns the exit status."""
    import pandas as pd

    from protloc_jax.config import from_mapping, load_file, to_dict, to_json
    from protloc_jax.data import records as records_file
    from protloc_jax.datasets import quality, quality_plates
    from protloc_jax.datasets.inspection import default_workers
    from protloc_jax.studies.quality_page import build, corrected

    saved = to_dict(load_file(args.config, quality.QualityConfig)) if args.config else {}
    config = from_mapping(quality.QualityConfig, {**saved, **given(args, quality.QualityConfig)})
    out = Path(args.out)
    with records_file.open(args.records) as records:
        channels = records.info.channel_set
        workers = default_workers() if args.workers is None else args.workers
        measured = quality.measure(records, config, workers=workers, progress=not args.quiet)
        images = quality.flag(measured, channels, config)
        plates = quality_plates.by_plate(images, channels, config)
        page = build(records, images, plates, config)
    edges = corrected(plates.edges)
    out.mkdir(parents=True, exist_ok=True)
    tables = {"qc_images": images, "qc_wells": plates.wells}
    for name, table in tables.items():
        if table is not None:
            table.to_parquet(out / f"{name}.parquet", index=False)
            table.to_csv(out / f"{name}.csv", index=False)
    plates.plates.to_csv(out / "qc_plates.csv", index=False)
    for name, rows in (("qc_edges", edges), ("qc_controls", plates.controls)):
        if rows:
            pd.DataFrame(rows).to_csv(out / f"{name}.csv", index=False)
    (out / "quality.json").write_text(to_json(config))
    page.write(out / "quality.html")
    _show(images, edges, plates.notes, page.synthetic is not None)
    print(f"wrote {out / 'quality.html'} and the tables beside it")
    return 0


def _show(images: Any, edges: list[dict[str, Any]], notes: list[str], synthetic: bool) -> None:
    from protloc_jax.datasets.quality import FLAGS

    passed = int(images["qc_pass"].sum())
    tag = "SYNTHETIC IMAGES. " if synthetic else ""
    print(f"{tag}{passed:,} of {len(images):,} images raise no flag.")
    for name in FLAGS:
        count = sum(name in text.split(";") for text in images["qc_flags"])
        if count:
            print(f"  {name}: {count:,}")
    for row in edges:
        if row["p_holm"] < 0.05:
            effect = f"{row['measure']} {row['effect']:+.2f} robust SDs at the edge"
            print(f"  edge effect: {effect}, p (Holm) {row['p_holm']:.3f}")
    for note in notes:
        print(f"note: {note}")
