"""The cells of a screen: how a state moves their shapes, and which of them divide, are held in mitosis or die."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from protloc_jax.simulate.geometry import (
    ANAPHASE,
    DYING,
    INTERPHASE,
    METAPHASE,
    MONOPOLAR,
    SCATTERED,
    Cells,
    Shapes,
    make_cells,
)
from protloc_jax.simulate.morphology import INDEX
from protloc_jax.simulate.presets import CellLine, Preset

PIECES = 6  # most satellites of a nucleus
DYING_SHARE = 0.01
ANSWER_SPREAD = 0.3  # of one cell's answer, in log units
MOST_DIVIDING = 0.6


@dataclass(frozen=True)
class States:
    """What every cell answers [K] (1: as its well's treatment says), the states that follow [K, P], and their mean."""

    answer: np.ndarray
    state: np.ndarray
    mean: np.ndarray

    def __getitem__(self, name: str) -> np.ndarray:
        """One parameter of every cell [K]."""
        return self.state[:, INDEX[name]]


def _logit_shift(share: float, shift: np.ndarray) -> np.ndarray:
    odds = share / (1 - share) * np.exp(shift)
    return odds / (1 + odds)


def shifted_line(line: CellLine, state: np.ndarray) -> CellLine:
    """The cell line as the mean cell of a field in `state` [P] looks; what nuclei and cells are placed by."""

    def of(name: str) -> float:
        return float(state[INDEX[name]])

    rounding = float(np.exp(-0.10 * max(of("roundness"), 0)))
    return replace(
        line,
        nucleus_length=line.nucleus_length * float(np.exp(np.clip(0.20 * of("nuclear_area"), -0.4, 0.5))),
        nucleus_aspect=1 + (line.nucleus_aspect - 1) * float(np.exp(0.5 * of("nuclear_elongation"))),
        nucleus_wobble=line.nucleus_wobble * float(np.exp(0.6 * np.clip(of("nuclear_lobes"), -1, 2))),
        cell_radius=line.cell_radius * float(np.exp(np.clip(0.20 * of("cell_area"), -0.5, 0.5))) * rounding,
        cell_aspect=1 + (line.cell_aspect - 0.9) * float(np.exp(0.7 * np.clip(of("cell_elongation"), -2, 2)))
        * rounding - 0.1,
        density=line.density * float(np.exp(0.45 * np.clip(of("cell_count"), -3, 1.5))),
        clustering=float(np.clip(line.clustering + 0.35 * of("clustering"), 0, 0.95)),
    )  # fmt: skip


def _pieces(rng: np.random.Generator, shapes: Shapes, states: States) -> tuple[np.ndarray, np.ndarray]:
    """Satellites [K, PIECES, 3] of broken, fused and dying nuclei, and the factor on the main piece's length [K]."""
    count = len(shapes)
    turn = rng.uniform(0, 2 * np.pi, (count, 1)) + np.cumsum(rng.uniform(0.5, 1.7, (count, PIECES)), axis=1)
    draw, chance = rng.random((count, PIECES, 2)), rng.random((count, 3))
    first = np.arange(PIECES) < rng.integers(1, PIECES + 1, count)[:, None]
    resting = shapes.stage == INTERPHASE

    broken = resting & (chance[:, 0] < np.clip(0.4 * states["micronuclei"], 0, 0.85))
    fused = resting & ~broken & (chance[:, 1] < np.clip(0.22 * states["syncytia"], 0, 0.6))
    loose = np.isin(shapes.stage, (SCATTERED, DYING))
    radius = np.zeros((count, PIECES))
    away = np.ones((count, PIECES))
    half = shapes.length[:, None] / 2
    size, place = draw[..., 0] ** 1.5, draw[..., 1]
    for chosen, wide, out in (
        (broken, (0.16 + 0.42 * size) * half, 0.85 + 0.45 * place),
        (fused, (0.75 + 0.2 * size) * half, 1.9 + 0.5 * place),
        (loose, 0.45 + 0.6 * size, 0.9 + 1.3 * place),
    ):
        radius = np.where(chosen[:, None] & first, wide, radius)
        away = np.where(chosen[:, None], out * half, away)
    factor = np.where(broken, 0.78, 1.0)
    return np.stack([away * np.cos(turn), away * np.sin(turn), radius], -1), factor


def alter_shapes(rng: np.random.Generator, shapes: Shapes, line: CellLine, states: States, dividing: float) -> Shapes:
    """Give every cell its own answer, its place in the cell cycle, and the nuclei that follow from both.

    `dividing` is the untreated share of mitotic cells. A unit of nuclear_area or cell_area is 22 % in diameter. Of the
    cells held in mitosis beyond it some are monopolar, the others scattered.
    """
    count = len(shapes)

    def own(name: str, factor: float) -> np.ndarray:
        """What a cell has beyond the mean answer, which the line already carries."""
        return np.exp(np.clip(factor * (states[name] - states.mean[INDEX[name]]), -0.6, 0.6))

    length = shapes.length * own("nuclear_area", 0.20)
    # Late in the cycle nuclei are larger; at its end they have twice the DNA.
    length = length * np.exp(0.18 * (shapes.phase - 0.5))
    radius = np.maximum(shapes.radius * own("cell_area", 0.20), 0.62 * length + 1.0)
    wobble = shapes.wobble * own("nuclear_lobes", 0.6)[:, None]
    bulges = np.clip(0.06 * states["nuclear_lobes"], 0, 0.13)[:, None] / np.array([1.0, 0.8, 1.3, 2.5])
    wobble = np.clip(wobble + bulges * rng.standard_normal((count, 4)), -0.17, 0.17)
    lobes = shapes.lobes * np.exp(-0.5 * np.clip(states["roundness"], -1, 2))[:, None]

    total = np.minimum(_logit_shift(dividing, states["mitotic_arrest"]), MOST_DIVIDING)
    draw = rng.random((count, 3))
    mitotic = draw[:, 0] < total
    arrested = mitotic & (draw[:, 0] > np.minimum(total, dividing))
    stage = np.where(mitotic, rng.integers(METAPHASE, ANAPHASE + 1, count), INTERPHASE)
    single = draw[:, 1] < np.clip(0.45 * states["monopolar"], 0, 0.95)
    stage = np.where(arrested, np.where(single, MONOPOLAR, SCATTERED), stage)
    dying = draw[:, 2] < np.minimum(_logit_shift(DYING_SHARE, 1.2 * states["apoptosis"]), 0.4)
    stage = np.where(dying & ~mitotic, DYING, stage)

    rounded = stage > INTERPHASE
    scale = (line.nucleus_length / 13) ** 0.5
    plate = {
        METAPHASE: (5.6, 3.6),
        ANAPHASE: (5.6, 4.4),
        MONOPOLAR: (6.6, 1.15),
        SCATTERED: (5.4, 1.5),
        DYING: (4.2, 1.1),
    }
    for which, (size, aspect) in plate.items():
        length = np.where(stage == which, size * scale, length)
        shapes = replace(shapes, aspect=np.where(stage == which, aspect, shapes.aspect))
    shapes = replace(
        shapes,
        length=length,
        radius=np.where(rounded, np.where(stage == DYING, 0.45, 0.62) * line.nucleus_length + 1.0, radius),
        stretch=np.where(rounded, 1.05, shapes.stretch),
        wobble=np.where(
            np.isin(stage, (SCATTERED, MONOPOLAR))[:, None], 0.08 * rng.standard_normal((count, 4)), wobble
        ),
        lobes=np.where(rounded[:, None], 0.15 * lobes, lobes),
        stage=stage,
    )
    satellites, factor = _pieces(rng, shapes, states)
    giant = (satellites[:, :, 2] > 0.3 * shapes.length[:, None]).any(axis=1) & ~rounded
    grown = np.where(giant, 1.6, 1.0)
    return replace(shapes, length=shapes.length * factor, radius=shapes.radius * grown, satellites=satellites)


def make_screen_cells(
    rng: np.random.Generator,
    preset: Preset,
    line: CellLine,
    size: int,
    state: np.ndarray,
    *,
    background: np.ndarray,
    silent: float,
    crowding: float = 1.0,
) -> tuple[Cells, States]:
    """Draw the cells of one field whose treatment means `state` [P], on a `background` [P] that all of them share.

    A share `silent` of the cells does not answer to the treatment; the others do so more or less.
    """
    mean = (1 - silent) * state + background
    calm = replace(preset, mitotic_fraction=0.0)
    kept: list[States] = []

    def alter(shapes: Shapes) -> Shapes:
        count = len(shapes)
        answer = np.exp(ANSWER_SPREAD * rng.standard_normal(count))
        answer = np.where(rng.random(count) < silent, 0.0, answer)
        kept.append(States(answer, answer[:, None] * state + background, mean))
        return alter_shapes(rng, shapes, line, kept[0], preset.mitotic_fraction)

    cells = make_cells(rng, calm, shifted_line(line, mean), size, crowding=crowding, alter=alter)
    return cells, kept[0]
