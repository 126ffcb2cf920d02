"""Fields of view of the Human Protein Atlas, in the layouts in which they are passed around, as rows to pack.

kaggle      `<Id>_{red,green,blue,yellow}.png` and train.csv (Id, Target), as in the challenge of 2018
atlas       `<antibody>_<plate>_<well>_<site>_<colour>.jpg` (or tif, png), with a table of the same two columns or none
dino4cells  whole_images.csv; one RGBA file an image (yellow in the place of alpha), or a file a colour

Red is the microtubules, green the protein, blue the nucleus, yellow the endoplasmic reticulum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from protloc_jax.config import ConfigError, check_literals, nearest, opt
from protloc_jax.data.manifest import capped
from protloc_jax.datasets.hpa_files import COLOURS, WHOLE, HpaFiles, hpa_files, one_form
from protloc_jax.datasets.hpa_tables import (
    CLASSES,
    HpaRow,
    disagreements,
    is_dino4cells,
    is_kaggle,
    place_of,
    read_dino4cells,
    read_kaggle,
)
from protloc_jax.datasets.label_rules import LabelRules
from protloc_jax.datasets.problems import DatasetError, Problems
from protloc_jax.datasets.raw_tree import RawTree, given_table, header_of, one_table, raw_tree
from protloc_jax.datasets.row_table import RowTable, ruled_rows

_HINTS = 20  # finding the nearest name is slow


@dataclass(frozen=True)
class HpaOptions(LabelRules):
    """What fields and single cells of the atlas have in common. Raises ConfigError for values that cannot be."""

    table: str = opt("", "the label table; empty = the one below the raw folder, recognised by its header")
    colours: tuple[str, ...] = opt(tuple(COLOURS), "the colours to pack, in order: red, green, blue, yellow")
    without_antibody: Literal["refuse", "alone"] = opt(
        "refuse",
        "images whose ID names no antibody (the challenge's), where splits keep proteins whole: refuse, or alone (each "
        "is a group of its own, although other images may show the same protein)",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_literals(self)
        wrong = [f"'{c}'{nearest(c, COLOURS)}" for c in self.colours if c not in COLOURS]
        if wrong or not self.colours or len(set(self.colours)) < len(self.colours):
            raise ConfigError(
                f"colours: {', '.join(wrong) or list(self.colours)}: different ones of {', '.join(COLOURS)}."
            )

    @property
    def channels(self) -> str:
        """The channels' names, which are their roles."""
        return ",".join(COLOURS[c] for c in self.colours)


@dataclass(frozen=True)
class HpaFovConfig(HpaOptions):
    """How fields of view of the atlas become a labelled data set. Raises ConfigError for values that cannot be."""

    layout: Literal["auto", "kaggle", "atlas", "dino4cells"] = opt(
        "auto", "auto takes dino4cells where its table is there (train.csv must then agree), else the Id,Target table"
    )
    class_order: Literal["alphabetical", "kaggle"] = opt(
        "alphabetical",
        "order of the 28 classes: alphabetical as in DINO4Cells' classifiers, or the challenge's numbers",
    )


def read_hpa_fov(config: HpaFovConfig, raw: str | Path) -> RowTable:
    """The rows of HPA fields below `raw`; no pixel is read.

    Raises DatasetError listing everything that is wrong with tables and names, FileNotFoundError where a path does not
    exist. Rows without image, and images without row, are in `left_out`.
    """
    tree, problems, notes = raw_tree(raw), Problems(), []
    left_out: list[tuple[str, str, str]] = []
    rows = _rows(tree, config, problems, notes)
    files = hpa_files(tree, problems)
    if rows is None:
        rows = [HpaRow(key.rpartition("/")[2], key, (), "", key) for key in files.images]
        labelled = False
        notes.append("no label table is found: the records have no labels.")
        if config.unlabelled == "drop":
            raise DatasetError(
                f"{raw}: no label table (Id,Target or DINO4Cells' file,ID,cell_type,...) below it; give table=FILE, or "
                "unlabelled=keep to pack without labels."
            )
    else:
        labelled = True
    matched = match_files(rows, files, problems, notes, left_out)
    problems.check(str(raw))
    if config.unlabelled == "keep":
        rowless = [name for kind, name, _ in left_out if kind == "image"]
        left_out[:] = [one for one in left_out if one[0] != "image"]
        matched += [(HpaRow(key.rpartition("/")[2], key, (), "", key), key) for key in rowless]
    made = [image_row(row, row.id, files.images[key], config) for row, key in matched]
    return as_rows(
        made, config, CLASSES if labelled else (), config.class_order == "alphabetical", problems, left_out, notes
    )


def as_rows(
    made: list[dict[str, Any]],
    config: HpaOptions,
    classes: Sequence[str],
    alphabetical: bool,
    problems: Problems,
    left_out: list[tuple[str, str, str]],
    notes: list[str],
) -> RowTable:
    """Image rows as a table to pack, by the rules and with the settings of the layout."""
    whole = one_form([row["files"] for row in made], problems)
    problems.check("image files")
    if whole and config.colours != tuple(COLOURS):
        raise DatasetError(f"colours={','.join(config.colours)}: files of all colours hold {', '.join(COLOURS)}.")
    for row in made:
        own = row.pop("files")
        if whole:
            row["path"] = own[WHOLE]
        else:
            row.update({f"path_{COLOURS[c]}": own.get(c, "") for c in config.colours})
    nameless = [row for row in made if not row["protein"]]
    if nameless:
        alone = config.without_antibody == "alone"
        notes.append(
            f"{len(nameless)} of {len(made)} IDs name no antibody, such as {nameless[0]['id']}: "
            + (
                "each is a protein of its own."
                if alone
                else "they cannot be split by protein (without_antibody=alone)."
            )
        )
        for row in nameless if alone else ():
            row["protein"] = f"alone {row['id']}"
    by_protein = any(row["protein"] for row in made)
    order = tuple(sorted(classes)) if alphabetical else tuple(classes)
    frame, names = ruled_rows(made, config, order, left_out, notes)
    empty = [c for c in ("plate", "well", "site", "cell_line") if not any(list(frame[c]))]
    frame = frame.drop(columns=empty)
    settings = {"split_by": "protein" if by_protein else "", "colour": "max"}
    return RowTable(frame, config.channels, names if classes else (), settings, notes, left_out)


def image_row(row: HpaRow, name: str, own: dict[str, str], config: HpaOptions) -> dict[str, Any]:
    """One image: `name` is its id, `row.id` tells antibody, plate, well and site."""
    place = place_of(row.id)
    return {
        "id": name,
        "files": own,
        "labels": row.labels,
        "protein": place.get("antibody", ""),
        **{key: place.get(key, "") for key in ("plate", "well", "site")},
        "cell_line": row.cell_line,
    }


def match_files(
    rows: Sequence[HpaRow],
    files: HpaFiles,
    problems: Problems,
    notes: list[str],
    left_out: list[tuple[str, str, str]],
) -> list[tuple[HpaRow, str]]:
    """Rows with the key of their image, in the table's order; what has no partner goes to `left_out`.

    Images named <plate>_<well>_<site> are matched to the only ID that ends so.
    """
    matched: dict[str, HpaRow] = {}
    absent: list[HpaRow] = []
    for row in rows:
        key, why = files.find(row.file or row.id)
        if not key and why == "no image":
            absent.append(row)
        elif not key:
            problems.add("images that cannot be told apart", f"{row.where}: '{row.file or row.id}': {why}")
        elif key in matched:
            problems.add("two rows for one image", f"{row.where} and {matched[key].where}: {key}")
        else:
            matched[key] = row
    ends: dict[str, list[HpaRow]] = {}
    for row in absent:
        if place_of(row.id):
            ends.setdefault(row.id.partition("_")[2], []).append(row)
    by_place = 0
    for key in [key for key in files.images if key not in matched]:
        own = ends.get(key.rpartition("/")[2], [])
        if len(own) == 1:
            matched[key] = own[0]
            by_place += 1
        elif own:
            problems.add("images that several rows may mean", f"{key}: {capped([row.id for row in own])}")
        else:
            left_out.append(("image", key, "no row in the label table"))
    if by_place:
        notes.append(f"{by_place} images are named <plate>_<well>_<site> and matched to the one ID that ends so.")
    taken = {id(row) for row in matched.values()}
    left = [row for row in absent if id(row) not in taken]
    left_out += [
        ("annotation", row.file or row.id, f"no image{files.hint(row.file or row.id) if i < _HINTS else ''}")
        for i, row in enumerate(left)
    ]
    if left:
        notes.append(f"{len(left):,} rows of the label table have no image; see rows_left_out.csv.")
    if not matched:
        shown = capped([f"{name}: {why}" for kind, name, why in left_out if kind == "annotation"], 3)
        images = capped(list(files.images), 3) or "none"
        problems.add("no match", f"no row of the label table has an image; rows: {shown}; images: {images}")
    order = {id(row): i for i, row in enumerate(rows)}
    return sorted(((row, key) for key, row in matched.items()), key=lambda pair: order[id(pair[0])])


def _rows(tree: RawTree, config: HpaFovConfig, problems: Problems, notes: list[str]) -> list[HpaRow] | None:
    """The label table's rows; None where there is none."""
    if config.table:
        paths = [given_table(config.table, tree)]
        header = header_of(paths[0])
        if not (is_kaggle(header) or is_dino4cells(header)):
            raise DatasetError(
                f"{paths[0]}: neither Id,Target nor DINO4Cells' file,ID,cell_type and 28 classes; columns: "
                f"{capped(list(header), 12)}."
            )
    else:
        paths = tree.tables_like(lambda header: is_kaggle(header) or is_dino4cells(header))
    plain = one_table([p for p in paths if is_kaggle(header_of(p))], "an Id,Target table", option="table")
    whole = one_table([p for p in paths if is_dino4cells(header_of(p))], "whole_images.csv", option="table")
    if config.layout == "dino4cells" and whole is None:
        raise DatasetError(f"{tree.root}: layout=dino4cells needs a table with file, ID, cell_type and 28 classes.")
    if whole is not None and config.layout in ("auto", "dino4cells"):
        rows = read_dino4cells(whole)
        notes.append(f"labels and cell lines of {len(rows):,} images from {whole.name} (DINO4Cells).")
        if plain is not None and config.layout == "auto":
            problems.extend("tables that differ", disagreements(rows, read_kaggle(plain)))
        return rows
    if plain is None:
        if config.layout == "kaggle":
            raise DatasetError(f"{tree.root}: layout=kaggle needs train.csv (Id, Target).")
        return None
    rows = read_kaggle(plain)
    notes.append(f"labels of {len(rows):,} images from {plain.name} (Id, Target).")
    return rows
