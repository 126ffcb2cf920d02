"""Simulated cells as records: the catalogue becomes the manifest, each rendered field a record with its cell mask."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from protloc_jax import simulate
from protloc_jax.channels import Channel, ChannelSet, role_of
from protloc_jax.config import from_mapping, to_dict
from protloc_jax.data import manifest as manifests
from protloc_jax.data import records
from protloc_jax.data.info import RecordsInfo
from protloc_jax.data.manifest import Manifest
from protloc_jax.datasets.cell_free import CellFreeConfig, cut, in_the_way
from protloc_jax.simulate import Field, SimConfig, neighbours
from protloc_jax.simulate.layout import field_rows
from protloc_jax.simulate.shot import field_cells

GROUPS = ("protein", "primary", "complex", "plate", "well", "site", "cell_line")
CELL_GROUPS = ("field", "cell", "row", "column", "phase", "coverage", "others", "neighbours", "neighbour_proteins")
NEIGHBOUR_GROUPS = ("neighbour_kind", "neighbour_class")  # where SimConfig.neighbours is not plain


@dataclass(frozen=True)
class Rendered:
    """(image [H, W, C], mask [H, W] uint8) of row i of a catalogue. Picklable.

    The mask of a field is 1 inside cells, that of a single cell 1 in the cell itself and 2 in others.
    """

    config: SimConfig

    def __call__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        field = simulate.render(self.config, row)
        return field.image, (field.cell_labels > 0).astype(np.uint8)


@dataclass(frozen=True)
class RenderedFields:
    """Pixels [H, W, C] and label images [H, W] of the fields of a simulation (unit=field), by row. Picklable."""

    config: SimConfig

    def pixels(self, row: int) -> np.ndarray:
        return _field(self.config, row).image

    def labels(self, row: int, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(cells, nuclei); the pixels are not looked at."""
        field = _field(self.config, row)
        return field.cell_labels, field.nucleus_labels


@dataclass(frozen=True, eq=False)
class EmptiedPatches:
    """(patch [S, S, C], mask [S, S] uint8, all 0) of row i: a field rendered without the cells in the patch's way.

    fields, corners  per row the field's id and the patch's upper left corner (row, column)
    """

    config: SimConfig
    fields: tuple[str, ...]
    corners: np.ndarray
    free: CellFreeConfig

    def __call__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        gone = in_the_way(cells_of(self.config, self.fields[row]), self.corners[row], self.free)
        image = neighbours.without(self.config, self.fields[row], gone.tolist()).image
        patch = cut(image, self.corners[row][None], self.free.size)[0]
        return patch, np.zeros(patch.shape[:2], np.uint8)


@lru_cache(maxsize=4)
def cells_of(config: SimConfig, field: str) -> np.ndarray:
    """The label image [H, W] of the cells of a simulated field, without rendering it."""
    return field_cells(config, field_rows(config)[field]).cell_labels


@lru_cache(maxsize=2)
def _field(config: SimConfig, row: int) -> Field:
    return simulate.render(config, row)


@dataclass(frozen=True, eq=False)
class RenderedCells(Rendered):
    """The same for single cells; `rows` spares each worker the making of the catalogue."""

    rows: pd.DataFrame

    def __call__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        cell = simulate.render(self.config, self.rows.iloc[row])
        return cell.image, cell_mask(cell)


def cell_mask(cell: Field) -> np.ndarray:
    """The mask [H, W] uint8 of a single cell: 1 = the cell, 2 = other cells, 0 = free."""
    own = cell.cell_labels == cell.truth["cell"]
    return np.where(own, 1, np.where(cell.cell_labels > 0, 2, 0)).astype(np.uint8)


def manifest_of(config: SimConfig) -> Manifest:
    """The manifest of a simulated data set, without rendering anything; row i is row i of the catalogue.

    Labels of proteins are all localizations of the row's protein, over the preset's class list (a class may have no
    protein when there are few). Pooled fields have no labels and no protein: their cells have. Labels of a screen are
    the MoA (bbbc021; none for DMSO and for doses below the annotated ones), the siRNA (rxrx1; none for controls) or the
    disease condition (rxrx19a); every other column of its catalogue is a group column. Splits are as the catalogue
    makes them.
    """
    table = simulate.catalogue(config)
    if isinstance(config.domain, simulate.Screen):
        return _screen_manifest(config, table)
    mixed = config.pooled > 0 and not config.of_cells
    groups = [name for name in (*GROUPS, *CELL_GROUPS, *NEIGHBOUR_GROUPS) if name in table.columns]
    columns = {
        "id": table["id"],
        "split": table["split"],
        "labels": [() if mixed else tuple(text.split(";")) for text in table["classes"]],
        "source": [_source(config)] * len(table),
        **{name: table[name] for name in groups if not (mixed and name in ("protein", "primary", "complex"))},
    }
    return manifests.make(
        pd.DataFrame(columns),
        ChannelSet(Channel(name, role_of(name)) for name in config.domain.channels),
        label_names=() if mixed else simulate.class_names(config.preset),
        label_kind="none" if mixed else "multi",
        um_per_pixel=config.domain.um_per_pixel,
    )


def notes_of(config: SimConfig) -> list[str]:
    """What a user should know of a data set although it is no error: rare classes, and proteins that are left out."""
    notes = manifest_of(config).warnings()
    if config.neighbours != "plain":
        notes += [
            f"neighbours={config.neighbours}: in {split}, the cells of {len(names)} protein(s) are left out, for no "
            f"other protein there is of their class (or of another): {manifests.capped(names, 100)}."
            for split, names in neighbours.without_neighbours(config).items()
        ]
    return notes


def _screen_manifest(config: SimConfig, table: pd.DataFrame) -> Manifest:
    names, column = simulate.label_names(config), simulate.label_column(config)
    known = set(names)
    groups = {
        name: table[name].where(table[name] != "", None) if table[name].dtype == object else table[name]
        for name in table.columns
        if name not in ("id", "split")
    }
    columns = {
        "id": table["id"],
        "split": table["split"],
        "labels": [(value,) if value in known else () for value in table[column]],
        "source": [_source(config)] * len(table),
        **groups,
    }
    return manifests.make(
        pd.DataFrame(columns),
        ChannelSet(Channel(name, role_of(name)) for name in config.domain.channels),
        label_names=names,
        label_kind="single",
        um_per_pixel=config.domain.um_per_pixel,
    )


def _source(config: SimConfig) -> str:
    return f"simulated {config.preset} {config.difficulty} seed {config.seed}"


def pack(
    config: SimConfig,
    out: str | Path,
    *,
    workers: int | None = None,
    shard_size: int = 0,
    progress: bool = False,
    restart: bool = False,
) -> RecordsInfo:
    """Render every image and write records; the same call resumes after a kill.

    `workers` processes render (None: one a core, 0: this process), so a script that calls this needs a __main__ guard.
    """
    rendered = RenderedCells(config, simulate.catalogue(config)) if config.of_cells else Rendered(config)
    first = hashlib.blake2b(rendered(0)[0].tobytes(), digest_size=8).hexdigest()
    return records.write(
        out,
        manifest_of(config),
        rendered,
        name=f"simulated-{config.preset}-{config.difficulty}",
        shard_size=shard_size,
        workers=workers,
        parallel="threads" if workers == 0 else "processes",
        progress=progress,
        # The first field's digest tells a simulator that changed between two runs of an interrupted packing.
        source=json.dumps({"simulated": to_dict(config), "first_field": first}, sort_keys=True),
        restart=restart,
    )


def config_of(info: RecordsInfo) -> SimConfig | None:
    """The simulation that records hold, or None where they hold real images: what is synthetic must say so."""
    return from_mapping(SimConfig, info.simulated) if info.simulated else None
