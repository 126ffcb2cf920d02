"""Localization classes of budding yeast as density maps, and the structures its channels share.

As in `organelles`: every builder returns a non-negative float32 map [H, W] in arbitrary units, zero outside cells. What
a cell does not have at its phase (a bud neck, a bud tip) is faint and diffuse in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np

from protloc_jax.simulate.geometry import Cells
from protloc_jax.simulate.organelles import Builder, Texture, dots, segments
from protloc_jax.simulate.primitives import blur, ridge, smooth_field, splat_points, splat_spots
from protloc_jax.simulate.structures import Scene, grain, inside_envelope
from protloc_jax.simulate.yeast import YeastCells
from protloc_jax.simulate.yeast_cycle import MEDIAL

FAINT = 0.004


def _cells(scene: Scene) -> YeastCells:
    return cast(YeastCells, scene.cells)


def _shell(distance: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-((distance / np.float32(width)) ** 2))


def _lumen(cells: YeastCells) -> np.ndarray:
    """1 inside vacuoles, 0 outside."""
    return np.clip(0.5 - cells.vacuole / 0.2, 0, 1)


def yeast_pool(cells: Cells) -> np.ndarray:
    """Where unbound protein is [H, W]: the whole cell but its vacuoles."""
    return cells.thickness * (1 - 0.7 * _lumen(cast(YeastCells, cells)))


def _cytosol_marker(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Fills the cell but for its vacuoles; cells differ in brightness."""
    cells = _cells(scene)
    amount = cells.per_cell(np.exp(0.25 * rng.standard_normal(len(cells.shapes))))
    body = cells.thickness * (1 - 0.72 * _lumen(cells)) * (1 - 0.10 * inside_envelope(cells))
    return body * grain(rng, cells, 0.28, 0.10) * amount


def _nucleus(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    cells = _cells(scene)
    hollow = 1 - (0.35 + 0.5 * texture.variant) * cells.nucleolus
    return inside_envelope(cells) * hollow * grain(rng, cells, 0.3 * texture.scale, 0.15 * texture.contrast)


def _nucleolus(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    cells = _cells(scene)
    body = cells.nucleolus + 0.05 * inside_envelope(cells)
    return body * grain(rng, cells, 0.25 * texture.scale, 0.12 * texture.contrast)


def _nuclear_periphery(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    cells = _cells(scene)
    pores = grain(rng, cells, 0.18 * texture.scale, 0.45 * texture.contrast)
    return (_shell(cells.envelope, 0.16 * texture.size) * pores + 0.05 * inside_envelope(cells)) * cells.inside


def _er(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    """A ring around the nucleus, patches under the plasma membrane, and few strands between."""
    cells = _cells(scene)
    ring = _shell(cells.envelope, 0.17 * texture.size)
    patches = np.clip(0.55 + 0.8 * smooth_field(rng, cells.shape, 0.5 * texture.scale / cells.um), 0.05, 1.4)
    cortex = _shell(cells.from_membrane - 0.22, 0.16 * texture.size) * patches
    strands = ridge(smooth_field(rng, cells.shape, 0.6 / cells.um), 0.18) * (1 - _lumen(cells))
    return (ring + (0.55 + 0.3 * texture.variant) * cortex + 0.18 * strands + 0.05) * cells.inside


def _mitochondria(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    """Few bent tubes that run under the cortex, into the bud too."""
    cells = _cells(scene)
    band = (cells.from_membrane > 0.22) & (cells.from_membrane < 1.0) & (cells.envelope > 0.05) & (cells.vacuole > 0)
    weight = band * (1.0 + 0.6 * cells.bud)
    length = 1.5 * texture.scale, 5.0 * texture.scale
    tubes = segments(
        cells, rng, weight, 0.36 * texture.count, length, np.where(band, cells.cell_labels, 0),
        wild=1.6, bend=0.14, drift=0.05, sigma_um=0.13 * texture.size,
    )  # fmt: skip
    return (tubes + 0.01 * cells.thickness) * cells.inside


def _cytoplasm(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    cells = _cells(scene)
    nucleus = 1 - (0.15 + 0.55 * texture.variant) * inside_envelope(cells)
    body = cells.thickness * (1 - 0.85 * _lumen(cells)) * nucleus
    return body * grain(rng, cells, 0.35 * texture.scale, 0.12 * texture.contrast)


def _vacuole(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    cells = _cells(scene)
    return (_lumen(cells) + 0.03 * cells.thickness) * grain(rng, cells, 0.5 * texture.scale, 0.10) * cells.inside


def _vacuolar_membrane(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    cells = _cells(scene)
    rim = _shell(cells.vacuole, 0.15 * texture.size) * grain(rng, cells, 0.5 * texture.scale, 0.2 * texture.contrast)
    return (rim + 0.06 * _lumen(cells) + 0.01 * cells.thickness) * cells.inside


def _cell_periphery(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    cells = _cells(scene)
    ruffles = grain(rng, cells, 0.5 * texture.scale, 0.2 * texture.contrast)
    polar = 1 + (0.5 * texture.variant - 0.2) * cells.bud  # newer membrane carries more, or less, of it
    sheet = 0.05 * cells.thickness
    return (_shell(cells.from_membrane - 0.05, 0.17 * texture.size) * ruffles * polar + sheet) * cells.inside


def _eisosomes(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    """Many fixed patches on the mother's membrane; the bud has none."""
    cells = _cells(scene)
    weight = _shell(cells.from_membrane - 0.12, 0.12) * cells.inside * ~cells.bud
    patches = dots(cells, rng, weight, 24 * texture.count, 0.12 * texture.size, brightness_spread=0.25)
    return (patches + 0.006 * cells.thickness) * cells.inside


def _bars(cells: YeastCells, at: np.ndarray, along: np.ndarray, half_um: np.ndarray, bright: np.ndarray) -> np.ndarray:
    """Short lines across `along` [n, 2] at `at` [n, 2], brighter at their ends as a ring seen from the side is."""
    steps = np.linspace(-1, 1, 25)
    across = np.stack([-along[:, 1], along[:, 0]], 1)
    points = at[:, None, :] + (steps[None, :] * half_um[:, None] / cells.um)[..., None] * across[:, None, :]
    weight = bright[:, None] * (0.35 + np.abs(steps) ** 4)[None, :]
    return splat_points(cells.shape, (points[..., 0].ravel(), points[..., 1].ravel()), weight.ravel())


def _bud_neck(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    """A ring at the neck (seen from the side: a bar, or two), before budding a patch where the bud will be."""
    cells = _cells(scene)
    phase, budded = cells.shapes.phase, cells.bud_size > 0
    bright = np.where(budded, 1.0, np.where(phase > 0.10, 0.5, 0.25)) * np.exp(0.2 * rng.standard_normal(phase.size))
    half = np.minimum(np.where(budded, np.minimum(cells.bud_size, 0.48), 0.30), 0.48)
    double = texture.variant > 0.5
    bars = np.zeros(cells.shape, np.float32)
    for side in (-0.16, 0.16) if double else (0.0,):
        inward = np.where(budded, side, -0.12 + 0.3 * side)[:, None] / cells.um
        bars = bars + _bars(cells, cells.neck + inward * cells.neck_along, cells.neck_along, half, bright)
    return (blur(bars, 0.11 * texture.size / cells.um) + 0.3 * FAINT * cells.thickness) * cells.inside


def _bud_tip(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    """A cap on the bud's far side, and on the bud site shortly before; at the neck when mother and bud part."""
    cells = _cells(scene)
    phase = cells.shapes.phase
    late = phase > 0.86
    far = np.where(cells.bud_size > 0, 0.9 * 2 * cells.bud_size, 0.0) * ~late
    at = cells.neck + (far / cells.um)[:, None] * cells.neck_along
    wide = np.where(late, 0.32, np.clip(0.55 * cells.bud_size, 0.28, 0.6)) * texture.size
    bright = np.where(cells.bud_size > 0, 1.0, np.where(phase > 0.12, 0.7, 0.05)) * np.where(late, 0.6, 1.0)
    sigma = (wide / cells.um).astype(np.float32)
    cap = splat_spots(cells.shape, (at[:, 0].astype(np.float32), at[:, 1].astype(np.float32)), bright, sigma)
    cortex = _shell(cells.from_membrane - 0.08, 0.20) + 0.12
    return (cap * cortex * grain(rng, cells, 0.25 * texture.scale, 0.2) + 0.5 * FAINT * cells.thickness) * cells.inside


def _spindle_poles(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    cells = _cells(scene)
    two = cells.shapes.phase >= MEDIAL
    at = np.concatenate([cells.poles[:, 0], cells.poles[two, 1]]).astype(np.float32)
    amplitude = np.exp(0.15 * rng.standard_normal(len(at))).astype(np.float32)
    sigma = np.full(len(at), 0.14 * texture.size / cells.um, np.float32)
    haze = FAINT * (cells.thickness + 2 * texture.variant * inside_envelope(cells))
    return (splat_spots(cells.shape, (at[:, 0], at[:, 1]), amplitude, sigma) + haze) * cells.inside


def _spindle(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    """The bar between the two spindle poles, and one to three microtubules from each pole into the cytoplasm."""
    cells = _cells(scene)
    rows, columns, weight = [], [], []
    turns, lengths = rng.uniform(0, 2 * np.pi, (len(cells.shapes), 2, 3)), rng.uniform(0.5, 1.6, (len(cells.shapes), 6))
    number = rng.integers(1, 4, (len(cells.shapes), 2))
    share = np.linspace(0, 1, 40)
    for k, (first, second) in enumerate(cells.poles):
        two = cells.shapes.phase[k] >= MEDIAL
        axis = second - first
        if two:
            rows.append(first[0] + share * axis[0])
            columns.append(first[1] + share * axis[1])
            weight.append(np.full(40, 1.0))
        away = np.arctan2(*(first - [cells.shapes.row[k], cells.shapes.column[k]]))
        for side, pole in enumerate((first, second) if two else (first,)):
            outward = np.arctan2(*(-axis if side == 0 else axis)) if two else away
            for n in range(number[k, side]):
                turn = outward + 0.8 * np.sin(turns[k, side, n])
                reach = share * lengths[k, 3 * side + n] * texture.scale / cells.um
                rows.append(pole[0] + reach * np.sin(turn))
                columns.append(pole[1] + reach * np.cos(turn))
                weight.append(np.full(40, 0.28))
    points = np.concatenate(rows), np.concatenate(columns)
    lines = blur(splat_points(cells.shape, points, np.concatenate(weight)), 0.10 * texture.size / cells.um)
    return (lines + 0.4 * FAINT * cells.thickness) * cells.inside


def _actin(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    """Cortical patches crowded in the bud, and thin cables along the mother."""
    cells = _cells(scene)
    budded = cells.per_cell((cells.bud_size > 0).astype(np.float32))
    crowd = np.where(cells.bud, 7.0, np.where(budded > 0, 0.5, 1.0))
    weight = _shell(cells.from_membrane - 0.15, 0.20) * crowd * cells.inside
    patches = dots(cells, rng, weight, 22 * texture.count, 0.14 * texture.size, brightness_spread=0.45)
    cables = ridge(smooth_field(rng, cells.shape, 0.55 * texture.scale / cells.um), 0.12) * (1 - _lumen(cells))
    return (patches + 0.05 * cables + 0.01) * cells.inside


def _cytoplasmic(cells: YeastCells) -> np.ndarray:
    return cells.cytoplasm * (cells.vacuole > 0.08) * (cells.from_membrane > 0.15)


def _endosomes(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    """A few unequal bodies that sit by the vacuole."""
    cells = _cells(scene)
    weight = _cytoplasmic(cells) * (np.exp(-np.maximum(cells.vacuole, 0) / 0.25) + 0.03)
    bodies = dots(cells, rng, weight, 6.5 * texture.count, 0.20 * texture.size, brightness_spread=0.6, size_spread=0.3)
    rim = _shell(cells.vacuole, 0.15) * 0.05 * texture.variant
    return (bodies + rim + FAINT * cells.thickness) * cells.inside


def _golgi(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    """Eight to twelve even spots all over the cytoplasm, more of them in a growing bud."""
    cells = _cells(scene)
    weight = _cytoplasmic(cells) * (1 + 1.5 * cells.bud)
    stacks = dots(cells, rng, weight, 10 * texture.count, 0.15 * texture.size, brightness_spread=0.3, size_spread=0.2)
    return (stacks + 1.5 * FAINT * cells.thickness) * cells.inside


def _peroxisomes(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    """Few small, sharp, bright spots under the cortex."""
    cells = _cells(scene)
    weight = _cytoplasmic(cells) * (_shell(cells.from_membrane - 0.40, 0.30) + 0.1)
    bodies = dots(cells, rng, weight, 4.0 * texture.count, 0.11 * texture.size, brightness_spread=0.2)
    return (bodies + 0.5 * FAINT * cells.thickness) * cells.inside


def _lipid_particles(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    """Droplets on the ER around the nucleus and at the cortex, over a weak ER."""
    cells = _cells(scene)
    weight = cells.cytoplasm * (_shell(cells.envelope - 0.25, 0.25) + 0.5 * _shell(cells.from_membrane - 0.4, 0.2))
    weight = weight * (cells.vacuole > 0)
    drops = dots(cells, rng, weight, 7.0 * texture.count, 0.2, ring_um=0.22 * texture.size, brightness_spread=0.3)
    network = 0.06 * _shell(cells.envelope, 0.2)
    return (drops + network + FAINT * cells.thickness) * cells.inside


def _puncta(scene: Scene, rng: np.random.Generator, texture: Texture) -> np.ndarray:
    """Many small dim spots of unequal brightness over a diffuse pool."""
    cells = _cells(scene)
    small = dots(cells, rng, _cytoplasmic(cells), 30 * texture.count, 0.11 * texture.size, brightness_spread=0.6)
    return (small + 5 * FAINT * cells.thickness * (1 - 0.8 * _lumen(cells))) * cells.inside


YEAST_BUILDERS: dict[str, Builder] = {
    "actin_patches": _actin,
    "bud_neck": _bud_neck,
    "bud_tip": _bud_tip,
    "cell_periphery": _cell_periphery,
    "cytoplasm": _cytoplasm,
    "eisosomes": _eisosomes,
    "endosomes": _endosomes,
    "yeast_er": _er,
    "yeast_golgi": _golgi,
    "lipid_particles": _lipid_particles,
    "spindle": _spindle,
    "yeast_mitochondria": _mitochondria,
    "nuclear_periphery": _nuclear_periphery,
    "nucleolar_crescent": _nucleolus,
    "yeast_nucleus": _nucleus,
    "peroxisomes": _peroxisomes,
    "puncta": _puncta,
    "spindle_poles": _spindle_poles,
    "vacuolar_membrane": _vacuolar_membrane,
    "vacuole_lumen": _vacuole,
}

YEAST_SHARED: dict[str, Callable[[Scene, np.random.Generator], np.ndarray]] = {"yeast_cytosol": _cytosol_marker}
