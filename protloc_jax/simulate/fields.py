"""Rendering: any field of view of a simulated data set made alone from its key."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd

from protloc_jax.config import nearest
from protloc_jax.simulate import camera
from protloc_jax.simulate.config import SimConfig
from protloc_jax.simulate.contents import densities, draw_expression, mix_by_cell, pooled_densities
from protloc_jax.simulate.exposure import LEVELS, mix
from protloc_jax.simulate.field import Field
from protloc_jax.simulate.geometry import Cells
from protloc_jax.simulate.keys import generator
from protloc_jax.simulate.layout import cached_catalogue, proteins_by_name
from protloc_jax.simulate.pooled import cell_proteins
from protloc_jax.simulate.presets_screens import Screen
from protloc_jax.simulate.proteins import Protein
from protloc_jax.simulate.screens import render_screen
from protloc_jax.simulate.specimens import SPECIMENS
from protloc_jax.simulate.structures import Scene

BAD_FIELDS = 0.02  # share of out-of-focus or dirty fields at nuisance 1
GROUP = 4  # fields a worker renders before it answers


def _row(config: SimConfig, row_or_index: int | Mapping[str, Any] | pd.Series) -> Mapping[str, Any]:
    if not isinstance(row_or_index, (int, np.integer)):
        return dict(row_or_index)
    table = cached_catalogue(config)
    if not 0 <= int(row_or_index) < len(table):
        raise ValueError(f"field {int(row_or_index)} does not exist: the catalogue has {len(table)} rows")
    return table.iloc[int(row_or_index)].to_dict()


def _protein(config: SimConfig, row: Mapping[str, Any]) -> Protein:
    known = proteins_by_name(config)
    name = row["protein"]
    if name not in known:
        hint = nearest(str(name), known)
        raise ValueError(f"row {row['id']!r}: protein {name!r} is not among this data set's {len(known)}.{hint}")
    if row["cell_line"] not in config.domain.cell_lines:
        raise ValueError(f"row {row['id']!r}: preset {config.preset} has no cell line {row['cell_line']!r}")
    if json.loads(row["weights"]).keys() != known[name].weights.keys():
        raise ValueError(f"row {row['id']!r}: protein {name!r} has other classes here; is it from another config?")
    return known[name]


def field_cells(config: SimConfig, row: Mapping[str, Any]) -> Cells:
    """The cells of the field of a catalogue row, without rendering anything."""
    plate, well, site = str(row["plate"]), str(row["well"]), int(row["site"])
    edge = config.nuisance * on_edge(well)
    well_rng = generator(config.seed, config.preset, plate, well, "well")
    crowding = float(np.exp(0.12 * config.nuisance * well_rng.standard_normal() - 0.12 * edge))
    rng, preset = generator(config.seed, config.preset, plate, well, site, "cells"), config.domain
    make = SPECIMENS[preset.specimen].make
    return make(rng, preset, preset.cell_lines[row["cell_line"]], config.size, crowding=crowding)


def on_edge(well: str) -> bool:
    """Whether a well lies on the rim of a 96-well plate."""
    return well[0] in "AH" or well[1:] in ("01", "12")


def _stain(scene: Scene, role: str, photons: float) -> np.ndarray:
    """A reference channel in expected photons: the bright part of its structure reaches `photons`."""
    structure = scene.get("chromatin" if role == "nucleus" else role)
    bright = float(np.quantile(structure, 0.995))
    return structure * np.float32(photons / max(bright, 1e-6))


def render(config: SimConfig, row_or_index: int | Mapping[str, Any] | pd.Series) -> Field:
    """Render one field of view from its catalogue row (or the row's position), independent of all others.

    Every draw comes from a key of (seed, preset, plate, well, site, purpose). Raises ValueError for a position outside
    the catalogue or a row that does not belong to this configuration.
    """
    row = _row(config, row_or_index)
    if isinstance(config.domain, Screen):
        return render_screen(config, row)
    protein, preset, level = _protein(config, row), config.domain, LEVELS[config.difficulty]
    plate, well, site = str(row["plate"]), str(row["well"]), int(row["site"])

    def stream(purpose: str) -> np.random.Generator:
        return generator(config.seed, config.preset, plate, well, site, purpose)

    edge = config.nuisance * on_edge(well)
    cells, specimen = field_cells(config, row), SPECIMENS[preset.specimen]
    scene = Scene(cells, stream, recipes=specimen.shared)

    rng = stream("exposure")
    quality = str(rng.choice(["out_of_focus", "debris"])) if rng.random() < BAD_FIELDS * config.nuisance else "ok"
    brightness, contrast = float(np.exp(0.3 * rng.standard_normal())), float(rng.uniform(*level.contrast))
    defocus = preset.defocus * float(rng.uniform(0, level.defocus)) + (1.5 if quality == "out_of_focus" else 0.0)
    effects = [
        camera.draw_plate_effects(generator(config.seed, config.preset, plate, channel), config.nuisance)
        for channel in preset.channels
    ]
    lenses = [
        camera.Lens(
            cells.shape,
            # Reference stains are focused on; they blur only half as much as the protein.
            camera.psf_sigma(preset, optics.wavelength, defocus if role == "protein" else 0.5 * defocus)
            * effect.psf
            / preset.um_per_pixel,
            min(0.8, preset.haze * effect.haze),
            preset.haze_sigma / preset.um_per_pixel,
        )
        for role, optics, effect in zip(preset.roles, preset.optics, effects, strict=True)
    ]

    owners = cell_proteins(config, row, len(cells.shapes))
    if config.pooled:
        density, pool, expression = pooled_densities(specimen, preset.classes, owners, scene)
    else:
        expression = draw_expression(stream("protein"), protein, cells)
        density, pool = densities(specimen, preset.classes, protein, scene, expression)
    structure = np.stack(list(density.values())).sum(axis=0, dtype=np.float32)
    lens = lenses[preset.roles.index("protein")]
    blurred, blurred_pool = lens(structure), lens(pool)
    photons = level.photons * brightness
    if config.pooled or preset.contrast_of == "cell":
        share, pool_share = mix_by_cell(cells, blurred, blurred_pool, contrast, expression)
        protein_light = np.float32(photons) * lens(share * structure + pool_share * pool)
        bright = np.float32(photons) * share
    else:
        share, pool_share = mix(blurred, blurred_pool, contrast)
        photons = photons * float(cells.inside.mean())
        protein_light = np.float32(photons) * (share * blurred + pool_share * blurred_pool)
        bright = np.float32(photons * share)
    density = {name: part * bright for name, part in density.items()}

    levels = [
        level.photons if role == "protein" else o.photons for role, o in zip(preset.roles, preset.optics, strict=True)
    ]
    arrived = [
        protein_light if role == "protein" else lens(_stain(scene, role, optics.photons))
        for role, optics, lens in zip(preset.roles, preset.optics, lenses, strict=True)
    ]
    if quality == "debris":
        speck = camera.debris(stream("debris"), cells.shape, cells.um)
        arrived = [
            light + np.float32(unit) * lens(speck) for light, unit, lens in zip(arrived, levels, lenses, strict=True)
        ]
    strength = np.array([effect.bleed for effect in effects])[:, None]
    arrived = camera.bleed(arrived, levels, strength * camera.bleed_matrix(preset))

    channels = []
    for index, (role, optics, effect) in enumerate(zip(preset.roles, preset.optics, effects, strict=True)):
        light = arrived[index] * (effect.exposure * camera.illumination(cells.shape, effect.tilt))
        light += optics.background * effect.background * levels[index] / 100.0 * (1 + 0.2 * edge)
        gain = (preset.protein_grey if role == "protein" else preset.stain_grey) / levels[index]
        offset = preset.offset * (1 + effect.offset)
        channels.append(
            camera.expose(stream(f"camera:{preset.channels[index]}"), light, preset, gain=gain, offset=offset)
        )
    truth = {
        "id": row["id"],
        "protein": protein.name,
        "weights": dict(protein.weights),
        "texture": protein.texture,
        "complex": protein.complex,
        "cell_proteins": tuple(owner.name for owner in owners),
        "cell_line": row["cell_line"],
        "quality": quality,
        "defocus": defocus,
        "contrast": contrast,
        "expression": expression,
        "phase": cells.shapes.phase,
        "stage": cells.shapes.stage,
        "mtoc": cells.mtoc,
    }
    return Field(np.stack(channels, -1), cells.nucleus_labels, cells.cell_labels, density, truth)


def _render_some(config: SimConfig, indices: Sequence[int]) -> list[Field]:
    return [render(config, index) for index in indices]


def render_many(
    config: SimConfig, indices: Sequence[int] | None = None, *, workers: int | None = None
) -> Iterator[Field]:
    """Render many fields in order; the result does not depend on `workers`.

    `workers` processes (None: one per core; 0 or 1: this process alone) stay a few dozen fields ahead of the consumer.
    As with every pool of fresh processes, a script must guard its entry with ``if __name__ == "__main__"``.
    """
    positions = [int(index) for index in (range(len(cached_catalogue(config))) if indices is None else indices)]
    workers = (os.cpu_count() or 1) if workers is None else workers
    if workers <= 1 or len(positions) <= 1:
        yield from (render(config, index) for index in positions)
        return
    groups = iter([positions[start : start + GROUP] for start in range(0, len(positions), GROUP)])
    # Forking a process that runs threads (as JAX does) can hang the child, so workers start afresh.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["protloc_jax.simulate.fields"])
    pool = ProcessPoolExecutor(min(workers, len(positions)), mp_context=context)
    try:
        ahead = deque(pool.submit(_render_some, config, group) for group in islice(groups, 3 * workers))
        while ahead:
            fields = ahead.popleft().result()
            ahead.extend(pool.submit(_render_some, config, group) for group in islice(groups, 1))
            yield from fields
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
