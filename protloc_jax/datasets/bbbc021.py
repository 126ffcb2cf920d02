"""BBBC021: the image table, the mechanisms of action and one TIFF a channel, as rows to pack.

Images are prepared as WS-DINO's published pipelines do (reference code crosszamirski/WS-DINO, preprocessing): per plate
and channel one illumination function from all images of the plate (their mean, a median filter of 320 px, rescaled to
its robust minimum), division, reduction by half (bicubic), then values above 10,000 of 65,535 cut and the rest
stretched, so that [0, 1] is the corrected value / 10,000. Every number is an option; those used stand in `folder.json`
and under `prepared` in the packing source of `dataset.json`. What differs from CellProfiler:

- the function is estimated on images reduced to blocks (16 px of a 1280 x 1024 field), where its robust minimum is
  taken too, and interpolated linearly;
- its median runs over a square of 320 px, given as 0.3125 of the shorter side so that other sizes keep the proportion;
  CellProfiler takes its number for a full width at half maximum and uses a disk of radius 320 / 2.35 = 136 px;
- at the rim the outermost block is repeated;
- the bicubic kernel (a = -1/2) is widened by the factor, as Pillow does, instead of interpolating a spline.

The pixel size of the real set is not published beside it: none is recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from protloc_jax.config import check_literals, nearest, opt
from protloc_jax.data.manifest import capped
from protloc_jax.datasets.bbbc021_tables import (
    FieldRow,
    Mechanisms,
    is_compound_table,
    is_image_table,
    is_moa_table,
    read_compound_table,
    read_image_table,
    read_moa_table,
    treated,
)
from protloc_jax.datasets.problems import DatasetError, Problems
from protloc_jax.datasets.raw_tree import RawTree, given_table, one_table, raw_tree
from protloc_jax.datasets.row_table import RowTable
from protloc_jax.simulate.compounds import DMSO, TAXOL, TAXOL_DOSE
from protloc_jax.simulate.screen_layout import NEGATIVE, POSITIVE, TAXOL_WELLS, TREATMENT

CHANNELS = ("dna", "tubulin", "actin")
CELL_LINE = "MCF7"
UNKNOWN = "UNKNOWN"  # what the image table calls a compound that nobody knows
NOT_KNOWN = "unknown"  # its well_type
NUMBERS = ("site", "replicate", "concentration", "table_number", "image_number")
IMAGES = {
    "illumination": "estimate",
    "illumination_statistic": "mean",
    "illumination_smoothing": "median",
    "illumination_window": 320 / 1024,
    "illumination_unit": "minimum",
    "resize_factor": 0.5,
    "resample": "bicubic",
    "white_point": 10_000,
}
_HINTS = 20  # finding the nearest name is slow


@dataclass(frozen=True)
class Bbbc021Config:
    """Which fields of BBBC021 become records, and their splits. Raises ConfigError for values that cannot be."""

    rows: Literal["annotated", "all"] = opt(
        "annotated",
        "fields with an annotated mechanism and DMSO (3,848 of the real set), or all (13,200); splits of those without "
        "a mechanism are train",
    )
    missing: Literal["refuse", "leave_out"] = opt(
        "refuse", "fields without all their files (plates not downloaded, say): refuse, or leave_out and list them"
    )
    dmso_split: Literal["train", "val", "test"] = opt(
        "val", "the split of DMSO fields; the published training has treated fields only, all of them"
    )
    illumination_from: Literal["plate", "packed"] = opt(
        "plate", "estimate illumination from all fields of a plate, as published, or from those that are packed"
    )
    image_table: str = opt("", "BBBC021_v1_image.csv; empty = the one below the raw folder, by its header")
    moa_table: str = opt("", "BBBC021_v1_moa.csv; empty = the one below the raw folder, by its header")
    compound_table: str = opt("", "BBBC021_v1_compound.csv, for structures; empty = the one there, if any")

    def __post_init__(self) -> None:
        check_literals(self)


def read_bbbc021(config: Bbbc021Config, raw: str | Path) -> RowTable:
    """The rows of BBBC021 below `raw`; no image is opened.

    Groups are those of simulated records of the preset (plate, well, site, replicate, batch, cell_line, compound,
    concentration, moa, treatment, well_type), and table_number and image_number, the table's key of a field. A plate's
    name holds its week; a well's is unique with its plate. well_type is negative_control (DMSO), positive_control
    (taxol 0.3 uM in the control wells at both ends of a plate, so not in its dose series), unknown or treatment.
    Labels are the mechanisms; DMSO has none.

    Raises DatasetError listing everything that is wrong with tables and files, FileNotFoundError where a path does not
    exist. Fields without mechanism, mechanisms without field and files without row are in `left_out`.
    """
    tree, problems, notes = raw_tree(raw), Problems(), []
    left_out: list[tuple[str, str, str]] = []
    table = _table(tree, config.image_table, is_image_table, "the image table (BBBC021_v1_image.csv)", "image_table")
    mechanisms = _table(tree, config.moa_table, is_moa_table, "the mechanisms (BBBC021_v1_moa.csv)", "moa_table")
    assert table is not None and mechanisms is not None
    fields, known = read_image_table(table), read_moa_table(mechanisms)
    smiles = _structures(tree, config)
    kept = chosen(fields, known, config.rows, left_out)
    packed, plates = {row.name for row in kept}, {row.plate for row in kept}
    wanted = [
        row for row in fields if row.plate in plates and (config.illumination_from == "plate" or row.name in packed)
    ]
    paths = _files(tree, wanted, fields, config, packed, problems, left_out)
    problems.check(str(raw))
    lost = [row.name for row in wanted if row.name not in packed and row.name not in paths]
    if lost:
        notes.append(
            f"{len(lost)} other fields of the plates lack files; illumination is estimated without: {capped(lost)}."
        )
    kept = [row for row in kept if row.name in paths]
    unmatched(kept, fields, known, left_out)
    if not kept:
        raise DatasetError(f"{raw}: no field is left of {len(fields)}; the first reason: {capped(left_out[0][1:], 2)}.")
    if tree.links:
        notes.append(f"{len(tree.links)} links to folders are not followed: {capped(tree.links, 4)}.")
    rows = [manifest_row(row, known, smiles, config) | _columns(paths[row.name]) for row in kept]
    names = tuple(sorted({moa for (name, _), moa in known.moa.items() if name != DMSO}))
    light = [{"id": row.name, "plate": row.plate} | _columns(paths[row.name]) for row in wanted if row.name in paths]
    return RowTable(
        pd.DataFrame(rows),
        ",".join(CHANNELS),
        names,
        {"numbers": NUMBERS, **IMAGES},
        notes,
        left_out,
        pd.DataFrame(light) if config.illumination_from == "plate" else None,
    )


def chosen(
    fields: Sequence[FieldRow], known: Mechanisms, rows: Literal["annotated", "all"], left_out: list[tuple[str, ...]]
) -> list[FieldRow]:
    """The fields to pack: joined on the compound's text and the concentration as a number; others to `left_out`."""
    kept = []
    for row in fields:
        if rows == "all" or row.treatment in known.moa or row.compound == DMSO:
            kept.append(row)
        elif row.compound == UNKNOWN:
            left_out.append(("image", row.name, "what the cells were given is not known"))
        else:
            left_out.append(("image", row.name, f"no mechanism is annotated ({treated(*row.treatment)})"))
    return kept


def unmatched(
    kept: Sequence[FieldRow], fields: Sequence[FieldRow], known: Mechanisms, left_out: list[tuple[str, ...]]
) -> None:
    """Annotated treatments that no packed field has, with the nearest compound where the table lacks it."""
    have, compounds = {row.treatment for row in kept}, {row.compound for row in fields}
    hints = 0
    for treatment in known.moa:
        if treatment not in have:
            hints += treatment[0] not in compounds
            hint = nearest(treatment[0], compounds) if treatment[0] not in compounds and hints <= _HINTS else ""
            left_out.append(("annotation", treated(*treatment), f"no field{hint}"))


def well_type(row: FieldRow) -> str:
    """What stands in the field's well: a control, a treatment, or something that nobody knows."""
    if row.compound == DMSO:
        return NEGATIVE
    if row.compound == UNKNOWN:
        return NOT_KNOWN
    control = row.compound == TAXOL and row.concentration == TAXOL_DOSE and row.well in TAXOL_WELLS
    return POSITIVE if control else TREATMENT


def manifest_row(row: FieldRow, known: Mechanisms, smiles: Mapping[str, str], config: Bbbc021Config) -> dict[str, Any]:
    """id, split, labels and groups of one field."""
    moa = known.moa.get(row.treatment, DMSO if row.compound == DMSO else "")
    return {
        "id": row.name,
        "split": config.dmso_split if row.compound == DMSO else "train",
        "labels": "" if row.compound == DMSO else moa,
        "plate": row.plate,
        "well": row.well,
        "site": row.site,
        "replicate": row.replicate,
        "batch": row.batch,
        "cell_line": CELL_LINE,
        "compound": row.compound,
        "concentration": row.concentration,
        "moa": moa,
        "treatment": treated(*row.treatment),
        "well_type": well_type(row),
        "table_number": row.table_number,
        "image_number": row.image_number,
        **({"smiles": smiles.get(row.compound, "")} if smiles else {}),
    }


def _table(tree: RawTree, given: str, fits: Any, what: str, option: str, *, needed: bool = True) -> Path | None:
    path = given_table(given, tree) if given else one_table(tree.tables_like(fits), what, option=option)
    if path is None and needed:
        raise DatasetError(f"{tree.root}: {what} is not below it; give {option}=FILE.")
    return path


def _structures(tree: RawTree, config: Bbbc021Config) -> dict[str, str]:
    what = "the compounds (BBBC021_v1_compound.csv)"
    path = _table(tree, config.compound_table, is_compound_table, what, "compound_table", needed=False)
    return read_compound_table(path) if path else {}


def _columns(paths: Sequence[str]) -> dict[str, str]:
    return {f"path_{channel}": path for channel, path in zip(CHANNELS, paths, strict=True)}


def _files(
    tree: RawTree,
    wanted: Sequence[FieldRow],
    fields: Iterable[FieldRow],
    config: Bbbc021Config,
    packed: set[str],
    problems: Problems,
    left_out: list[tuple[str, ...]],
) -> dict[str, tuple[str, ...]]:
    """Field -> its files' paths below the raw folder, found by plate folder and name wherever these lie.

    Files that are missing are problems or, with missing=leave_out, take their field along to `left_out`.
    """
    at: dict[tuple[str, str], list[str]] = {}
    by_plate: dict[str, list[str]] = {}
    for path in tree.images:
        *_, plate, name = ("", *path.split("/"))
        at.setdefault((plate, name), []).append(path)
        by_plate.setdefault(plate, []).append(name)
    named = {(row.plate, name) for row in fields for name in row.files}
    spare = {plate: [n for n in names if (plate, n) not in named] for plate, names in by_plate.items()}
    found: dict[str, tuple[str, ...]] = {}
    gone: dict[str, int] = {}
    hints = 0
    for row in wanted:
        own = [at.get((row.plate, name), []) for name in row.files]
        for paths in own:
            if len(paths) > 1:
                problems.add("files found twice", f"{row.where}: {' and '.join(paths)}")
        absent = [name for name, paths in zip(row.files, own, strict=True) if not paths]
        if not absent:
            found[row.name] = tuple(paths[0] for paths in own)
        elif config.missing == "leave_out":
            if row.name in packed:
                what = f"{absent[0]}" if row.plate in by_plate else f"nothing of plate {row.plate}"
                left_out.append(("image", row.name, f"files are missing ({what})"))
        elif row.plate not in by_plate:
            gone[row.plate] = gone.get(row.plate, 0) + 1
        else:
            for name in absent:
                hints += 1
                hint = nearest(name, spare[row.plate]) if hints <= _HINTS else ""
                problems.add("missing files", f"{row.where}: no file {name} in a folder {row.plate}.{hint}")
    problems.extend(
        "plates without any file (missing=leave_out packs the others)",
        [f"{plate}: no folder of that name with images below {tree.root} ({n} fields)" for plate, n in gone.items()],
    )
    left_out += [("file", p, "no row in the image table") for key, own in at.items() if key not in named for p in own]
    return found
