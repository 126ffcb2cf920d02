"""One field in front of the microscope: its cells and optics, what a protein in it sends out, and the image of that.

shot = take(config, row)
light = sent(shot, *contents)       # a protein's expected photons, before optics
image = develop(shot, light.arrived or a mixture of several proteins' light)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from protloc_jax.simulate import camera
from protloc_jax.simulate.config import SimConfig
from protloc_jax.simulate.contents import mix_by_cell
from protloc_jax.simulate.exposure import LEVELS, Level, mix
from protloc_jax.simulate.geometry import Cells
from protloc_jax.simulate.keys import generator
from protloc_jax.simulate.presets import Preset
from protloc_jax.simulate.specimens import SPECIMENS, Specimen
from protloc_jax.simulate.structures import Scene

BAD_FIELDS = 0.02  # share of out-of-focus or dirty fields at nuisance 1


@dataclass(frozen=True, eq=False)
class Shot:
    """What one field is imaged with, whatever protein its cells carry.

    photons, contrast  of the protein channel: mean over cells, and the spread that structure and pool are mixed to
    effects, lenses    of each channel
    edge               strength of the effects of a well on the plate's rim, 0 elsewhere
    """

    preset: Preset
    level: Level
    specimen: Specimen
    cells: Cells
    scene: Scene
    stream: Callable[[str], np.random.Generator]
    quality: str
    photons: float
    contrast: float
    defocus: float
    effects: Sequence[camera.PlateEffects]
    lenses: Sequence[camera.Lens]
    edge: float

    @property
    def lens(self) -> camera.Lens:
        """The optics of the protein channel."""
        return self.lenses[self.preset.roles.index("protein")]


class Light(NamedTuple):
    """What proteins send out.

    density  per class, expected photons [H, W] before optics
    sent     structure and diffuse pool together [H, W] before optics, in units of `unit` photons
    arrived  expected photons [H, W] after optics; None where `arrive` is to make them
    """

    density: dict[str, np.ndarray]
    sent: np.ndarray
    unit: float
    arrived: np.ndarray | None


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


def take(config: SimConfig, row: Mapping[str, Any]) -> Shot:
    """Draw all that the field of a catalogue row has before any protein is in it."""
    preset, level = config.domain, LEVELS[config.difficulty]
    plate, well, site = str(row["plate"]), str(row["well"]), int(row["site"])

    def stream(purpose: str) -> np.random.Generator:
        return generator(config.seed, config.preset, plate, well, site, purpose)

    cells, specimen = field_cells(config, row), SPECIMENS[preset.specimen]
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
    return Shot(
        preset,
        level,
        specimen,
        cells,
        Scene(cells, stream, recipes=specimen.shared),
        stream,
        quality,
        level.photons * brightness,
        contrast,
        defocus,
        effects,
        lenses,
        config.nuisance * on_edge(well),
    )


def sent(
    shot: Shot, density: Mapping[str, np.ndarray], pool: np.ndarray, expression: np.ndarray, *, by_cell: bool
) -> Light:
    """What the contents of the cells send out, with structure and pool mixed to the shot's contrast.

    density, pool, expression  as `contents` gives them
    by_cell                    whether every cell, or the field as a whole, is brought to the contrast
    """
    structure = np.stack(list(density.values())).sum(axis=0, dtype=np.float32)
    blurred, blurred_pool = shot.lens(structure), shot.lens(pool)
    if by_cell:
        share, pool_share = mix_by_cell(shot.cells, blurred, blurred_pool, shot.contrast, expression)
        unit, arrived = shot.photons, None
        bright = np.float32(unit) * share
    else:
        share, pool_share = mix(blurred, blurred_pool, shot.contrast)
        unit = shot.photons * float(shot.cells.inside.mean())
        arrived = np.float32(unit) * (share * blurred + pool_share * blurred_pool)
        bright = np.float32(unit * share)
    photons = {name: part * bright for name, part in density.items()}
    return Light(photons, share * structure + pool_share * pool, unit, arrived)


def arrive(shot: Shot, light: Light) -> np.ndarray:
    """Expected photons [H, W] of the protein channel after optics."""
    return np.float32(light.unit) * shot.lens(light.sent) if light.arrived is None else light.arrived


def _stain(scene: Scene, role: str, photons: float) -> np.ndarray:
    """A reference channel in expected photons: the bright part of its structure reaches `photons`."""
    structure = scene.get("chromatin" if role == "nucleus" else role)
    bright = float(np.quantile(structure, 0.995))
    return structure * np.float32(photons / max(bright, 1e-6))


def develop(shot: Shot, protein_light: np.ndarray, *, only: np.ndarray | None = None) -> np.ndarray:
    """The image [H, W, C]: stains, dirt, bleed-through, illumination and camera.

    protein_light  what `arrive` gives
    only           pixels [H, W] bool whose stains are there; None: all
    """
    preset, level, stream = shot.preset, shot.level, shot.stream
    channels = list(zip(preset.roles, preset.optics, shot.lenses, strict=True))
    levels = [level.photons if role == "protein" else optics.photons for role, optics, _ in channels]

    def stained(role: str, photons: float) -> np.ndarray:
        whole = _stain(shot.scene, role, photons)
        return whole if only is None else whole * only

    arrived = [
        protein_light if role == "protein" else lens(stained(role, optics.photons)) for role, optics, lens in channels
    ]
    if shot.quality == "debris":
        speck = camera.debris(stream("debris"), shot.cells.shape, shot.cells.um)
        arrived = [
            light + np.float32(unit) * lens(speck)
            for light, unit, lens in zip(arrived, levels, shot.lenses, strict=True)
        ]
    strength = np.array([effect.bleed for effect in shot.effects])[:, None]
    arrived = camera.bleed(arrived, levels, strength * camera.bleed_matrix(preset))
    result = []
    for index, (role, optics, effect) in enumerate(zip(preset.roles, preset.optics, shot.effects, strict=True)):
        light = arrived[index] * (effect.exposure * camera.illumination(shot.cells.shape, effect.tilt))
        light += optics.background * effect.background * levels[index] / 100.0 * (1 + 0.2 * shot.edge)
        gain = (preset.protein_grey if role == "protein" else preset.stain_grey) / levels[index]
        offset = preset.offset * (1 + effect.offset)
        result.append(
            camera.expose(stream(f"camera:{preset.channels[index]}"), light, preset, gain=gain, offset=offset)
        )
    return np.stack(result, -1)
