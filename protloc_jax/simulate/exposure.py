"""How hard a data set is, and how bright its protein channel: brightness must not give the class away.

A point-like protein would stand out by its spread and a diffuse one by its mean, long before any texture is looked at.
So every field draws its mean and its contrast without regard to the class, and structure and diffuse pool are mixed to
meet both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Level:
    """One level of difficulty.

    primary_weight: least share of the primary class; photons: mean of the protein channel over cells; defocus: most
    extra blur (µm); contrast: range of the excess of the channel's spread over that of a diffuse protein.
    """

    primary_weight: float
    photons: float
    defocus: float
    contrast: tuple[float, float]


LEVELS: dict[str, Level] = {
    "easy": Level(primary_weight=0.80, photons=180.0, defocus=0.0, contrast=(0.80, 2.40)),
    "medium": Level(primary_weight=0.60, photons=60.0, defocus=0.25, contrast=(0.60, 1.80)),
    "hard": Level(primary_weight=0.45, photons=25.0, defocus=0.45, contrast=(0.50, 1.50)),
}


def mix(structure: np.ndarray, pool: np.ndarray, contrast: float) -> tuple[float, float]:
    """Return factors for structure and pool [H, W] (after optics) whose mixture has mean 1 and the wanted spread.

    The mixture holds as much structure as keeps its spread within the pool's own times 1 + `contrast`, and at least a
    twentieth. Without structure the pool stands alone.
    """
    structure_mean, pool_mean = float(structure.mean()), float(pool.mean())
    if structure_mean < 1e-6 or pool_mean < 1e-6:
        return (0.0, 1 / pool_mean) if pool_mean >= 1e-6 else (0.0, 0.0)
    a, b = structure / structure_mean - 1, pool / pool_mean - 1
    aa, ab, bb = float(np.mean(a * a)), float(np.mean(a * b)), float(np.mean(b * b))
    share = np.linspace(0.05, 1.0, 96)
    variance = share**2 * aa + 2 * share * (1 - share) * ab + (1 - share) ** 2 * bb
    within = np.flatnonzero(variance <= (1 + contrast) ** 2 * bb)
    best = share[within[-1]] if within.size else share[0]
    return float(best / structure_mean), float((1 - best) / pool_mean)
