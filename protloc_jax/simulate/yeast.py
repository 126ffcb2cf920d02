"""Fields of budding yeast: round cells, many with a bud, in loose microcolonies.

Mother and bud are one cell until they part, as a segmentation of the cytosol marker gives them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from protloc_jax.simulate.geometry import Cells, Shapes
from protloc_jax.simulate.presets import CellLine, Preset
from protloc_jax.simulate.yeast_cycle import Anatomy, anatomy, bud_offset, bud_radius, draw_phases

TRIES = 14  # candidates for every cell wanted


@dataclass(frozen=True)
class YeastCells(Cells):
    """Yeast cells: what `Cells` holds, and what only yeast has; no pixel counts as contact, for walls lie between.

    vacuole: signed distance (µm) to the vacuolar membrane, negative inside; nucleolus: 0–1 in the crescent of each
    nucleus; bud: pixels in buds; neck, neck_along [K, 2]: middle of the neck (or of the bud site) in pixels and the
    unit vector through it as (row, column); bud_size [K] µm, 0 without.
    """

    vacuole: np.ndarray
    nucleolus: np.ndarray
    bud: np.ndarray
    neck: np.ndarray
    neck_along: np.ndarray
    bud_size: np.ndarray


@dataclass(frozen=True)
class _Draws:
    """Candidates [n] for the cells of a field, and where they came to lie."""

    phase: np.ndarray
    radius: np.ndarray
    aspect: np.ndarray
    angle: np.ndarray
    toward: np.ndarray
    centre: np.ndarray


def _draw(rng: np.random.Generator, preset: Preset, line: CellLine, size: int, crowding: float) -> _Draws:
    """Cells by rejection: mothers and buds may touch but not overlap; some lie outside so that borders cut cells."""
    extent, border = size * preset.um_per_pixel, 1.5 * line.cell_radius
    side = extent + 2 * border
    # Density varies much from field to field, as colonies do.
    wanted = max(1, int(rng.poisson(line.density * crowding * np.exp(0.25 * rng.standard_normal()) * side**2 / 1000)))
    count = TRIES * wanted
    phase = draw_phases(rng, count)
    # Daughters start small and grow before they bud.
    young = np.where((phase < 0.25) & (rng.random(count) < 0.55), 0.76 + 0.7 * phase, 1.0)
    radius = line.cell_radius * young * np.exp(0.10 * rng.standard_normal(count))
    aspect = 1 + (line.cell_aspect - 1) * rng.uniform(0.2, 2.0, count)
    angle = rng.uniform(0, np.pi, count)
    toward = angle + np.where(rng.random(count) < 0.5, 0, np.pi) + rng.normal(0, 0.5, count)
    free = rng.uniform(0, side, (count, 2))
    free[0] = border + rng.uniform(0.25, 0.75, 2) * extent  # one cell is always well inside
    beside, pick, around = rng.random(count) < line.clustering, rng.random(count), rng.uniform(0, 2 * np.pi, count)
    bud = bud_radius(radius, phase)
    centres, chosen, discs = [], [], np.zeros((2 * wanted, 3))
    filled = 0
    for index in range(count):
        if len(chosen) == wanted:
            break
        own, centre = 1.03 * radius[index], free[index]
        if beside[index] and filled:
            anchor = discs[int(pick[index] * filled)]
            heading = np.array([np.sin(around[index]), np.cos(around[index])])
            centre = anchor[:2] + (anchor[2] + own + 0.05) * heading
            if not ((centre >= 0) & (centre <= side)).all():
                continue
        mine = [(*centre, own)]
        if bud[index] > 0:
            away, _ = bud_offset(radius[index], bud[index])
            heading = np.array([np.sin(toward[index]), np.cos(toward[index])])
            mine.append((*(centre + away * heading), bud[index]))
        new, old = np.array(mine), discs[:filled]
        gap = np.hypot(new[:, None, 0] - old[None, :, 0], new[:, None, 1] - old[None, :, 1])
        if filled and np.min(gap - new[:, None, 2] - old[None, :, 2]) < -0.08:
            continue
        discs[filled : filled + len(new)] = new
        filled += len(new)
        chosen.append(index)
        centres.append(centre - border)
    return _Draws(*(a[chosen] for a in (phase, radius, aspect, angle, toward)), centre=np.array(centres))


def _shapes(rng: np.random.Generator, draws: _Draws, line: CellLine, um: float) -> Shapes:
    count = len(draws.phase)
    length = line.nucleus_length * (draws.radius / line.cell_radius) ** 0.6 * np.exp(0.06 * rng.standard_normal(count))
    return Shapes(
        row=draws.centre[:, 0] / um,
        column=draws.centre[:, 1] / um,
        length=length,
        aspect=np.full(count, line.nucleus_aspect),
        angle=draws.angle,
        radius=draws.radius,
        stretch=draws.aspect,
        wobble=np.zeros((count, 4)),
        wobble_turn=np.zeros((count, 4)),
        lobes=rng.normal(0, line.nucleus_wobble, (count, 3)),
        lobe_turn=rng.uniform(0, 2 * np.pi, (count, 3)),
        phase=draws.phase,
        stage=np.zeros(count, int),
    )


def _from_disc(y: np.ndarray, x: np.ndarray, disc: tuple[float, float, float]) -> np.ndarray:
    return np.sqrt((y - np.float32(disc[0])) ** 2 + (x - np.float32(disc[1])) ** 2) - np.float32(disc[2])


def _from_mother(y: np.ndarray, x: np.ndarray, cell: Anatomy, lobes: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Signed distance (to first order) to the mother's slightly irregular ellipse."""
    c, s, root = np.cos(cell.angle), np.sin(cell.angle), np.sqrt(cell.aspect)
    along, across = x * np.float32(c) + y * np.float32(s), y * np.float32(c) - x * np.float32(s)
    level = np.sqrt((along / np.float32(root)) ** 2 + (across * np.float32(root)) ** 2) / np.float32(cell.radius)
    theta = np.arctan2(across, along)
    outline = np.ones_like(theta)
    for order, (amplitude, turn) in enumerate(zip(lobes, turns, strict=True), start=2):
        outline += np.float32(0.5 * amplitude) * np.cos(order * theta + np.float32(turn))
    return (level / outline - 1) * np.float32(cell.radius)


def _from_nucleus(y: np.ndarray, x: np.ndarray, cell: Anatomy) -> tuple[np.ndarray, np.ndarray]:
    """Signed distance to the envelope, and the nucleolar crescents: each lies opposite its lobe's spindle pole."""
    signed = np.full(np.broadcast_shapes(y.shape, x.shape), 1e3, np.float32)
    crescent = np.zeros_like(signed)
    single = len(cell.nucleus) == 1
    spread = bool(np.hypot(*(cell.poles[0] - cell.poles[1])) > 1e-6)
    for number, lobe in enumerate(cell.nucleus):
        signed = np.minimum(signed, _from_disc(y, x, lobe))
        axis = cell.poles[number] - np.array(lobe[:2])
        if single and spread:  # across a short spindle
            axis = np.array([axis[1], -axis[0]])
        axis = axis / (np.hypot(*axis) + 1e-9) * 0.62 * lobe[2]
        bite = _from_disc(y, x, (lobe[0] + axis[0], lobe[1] + axis[1], 0.92 * lobe[2]))
        crescent = np.maximum(crescent, np.clip(bite / 0.18 + 0.5, 0, 1) * (_from_disc(y, x, lobe) < 0))
    if cell.bridge:
        (y0, x0, _), (y1, x1, _) = cell.nucleus
        dy, dx = y1 - y0, x1 - x0
        share = np.clip(((y - y0) * dy + (x - x0) * dx) / (dy * dy + dx * dx), 0, 1)
        gap = np.sqrt((y - y0 - share * dy) ** 2 + (x - x0 - share * dx) ** 2) - np.float32(0.28)
        signed = np.minimum(signed, gap)
    return signed, crescent


def make_yeast(
    rng: np.random.Generator, preset: Preset, line: CellLine, size: int, *, crowding: float = 1.0
) -> YeastCells:
    """Draw the yeast cells of one field of view of `size` pixels."""
    um = preset.um_per_pixel
    draws = _draw(rng, preset, line, size, crowding)
    shapes = _shapes(rng, draws, line, um)
    count, shape = len(shapes), (size, size)
    outline, envelope = np.full(shape, 0.0, np.float32), np.full(shape, 1e3, np.float32)
    vacuole, crescent = np.full(shape, 1e3, np.float32), np.zeros(shape, np.float32)
    height, bud = np.zeros(shape, np.float32), np.zeros(shape, bool)
    labels = np.zeros(shape, np.int32)
    neck, along, poles = np.zeros((count, 2)), np.zeros((count, 2)), np.zeros((count, 2, 2))
    for k in range(count):
        cell = anatomy(
            rng, radius=draws.radius[k], aspect=draws.aspect[k], angle=draws.angle[k], toward=draws.toward[k],
            phase=draws.phase[k], nucleus=shapes.length[k] / 2,
        )  # fmt: skip
        at = np.array([shapes.row[k], shapes.column[k]])
        neck[k], along[k], poles[k] = at + np.array(cell.neck) / um, cell.direction, at + cell.poles / um
        reach = (1.5 * cell.radius + (0.0 if cell.bud is None else 2 * cell.bud[2])) / um
        low = np.clip(np.floor(at - reach), 0, size).astype(int)
        high = np.clip(np.ceil(at + reach) + 1, 0, size).astype(int)
        if (high <= low).any():
            continue
        box = slice(low[0], high[0]), slice(low[1], high[1])
        y = ((np.arange(low[0], high[0]) - at[0]) * um).astype(np.float32)[:, None]
        x = ((np.arange(low[1], high[1]) - at[1]) * um).astype(np.float32)[None, :]
        mother = _from_mother(y, x, cell, shapes.lobes[k], shapes.lobe_turn[k])
        daughter = np.full_like(mother, 1e3) if cell.bud is None else _from_disc(y, x, cell.bud)
        signed = np.minimum(mother, daughter)
        own = signed < outline[box]
        nucleus, part = _from_nucleus(y, x, cell)
        nucleus = np.maximum(nucleus, signed + np.float32(0.15))
        lumen = np.minimum.reduce([_from_disc(y, x, disc) for disc in cell.vacuole])
        lumen = np.maximum(np.maximum(lumen, signed + np.float32(0.22)), np.float32(0.12) - nucleus)
        dome = [
            np.sqrt(np.clip(1 - (1 + distance / np.float32(radius)) ** 2, 0, 1)) * np.float32(radius)
            for distance, radius in ((mother, cell.radius), (daughter, 0.0 if cell.bud is None else cell.bud[2]))
            if radius > 0
        ]
        for whole, mine in (
            (outline, signed), (envelope, nucleus), (vacuole, lumen), (crescent, part),
            (height, np.maximum.reduce(dome)), (bud, daughter < mother), (labels, np.full_like(signed, k + 1)),
        ):  # fmt: skip
            whole[box][own] = mine[own]
    inside = labels > 0
    nucleus_labels = np.where(envelope <= 0, labels, 0).astype(np.int32)
    from_membrane, outside = np.maximum(-outline, 0), np.maximum(envelope, 0)
    flat = np.minimum(from_membrane / 0.35, 1)  # an optical section is flatter than the cell
    return YeastCells(
        um=um,
        shapes=shapes,
        nucleus_labels=nucleus_labels,
        cell_labels=labels,
        envelope=envelope,
        from_membrane=from_membrane,
        depth=np.where(inside, outside / (outside + from_membrane + 1e-3), 1).astype(np.float32),
        thickness=(np.where(inside, 0.4 * flat + 0.6 * height / line.cell_radius, 0)).astype(np.float32),
        contact=np.zeros(shape, bool),
        mtoc=poles[:, 0],
        poles=poles,
        inside=inside,
        cytoplasm=inside & (nucleus_labels == 0),
        interphase=inside,
        vacuole=vacuole,
        nucleolus=crescent * (nucleus_labels > 0),
        bud=bud & inside,
        neck=neck,
        neck_along=along,
        bud_size=bud_radius(draws.radius, draws.phase),
    )
