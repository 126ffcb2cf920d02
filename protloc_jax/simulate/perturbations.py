"""What a well's treatment does to its cells: direction × dose response × the cell line's gain, as a vector.

The exact truth of a screen. Compounds of one mechanism share a direction and differ in potency, in efficacy and in
off-target effects; siRNAs of one pathway share most of their direction; a drug may rescue infected cells.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from protloc_jax.simulate import compounds as given
from protloc_jax.simulate.config import SimConfig
from protloc_jax.simulate.keys import generator
from protloc_jax.simulate.morphology import COUNT, INFECTION, MOA_DIRECTIONS, TOXICITY, vector
from protloc_jax.simulate.screen_layout import compounds_of, controls_of

PATHWAY_SHARE = 0.8  # cosine between an siRNA's direction and its pathway's, before off-target effects
SIRNA_SIZE = 3.2  # norm of a pathway's direction
GAIN_SPREAD = 0.5  # of a cell line's answer to one parameter, in log units
# Extreme outcomes that a random direction should not hold by chance.
_RARE = vector({"mitotic_arrest": 1, "monopolar": 1, "apoptosis": 1, "syncytia": 1, "micronuclei": 1}) > 0


@dataclass(frozen=True)
class ScreenLevel:
    """One level of difficulty: strength of effects, size of off-target effects, well-to-well spread, share of cells
    that do not answer, photons (relative) and most defocus (µm)."""

    effect: float
    off_target: float
    well: float
    silent: float
    photons: float
    defocus: float


SCREEN_LEVELS: dict[str, ScreenLevel] = {
    "easy": ScreenLevel(effect=1.4, off_target=0.15, well=0.04, silent=0.0, photons=2.0, defocus=0.2),
    "medium": ScreenLevel(effect=1.2, off_target=0.25, well=0.07, silent=0.05, photons=1.2, defocus=0.5),
    "hard": ScreenLevel(effect=1.0, off_target=0.35, well=0.10, silent=0.1, photons=0.8, defocus=0.7),
}


@dataclass(frozen=True)
class Perturbation:
    """What one compound, siRNA or drug can do: direction [P] at full effect, and its Hill curve.

    `ec50` in µM (NaN for an siRNA, whose response is 1); `rescue` is the share of an infection it takes away at full
    effect.
    """

    name: str
    direction: np.ndarray
    efficacy: float = 1.0
    ec50: float = math.nan
    hill: float = 1.0
    rescue: float = 0.0

    def response(self, concentration: float) -> float:
        """Share of the full effect at a dose, efficacy included: c^h / (c^h + EC50^h)."""
        if math.isnan(self.ec50):
            return self.efficacy
        return self.efficacy / (1 + (self.ec50 / concentration) ** self.hill) if concentration > 0 else 0.0


@dataclass(frozen=True)
class Effect:
    """The truth of one well: state [P] of a cell that answers fully, dose response, and infection after rescue."""

    state: np.ndarray
    response: float
    infection: float


def _random_direction(rng: np.random.Generator, size: float, terms: int) -> np.ndarray:
    """A sparse direction [P] of norm `size`, free of rare outcomes."""
    places = rng.choice(np.flatnonzero(~_RARE), terms, replace=False)
    direction = np.zeros(COUNT)
    direction[places] = rng.choice([-1.0, 1.0], terms) * rng.uniform(0.5, 1.5, terms)
    return direction * (size / np.linalg.norm(direction))


def _compound(config: SimConfig, one: given.Compound) -> Perturbation:
    level, rng = SCREEN_LEVELS[config.difficulty], generator(config.seed, config.preset, "compound", one.name)
    direction = vector(MOA_DIRECTIONS[one.moa])
    direction = direction + level.off_target * _random_direction(rng, float(np.linalg.norm(direction)), 8)
    return Perturbation(
        name=one.name,
        direction=direction,
        efficacy=float(np.clip(rng.normal(1.0, 0.12), 0.7, 1.3)),
        ec50=float(one.acts_from / 2 * np.exp(0.25 * rng.standard_normal())),
        hill=float(rng.uniform(1.2, 2.2)),
    )


def _sirna(config: SimConfig, one: given.Compound) -> Perturbation:
    """Its pathway's direction, its own, and how well it knocks its target down."""
    shared = _random_direction(generator(config.seed, config.preset, "pathway", one.moa), SIRNA_SIZE, 7)
    rng = generator(config.seed, config.preset, "sirna", one.name)
    own = _random_direction(rng, SIRNA_SIZE, 7)
    direction = PATHWAY_SHARE * shared + math.sqrt(1 - PATHWAY_SHARE**2) * own
    return Perturbation(one.name, direction, efficacy=float(np.clip(rng.lognormal(-0.1, 0.3), 0.35, 1.6)))


def _control_sirna(config: SimConfig, one: given.Compound, number: int) -> Perturbation:
    """A strong phenotype: that of a mechanism of action, with a turn of its own."""
    rng = generator(config.seed, config.preset, "sirna", one.name)
    moa = given.MOAS[(5 * number + 5) % len(given.MOAS)]
    return Perturbation(one.name, vector(MOA_DIRECTIONS[moa]) + _random_direction(rng, 1.2, 6), efficacy=1.2)


def _drug(config: SimConfig, one: given.Compound) -> Perturbation:
    rng = generator(config.seed, config.preset, "compound", one.name)
    own, size, rescue = _random_direction(rng, 1.0, 6), 0.4, 0.0
    if one.moa == "antiviral":
        rescue = float(rng.uniform(0.8, 1.0))
    elif one.moa == "host-directed":
        rescue, size = float(rng.uniform(0.4, 0.7)), 1.6
    direction = size * own + (vector(TOXICITY) if one.moa == "cytotoxic" else 0)
    ec50 = float(10 ** rng.uniform(0.0, 1.2))  # 1 to 16 µM
    return Perturbation(one.name, direction, ec50=ec50, hill=float(rng.uniform(1.0, 2.0)), rescue=rescue)


@lru_cache(maxsize=8)
def library(config: SimConfig) -> dict[str, Perturbation]:
    """Every perturbation of a screen by name, controls included; the untreated have a direction of 0."""
    nothing = [Perturbation(name, np.zeros(COUNT), efficacy=0.0) for name in (given.DMSO, given.EMPTY, given.UNTREATED)]
    if config.screen.kind == "sirnas":
        rng = generator(config.seed, config.preset, "sirna", given.NON_TARGETING)
        nothing.append(Perturbation(given.NON_TARGETING, _random_direction(rng, 0.25, 6)))
        made = [_sirna(config, one) for one in compounds_of(config)]
        made += [_control_sirna(config, one, number) for number, one in enumerate(controls_of(config))]
    elif config.screen.kind == "infection":
        made = [_drug(config, one) for one in compounds_of(config)]
    else:
        everything = {one.name: one for one in (given.taxol(), *compounds_of(config))}
        made = [_compound(config, one) for one in everything.values()]
    return {one.name: one for one in (*nothing, *made)}


@lru_cache(maxsize=64)
def line_gain(config: SimConfig, cell_line: str) -> np.ndarray:
    """How strongly a cell line answers along each parameter [P], around 1."""
    spread = generator(config.seed, config.preset, "gain", cell_line).standard_normal(COUNT)
    return np.exp(GAIN_SPREAD * spread) if len(config.screen.cell_lines) > 1 else np.ones(COUNT)


def infection_of(condition: str, row: Mapping[str, Any], one: Perturbation) -> float:
    """How ill cells are, 0 to 1: fully where the virus is active, less by rescue; a trace where it was inactivated."""
    if condition == given.ACTIVE:
        return 1.0 - one.rescue * one.response(float(row["concentration"]))
    return 0.12 if condition == given.INACTIVATED else 0.0


def effect_of(config: SimConfig, row: Mapping[str, Any]) -> Effect:
    """The effect of a catalogue row's treatment on its cell line; raises KeyError for a compound it does not have."""
    one = library(config)[row["compound"]]
    response = one.response(float(row["concentration"]))
    infection = infection_of(row["disease_condition"], row, one) if config.screen.kind == "infection" else 0.0
    level, gain = SCREEN_LEVELS[config.difficulty], line_gain(config, row["cell_line"])
    state = level.effect * gain * (response * one.direction + infection * vector(INFECTION))
    return Effect(state, response, infection)
