"""The same cell among other neighbours: of its own protein, of another of its class, of another class, or none.

The native counterpart of pasting a cell on another background: no seam and no matching of intensities, and light of
the neighbours spreads into the cell as the optics have it. A field is drawn once as if all its cells carried the
protein of the one in question, and once as if they carried that of its neighbours. Each cell sends out what it does in
the drawing of its own protein, and one lens and one camera see them together. So what the cell itself sends out is the
same, bit for bit, whatever stands around it, and is what it sends out in the plain field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from protloc_jax.simulate import fields
from protloc_jax.simulate.config import DRAWN, SimConfig
from protloc_jax.simulate.field import Field
from protloc_jax.simulate.keys import generator
from protloc_jax.simulate.layout import cached_catalogue, field_rows, proteins_by_name
from protloc_jax.simulate.pooled import members
from protloc_jax.simulate.proteins import Protein
from protloc_jax.simulate.shot import Light, Shot, take


def drawn(config: SimConfig) -> bool:
    """Whether each cell's field is rendered for it."""
    return config.neighbours in (*DRAWN, "none")


def told(config: SimConfig, row: Mapping[str, Any]) -> bool:
    """Whether cells of this row's protein are taken: plainly all, else those that have every kind of neighbour.

    So the data sets of all kinds hold the same cells under the same ids.
    """
    if config.neighbours == "plain":
        return True
    own = proteins_by_name(config)[row["protein"]]
    return all(_candidates(config, str(row["split"]), own.name, kind) for kind in DRAWN)


def without_neighbours(config: SimConfig) -> dict[str, list[str]]:
    """Per split, the proteins whose cells are left out because no other one of its split can stand beside them."""
    lost: dict[str, list[str]] = {}
    for row in cached_catalogue(config).drop_duplicates("protein").to_dict("records"):
        if not told(config, row):
            lost.setdefault(str(row["split"]), []).append(str(row["protein"]))
    return lost


def neighbour_of(config: SimConfig, field_row: Mapping[str, Any], label: int) -> Protein | None:
    """The protein that all neighbours of one cell carry; None where it stands alone.

    same_class: uniformly one of the other proteins of its primary class and split. other_class: uniformly one of the
    other classes that the split has, then one of that class's proteins.
    """
    known = proteins_by_name(config)
    own = known[field_row["protein"]]
    if config.neighbours not in DRAWN:
        return None if config.neighbours == "none" else own
    by_class = _candidates(config, str(field_row["split"]), own.name, config.neighbours)
    place = str(field_row["plate"]), str(field_row["well"]), int(field_row["site"])
    address = "neighbours", config.neighbours, config.neighbour_draw, label
    rng = generator(config.seed, config.preset, *place, *address)
    chosen = by_class[int(rng.integers(len(by_class)))]
    return known[chosen[int(rng.integers(len(chosen)))]]


@lru_cache(maxsize=4096)
def _candidates(config: SimConfig, split: str, own: str, kind: str) -> tuple[tuple[str, ...], ...]:
    """The proteins that may stand beside `own`, by class in the order of the preset."""
    known = proteins_by_name(config)
    by_class: dict[str, list[str]] = {name: [] for name in config.domain.classes}
    for name in members(config)[split]:
        if name != own and (known[name].primary == known[own].primary) == (kind == "same_class"):
            by_class[known[name].primary].append(name)
    return tuple(tuple(names) for names in by_class.values() if names)


@lru_cache(maxsize=2)
def _taken(config: SimConfig, field: str) -> tuple[Shot, Light, np.ndarray]:
    """A field, and what its cells send out if all carry the field's protein; kept for the next cell of the field."""
    row = field_rows(config)[field]
    shot = take(config, row)
    return shot, *fields.alone(shot, fields.own_protein(config, row))


def render(config: SimConfig, field: str, label: int) -> Field:
    """The field around one of its cells: that cell as it always is, all others as `neighbour_of` says."""
    row = field_rows(config)[field]
    shot, own, expression = _taken(config, field)
    protein, other = fields.own_protein(config, row), neighbour_of(config, row, label)
    mine = shot.cells.cell_labels == label
    number = np.arange(1, len(shot.cells.shapes) + 1)
    if other is None:
        light, beside, only = _beside(own, None, mine), np.zeros(number.size), mine
    else:
        theirs, beside = fields.alone(shot, other, address=f"neighbours:{other.name}")
        light, only = _beside(own, theirs, mine), None
    owners = [protein if other is None or k == label else other for k in number]
    amount = np.where(number == label, expression, beside)
    return fields.finish(row, protein, shot, owners, light, amount, only=only)


def without(config: SimConfig, field: str, gone: Sequence[int]) -> Field:
    """A plain field without the cells of these labels: no light of theirs, and no label."""
    row = field_rows(config)[field]
    shot, own, expression = _taken(config, field)
    stays = (shot.cells.cell_labels > 0) & ~np.isin(shot.cells.cell_labels, gone)
    protein = fields.own_protein(config, row)
    owners = [protein] * len(shot.cells.shapes)
    return fields.finish(row, protein, shot, owners, _beside(own, None, stays), expression, only=stays)


def _beside(own: Light, others: Light | None, mine: np.ndarray) -> Light:
    """One light of two: `own` where `mine` [H, W] is true, `others` elsewhere."""
    density = {name: part * mine for name, part in own.density.items()}
    sent = own.sent * mine
    if others is not None:
        for name, part in others.density.items():
            beside = part * ~mine
            density[name] = density[name] + beside if name in density else beside
        sent = np.where(mine, sent, others.sent)
    return Light(density, sent, own.unit, None)
