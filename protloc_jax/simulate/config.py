"""The simulator's one configuration, validated when made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from protloc_jax.config import ConfigError, nearest, opt
from protloc_jax.simulate.exposure import LEVELS
from protloc_jax.simulate.presets import PRESETS, Preset
from protloc_jax.simulate.presets_screens import SCREENS, Design, Screen
from protloc_jax.simulate.presets_single import SINGLE

DOMAINS: dict[str, Preset] = {**PRESETS, **SINGLE, **SCREENS}
# Fields that say nothing in the other kind of preset, with the value that means "not given".
PROTEIN_FIELDS = {"n_proteins": 96, "fovs_per_protein": 10, "tail": 1.0}
SCREEN_FIELDS = {
    "n_compounds": 0,
    "doses": 0,
    "replicates": 0,
    "sites": 0,
    "batches": 0,
    "design": "preset",
    "cell_lines": (),
}
MOST_DOSES = 8
NEIGHBOURS = ("field", "same_class", "other_class", "none")
DRAWN = ("same_class", "other_class")


@dataclass(frozen=True)
class SimConfig:
    """A simulated data set: which domain, how many proteins (or compounds) and fields, how hard, from which seed.

    Fields of proteins belong to the protein presets, those from `n_compounds` on to the perturbation screens. Raises
    ConfigError (a ValueError) naming every bad field.
    """

    preset: str = opt(
        "hpa_fov",
        f"imaging domain: {', '.join(PRESETS)} (proteins), {', '.join(SINGLE)} (single cells) or {', '.join(SCREENS)} "
        "(perturbation screens)",
    )
    difficulty: Literal["easy", "medium", "hard"] = opt(
        "hard", "how pure, bright and sharp proteins are, how strong perturbations; hard is the level to report"
    )
    n_proteins: int = opt(96, "proteins; primary classes are dealt out in turn")
    fovs_per_protein: int = opt(10, "fields of view of each protein, two a well")
    size: int = opt(256, "side of a field of view in pixels")
    seed: int = opt(0, "seed of everything")
    nuisance: float = opt(1.0, "strength of batch, plate, illumination, PSF, bleed-through and bad-field effects")
    tail: float = opt(1.0, "proteins of the rarest class to those of the commonest; 1 is balanced, 0.005 is HPA-like")
    unit: Literal["preset", "field", "cell"] = opt(
        "preset", "what one image shows: a field of view, or a cell cut out of one (hpa_sc and yeast: cell)"
    )
    background: Literal["keep", "mask"] = opt("keep", "what stands around a cut-out cell: its surroundings, or zeros")
    pooled: float = opt(0.0, "chance of each cell to carry a protein drawn anew (from the same split), not its field's")
    neighbours: Literal["plain", "field", "same_class", "other_class", "none"] = opt(
        "plain",
        "what a single cell stands among: plain (cells of its own protein), or, with the same cells in all four and "
        "the neighbours' class in the manifest, field (the same), same_class (another protein of its primary class), "
        "other_class (a protein of another) or none (alone)",
    )
    neighbour_draw: int = opt(0, "which of the independent draws of a cell's neighbours (same_class, other_class)")
    n_compounds: int = opt(0, "screens: compounds (rxrx1: siRNAs; rxrx19a: drugs); 0 is the preset's own number")
    doses: int = opt(0, "screens: doses of each compound, up to 8; 0 is the preset's own number")
    replicates: int = opt(0, "screens: plates of one layout; 0 is the preset's own number")
    sites: int = opt(0, "screens: fields of view a well; 0 is the preset's own number")
    batches: int = opt(0, "screens: weeks, or experiments of the commonest cell line; 0 is the preset's own number")
    design: Literal["preset", "nested", "crossed"] = opt(
        "preset", "screens: nested (each compound in one batch) or crossed (in every batch); bbbc021 itself is nested"
    )
    cell_lines: tuple[str, ...] = opt((), "screens: only these cell lines; none named means all")

    def __post_init__(self) -> None:
        problems = []
        if self.preset not in DOMAINS:
            valid = ", ".join(DOMAINS)
            problems.append(f"preset: unknown {self.preset!r}; valid: {valid}.{nearest(str(self.preset), DOMAINS)}")
        levels = tuple(LEVELS)
        if self.difficulty not in levels:
            hint = nearest(str(self.difficulty), levels)
            problems.append(f"difficulty: unknown {self.difficulty!r}; valid: {', '.join(levels)}.{hint}")
        counts = (("n_proteins", 1), ("fovs_per_protein", 1), ("size", 32))
        counts += tuple(
            (name, 0) for name in ("n_compounds", "doses", "replicates", "sites", "batches", "neighbour_draw")
        )
        for field, low in counts:
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
        if self.preset in DOMAINS:
            problems += _wrong_kind(self)
        if self.preset in SCREENS:
            problems += _screen_problems(self, SCREENS[self.preset])
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

    @property
    def screen(self) -> Screen:
        """The screen this configuration names; raises ValueError for a protein preset."""
        if self.preset not in SCREENS:
            raise ValueError(f"preset {self.preset!r} is no perturbation screen; those are {', '.join(SCREENS)}")
        return SCREENS[self.preset]

    @property
    def chosen_design(self) -> Design:
        """Nested or crossed, with the screen's own where the configuration leaves it."""
        return self.screen.design if self.design == "preset" else self.design

    def chosen(self, field: str) -> int:
        """A count of a screen (n_compounds, doses, replicates, sites or batches), its own where none is given.

        A crossed design of a nested screen repeats over three batches what the screen repeats over three plates.
        """
        given = getattr(self, field)
        if given:
            return given
        if field in ("replicates", "batches") and self.chosen_design != self.screen.design:
            return {"replicates": 1, "batches": self.screen.replicates}[field]
        return getattr(self.screen, field)

    @property
    def chosen_lines(self) -> tuple[str, ...]:
        """The screen's cell lines that take part, in its order."""
        return tuple(name for name in self.screen.cell_lines if not self.cell_lines or name in self.cell_lines)


def cell_problems(config: SimConfig, preset: Preset | None) -> list[str]:
    """What is wrong with the fields that concern single cells and pooled fields; `preset` is None where unknown."""
    problems = []
    modes = (
        ("unit", ("preset", "field", "cell")),
        ("background", ("keep", "mask")),
        ("neighbours", ("plain", *NEIGHBOURS)),
    )
    for field, valid in modes:
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
    told = config.neighbours != "plain"
    if told and not cells:
        problems.append("neighbours: only single cells have neighbours that are drawn for them (unit=cell)")
    if told and "protein" not in preset.roles:
        problems.append(f"neighbours: {preset.name} shows no protein")
    if told and config.pooled:
        problems.append("neighbours: pooled draws them too; give one of the two")
    if config.neighbour_draw and config.neighbours not in DRAWN:
        problems.append(f"neighbour_draw: nothing is drawn unless neighbours is {' or '.join(DRAWN)}")
    if not cells and config.background == "mask":
        problems.append("background: only around single cells can it be masked (unit=cell)")
    return problems


def _wrong_kind(config: SimConfig) -> list[str]:
    """Fields given to a preset that has no use for them."""
    screen = config.preset in SCREENS
    unused: dict[str, Any] = PROTEIN_FIELDS if screen else SCREEN_FIELDS
    given = [name for name, default in unused.items() if getattr(config, name) != default]
    other = "perturbation screen: give n_compounds, doses, …" if screen else "set of proteins: give n_proteins, …"
    return [f"{', '.join(given)}: no use in preset {config.preset}, a {other}"] if given else []


def _screen_problems(config: SimConfig, screen: Screen) -> list[str]:
    problems = []
    if config.design not in ("preset", "nested", "crossed"):
        hint = nearest(str(config.design), ("preset", "nested", "crossed"))
        problems.append(f"design: unknown {config.design!r}; valid: preset, nested, crossed.{hint}")
    elif config.design == "nested" and screen.design == "crossed":
        problems.append(f"design: every experiment of {screen.name} holds all of it, so it cannot be nested")
    unknown = [name for name in config.cell_lines if name not in screen.cell_lines]
    if unknown:
        hint = nearest(unknown[0], screen.cell_lines)
        valid = ", ".join(screen.cell_lines)
        problems.append(f"cell_lines: {screen.name} has no {', '.join(map(repr, unknown))}; valid: {valid}.{hint}")
    numbers = config.n_compounds, config.doses
    if screen.kind == "sirnas":
        for name, why in (("doses", "siRNAs have no doses"), ("replicates", "an siRNA stands once an experiment")):
            if getattr(config, name) != 0:
                problems.append(f"{name}: must stay 0 for {screen.name}: {why}")
    elif isinstance(config.doses, int) and config.doses > MOST_DOSES:
        problems.append(f"doses: at most {MOST_DOSES}, got {config.doses}")
    wells = 0
    if all(isinstance(number, int) for number in numbers):
        each = (config.doses or screen.doses) if screen.doses else 1
        wells = (config.n_compounds or screen.n_compounds) * each
    if screen.most and wells > screen.most:
        problems.append(
            f"n_compounds: the plates of an experiment of {screen.name} hold {screen.most} treatments, not {wells}"
        )
    return problems
