"""`protloc data split`: splits of records by whole groups, written to a file with digests."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from protloc_jax.cli.options import add_fields, given

RULE = (
    "Classes go to parts rarest first, each group to the part that lacks most; of equal needs train is served before "
    "test, and test before val. What a part has to miss is listed."
)
EXAMPLES = """examples:
  protloc data split records/mine --by protein --out splits/protein.parquet
  protloc data split records/mine --kind k_fold --by protein,antibody --out splits/folds.parquet
  protloc data split records/screen --kind leave_one_group_out --by cell_line --out splits/lines.parquet
  protloc data split records/screen --kind few_shot --label sirna --by well --shots 1,5 --seeds 0,1,2 --out few.parquet
  protloc data split records/mine --kind fractions --by protein --fractions .01,.05,.1,1 --out fractions.parquet
  protloc data split records/cells --like fields.parquet --by protein --out cells.parquet
  protloc data split records/mine --by protein --join qc/qc_images.parquet --where qc_pass=true --out clean.parquet
then: protloc evaluate ... --split-file FILE, and protloc pretrain ... data.split_file=FILE
"""


def add(jobs: Any) -> None:
    """Add the sub-command."""
    from protloc_jax.data.split_config import SplitConfig

    parser = jobs.add_parser(
        "split",
        help="split records by whole groups, alike in their classes, into a file",
        description="Write a split file: which image trains, validates and tests. Groups stay whole, classes are "
        "spread, the file carries digests and is refused with other data. " + RULE,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("records", metavar="RECORDS", help="folder of records, or a manifest (.parquet)")
    parser.add_argument("--out", metavar="FILE.parquet", required=True, help="split file to write")
    parser.add_argument("--config", metavar="FILE", help="options saved as JSON; those given here win")
    parser.add_argument(
        "--join", metavar="FILE", action="append", default=[], help="CSV or Parquet table with an id column, for where"
    )
    parser.add_argument(
        "--like", metavar="FILE", help="a split file of other images: every value of --by lies where it lies there"
    )
    add_fields(parser, SplitConfig)


def run(args: argparse.Namespace) -> int:
    """Make the split, print what every part holds and misses, write it; returns the exit status."""
    import pandas as pd

    from protloc_jax.config import from_mapping, load_file, to_dict
    from protloc_jax.data import info as info_file
    from protloc_jax.data import manifest as manifests
    from protloc_jax.data.durable import sha256
    from protloc_jax.data.make_splits import join, make_splits
    from protloc_jax.data.split_config import SplitConfig

    saved = to_dict(load_file(args.config, SplitConfig)) if args.config else {}
    config = from_mapping(SplitConfig, {**saved, **given(args, SplitConfig)})
    path = Path(args.records)
    manifest = manifests.read(path / info_file.MANIFEST_FILE if path.is_dir() else path)
    if args.like:
        return _like(args, manifest, {"data": str(path.name)})
    extra, about = [], {"data": str(path.name), "joined": {}}
    for file in args.join:
        extra.append(join(manifest, _table(Path(file)), name=file))
        about["joined"][Path(file).name] = sha256(Path(file))
    found = make_splits(manifest, config, extra=pd.concat(extra, axis=1) if extra else None, about=about)
    found.write(args.out)
    _show(found)
    print(f"wrote {args.out} (digest {found.digest[:16]}, manifest {found.manifest_digest[:16]})")
    return 0


def _like(args: argparse.Namespace, manifest: Any, about: dict[str, Any]) -> int:
    """Carry the splits of another data set over."""
    from protloc_jax.config import ConfigError
    from protloc_jax.data import split_file
    from protloc_jax.data.manifest import capped
    from protloc_jax.data.split_config import SplitConfig
    from protloc_jax.data.split_like import split_like

    options = dict(given(args, SplitConfig))
    by, label = options.pop("by", ()), options.pop("label", "labels")
    if options or args.join or args.config:
        raise ConfigError(f"--like takes --by and --label only, not {', '.join(options) or '--join or --config'}.")
    if len(by) != 1:
        raise ConfigError("--like needs --by with one column, for example --by protein.")
    found, unknown = split_like(split_file.read(args.like), manifest, by[0], label=label, about=about)
    found.write(args.out)
    _show(found)
    if unknown:
        words = f"{len(unknown)} values of {by[0]} are not in {args.like}, their images are unused"
        print(f"note: {words}: {capped(unknown)}.")
    print(f"wrote {args.out} (digest {found.digest[:16]}, manifest {found.manifest_digest[:16]})")
    return 0


def _table(path: Path) -> Any:
    import pandas as pd

    if not path.is_file():
        raise FileNotFoundError(f"--join {path}: does not exist.")
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype={"id": str})


def _show(found: Any, most: int = 24) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from protloc_jax.data.manifest import SPLITS, capped

    console = Console(soft_wrap=True, highlight=False)
    by = ", ".join(found.config.by) or "nothing (every image by itself)"
    table = Table(title=escape(f"{found.config.kind}, groups kept whole by {by}"), title_justify="left")
    for name in ("split", *SPLITS, "unused"):
        table.add_column(name, justify="left" if name == "split" else "right")
    report = found.report()
    for row in report[:most]:
        table.add_row(escape(row["split"]), *(f"{row[name]:,}" for name in (*SPLITS, "unused")))
    if len(report) > most:
        table.add_row(f"... {len(report) - most} more", *[""] * 4)
    console.print(table)
    console.print(
        "Every image is tested at most once: scores may be pooled over the splits."
        if found.pooled()
        else "Images are tested by several of these splits: score them one by one (--split-name)."
    )
    notes = []
    for row in report:
        notes += [
            f"{row['split']}: {part} misses {capped(classes)}."
            for part, classes in row["classes_missing"].items()
            if classes
        ]
        if row["classes_tested_never_trained"]:
            notes.append(f"{row['split']}: tested but never trained: {capped(row['classes_tested_never_trained'])}.")
    for note in notes[:most]:
        console.print(escape(f"note: {note}"))
    if notes:
        more = f"... and {len(notes) - most} more notes. " if len(notes) > most else ""
        console.print(escape(f"note: {more}{RULE}"))
