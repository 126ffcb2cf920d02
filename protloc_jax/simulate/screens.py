"""Rendering the fields of a perturbation screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from protloc_jax.config import nearest
from protloc_jax.simulate import camera
from protloc_jax.simulate.compounds import DMSO, EMPTY, NON_TARGETING, UNTREATED
from protloc_jax.simulate.config import SimConfig
from protloc_jax.simulate.field import Field
from protloc_jax.simulate.keys import generator
from protloc_jax.simulate.morphology import COUNT, INDEX, LINE_STATES, named, vector
from protloc_jax.simulate.perturbations import SCREEN_LEVELS, ScreenLevel, effect_of, library
from protloc_jax.simulate.presets_screens import Screen
from protloc_jax.simulate.screen_cells import make_screen_cells
from protloc_jax.simulate.stains import STAINS, Stained

BATCH_SPREAD, PLATE_SPREAD = 0.15, 0.08  # of a batch's and a plate's own state, at nuisance 1
BAD_FIELDS = 0.02  # share of out-of-focus or dirty fields at nuisance 1


def _check(config: SimConfig, row: Mapping[str, Any]) -> None:
    screen, known = config.screen, library(config)
    if row["compound"] not in known:
        hint = nearest(str(row["compound"]), known)
        number = sum(name not in (DMSO, EMPTY, NON_TARGETING, UNTREATED) for name in known)
        raise ValueError(f"row {row['id']!r}: {row['compound']!r} is not among this data set's {number}.{hint}")
    if row["cell_line"] not in screen.cell_lines:
        raise ValueError(f"row {row['id']!r}: preset {config.preset} has no cell line {row['cell_line']!r}")


def background_state(config: SimConfig, row: Mapping[str, Any], level: ScreenLevel, edge: bool) -> np.ndarray:
    """The state [P] that cell line, batch, plate, well and place on the plate give to all cells of a field."""

    def spread(*address: object) -> np.ndarray:
        return generator(config.seed, config.preset, *address, "state").standard_normal(COUNT)

    state = vector(LINE_STATES[row["cell_line"]])
    state += config.nuisance * BATCH_SPREAD * spread(row["batch"])
    state += config.nuisance * PLATE_SPREAD * spread(row["plate"], "all")
    state += level.well * spread(row["plate"], row["well"])
    if edge:
        state[INDEX["cell_count"]] -= 0.3 * config.nuisance
        state[INDEX["cell_area"]] += 0.15 * config.nuisance
    # Nobody's batch fuses cells or holds them in mitosis.
    for name in ("monopolar", "syncytia", "micronuclei"):
        state[INDEX[name]] = 0.0
    return state


def _channel_effects(config: SimConfig, row: Mapping[str, Any], screen: Screen) -> list[camera.PlateEffects]:
    """Per channel, the stain lot and lamp of the batch together with what the plate adds."""
    effects = []
    for channel in screen.channels:
        lot, own = (
            camera.draw_plate_effects(generator(config.seed, config.preset, *address, channel), part * config.nuisance)
            for part, address in ((0.7, (row["batch"],)), (0.5, (row["plate"], "plate")))
        )
        effects.append(camera.together(lot, own))
    return effects


def render_screen(config: SimConfig, row: Mapping[str, Any]) -> Field:
    """Render one field of a screen from its catalogue row, independent of all others.

    `density` holds every structure of every stain. `truth`: id, compound, concentration, moa, well_type, cell_line,
    batch, response (share of the full effect), infection, state (parameter → shift of a fully answering cell),
    background (shift of all cells by line, batch, plate and well), answer, phase and stage per cell, quality, defocus,
    mtoc. Raises ValueError for a row that does not belong to this configuration.
    """
    _check(config, row)
    screen, level = config.screen, SCREEN_LEVELS[config.difficulty]
    plate, well, site = str(row["plate"]), str(row["well"]), int(row["site"])

    def stream(purpose: str) -> np.random.Generator:
        return generator(config.seed, config.preset, plate, well, site, purpose)

    edge = well[:-2] in (screen.rows[0], screen.rows[-1]) or well[-2:] in (screen.columns[0], screen.columns[-1])
    effect, background = effect_of(config, row), background_state(config, row, level, edge)
    line = screen.cell_lines[row["cell_line"]]
    crowding = float(np.exp(0.10 * stream("crowding").standard_normal()))
    cells, states = make_screen_cells(
        stream("cells"), screen, line, config.size, effect.state,
        background=background, silent=level.silent, crowding=crowding,
    )  # fmt: skip
    scene = Stained(cells, states, stream)

    rng = stream("exposure")
    quality = str(rng.choice(["out_of_focus", "debris"])) if rng.random() < BAD_FIELDS * config.nuisance else "ok"
    defocus = float(rng.uniform(0, level.defocus)) + (4.0 if quality == "out_of_focus" else 0.0)
    well_rng = generator(config.seed, config.preset, plate, well, "stain")
    staining = np.exp(0.15 * config.nuisance * well_rng.standard_normal(len(screen.channels)))
    effects = _channel_effects(config, row, screen)

    density: dict[str, np.ndarray] = {}
    arrived, lenses, levels = [], [], []
    for role, optics, lot, amount in zip(screen.roles, screen.optics, effects, staining.tolist(), strict=True):
        photons = optics.photons * level.photons
        parts = STAINS[role](scene, stream(f"stain:{role}"))
        parts = {name: part * np.float32(photons * amount) for name, part in parts.items()}
        density |= parts
        sigma = camera.psf_sigma(screen, optics.wavelength, defocus) * lot.psf / screen.um_per_pixel
        lens = camera.Lens(
            cells.shape, sigma, min(0.8, screen.haze * lot.haze), screen.haze_sigma / screen.um_per_pixel
        )
        arrived.append(lens(np.stack(list(parts.values())).sum(axis=0, dtype=np.float32)))
        lenses.append(lens)
        levels.append(photons)
    if quality == "debris":
        speck = camera.debris(stream("debris"), cells.shape, cells.um)
        arrived = [
            light + np.float32(unit) * lens(speck) for light, unit, lens in zip(arrived, levels, lenses, strict=True)
        ]
    strength = np.array([lot.bleed for lot in effects])[:, None]
    arrived = camera.bleed(arrived, levels, strength * camera.bleed_matrix(screen))

    channels = []
    for light, channel, optics, lot, unit in zip(arrived, screen.channels, screen.optics, effects, levels, strict=True):
        light = light * (lot.exposure * camera.illumination(cells.shape, lot.tilt))
        light += optics.background * lot.background * unit / 100.0 * (1 + 0.2 * config.nuisance * edge)
        gain, offset = screen.stain_grey / unit, screen.offset * (1 + lot.offset)
        channels.append(camera.expose(stream(f"camera:{channel}"), light, screen, gain=gain, offset=offset))
    truth = {
        **{name: row[name] for name in ("id", "compound", "concentration", "moa", "well_type", "cell_line", "batch")},
        "response": effect.response,
        "infection": effect.infection,
        "state": named(effect.state),
        "background": named(background),
        "answer": states.answer,
        "phase": cells.shapes.phase,
        "stage": cells.shapes.stage,
        "quality": quality,
        "defocus": defocus,
        "mtoc": cells.mtoc,
    }
    return Field(np.stack(channels, -1), cells.nucleus_labels, cells.cell_labels, density, truth)
