"""A picture of a simulated preset: one row a class (or treatment), its channels and their composite."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from PIL import Image as Pillow

from protloc_jax import simulate
from protloc_jax.channels import Channel, ChannelSet, role_of
from protloc_jax.config import nearest
from protloc_jax.datasets.contact_sheet import contact_sheet
from protloc_jax.simulate import Field, SimConfig

# What tells the images of a preset apart, the most telling first.
BY = ("primary", "moa", "pathway", "sirna", "disease_condition", "treatment", "compound", "cell_line")
TRIES = 4
_GAP = 8


def grouping(table: pd.DataFrame, by: str | None) -> str:
    """The catalogue column whose values become rows: `by`, or the first of BY that takes more than one value.

    Raises ValueError for an unknown column.
    """
    if by is not None:
        if by not in table.columns:
            columns = [str(name) for name in table.columns]
            raise ValueError(f"--by: the catalogue has no column {by!r}.{nearest(by, columns)}")
        return by
    known = [name for name in BY if name in table.columns]
    return next((name for name in known if len(_named(table, name)) > 1), known[0] if known else "id")


def choose(table: pd.DataFrame, by: str, rows: int) -> dict[str, list[int]]:
    """For each value of a column (at most `rows` of them, spread evenly) the rows that show it, the purest first.

    Pure are proteins of one class, the highest concentration, and, but for a sheet of cell lines, the commonest line.
    """
    values = _named(table, by)
    if len(values) > rows:
        values = [values[i] for i in np.linspace(0, len(values) - 1, rows).round().astype(int)]
    worth = pd.DataFrame(index=table.index)
    if "cell_line" in table.columns and by != "cell_line":
        worth["line"] = table["cell_line"] != table["cell_line"].mode()[0]
    if "classes" in table.columns:
        worth["mixed"] = table["classes"].str.count(";")
    if "phase" in table.columns:  # in the middle of their cycle, when yeast has buds
        worth["phase"] = (table["phase"] - 0.55).abs().round(1)
    if "coverage" in table.columns:  # cells of a usual size
        worth["size"] = (table["coverage"] / table["coverage"].median() - 1).abs().round(1)
    if "concentration" in table.columns:
        worth["dose"] = -table["concentration"].fillna(0)
    order = worth.sort_values(list(worth.columns), kind="stable").index if len(worth.columns) else table.index
    shown = table[by].astype(str)
    return {value: [int(i) for i in order if shown[i] == value] for value in values}


def preset_sheet(config: SimConfig, *, by: str | None = None, rows: int = 40, tile: int = 128) -> Pillow.Image:
    """Draw a preset: each value of `by` (None: classes, or treatments) with its channels in false colour and composite.

    Images out of focus or dirty are passed over where there are others. Every picture has its own contrast. Raises
    ValueError for an unknown column or sizes that make no picture.
    """
    if rows < 1 or tile < 16:
        raise ValueError(f"--rows {rows} and --tile {tile}: at least 1 row, and tiles of at least 16 pixels.")
    table = simulate.catalogue(config)
    column = grouping(table, by)
    names, images, limits = [], [], []
    for name, candidates in choose(table, column, rows).items():
        example = _sharp(config, candidates)
        names.append(name)
        images.append(example.image)
        limits.append(_limits(example))
    domain = config.domain
    channels = ChannelSet(Channel(name, role_of(name)) for name in domain.channels)
    size = f"{images[0].shape[0]} px of {domain.um_per_pixel:g} um"
    title = f"SYNTHETIC  {config.preset}  {config.difficulty}  by {column}  {size}"
    blocks = _blocks(len(images), len(channels) + 1)
    parts = [
        contact_sheet(images[part], names[part], channels, limits[part], title="SYNTHETIC" if k else title, tile=tile)
        for k, part in enumerate(blocks)
    ]
    return _beside(parts)


def _named(table: pd.DataFrame, column: str) -> list[str]:
    """The values of a column that are names, neither missing nor empty, each once in order of appearance."""
    values = [str(value) for value, missing in zip(table[column], table[column].isna(), strict=True) if not missing]
    return [value for value in dict.fromkeys(values) if value]


def _sharp(config: SimConfig, candidates: Sequence[int]) -> Field:
    """The first of some candidates that is in focus and, where it is one cell, does not divide; else the first."""
    first = None
    for position in candidates[:TRIES]:
        found = simulate.render(config, position)
        first = found if first is None else first
        dividing = "cell" in found.truth and found.truth["stage"] > 0
        if found.truth.get("quality", "ok") == "ok" and not dividing:
            return found
    assert first is not None
    return first


def _limits(example: Field) -> np.ndarray:
    """[C, 2] darkest and brightest shown: the brightest of the cell itself, where one stands in the middle."""
    pixels = example.image.reshape(-1, example.image.shape[-1])
    own = (example.cell_labels == example.truth["cell"]).ravel() if "cell" in example.truth else slice(None)
    return np.stack([np.percentile(pixels, 1, axis=0), np.percentile(pixels[own], 99.8, axis=0)], axis=1)


def _blocks(rows: int, columns: int) -> list[slice]:
    """Rows cut into blocks that stand side by side and make the sheet about as wide as high."""
    count = max(1, min(rows, round(math.sqrt(rows / columns))))
    each = -(-rows // count)
    return [slice(start, min(start + each, rows)) for start in range(0, rows, each)]


def _beside(parts: Sequence[Pillow.Image]) -> Pillow.Image:
    width = sum(part.width for part in parts) + _GAP * (len(parts) - 1)
    sheet = Pillow.new("RGB", (width, max(part.height for part in parts)), (24, 24, 24))
    left = 0
    for part in parts:
        sheet.paste(part, (left, 0))
        left += part.width + _GAP
    return sheet
