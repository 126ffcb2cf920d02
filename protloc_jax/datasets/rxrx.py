"""RxRx1 and RxRx19a: Recursion's site tables and one 8-bit PNG a channel, as rows to pack.

Images are made smaller by the mean over the new pixel (`resize_factor`, `resample` area) before they are packed, to the
256 pixels that the released pipeline of knowledge-guided pretraining (arXiv 2507.10737) works on: 0.5 for RxRx1 (512
pixels), 0.25 for RxRx19a (1,024). What was done stands in `folder.json` and under `prepared` in the packing source of
`dataset.json`. Intensities stay as they are.

The pixel size of RxRx1 is not published beside it and none is recorded; that of RxRx19a is 0.65 um.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from protloc_jax import images
from protloc_jax.config import check_literals, nearest, opt
from protloc_jax.data.manifest import capped
from protloc_jax.datasets.problems import DatasetError, Problems
from protloc_jax.datasets.raw_tree import RawTree, given_table, one_table, raw_tree
from protloc_jax.datasets.row_table import RowTable
from protloc_jax.datasets.rxrx_files import Left, files_of_sites
from protloc_jax.datasets.rxrx_published import published_notes
from protloc_jax.datasets.rxrx_tables import (
    COMPETITION,
    Screen,
    SiteRow,
    dose_notes,
    is_site_table,
    naming,
    read_site_table,
)
from protloc_jax.simulate.presets_screens import SCREENS

SIDES = {"rxrx1": 512, "rxrx19a": 1024}  # of the published images
RESIZED = {"rxrx1": 0.5, "rxrx19a": 0.25}
NUMBERS = {"rxrx1": ("site", "sirna_id"), "rxrx19a": ("site", "concentration")}


@dataclass(frozen=True)
class RxRxConfig:
    """Which sites of RxRx1 or RxRx19a become records. Raises ConfigError for values that cannot be."""

    lines: tuple[str, ...] = opt((), "only sites of these cell lines; none named means all")
    missing: Literal["refuse", "leave_out"] = opt(
        "refuse", "sites without all their files (plates not downloaded, say): refuse, or leave_out and list them"
    )
    sirnas: Literal["any", "catalogue"] = opt(
        "any",
        "rxrx1: names of siRNAs: any, or catalogue, which refuses a table of the competition (sirna_###), for only "
        "catalogue numbers lead to genes",
    )
    site_table: str = opt("", "metadata.csv; empty = the one below the raw folder, by its header")

    def __post_init__(self) -> None:
        check_literals(self)


def read_rxrx1(config: RxRxConfig, raw: str | Path) -> RowTable:
    """The rows of RxRx1 below `raw`; no pixel is looked at.

    Groups: perturbation (the siRNA; none in a negative control), cell_line, batch (the experiment), plate, well
    (HUVEC-01_1_B02: unique over the set, as plates are), position (B02), site, well_type, sirna (as the table says,
    EMPTY too), sirna_id, sirna_names ("catalogue", or "competition" where siRNAs have no catalogue numbers and no gene
    can be found for them) and published_split. `split` is Recursion's own. There are no labels.

    Raises DatasetError listing everything that is wrong with the table and the files, FileNotFoundError where a path
    does not exist. Rows of other cell lines, sites without files and files without row are in `left_out`.
    """
    return _read(config, raw, "rxrx1")


def read_rxrx19a(config: RxRxConfig, raw: str | Path) -> RowTable:
    """The rows of RxRx19a below `raw`, as `read_rxrx1`.

    perturbation is the treatment's name whatever its dose (none in untreated wells), well_type is treatment,
    positive_control (untreated, active virus), negative_control (untreated, mock or inactivated virus) or unknown
    (untreated, no condition given). Further groups: disease_condition, concentration (uM) and, where given, smiles. All
    rows are `train`: the set has no published split.
    """
    return _read(config, raw, "rxrx19a")


def _read(config: RxRxConfig, raw: str | Path, screen: Screen) -> RowTable:
    tree, problems = raw_tree(raw), Problems()
    left_out: Left = []
    rows = read_site_table(_site_table(tree, config), screen)
    names, notes = _names(config, screen, rows)
    kept = _of_lines(rows, config.lines, left_out)
    channels = SCREENS[screen].channels
    paths = files_of_sites(tree, kept, rows, len(channels), config.missing, problems, left_out)
    problems.check(str(raw))
    packed = [row for row in kept if row.name in paths]
    if not packed:
        raise DatasetError(f"{raw}: no site is left of {len(rows)}; the first reason: {capped(left_out[0][1:], 2)}.")
    notes += published_notes(rows, screen) + _looks(tree, paths[packed[0].name], screen)
    if tree.links:
        notes.append(f"{len(tree.links)} links to folders are not followed: {capped(tree.links, 4)}.")
    given = any(row.more.get("smiles") for row in packed)
    frame = pd.DataFrame(
        [manifest_row(row, names, smiles=given) | _columns(channels, paths[row.name]) for row in packed]
    )
    settings: dict[str, Any] = {
        "numbers": NUMBERS[screen],
        "resize_factor": RESIZED[screen],
        "resample": "area",
    }
    if screen == "rxrx19a":
        settings["um_per_pixel"] = SCREENS[screen].um_per_pixel
    return RowTable(frame, ",".join(channels), (), settings, notes, left_out)


def manifest_row(row: SiteRow, sirna_names: str, *, smiles: bool = False) -> dict[str, Any]:
    """id, split and groups of one site."""
    more = {name: value for name, value in row.more.items() if smiles or name != "smiles"}
    return {
        "id": row.name,
        "split": more.get("published_split", "train"),
        "perturbation": row.perturbation,
        "cell_line": row.cell_line,
        "batch": row.batch,
        "plate": row.plate_name,
        "well": row.well_id,
        "position": row.well,
        "site": row.site,
        "well_type": row.well_type,
        **more,
        **({"sirna_names": sirna_names} if sirna_names else {}),
    }


def _site_table(tree: RawTree, config: RxRxConfig) -> Path:
    if config.site_table:
        return given_table(config.site_table, tree)
    what = "the site table (metadata.csv)"
    found = one_table(tree.tables_like(is_site_table), what, option="site_table")
    if found is None:
        raise DatasetError(f"{tree.root}: {what} is not below it; give site_table=FILE.")
    return found


def _names(config: RxRxConfig, screen: Screen, rows: Sequence[SiteRow]) -> tuple[str, list[str]]:
    """(how siRNAs are named, notes on it); for RxRx19a "" and notes on doses."""
    if screen != "rxrx1":
        return "", dose_notes(rows)
    names = naming(rows)
    if names != COMPETITION:
        return names, []
    if config.sirnas == "catalogue":
        raise DatasetError(
            "the table names siRNAs as the competition does (sirna_###); those have no catalogue numbers, so no gene "
            "can be found for them. Take metadata.csv of the full release (rxrx1-metadata.zip)."
        )
    return names, [
        "siRNAs are named as in the competition (sirna_###), without catalogue numbers: sirna_names is 'competition', "
        "and no gene can be found for them (a knowledge graph by genes needs metadata.csv of the full release)."
    ]


def _of_lines(rows: Sequence[SiteRow], lines: tuple[str, ...], left_out: Left) -> list[SiteRow]:
    """The rows of some cell lines (all for none); DatasetError for a line the table lacks, with the nearest."""
    have = Counter(row.cell_line for row in rows)
    unknown = [f"'{line}'{nearest(line, have)}" for line in lines if line not in have]
    if unknown:
        raise DatasetError(f"lines: no such cell line: {', '.join(unknown)} The table has {', '.join(sorted(have))}.")
    kept = [row for row in rows if not lines or row.cell_line in lines]
    left_out += [
        ("image", row.name, f"its cell line is not among those wanted ({row.cell_line})")
        for row in rows
        if lines and row.cell_line not in lines
    ]
    return kept


def _looks(tree: RawTree, paths: Sequence[str], screen: Screen) -> list[str]:
    """A note where the first site's images are of another size than the published ones."""
    try:
        height, width = images.header(tree.root / paths[0]).shape[:2]
    except images.ImageError:
        return []  # packing looks into every file and names those that cannot be read
    side = SIDES[screen]
    if (height, width) == (side, side):
        return []
    return [f"images are {height} x {width}, not {side} x {side} as published; resize_factor applies all the same."]


def _columns(channels: Sequence[str], paths: Sequence[str]) -> dict[str, str]:
    return {f"path_{channel}": path for channel, path in zip(channels, paths, strict=True)}
