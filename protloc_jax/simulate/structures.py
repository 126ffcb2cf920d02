"""Structures that several channels of one cell share: nucleoli, chromatin, microtubules and the ER network.

A protein of the microtubules lies on the very filaments the microtubule stain shows; so these are made once a field,
from their own address, and kept in `Scene.shared`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from protloc_jax.simulate.geometry import INTERPHASE, Cells
from protloc_jax.simulate.primitives import Points, blur, ridge, sample_points, smooth_field, splat_points, walk


@dataclass
class Scene:
    """The cells of a field, the source of addressed generators for shared structures, and what was made so far.

    `recipes` makes the shared structures; those of cells in culture unless others are given.
    """

    cells: Cells
    stream: Callable[[str], np.random.Generator]
    shared: dict[str, np.ndarray] = field(default_factory=dict)
    recipes: Mapping[str, Callable[[Scene, np.random.Generator], np.ndarray]] | None = None

    def get(self, name: str) -> np.ndarray:
        """Return the shared structure `name` [H, W], made on first use."""
        if name not in self.shared:
            recipes = SHARED if self.recipes is None else self.recipes
            self.shared[name] = recipes[name](self, self.stream(name))
        return self.shared[name]


def inside_envelope(cells: Cells, softness: float = 0.3) -> np.ndarray:
    """1 inside nuclei (or chromosomes), 0 outside, with an edge `softness` µm wide."""
    return np.clip(0.5 - cells.envelope / softness, 0, 1)


def grain(rng: np.random.Generator, cells: Cells, scale_um: float, strength: float) -> np.ndarray:
    """A positive multiplicative texture of mean about 1."""
    return np.maximum(1 + np.float32(strength) * smooth_field(rng, cells.shape, scale_um / cells.um), 0.05)


def _nucleoli(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """1–5 clipped blobs a nucleus that stay clear of the envelope, value 0–1."""
    cells = scene.cells
    shapes, size = cells.shapes, cells.shape[0]
    result = np.zeros(cells.shape, np.float32)
    number = rng.integers(1, 6, len(shapes))
    draws = rng.random((len(shapes), 24, 2))
    turns = rng.uniform(0, 2 * np.pi, (len(shapes), 5, 2))
    wide = rng.uniform(0.7, 1.35, (len(shapes), 5)) * (1.4 - 0.1 * number)[:, None]
    for k in np.flatnonzero(shapes.stage == INTERPHASE):
        placed: list[tuple[float, float]] = []
        for a, b in draws[k]:
            if len(placed) == number[k]:
                break
            reach = 0.55 * shapes.length[k] / cells.um * np.sqrt(a)
            i = shapes.row[k] + reach * np.sin(2 * np.pi * b)
            j = shapes.column[k] + reach * np.cos(2 * np.pi * b)
            at = round(i), round(j)
            if not (0 <= at[0] < size and 0 <= at[1] < size) or cells.nucleus_labels[at] != k + 1:
                continue
            radius = min(wide[k, len(placed)], -cells.envelope[at] - 0.6)
            if radius < 0.6 or any(np.hypot(i - p, j - q) * cells.um < 2.2 * radius for p, q in placed):
                continue
            turn = turns[k, len(placed)]
            placed.append((i, j))
            reach_px = int(np.ceil(1.6 * radius / cells.um))
            box = tuple(slice(max(c - reach_px, 0), min(c + reach_px + 1, size)) for c in at)
            y = (np.arange(box[0].start, box[0].stop, dtype=np.float32) - np.float32(i))[:, None] * cells.um
            x = (np.arange(box[1].start, box[1].stop, dtype=np.float32) - np.float32(j))[None, :] * cells.um
            theta = np.arctan2(y, x)
            edge = radius * (1 + 0.18 * np.cos(2 * theta + turn[0]) + 0.10 * np.cos(3 * theta + turn[1]))
            result[box] = np.maximum(result[box], np.clip((edge - np.hypot(x, y)) / 0.35 + 0.5, 0, 1))
    return result * (cells.nucleus_labels > 0)


def _chromatin(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """DNA: clumped, thin inside nucleoli, condensed and bright in dividing cells."""
    cells, shapes = scene.cells, scene.cells.shapes
    clumps = grain(rng, cells, 0.45, 0.22)
    dome = 0.75 + 0.25 * (1 - np.exp(np.minimum(cells.envelope, 0) / 1.2))
    # Replication between phases 0.45 and 0.65; the larger nucleus hides a good part of the doubling.
    doubled = 0.8 + 0.4 * np.clip((shapes.phase - 0.45) / 0.2, 0, 1)
    amount = np.where(shapes.stage == INTERPHASE, np.exp(0.10 * rng.standard_normal(len(shapes))) * doubled, 1.5)
    resting = dome * clumps * (1 - 0.55 * scene.get("nucleoli"))
    return inside_envelope(cells) * np.where(cells.interphase, resting, 0.9 + 0.1 * clumps) * cells.per_cell(amount)


def outward(cells: Cells, points: Points, owner: np.ndarray) -> np.ndarray:
    """Heading (radians) from the centre of the owning cell (label) to each point."""
    rows, columns = np.append(0.0, cells.shapes.row)[owner], np.append(0.0, cells.shapes.column)[owner]
    return np.arctan2(points[0] - rows, points[1] - columns)


def owner_of(cells: Cells, points: Points) -> np.ndarray:
    """Cell label under each point."""
    limit = cells.shape[0] - 1
    rows, columns = (np.clip(np.rint(axis).astype(int), 0, limit) for axis in points)
    return cells.cell_labels[rows, columns]


def filaments(
    cells: Cells, rng: np.random.Generator, *, per_area: float, bend: float, drift: float, wild: float
) -> np.ndarray:
    """Long curved filaments through the cytoplasm: from the MTOC, and from anywhere, mostly pointing outwards.

    `per_area` filaments per µm², `bend` radians per 0.3 µm, `wild` spread of headings around outward. They glide along
    membrane and nucleus, as in flat cells; dividing cells have none.
    """
    shapes = cells.shapes
    weight = cells.cytoplasm * (0.35 + np.exp(-1.2 * cells.depth)) * cells.interphase
    free = sample_points(rng, weight, int(rng.poisson(per_area * cells.area())))
    free_owner = owner_of(cells, free)
    resting = np.flatnonzero(shapes.stage == INTERPHASE)
    aster = np.repeat(resting, np.rint(0.10 * per_area * np.pi * shapes.radius[resting] ** 2).astype(int))
    aster_at = cells.mtoc[aster].T + rng.normal(0, 0.35 / cells.um, (2, aster.size))
    rows, columns = np.concatenate([free[0], aster_at[0]]), np.concatenate([free[1], aster_at[1]])
    owner = np.concatenate([free_owner, aster + 1])
    heading = outward(cells, free, free_owner) + rng.normal(0, wild, free_owner.size)
    heading = np.concatenate([heading, rng.uniform(0, 2 * np.pi, aster.size)])
    steps = np.maximum(4, rng.uniform(0.3, 1.1, owner.size) * np.append(1, shapes.radius)[owner] / 0.3).astype(int)
    allowed = np.where((cells.envelope > 0.1) & (cells.from_membrane > 0.3), cells.cell_labels, 0)
    points, index = walk(
        rng, (rows, columns), heading, steps, owner, allowed,
        stride=0.3 / cells.um, bend=bend, drift=drift, deflect=0.5,
    )  # fmt: skip
    amplitude = np.exp(0.3 * rng.standard_normal(owner.size))[index]
    lines = splat_points(cells.shape, points, amplitude.astype(np.float32))
    return lines


def _spindles(cells: Cells, rng: np.random.Generator) -> np.ndarray:
    """Fibres bowed between the two poles of dividing cells, and short asters around them."""
    result = np.zeros(cells.shape, np.float32)
    for k in np.flatnonzero(cells.shapes.stage > INTERPHASE):
        first, second = cells.poles[k]
        axis = second - first
        normal = np.array([-axis[1], axis[0]]) / (np.hypot(*axis) + 1e-6)
        along = np.linspace(0, 1, 48)[None, :]
        bow = rng.normal(0, 1.5 / cells.um, 60)[:, None] * np.sin(np.pi * along)
        rows = first[0] + axis[0] * along + normal[0] * bow
        columns = first[1] + axis[1] * along + normal[1] * bow
        fade = np.exp(-(((np.abs(along - 0.5) - 0.5) / 0.4) ** 2)) + 0.15
        weight = np.broadcast_to(fade, rows.shape)
        result += splat_points(cells.shape, (rows.ravel(), columns.ravel()), weight.ravel())
        turn, reach = rng.uniform(0, 2 * np.pi, (2, 16, 1)), np.linspace(0, 2.2, 12) / cells.um
        for pole, angle in zip((first, second), turn, strict=True):
            aster = pole[0] + reach * np.sin(angle), pole[1] + reach * np.cos(angle)
            result += splat_points(cells.shape, (aster[0].ravel(), aster[1].ravel()), np.full(aster[0].size, 0.6))
    return result * cells.inside


def _microtubules(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    cells = scene.cells
    lines = filaments(cells, rng, per_area=0.6, bend=0.07, drift=0.02, wild=0.7) + _spindles(cells, rng)
    soluble = 0.08 * cells.thickness * (1 - 0.7 * inside_envelope(cells))
    return (blur(lines, 0.11 / cells.um) * np.exp(-0.9 * cells.depth) + soluble) * cells.inside


def _er(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Network that is dense around the nucleus and joins the envelope."""
    cells = scene.cells
    network = ridge(smooth_field(rng, cells.shape, 0.40 / cells.um), 0.5)
    sheets = np.clip(0.45 + 0.3 * smooth_field(rng, cells.shape, 1.3 / cells.um), 0, None)
    body = np.exp(-1.6 * cells.depth) * np.minimum(cells.thickness, 1.3) * cells.cytoplasm
    shell = 0.5 * np.exp(-((cells.envelope / 0.3) ** 2)) * cells.interphase
    return (0.8 * network + 0.5 * sheets) * body + (shell + 0.16 * inside_envelope(cells)) * cells.inside


SHARED: dict[str, Callable[[Scene, np.random.Generator], np.ndarray]] = {
    "nucleoli": _nucleoli,
    "chromatin": _chromatin,
    "microtubules": _microtubules,
    "endoplasmic_reticulum": _er,
}
