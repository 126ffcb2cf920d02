"""The three perturbation screens: their channels, cell lines, plates and default extents."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from protloc_jax.simulate.presets import CellLine, Optics, Preset

Design = Literal["nested", "crossed"]


@dataclass(frozen=True, kw_only=True)
class Screen(Preset):
    """A perturbation screen: every channel is a stain, and compounds or siRNAs change the cells.

    `roles` name the stain builders. `kind` is what is given to the cells; `most` the largest number of treatments (0:
    no limit); `experiments` counts the batches of each cell line in the real set, in whose proportion a smaller one is
    laid out. `rows` and `columns` are the used part of a plate, whose rim feels the edge effect.
    """

    kind: Literal["compounds", "sirnas", "infection"]
    n_compounds: int
    doses: int
    replicates: int
    sites: int
    batches: int
    design: Design
    most: int
    experiments: dict[str, int]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    # Widefield optics, and what only presets with a protein channel need.
    haze_sigma: float = 4.0
    bleed_through: float = 0.03
    protein_grey: float = 0.0
    classes: dict[str, str] = field(default_factory=dict)


def _names(first: int, last: int) -> tuple[str, ...]:
    return tuple(f"{number:02d}" for number in range(first, last + 1))


_LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_ALL_ROWS = (*_LETTERS, *(f"A{letter}" for letter in "ABCDEF"))  # of 1,536 wells

SCREENS: dict[str, Screen] = {
    "bbbc021": Screen(
        name="bbbc021",
        channels=("dna", "tubulin", "actin"),
        roles=("dna", "tubulin", "actin"),
        optics=(Optics(0.46, 90, 4.0), Optics(0.52, 70, 5.0), Optics(0.60, 70, 5.0)),
        bit_depth=16,
        um_per_pixel=0.5,
        numerical_aperture=0.5,
        haze=0.30,
        read_noise=1.5,
        offset=400.0,
        stain_grey=4000.0,
        cell_lines={"MCF7": CellLine(12.5, 1.22, 0.04, 11.5, 1.25, 3.0, 0.55)},
        kind="compounds",
        n_compounds=38,
        doses=4,
        replicates=3,
        sites=2,
        batches=10,
        design="nested",
        most=0,
        experiments={"MCF7": 10},
        rows=tuple("BCDEFG"),
        columns=_names(2, 11),
    ),
    "rxrx1": Screen(
        name="rxrx1",
        channels=("nucleus", "er", "actin", "rna", "mitochondria", "golgi"),
        roles=("dna", "er", "actin", "rna", "mitochondria", "golgi"),
        optics=(
            Optics(0.46, 80, 4.0),
            Optics(0.52, 60, 6.0),
            Optics(0.60, 60, 6.0),
            Optics(0.54, 60, 6.0),
            Optics(0.68, 50, 6.0),
            Optics(0.58, 60, 6.0),
        ),
        bit_depth=8,
        um_per_pixel=0.65,
        numerical_aperture=0.75,
        haze=0.35,
        read_noise=1.5,
        offset=6.0,
        stain_grey=110.0,
        cell_lines={
            "HUVEC": CellLine(15.5, 1.45, 0.05, 20.0, 2.1, 1.15, 0.0),
            "RPE": CellLine(14.0, 1.18, 0.03, 16.5, 1.4, 1.8, 0.1),
            "HEPG2": CellLine(11.5, 1.12, 0.05, 10.0, 1.12, 2.9, 0.85),
            "U2OS": CellLine(16.5, 1.50, 0.08, 19.0, 1.8, 1.2, 0.0),
        },
        kind="sirnas",
        n_compounds=96,
        doses=0,
        replicates=1,
        sites=2,
        batches=4,
        design="crossed",
        most=1108,
        experiments={"HUVEC": 24, "RPE": 11, "HEPG2": 11, "U2OS": 5},
        rows=_LETTERS[1:15],
        columns=_names(2, 23),
    ),
    "rxrx19a": Screen(
        name="rxrx19a",
        channels=("nucleus", "er", "actin", "rna", "golgi"),
        roles=("dna", "er", "actin", "rna", "golgi"),
        optics=(
            Optics(0.46, 80, 4.0),
            Optics(0.52, 60, 6.0),
            Optics(0.60, 60, 6.0),
            Optics(0.54, 60, 6.0),
            Optics(0.58, 60, 6.0),
        ),
        bit_depth=8,
        um_per_pixel=0.65,
        numerical_aperture=0.75,
        haze=0.35,
        read_noise=1.5,
        offset=6.0,
        stain_grey=110.0,
        cell_lines={
            "HRCE": CellLine(13.5, 1.25, 0.05, 15.0, 1.4, 1.9, 0.3),
            "VERO": CellLine(12.5, 1.20, 0.04, 12.5, 1.3, 2.4, 0.4),
        },
        kind="infection",
        n_compounds=24,
        doses=3,
        replicates=3,
        sites=1,
        batches=2,
        design="crossed",
        most=1300,
        experiments={"HRCE": 2, "VERO": 2},
        rows=_ALL_ROWS,
        columns=_names(1, 48),
    ),
}
