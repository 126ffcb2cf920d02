"""How a budding yeast cell is built at its cell-cycle phase: mother, bud, nucleus, spindle poles and vacuole.

Lengths are µm in the frame of the mother's centre, x along columns and y along rows. A bud emerges at a quarter of the
cycle and grows to four fifths of its mother; the nucleus moves to the neck, is drawn through it and divides. Yeast
keeps its nuclear envelope all the while.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BUDDING, MEDIAL, ANAPHASE, TELOPHASE = 0.25, 0.32, 0.74, 0.84
NECK = 0.5  # half the width of the neck
BUD_SHARE, BUD_GROWTH = 0.8, 0.6

Discs = list[tuple[float, float, float]]  # (y, x, radius)


@dataclass(frozen=True)
class Anatomy:
    """One cell: `bud` and the lobes of nucleus and vacuole as discs (y, x, radius), spindle poles [2, 2] as (y, x).

    radius and aspect are the mother's; `bud` is None before budding; `neck` is the middle of the neck or, without a
    bud, the place on the surface where it was or will be; `bridge` says that the two nuclear lobes are still joined.
    """

    radius: float
    aspect: float
    angle: float
    direction: tuple[float, float]
    bud: tuple[float, float, float] | None
    neck: tuple[float, float]
    nucleus: Discs
    bridge: bool
    poles: np.ndarray
    vacuole: Discs


def bud_radius(radius: np.ndarray | float, phase: np.ndarray | float) -> np.ndarray:
    """Radius of the bud (µm), 0 before budding, at least 0.45 after."""
    grown = np.clip((np.asarray(phase) - BUDDING) / (1 - BUDDING), 0, 1)
    size = np.maximum(BUD_SHARE * np.asarray(radius) * grown**BUD_GROWTH, 0.45)
    return np.where(grown > 0, size, 0.0)


def draw_phases(rng: np.random.Generator, count: int) -> np.ndarray:
    """Cell-cycle phases [count] in [0, 1) of a growing population, in which young cells outnumber old two to one."""
    return -np.log2(1 - rng.random(count) / 2)


def bud_offset(radius: float, bud: float) -> tuple[float, float]:
    """Distances from the mother's centre to the bud's centre and to the neck, for a surface `radius` away."""
    half = min(NECK, 0.9 * bud)
    neck = float(np.sqrt(radius**2 - half**2))
    return neck + float(np.sqrt(max(bud**2 - half**2, 0.0))), neck


def surface(radius: float, aspect: float, angle: float, direction: float) -> float:
    """Distance from the centre to the mother's outline along `direction`."""
    root, turned = np.sqrt(aspect), direction - angle
    return float(radius / np.hypot(np.cos(turned) / root, np.sin(turned) * root))


def anatomy(
    rng: np.random.Generator, *, radius: float, aspect: float, angle: float, toward: float, phase: float, nucleus: float
) -> Anatomy:
    """Build one cell; `toward` is the direction of its bud (radians), `nucleus` the radius of its nucleus."""
    u = np.array([np.sin(toward), np.cos(toward)])
    reach = surface(radius, aspect, angle, toward)
    size = float(bud_radius(radius, phase))
    bud_at, neck_at = bud_offset(reach, size) if size > 0 else (0.0, reach)
    turn = rng.uniform(0, 2 * np.pi)
    w = np.array([np.sin(turn), np.cos(turn)])

    bridge = ANAPHASE <= phase < TELOPHASE
    if phase < ANAPHASE:
        ripe = float(np.clip((phase - BUDDING) / (ANAPHASE - BUDDING), 0, 1))
        centre = (1 - ripe) * 0.36 * w + ripe * 0.50 * u
        # On its way to the neck it keeps off the middle, where it would press on the vacuole.
        centre = radius * centre * max(1.0, 0.34 / (np.hypot(*centre) + 1e-3))
        lobes = [centre]
        radii = [nucleus * (1 + 0.12 * ripe)]
        pole_axis = _unit(u + 0.35 * w) if phase >= MEDIAL else _unit(w if rng.random() < 0.5 else -w + 0.8 * u)
        first = centre + radii[0] * pole_axis
        poles = np.stack([first, centre - radii[0] * pole_axis if phase >= MEDIAL else first])
    else:
        late = float(np.clip((phase - ANAPHASE) / (TELOPHASE - ANAPHASE), 0, 1))
        lobes = [u * radius * (0.35 - 0.45 * late), u * (neck_at + (bud_at - neck_at) * (0.35 + 0.65 * late))]
        radii = [0.84 * nucleus, min(0.78 * nucleus, 0.62 * size)]
        poles = np.stack([lobes[0] - radii[0] * u, lobes[1] + radii[1] * u])
    away = -_unit(lobes[0])
    if phase >= ANAPHASE:  # beside the dividing nucleus
        side = 1.0 if rng.random() < 0.5 else -1.0
        away = _unit(side * np.array([u[1], -u[0]]) - 0.45 * u)
    return Anatomy(
        radius=radius,
        aspect=aspect,
        angle=angle,
        direction=(float(u[0]), float(u[1])),
        bud=(float(u[0] * bud_at), float(u[1] * bud_at), size) if size > 0 else None,
        neck=(float(u[0] * neck_at), float(u[1] * neck_at)),
        nucleus=[(float(c[0]), float(c[1]), float(r)) for c, r in zip(lobes, radii, strict=True)],
        bridge=bridge,
        poles=poles,
        vacuole=_vacuole(rng, radius, away, size, u * bud_at, u, phase),
    )


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / (np.hypot(*vector) + 1e-9)


def _vacuole(
    rng: np.random.Generator, radius: float, away: np.ndarray, bud: float, bud_at: np.ndarray, u: np.ndarray,
    phase: float,
) -> Discs:  # fmt: skip
    """One to three lobes in the mother, on the side `away` from the nucleus, and one in a large bud."""
    number = int(rng.choice([1, 2, 3], p=[0.5, 0.3, 0.2]))
    spread, share, out = {1: (0.0, 0.42, 0.50), 2: (0.95, 0.35, 0.50), 3: (1.0, 0.28, 0.55)}[number]
    base = np.arctan2(away[0], away[1])
    lobes: Discs = []
    for place in np.arange(number) - (number - 1) / 2:
        turn = base + place * spread * 2 / max(number - 1, 1) * rng.uniform(0.85, 1.15)
        size = radius * share * rng.uniform(0.78, 1.14)
        lobes.append((float(radius * out * np.sin(turn)), float(radius * out * np.cos(turn)), float(size)))
    if bud > 1.2:
        divided = phase >= ANAPHASE
        side = np.array([u[1], -u[0]]) if divided else u
        at = bud_at + side * bud * (0.42 if divided else 0.15)
        lobes.append((float(at[0]), float(at[1]), float(bud * rng.uniform(0.30, 0.42))))
    return lobes
