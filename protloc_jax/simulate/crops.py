"""Single cells cut out of simulated fields: which cells there are, and the image of any one of them alone.

A cell's key is its field's with the cell's label, `…-s1-c007`. A cell is taken when it is whole, when its box lies in
the field, and when it fills between 5 and 95 % of the box (the gate of the background study, its section 3.1).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
import scipy.ndimage

from protloc_jax.config import nearest
from protloc_jax.simulate import fields, neighbours
from protloc_jax.simulate.config import SimConfig
from protloc_jax.simulate.field import Field
from protloc_jax.simulate.layout import cached_catalogue, field_rows
from protloc_jax.simulate.pooled import cell_proteins
from protloc_jax.simulate.shot import field_cells

LEAST_COVER, MOST_COVER = 0.05, 0.95
_KEY = re.compile(r"(.+)-c(\d+)")

COLUMNS = (
    "id", "field", "protein", "classes", "primary", "plate", "well", "site", "cell_line", "split", "weights", "complex",
    "cell", "row", "column", "phase", "coverage", "others", "neighbours",
    "neighbour_proteins",
)  # fmt: skip
NEIGHBOUR_COLUMNS = ("neighbour_kind", "neighbour_class")  # of data sets whose `neighbours` are not plain


def _box(row: int, column: int, side: int) -> tuple[slice, slice]:
    return slice(row - side // 2, row - side // 2 + side), slice(column - side // 2, column - side // 2 + side)


def cells_of_field(config: SimConfig, field_row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of the cells of one field, in order of their labels, from its geometry alone."""
    if not neighbours.told(config, field_row):
        return []
    cells, side = field_cells(config, field_row), config.domain.crop
    labels, size = cells.cell_labels, cells.cell_labels.shape[0]
    owners = cell_proteins(config, field_row, len(cells.shapes))
    rows = []
    for k, found in enumerate(scipy.ndimage.find_objects(labels, max_label=len(cells.shapes))):
        if found is None or any(part.start == 0 or part.stop == size for part in found):
            continue
        row, column = ((part.start + part.stop) // 2 for part in found)
        box = _box(row, column, side)
        if any(part.start < 0 or part.stop > size for part in box):
            continue
        counts = np.bincount(labels[box].ravel(), minlength=len(cells.shapes) + 1)
        coverage = counts[k + 1] / side**2
        if not LEAST_COVER <= coverage <= MOST_COVER:
            continue
        counts[[0, k + 1]] = 0
        beside: dict[str, int] = {}
        for label in np.flatnonzero(counts).tolist():
            beside[owners[label - 1].name] = beside.get(owners[label - 1].name, 0) + int(counts[label])
        own = owners[k]
        extra: dict[str, Any] = {}
        if config.neighbours != "plain":
            drawn = neighbours.neighbour_of(config, field_row, k + 1)
            if drawn is None:
                counts[:] = 0
            beside = {drawn.name: int(counts.sum())} if drawn is not None and counts.any() else {}
            extra = {
                "neighbour_kind": config.neighbours,
                "neighbour_class": drawn.primary if drawn is not None else "",
            }
        rows.append(
            {
                **{name: field_row[name] for name in ("plate", "well", "site", "cell_line", "split")},
                "id": f"{field_row['id']}-c{k + 1:03d}",
                "field": field_row["id"],
                "protein": own.name,
                "classes": ";".join(own.weights),
                "primary": own.primary,
                "weights": json.dumps({name: round(weight, 6) for name, weight in own.weights.items()}),
                "complex": own.complex,
                "cell": k + 1,
                "row": row,
                "column": column,
                "phase": round(float(cells.shapes.phase[k]), 4),
                "coverage": round(float(coverage), 4),
                "others": round(float(counts.sum() / side**2), 4),
                "neighbours": int(np.count_nonzero(counts)),
                "neighbour_proteins": ";".join(sorted(beside, key=lambda name: (-beside[name], name))),
                **extra,
            }
        )
    return rows


@lru_cache(maxsize=8)
def cached_cells(config: SimConfig) -> pd.DataFrame:
    """The shared table behind the catalogue of single cells; callers must not write to it."""
    rows = [row for one in cached_catalogue(config).to_dict("records") for row in cells_of_field(config, one)]
    if not rows and not any(neighbours.told(config, one) for one in cached_catalogue(config).to_dict("records")):
        raise ValueError(
            f"neighbours={config.neighbours}: no protein has another one of its class and one of another class in its "
            f"split: give more than n_proteins={config.n_proteins}"
        )
    if not rows:
        raise ValueError(
            f"none of the {len(cached_catalogue(config))} fields of {config.size} pixels has a whole cell whose "
            f"{config.domain.crop} pixels fit in: make them larger (size)"
        )
    names = COLUMNS if config.neighbours == "plain" else (*COLUMNS, *NEIGHBOUR_COLUMNS)
    return pd.DataFrame({name: [row[name] for row in rows] for name in names})


def cell_row(config: SimConfig, key: str) -> dict[str, Any]:
    """The catalogue row of one cell from its key, by the geometry of its field alone.

    Raises ValueError for a key of no field, or of a cell that is not taken, naming those that are.
    """
    match, known = _KEY.fullmatch(key), field_rows(config)
    field = match[1] if match else key
    if match is None or field not in known:
        raise ValueError(f"{key!r} is no cell of this data set: no field {field!r}.{nearest(field, known)}")
    rows = {row["id"]: row for row in cells_of_field(config, known[field])}
    if key not in rows:
        raise ValueError(f"{key!r} is not among the whole cells of its field: {', '.join(rows) or 'it has none'}")
    return rows[key]


def field_and_box(config: SimConfig, row: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[slice, slice]]:
    """The catalogue row of the field that a cell's row was cut from, and its box there.

    Raises ValueError where the data set has no such field.
    """
    known = field_rows(config)
    if row["field"] not in known:
        raise ValueError(f"row {row['id']!r}: field {row['field']!r} is not of this data set")
    return known[row["field"]], _box(int(row["row"]), int(row["column"]), config.domain.crop)


def cut(field: Field, row: Mapping[str, Any], *, side: int, background: str = "keep") -> Field:
    """Cut the cell of a catalogue row out of its rendered field.

    Labels keep their numbers in the field; `truth` adds the cell's own label, place, phase, amount, protein and
    weights. With background="mask" the image is 0 outside the cell; density and labels are not touched.
    """
    box, label = _box(int(row["row"]), int(row["column"]), side), int(row["cell"])
    labels = field.cell_labels[box]
    image = field.image[box]
    if background == "mask":
        image = image * (labels == label)[..., None].astype(image.dtype)
    own = {
        "id": row["id"],
        "field": row["field"],
        "cell": label,
        "row": int(row["row"]),
        "column": int(row["column"]),
        "protein": row["protein"],
        "weights": json.loads(row["weights"]),
        "complex": row["complex"],
        "phase": float(field.truth["phase"][label - 1]),
        "stage": int(field.truth["stage"][label - 1]),
        "expression": float(field.truth["expression"][label - 1]),
        "neighbours": {int(other): field.truth["cell_proteins"][other - 1] for other in np.unique(labels)
                       if other not in (0, label)},
    }  # fmt: skip
    return Field(
        np.ascontiguousarray(image),
        field.nucleus_labels[box].copy(),
        labels.copy(),
        {name: part[box].copy() for name, part in field.density.items()},
        {**field.truth, **own},
    )


@lru_cache(maxsize=2)
def _rendered(config: SimConfig, field: str) -> Field:
    return fields.render(config, field_rows(config)[field])


def _whole(config: SimConfig, row: Mapping[str, Any]) -> Field:
    """The rendered field of a cell's row; where its neighbours are drawn for it, a field of its own."""
    if neighbours.drawn(config):
        return neighbours.render(config, str(row["field"]), int(row["cell"]))
    return _rendered(config, str(row["field"]))


def render(config: SimConfig, row: int | str | Mapping[str, Any] | pd.Series) -> Field:
    """Render one cell from its catalogue row, position or key: its field is rendered and the cell cut out.

    The last two fields of a process are kept, so going through a catalogue in order renders each field once. Raises
    ValueError for what does not exist or belongs to another configuration.
    """
    if isinstance(row, str):
        chosen: Mapping[str, Any] = cell_row(config, row)
    elif isinstance(row, (int, np.integer)):
        chosen = _at(config, int(row))
    else:
        chosen = dict(row)
        if chosen["field"] not in field_rows(config):
            raise ValueError(f"row {chosen['id']!r}: field {chosen['field']!r} is not of this data set")
    field, label = _whole(config, chosen), int(chosen["cell"])
    names = field.truth["cell_proteins"]
    if not 0 < label <= len(names) or names[label - 1] != chosen["protein"]:
        raise ValueError(f"row {chosen['id']!r}: the cell has another protein here; is it from another config?")
    return cut(field, chosen, side=config.domain.crop, background=config.background)


def _at(config: SimConfig, position: int) -> dict[str, Any]:
    table = cached_cells(config)
    if not 0 <= position < len(table):
        raise ValueError(f"cell {position} does not exist: the catalogue has {len(table)} rows")
    return table.iloc[position].to_dict()


def render_many(config: SimConfig, indices: Sequence[int] | None, *, workers: int | None) -> Iterator[Field]:
    """Render many cells in order; cells of one field that follow each other share one rendering."""
    positions = range(len(cached_cells(config))) if indices is None else indices
    wanted = (_at(config, int(index)) for index in positions)
    if neighbours.drawn(config):
        groups = [list(rows) for _, rows in groupby(wanted, lambda row: row["field"])]
        yield from fields.in_order(partial(_render_some, config), groups, workers)
        return
    at = {name: number for number, name in enumerate(field_rows(config))}
    runs = [(name, list(rows)) for name, rows in groupby(wanted, lambda row: row["field"])]
    rendered = fields.render_many(config, [at[name] for name, _ in runs], workers=workers)
    for (_, rows), field in zip(runs, rendered, strict=True):
        yield from (cut(field, row, side=config.domain.crop, background=config.background) for row in rows)


def _render_some(config: SimConfig, rows: Sequence[Mapping[str, Any]]) -> list[Field]:
    return [render(config, row) for row in rows]
