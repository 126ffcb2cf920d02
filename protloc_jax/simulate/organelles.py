"""Localization classes as density maps, each from a scene, a generator and a protein's texture.

Every builder returns a non-negative float32 map [H, W] in arbitrary units that is zero outside cells. What lives in the
nucleus spreads through the cell when it divides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from protloc_jax.simulate.geometry import Cells
from protloc_jax.simulate.primitives import blur, ridge, sample_points, smooth_field, splat_points, splat_spots, walk
from protloc_jax.simulate.structures import Scene, filaments, grain, inside_envelope, outward, owner_of


@dataclass(frozen=True)
class Texture:
    """How one protein draws its organelles: multipliers around 1, and a variant in [0, 1) that picks a sub-type."""

    size: float = 1.0
    count: float = 1.0
    scale: float = 1.0
    contrast: float = 1.0
    variant: float = 0.0


Builder = Callable[[Scene, np.random.Generator, Texture], np.ndarray]


def dots(
    cells: Cells,
    rng: np.random.Generator,
    weight: np.ndarray,
    per_cell: float,
    sigma_um: float,
    *,
    ring_um: float = 0.0,
    brightness_spread: float = 0.4,
    size_spread: float = 0.15,
) -> np.ndarray:
    """Poisson spots (or rings) placed by `weight`, lognormal in brightness and size."""
    points = sample_points(rng, weight, int(rng.poisson(per_cell * cells.visible_cells())))
    number = points[0].size
    amplitude = np.exp(brightness_spread * rng.standard_normal(number)).astype(np.float32)
    size = np.exp(size_spread * rng.standard_normal(number))
    if ring_um > 0:
        wall = np.full(number, max(0.13 / cells.um, 0.4), np.float32)
        return splat_spots(cells.shape, points, amplitude, wall, ring=(ring_um * size / cells.um).astype(np.float32))
    return splat_spots(cells.shape, points, amplitude, np.maximum(sigma_um * size / cells.um, 0.35))


def segments(
    cells: Cells,
    rng: np.random.Generator,
    weight: np.ndarray,
    per_area: float,
    length_um: tuple[float, float],
    allowed: np.ndarray,
    *,
    wild: float,
    bend: float,
    drift: float,
    sigma_um: float,
) -> np.ndarray:
    """Short persistent walks that start by `weight` and head outwards give or take `wild` radians."""
    start = sample_points(rng, weight, int(rng.poisson(per_area * cells.area())))
    owner = owner_of(cells, start)
    heading = outward(cells, start, owner) + rng.normal(0, wild, owner.size)
    steps = np.maximum(3, rng.uniform(*length_um, owner.size) / 0.18).astype(int)
    points, index = walk(
        rng, start, heading, steps, owner, allowed, stride=0.18 / cells.um, bend=bend, drift=drift, deflect=0.5
    )
    amplitude = np.exp(0.3 * rng.standard_normal(owner.size))[index]
    return blur(splat_points(cells.shape, points, amplitude), sigma_um / cells.um)


def _released(cells: Cells, part: np.ndarray) -> np.ndarray:
    """Keep a nuclear map in resting cells and spread as much through the dividing ones."""
    if cells.interphase[cells.inside].all():
        return part
    resting = cells.interphase & (cells.nucleus_labels > 0)
    level = 0.4 * float(part[resting].mean()) if resting.any() else 0.4
    return np.where(cells.interphase, part, level * cells.thickness * (1 - 0.7 * inside_envelope(cells)))


def _nucleoplasm(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    cells = scene.cells
    hollow = 1 - (0.5 + 0.45 * texture.variant) * scene.get("nucleoli")
    return _released(
        cells, inside_envelope(cells) * grain(rng, cells, 0.5 * texture.scale, 0.22 * texture.contrast) * hollow
    )


def _chromatin(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    clumps = grain(rng, scene.cells, 0.35 * texture.scale, 0.3 * texture.contrast)
    return scene.get("chromatin") ** (1.5 + 0.6 * texture.variant) * clumps


def _nucleoli(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    cells, blobs = scene.cells, scene.get("nucleoli")
    if texture.variant > 0.7:  # rim sub-type
        blobs = blobs * np.clip(1.15 - blur(blobs, 0.45 / cells.um), 0, 1) * 2
    haze = 0.10 * inside_envelope(cells)
    return _released(cells, (blobs + haze) * grain(rng, cells, 0.3 * texture.scale, 0.18 * texture.contrast))


def _fibrillar_center(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    cells = scene.cells
    core = np.clip(scene.get("nucleoli") - 0.5, 0, 1)
    spots = dots(cells, rng, core, 22 * texture.count, 0.16 * texture.size, brightness_spread=0.3)
    return _released(cells, spots * (cells.nucleus_labels > 0))


def _nuclear_speckles(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    cells = scene.cells
    field = smooth_field(rng, cells.shape, 0.42 * texture.scale / cells.um)
    patches = np.clip((field - 0.85 / np.sqrt(texture.count)) / 0.6, 0, 1.2)
    away = np.clip((-cells.envelope - 0.3) / 0.5, 0, 1) * (1 - scene.get("nucleoli"))
    return _released(cells, (patches + 0.08) * away)


def _nuclear_bodies(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    cells = scene.cells
    weight = ((cells.envelope < -0.6) & (scene.get("nucleoli") < 0.3)).astype(np.float32)
    return _released(
        cells, dots(cells, rng, weight, 9 * texture.count, 0.22 * texture.size) * (cells.nucleus_labels > 0)
    )


def _nuclear_membrane(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    cells = scene.cells
    shell = np.exp(-((cells.envelope / (0.28 * texture.size)) ** 2))
    sheet = (0.06 + 0.10 * texture.variant) * inside_envelope(cells)
    texture_map = grain(rng, cells, 0.8 * texture.scale, 0.22 * texture.contrast)
    return _released(cells, (shell + sheet) * texture_map * cells.inside)


def _cytosol(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    cells = scene.cells
    nucleus = 1 - (0.60 + 0.30 * texture.variant) * inside_envelope(cells, 0.4)
    return cells.thickness * nucleus * grain(rng, cells, 0.9 * texture.scale, 0.14 * texture.contrast)


def _endoplasmic_reticulum(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    fall = np.exp(-0.8 * texture.variant * scene.cells.depth)
    return scene.get("endoplasmic_reticulum") * fall * grain(rng, scene.cells, 1.2 * texture.scale, 0.2)


def _golgi(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    cells, shapes = scene.cells, scene.cells.shapes
    near = np.zeros(cells.shape, np.float32)
    for k in range(len(shapes)):
        wide = 2.4 * texture.size * shapes.radius[k] / 12
        reach = int(np.ceil(2.2 * wide / cells.um))
        box = tuple(
            slice(max(int(c) - reach, 0), max(min(int(c) + reach + 1, side), 0))
            for c, side in zip(cells.mtoc[k], cells.shape, strict=True)
        )
        if near[box].size == 0 or shapes.stage[k] > 0:
            continue
        y = ((np.arange(box[0].start, box[0].stop) - cells.mtoc[k, 0]) * cells.um).astype(np.float32)[:, None]
        x = ((np.arange(box[1].start, box[1].stop) - cells.mtoc[k, 1]) * cells.um).astype(np.float32)[None, :]
        direction = np.arctan2(cells.mtoc[k, 0] - shapes.row[k], cells.mtoc[k, 1] - shapes.column[k])
        c, s = np.float32(np.cos(direction)), np.float32(np.sin(direction))
        out, along = x * c + y * s, y * c - x * s
        bent = out + along**2 / np.float32(1.3 * shapes.length[k]) - np.float32(0.5)  # wraps around the nucleus
        cap = np.exp(-((along / wide) ** 2) - (bent / (0.4 * wide)) ** 2)
        near[box] += cap * (cells.cell_labels[box] == k + 1)
    ribbon = ridge(smooth_field(rng, cells.shape, 0.42 * texture.scale / cells.um), 0.5) + 0.06
    stacks = near * ribbon * np.clip(0.5 + cells.envelope / 0.4, 0, 1)
    # In mitosis, and around the ribbon always, it is small vesicles.
    weight = near + 0.02 * np.exp(-2 * cells.depth) + 0.15 * ~cells.interphase
    scattered = dots(cells, rng, weight * cells.cytoplasm, 6 * texture.count, 0.16)
    return (stacks + 0.6 * scattered) * cells.inside


def _mitochondria(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    cells = scene.cells
    weight = np.exp(-1.5 * cells.depth) * cells.cytoplasm * (cells.from_membrane > 0.8)
    allowed = np.where((cells.envelope > 0.3) & (cells.from_membrane > 0.5), cells.cell_labels, 0)
    length = 2.0 * texture.scale, 6.5 * texture.scale
    lines = segments(
        cells, rng, weight, 0.30 * texture.count, length, allowed, wild=0.9, bend=0.17, drift=0.05,
        sigma_um=0.17 * texture.size,
    )  # fmt: skip
    return lines * cells.cytoplasm


def _vesicles(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    cells = scene.cells
    weight = np.exp(-(0.2 + 1.4 * texture.contrast) * cells.depth) * cells.cytoplasm * (cells.from_membrane > 0.4)
    if texture.variant > 0.75:  # swollen endosomes and droplets: rings
        return dots(cells, rng, weight, 28 * texture.count, 0.2, ring_um=0.45 * texture.size) * cells.cytoplasm
    spots = dots(cells, rng, weight, 60 * texture.count, 0.18 * texture.size, brightness_spread=0.6)
    return spots * cells.cytoplasm


def _aggregates(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    cells = scene.cells
    weight = np.exp(-1.0 * cells.depth) * cells.cytoplasm * (cells.from_membrane > 0.9)
    blobs = dots(cells, rng, weight, 2.5 * texture.count, 0.55 * texture.size, size_spread=0.35)
    return blobs * cells.cytoplasm


def _plasma_membrane(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    cells = scene.cells
    shell = np.exp(-((cells.from_membrane / (0.32 * texture.size)) ** 2))
    ruffles = grain(rng, cells, 1.0 * texture.scale, 0.35 * texture.contrast)
    sheet = (0.06 + 0.12 * texture.variant) * np.minimum(cells.thickness, 1)
    return (shell * ruffles + sheet) * cells.inside


def _cell_junctions(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    cells = scene.cells
    seam = blur(cells.contact.astype(np.float32), 0.20 * texture.size / cells.um)
    beads = smooth_field(rng, cells.shape, 0.4 * texture.scale / cells.um)
    # A lone cell has no junctions: what little there is stays diffuse.
    faint = 0.006 * cells.thickness
    return (seam * np.maximum(1 + 0.8 * texture.contrast * beads, 0) + faint) * cells.inside


def _actin(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    cells = scene.cells
    groups = np.sort(rng.uniform(0, np.pi, 4))
    nearest = np.argmin(np.abs(np.sin(cells.shapes.angle[:, None] - groups[None, :])), axis=1)
    member = np.append(-1, nearest)[cells.cell_labels]
    fibres = np.zeros(cells.shape, np.float32)
    for group, angle in enumerate(groups):
        field = smooth_field(rng, cells.shape, 0.38 * texture.scale / cells.um, stretch=10, angle=float(angle))
        fibres = np.where(member == group, ridge(field, 0.4), fibres)
    patches = np.maximum(0.7 + 0.5 * smooth_field(rng, cells.shape, 2.5 / cells.um), 0.05)
    fibres = fibres * patches * (1 - 0.6 * inside_envelope(cells, 0.8)) * cells.interphase
    cortex = np.exp(-((cells.from_membrane / 0.4) ** 2))
    return (fibres + (0.3 + 0.7 * texture.variant) * cortex + 0.06 * cells.thickness) * cells.inside


def _focal_adhesions(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    cells = scene.cells
    rim = np.exp(-(((cells.from_membrane - 1.0) / 1.5) ** 2)) + 0.08
    weight = rim * cells.cytoplasm * cells.interphase * np.clip(cells.envelope / 3.0, 0, 1)
    weight = weight * np.maximum(smooth_field(rng, cells.shape, 2.5 / cells.um) + 0.8, 0)
    allowed = np.where(cells.from_membrane > 0.3, cells.cell_labels, 0)
    length = 0.6 * texture.scale, 2.2 * texture.scale
    lines = segments(
        cells, rng, weight, 0.09 * texture.count, length, allowed, wild=0.35, bend=0.03, drift=0.0,
        sigma_um=0.16 * texture.size,
    )  # fmt: skip
    return (lines + 0.02 * cells.thickness * ~cells.interphase) * cells.inside


def _intermediate_filaments(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    cells = scene.cells
    lines = filaments(cells, rng, per_area=0.16 * texture.count, bend=0.20, drift=0.05, wild=1.6)
    bundles = np.maximum(0.8 + 0.6 * smooth_field(rng, cells.shape, 1.5 / cells.um), 0.05)
    cage = 0.3 * cells.thickness * ~cells.interphase
    return (blur(lines * bundles, 0.16 * texture.size / cells.um) * np.exp(-1.2 * cells.depth) + cage) * cells.inside


def _microtubules(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    return scene.get("microtubules") * grain(rng, scene.cells, 0.6 * texture.scale, 0.25 * texture.contrast)


def _centrosome(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    cells = scene.cells
    count = len(cells.shapes)
    turn, half = rng.uniform(0, 2 * np.pi, count), rng.uniform(0.2, 0.55, count) / cells.um
    offset = np.stack([half * np.sin(turn), half * np.cos(turn)], 1)
    offset = np.where(cells.shapes.stage[:, None] > 0, 0, offset)  # dividing cells have theirs at the spindle poles
    at = np.concatenate([cells.poles[:, 0] + offset, cells.poles[:, 1] - offset]).astype(np.float32)
    amplitude = np.exp(0.2 * rng.standard_normal(len(at))).astype(np.float32)
    sigma = np.full(len(at), max(0.2 * texture.size / cells.um, 0.4), np.float32)
    spots = splat_spots(cells.shape, (at[:, 0], at[:, 1]), amplitude, sigma)
    if texture.variant > 0.6:  # centriolar satellites around the pair
        cloud = blur(splat_points(cells.shape, (at[:, 0], at[:, 1]), np.ones(len(at))), 1.5 / cells.um)
        spots = spots + 0.5 * dots(cells, rng, cloud, 14 * texture.count, 0.15)
    return spots * cells.inside


BUILDERS: dict[str, Builder] = {
    "nucleoplasm": _nucleoplasm,
    "chromatin": _chromatin,
    "nucleoli": _nucleoli,
    "fibrillar_center": _fibrillar_center,
    "nuclear_speckles": _nuclear_speckles,
    "nuclear_bodies": _nuclear_bodies,
    "nuclear_membrane": _nuclear_membrane,
    "cytosol": _cytosol,
    "endoplasmic_reticulum": _endoplasmic_reticulum,
    "golgi": _golgi,
    "mitochondria": _mitochondria,
    "vesicles": _vesicles,
    "aggregates": _aggregates,
    "plasma_membrane": _plasma_membrane,
    "cell_junctions": _cell_junctions,
    "actin": _actin,
    "focal_adhesions": _focal_adhesions,
    "intermediate_filaments": _intermediate_filaments,
    "microtubules": _microtubules,
    "centrosome": _centrosome,
}
