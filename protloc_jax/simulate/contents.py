"""What proteins put into the cells of a field: amounts, class maps, and how structure and diffuse pool are mixed.

In a plain field every cell has the field's protein; in a pooled field each cell has its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.ndimage

from protloc_jax.simulate.exposure import mix
from protloc_jax.simulate.geometry import Cells
from protloc_jax.simulate.proteins import Protein
from protloc_jax.simulate.specimens import Specimen
from protloc_jax.simulate.structures import Scene


def draw_expression(rng: np.random.Generator, protein: Protein, cells: Cells) -> np.ndarray:
    """Relative amount of the protein in each cell [K]; proteins with silent cells keep at least one speaking."""
    amount = np.exp(protein.expression_sigma * rng.standard_normal(len(cells.shapes)))
    silent = rng.random(len(amount)) < protein.silent
    if protein.cycle_peak is not None:
        amount = amount * np.exp(1.1 * np.cos(2 * np.pi * (cells.shapes.phase - protein.cycle_peak)))
    silent[int(np.argmax(amount))] = False
    return np.where(silent, 0.08 * amount, amount)


def densities(
    specimen: Specimen,
    classes: Mapping[str, str],
    protein: Protein,
    scene: Scene,
    expression: np.ndarray,
    *,
    address: str = "protein",
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Class maps whose means over cells are the protein's weights, and the diffuse pool with mean about 1.

    `address` names the draws of the maps.
    """
    cells = scene.cells
    painted, area = cells.per_cell(expression), max(float(cells.inside.sum()), 1.0)
    density = {}
    for name, weight in protein.weights.items():
        build = specimen.builders[classes[name]]
        part = build(scene, scene.stream(f"{address}:{name}"), protein.texture) * painted
        total = float(part.sum(dtype=np.float64))
        density[name] = (part * (weight * area / total if total > 1e-6 * area else 0.0)).astype(np.float32)
    pool = specimen.pool(cells) * painted
    return density, (pool * (area / max(float(pool.sum(dtype=np.float64)), 1e-6))).astype(np.float32)


def pooled_densities(
    specimen: Specimen, classes: Mapping[str, str], owners: Sequence[Protein], scene: Scene
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """The same for a field whose cell k has the protein `owners[k]`: class maps, pool, and amounts [K].

    Each protein's draws have an address of their own, so a cell does not depend on what its neighbours carry; its class
    maps have the protein's weights as shares of what all cells of that protein in the field hold together.
    """
    cells = scene.cells
    amount = np.zeros(len(owners))
    density: dict[str, np.ndarray] = {}
    for protein in {owner.name: owner for owner in owners}.values():
        mine = np.array([owner.name == protein.name for owner in owners])
        drawn = draw_expression(scene.stream(f"pooled:{protein.name}"), protein, cells)
        amount[mine] = drawn[mine]
        painted = cells.per_cell(np.where(mine, drawn, 0))
        area = float(painted.sum(dtype=np.float64))
        for name, weight in protein.weights.items():
            build = specimen.builders[classes[name]]
            part = build(scene, scene.stream(f"pooled:{protein.name}:{name}"), protein.texture) * painted
            total = float(part.sum(dtype=np.float64))
            part = (part * (weight * area / total if total > 1e-6 * area else 0.0)).astype(np.float32)
            density[name] = density[name] + part if name in density else part
    return density, (specimen.pool(cells) * cells.per_cell(amount)).astype(np.float32), amount


def mix_by_cell(
    cells: Cells, structure: np.ndarray, pool: np.ndarray, contrast: float, expression: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Factors [H, W] for structure and pool (after optics) that bring every cell to one contrast.

    Each cell, taken with as much empty background beside it as the field has per cell area, is mixed as `mix` does a
    field; its mean becomes its expression.
    """
    cover = float(cells.inside.mean())
    shares = np.zeros((2, len(cells.shapes)))
    for k, box in enumerate(scipy.ndimage.find_objects(cells.cell_labels, max_label=len(cells.shapes))):
        if box is None:
            continue
        mine = cells.cell_labels[box] == k + 1
        none = np.zeros(round(float(mine.sum()) * (1 - cover) / cover), np.float32)
        pair = mix(np.concatenate([structure[box][mine], none]), np.concatenate([pool[box][mine], none]), contrast)
        shares[:, k] = mine.sum() / (mine.sum() + none.size) * expression[k] * np.array(pair)
    return cells.per_cell(shares[0]), cells.per_cell(shares[1])
