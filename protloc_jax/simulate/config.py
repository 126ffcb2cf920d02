"""The simulator's one configuration, validated when made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from protloc_jax.config import ConfigError, nearest, opt
from protloc_jax.simulate.exposure import LEVELS
from protloc_jax.simulate.presets import PRESETS, Preset
from protloc_jax.simulate.presets_single import SINGLE

DOMAINS: dict[str, Preset] = {**PRESETS, **SINGLE}


@dataclass(frozen=True)
class SimConfig:
    """A simulated data set: which domain, how many proteins and fields, how hard, from which seed.

    Raises ConfigError (a ValueError) naming every bad field.
    """

    preset: str = opt("hpa_fov", f"imaging domain: {', '.join(DOMAINS)}")
    difficulty: Literal["easy", "medium", "hard"] = opt(
        "hard", "how pure, bright and sharp proteins are; hard is the level to report"
    )
    n_proteins: int = opt(96, "proteins; primary classes are dealt out in turn")
    fovs_per_protein: int = opt(10, "fields of view of each protein, two a well")
    size: int = opt(256, "side of a field of view in pixels")
    seed: int = opt(0, "seed of everything")
    nuisance: float = opt(1.0, "strength of plate, illumination, PSF, bleed-through and bad-field effects; 0 is none")
    tail: float = opt(1.0, "proteins of the rarest class to those of the commonest; 1 is balanced, 0.005 is HPA-like")
    unit: Literal["preset", "field", "cell"] = opt(
        "preset", "what one image shows: a field of view, or a cell cut out of one (hpa_sc and yeast: cell)"
    )
    background: Literal["keep", "mask"] = opt("keep", "what stands around a cut-out cell: its surroundings, or zeros")
    pooled: float = opt(0.0, "chance of each cell to carry a protein drawn anew (from the same split), not its field's")

    def __post_init__(self) -> None:
        problems = []
        if self.preset not in DOMAINS:
            valid = ", ".join(DOMAINS)
            problems.append(f"preset: unknown {self.preset!r}; valid: {valid}.{nearest(str(self.preset), DOMAINS)}")
        levels = tuple(LEVELS)
        if self.difficulty not in levels:
            hint = nearest(str(self.difficulty), levels)
            problems.append(f"difficulty: unknown {self.difficulty!r}; valid: {', '.join(levels)}.{hint}")
        for field, low in (("n_proteins", 1), ("fovs_per_protein", 1), ("size", 32)):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                problems.append(f"{field}: must be an integer >= {low}, got {value!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            problems.append(f"seed: must be an integer, got {self.seed!r}")
        if not 0 <= self.nuisance <= 5:
            problems.append(f"nuisance: must lie in [0, 5], got {self.nuisance!r}")
        if not 0 < self.tail <= 1:
            problems.append(f"tail: must lie in (0, 1], got {self.tail!r}")
        problems += cell_problems(self, DOMAINS.get(self.preset))
        if problems:
            raise ConfigError("simulated cells: " + "; ".join(problems))

    @property
    def domain(self) -> Preset:
        """The preset this configuration names."""
        return DOMAINS[self.preset]

    @property
    def of_cells(self) -> bool:
        """Whether one image is one cell."""
        return (self.domain.unit if self.unit == "preset" else self.unit) == "cell"


def cell_problems(config: SimConfig, preset: Preset | None) -> list[str]:
    """What is wrong with the fields that concern single cells and pooled fields; `preset` is None where unknown."""
    problems = []
    for field, valid in (("unit", ("preset", "field", "cell")), ("background", ("keep", "mask"))):
        value = getattr(config, field)
        if value not in valid:
            hint = nearest(str(value), valid)
            problems.append(f"{field}: unknown {value!r}; valid: {', '.join(valid)}.{hint}")
    if not 0 <= config.pooled <= 1:
        problems.append(f"pooled: must lie in [0, 1], got {config.pooled!r}")
    if preset is None:
        return problems
    if config.pooled and "protein" not in preset.roles:
        problems.append(f"pooled: {preset.name} shows no protein")
    cells = (preset.unit if config.unit == "preset" else config.unit) == "cell"
    if cells and not preset.crop:
        problems.append(f"unit: {preset.name} has no single-cell images")
    elif cells and isinstance(config.size, int) and config.size <= preset.crop:
        wanted = f"the {preset.crop} pixels of a cell of {preset.name}"
        problems.append(f"size: a field must exceed {wanted}, got {config.size!r}")
    if not cells and config.background == "mask":
        problems.append("background: only around single cells can it be masked (unit=cell)")
    return problems
