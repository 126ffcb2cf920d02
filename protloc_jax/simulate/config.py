"""The simulator's one configuration, validated when made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from protloc_jax.config import ConfigError, nearest, opt
from protloc_jax.simulate.exposure import LEVELS
from protloc_jax.simulate.presets import PRESETS, Preset


@dataclass(frozen=True)
class SimConfig:
    """A simulated data set: which domain, how many proteins and fields, how hard, from which seed.

    Raises ConfigError (a ValueError) naming every bad field.
    """

    preset: str = opt("hpa_fov", "imaging domain: hpa_fov (4 channels, 8 bit) or opencell (2 channels, 16 bit)")
    difficulty: Literal["easy", "medium", "hard"] = opt(
        "hard", "how pure, bright and sharp proteins are; hard is the level to report"
    )
    n_proteins: int = opt(96, "proteins; primary classes are dealt out in turn")
    fovs_per_protein: int = opt(10, "fields of view of each protein, two a well")
    size: int = opt(256, "side of a field of view in pixels")
    seed: int = opt(0, "seed of everything")
    nuisance: float = opt(1.0, "strength of plate, illumination, PSF, bleed-through and bad-field effects; 0 is none")
    tail: float = opt(1.0, "proteins of the rarest class to those of the commonest; 1 is balanced, 0.005 is HPA-like")

    def __post_init__(self) -> None:
        problems = []
        if self.preset not in PRESETS:
            valid = ", ".join(PRESETS)
            problems.append(f"preset: unknown {self.preset!r}; valid: {valid}.{nearest(str(self.preset), PRESETS)}")
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
        if problems:
            raise ConfigError("simulated cells: " + "; ".join(problems))

    @property
    def domain(self) -> Preset:
        """The preset this configuration names."""
        return PRESETS[self.preset]
