"""Single cells of the Human Protein Atlas as DINO4Cells published them: crops and their table, as rows to pack.

The table has an unnamed index, file (ID_<cell number>), ID (of the image), cell_type, 19 columns of merged classes and
one a cell line. A crop is one RGBA file (yellow in the place of alpha), or a file a colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from protloc_jax.config import check_literals, opt
from protloc_jax.data.manifest import capped
from protloc_jax.datasets.hpa import HpaOptions, as_rows, image_row, match_files
from protloc_jax.datasets.hpa_files import hpa_files
from protloc_jax.datasets.hpa_tables import CELL_CLASSES, NEGATIVE, is_single_cells, read_single_cells
from protloc_jax.datasets.problems import DatasetError, Problems
from protloc_jax.datasets.raw_tree import given_table, one_table, raw_tree
from protloc_jax.datasets.row_table import RowTable


@dataclass(frozen=True)
class HpaCellConfig(HpaOptions):
    """How crops of single cells become a labelled data set. Raises ConfigError for values that cannot be."""

    negative: Literal["keep", "drop"] = opt(
        "keep", "cells that are negative (no staining) and nothing else: keep or drop"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_literals(self)


def read_hpa_cells(config: HpaCellConfig, raw: str | Path) -> RowTable:
    """The rows of the single-cell crops below `raw`; no pixel is read. Raises as `hpa.read_hpa_fov` does."""
    tree, problems, notes = raw_tree(raw), Problems(), []
    left_out: list[tuple[str, str, str]] = []
    given = given_table(config.table, tree) if config.table else None
    table = given or one_table(tree.tables_like(is_single_cells), "a table of single cells", option="table")
    if table is None:
        raise DatasetError(
            f"{raw}: no table of single cells below it (file, ID, cell_type and 19 class columns); give table=FILE, or "
            "cells=PATTERN to cut cells out of fields of view by their masks."
        )
    rows, spare = read_single_cells(table)
    lines = len({row.cell_line for row in rows})
    notes.append(f"labels of {len(rows):,} cells of {lines} cell lines from {table.name} (DINO4Cells).")
    if spare:
        notes.append(f"{len(spare)} columns are neither a class nor a cell line that occurs: {capped(spare, 8)}.")
    both = [row for row in rows if NEGATIVE in row.labels and len(row.labels) > 1]
    if both:
        notes.append(f"{len(both)} cells are negative and something else, such as {both[0].file}; they keep both.")
    if config.negative == "drop":
        gone = [row for row in rows if row.labels == (NEGATIVE,)]
        left_out += [("image", row.file, "negative") for row in gone]
        rows = [row for row in rows if row.labels != (NEGATIVE,)]
        notes.append(f"negative=drop: {len(gone)} cells without staining are left out.")
    files = hpa_files(tree, problems)
    matched = match_files(rows, files, problems, notes, left_out)
    problems.check(str(raw))
    made = []
    for row, key in matched:
        name = key.rpartition("/")[2]
        made.append({**image_row(row, name, files.images[key], config), "image": row.id})
    return as_rows(made, config, CELL_CLASSES, True, problems, left_out, notes)
