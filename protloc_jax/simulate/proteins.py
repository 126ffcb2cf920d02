"""Which protein goes where: localization weights, texture, expression, complexes, and the split by protein."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from protloc_jax.simulate.config import SimConfig
from protloc_jax.simulate.exposure import LEVELS
from protloc_jax.simulate.keys import generator
from protloc_jax.simulate.organelles import Texture
from protloc_jax.simulate.splitting import stratified_split

MULTI_LOCALISED = 0.55
COMPLEX_SIZE = 3


@dataclass(frozen=True)
class Protein:
    """One protein: class weights (primary first, sum 1), texture, and how its amount varies between cells.

    `silent` is the share of cells without it; `cycle_peak` the cell-cycle phase at which there is most, if it follows
    the cycle.
    """

    name: str
    weights: dict[str, float]
    texture: Texture
    expression_sigma: float
    silent: float
    cycle_peak: float | None
    complex: str

    @property
    def primary(self) -> str:
        return next(iter(self.weights))


def _class_of_each(config: SimConfig, names: tuple[str, ...]) -> list[str]:
    """Primary class of every protein: round robin, or by a geometric long tail when `tail` < 1."""
    if config.tail == 1:
        return [names[index % len(names)] for index in range(config.n_proteins)]
    share = config.tail ** (np.arange(len(names)) / max(len(names) - 1, 1))
    quota = share / share.sum()
    given = np.zeros(len(names))
    chosen = []
    for index in range(config.n_proteins):
        pick = int(np.argmax(quota * (index + 1) - given))
        given[pick] += 1
        chosen.append(names[pick])
    return chosen


def make_proteins(config: SimConfig) -> list[Protein]:
    """Return all proteins of a data set; protein i is the same whatever `n_proteins` is (balanced classes)."""
    names = tuple(config.domain.classes)
    least = LEVELS[config.difficulty].primary_weight
    seen: dict[str, int] = {}
    proteins = []
    for index, primary in enumerate(_class_of_each(config, names)):
        rng = generator(config.seed, config.preset, "protein", index)
        order = seen.get(primary, 0)
        seen[primary] = order + 1
        group = f"{primary}-complex{order // COMPLEX_SIZE}"
        shared = generator(config.seed, config.preset, "complex", group)
        common, own = shared.standard_normal(4), rng.standard_normal(4)
        spread = np.array([0.20, 0.30, 0.22, 0.25]) * (0.8 * common + 0.4 * own)
        variant = shared.random()
        multi = rng.random() < MULTI_LOCALISED
        extra = int(rng.integers(1, 3)) if multi else 0
        others = [str(name) for name in rng.permutation([name for name in names if name != primary])[:extra]]
        top = least + (1 - least) * rng.beta(1.0, 1.6) if extra else 1.0
        rest = rng.dirichlet(np.full(max(extra, 1), 2.0)) * (1 - top)
        parts = sorted(((float(w), name) for w, name in zip(rest, others, strict=False)), reverse=True)
        if parts and parts[0][0] > top:
            top, parts = parts[0][0], [(top, parts[0][1]), *parts[1:]]
        weights = {primary: float(top)} | {name: w for w, name in parts}
        proteins.append(
            Protein(
                name=f"P{index:04d}",
                weights=weights,
                texture=Texture(*np.exp(spread).tolist(), variant=float(variant)),
                expression_sigma=float(0.3 + 0.5 * rng.beta(1.0, 2.5)),
                silent=float(rng.uniform(0.1, 0.5)) if rng.random() < 0.2 else 0.0,
                cycle_peak=float(rng.random()) if rng.random() < 0.15 else None,
                complex=group,
            )
        )
    return proteins


def split_proteins(config: SimConfig, proteins: list[Protein]) -> list[str]:
    """Give each protein train, val or test, stratified by primary class."""
    return stratified_split(generator(config.seed, config.preset, "split"), [protein.primary for protein in proteins])
