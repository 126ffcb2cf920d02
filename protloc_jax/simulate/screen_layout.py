"""The catalogue of a screen: what stands in which batch, plate, well and site, and in which split."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pandas as pd

from protloc_jax.simulate.compounds import (
    ACTIVE,
    CONDITIONS,
    DMSO,
    EMPTY,
    INACTIVATED,
    MOAS,
    MOCK,
    NON_TARGETING,
    TAXOL,
    TAXOL_DOSE,
    UNTREATED,
    Compound,
    drugs,
    moa_compounds,
    positive_sirnas,
    sirnas,
)
from protloc_jax.simulate.config import SimConfig
from protloc_jax.simulate.keys import generator
from protloc_jax.simulate.splitting import stratified_split

TREATMENT, NEGATIVE, POSITIVE = "treatment", "negative_control", "positive_control"
COMMON = (
    "id", "plate", "well", "site", "replicate", "batch", "cell_line",
    "compound", "concentration", "moa", "treatment", "well_type",
)  # fmt: skip
OWN_COLUMNS: dict[str, tuple[str, ...]] = {
    "compounds": (),
    "sirnas": ("sirna", "sirna_id", "pathway"),
    "infection": ("disease_condition",),
}
DMSO_WELLS = ("B02", "C02", "D02", "E11", "F11", "G11")
TAXOL_WELLS = ("B11", "C11", "D11", "E02", "F02", "G02")
PLATES = 4  # plates of an rxrx1 experiment
POSITIVE_SHARE = 30 / 277  # positive controls to siRNAs on an rxrx1 plate
NAN = float("nan")

Row = dict[str, Any]


@lru_cache(maxsize=8)
def compounds_of(config: SimConfig) -> tuple[Compound, ...]:
    """The compounds, siRNAs or drugs of a screen, in order; controls are not among them."""
    number, doses = config.chosen("n_compounds"), config.chosen("doses")
    make = {"compounds": moa_compounds, "infection": drugs}
    return sirnas(number) if config.screen.kind == "sirnas" else make[config.screen.kind](number, doses)


@lru_cache(maxsize=8)
def controls_of(config: SimConfig) -> tuple[Compound, ...]:
    """The control siRNAs of a screen that has some."""
    if config.screen.kind != "sirnas":
        return ()
    each = math.ceil(config.chosen("n_compounds") / PLATES)
    return positive_sirnas(max(2, round(POSITIVE_SHARE * each)))


def label_column(config: SimConfig) -> str:
    """The catalogue column that holds a screen's labels."""
    return {"compounds": "moa", "sirnas": "sirna", "infection": "disease_condition"}[config.screen.kind]


def screen_labels(config: SimConfig) -> tuple[str, ...]:
    """A screen's classes: the 12 MoAs, the treatment siRNAs by number, or the three conditions."""
    if config.screen.kind == "sirnas":
        return tuple(sirna.name for sirna in compounds_of(config))
    return MOAS if config.screen.kind == "compounds" else CONDITIONS


def _treated(name: str, dose: float) -> str:
    return name if math.isnan(dose) else f"{name}@{dose:g}"


def _row(compound: str, dose: float, moa: str, kind: str, **more: Any) -> Row:
    own = {"compound": compound, "concentration": dose, "moa": moa}
    return {**own, "treatment": _treated(compound, dose), "well_type": kind, **more}


def _compound_plates(config: SimConfig) -> Iterator[tuple[Row, dict[str, Row]]]:
    """(plate columns, well -> row) of every plate of a BBBC021-like screen.

    Each run of wells in a row holds one compound, doses falling from left to right; replicates repeat the layout. DMSO
    and taxol stand in fixed wells at both ends of the rows.
    """
    screen, everything = config.screen, compounds_of(config)
    batches, doses = config.chosen("batches"), config.chosen("doses")
    middle = screen.columns[1:-1]
    runs = [
        [f"{row}{column}" for column in middle[start : start + doses]]
        for row in screen.rows
        for start in range(0, len(middle) - doses + 1, doses)
    ]
    controls = {well: _row(DMSO, 0.0, DMSO, NEGATIVE) for well in DMSO_WELLS}
    stabilizer = "Microtubule stabilizers"
    controls |= {well: _row(TAXOL, TAXOL_DOSE, stabilizer, POSITIVE) for well in TAXOL_WELLS}
    (line,) = config.chosen_lines
    for batch in range(1, batches + 1):
        crossed = config.chosen_design == "crossed"
        mine = [one for one in everything if crossed or (one.week - 1) % batches + 1 == batch]
        order = generator(config.seed, config.preset, "layout", batch).permutation(len(mine))
        for layout, first in enumerate(range(0, len(mine), len(runs))):
            wells = dict(controls)
            for place, which in enumerate(order[first : first + len(runs)].tolist()):
                one = mine[which]
                for rank, (well, dose) in enumerate(zip(runs[place], one.doses, strict=True)):
                    moa = one.moa if rank < one.labelled else ""
                    wells[well] = _row(one.name, dose, moa, TREATMENT)
            for replicate in range(1, config.chosen("replicates") + 1):
                number = 10000 + 1000 * batch + 10 * (layout + 1) + replicate
                place = {"plate": f"Week{batch}_{number}", "batch": f"Week{batch}", "cell_line": line}
                yield {**place, "replicate": replicate}, wells


def experiments_of(config: SimConfig) -> dict[str, tuple[str, ...]]:
    """The experiments of each cell line that takes part: `batches` of the commonest, the others in proportion."""
    screen = config.screen
    largest = max(screen.experiments.values())
    width = 2 if screen.kind == "sirnas" else 1
    result = {}
    for line in config.chosen_lines:
        number = max(1, round(config.chosen("batches") * screen.experiments[line] / largest))
        result[line] = tuple(f"{line}-{index:0{width}d}" for index in range(1, number + 1))
    return result


def _random_wells(config: SimConfig, plate: str, rows: list[Row], fixed: dict[str, Row]) -> dict[str, Row]:
    """Put `rows` into wells drawn for this plate, `fixed` ones aside; in reading order."""
    screen = config.screen
    free = [f"{row}{column}" for row in screen.rows for column in screen.columns if f"{row}{column}" not in fixed]
    drawn = generator(config.seed, config.preset, plate, "layout").permutation(len(free))[: len(rows)]
    wells = {free[index]: row for index, row in zip(drawn.tolist(), rows, strict=True)} | fixed
    at = {f"{row}{column}": index for index, (row, column) in enumerate(_grid(screen.rows, screen.columns))}
    return dict(sorted(wells.items(), key=lambda item: at[item[0]]))


def _grid(rows: tuple[str, ...], columns: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    return ((row, column) for row in rows for column in columns)


def _sirna_plates(config: SimConfig) -> Iterator[tuple[Row, dict[str, Row]]]:
    """Every plate of an RxRx1-like screen: each siRNA once an experiment, controls on each of its four plates.

    Positive controls are the same on all plates, B02 is untreated; the non-targeting siRNA has a well of each plate
    unless, as in the real set with 277 siRNAs and 30 controls a plate, none is free.
    """
    everything, controls = compounds_of(config), controls_of(config)

    def well_of(one: Compound, number: int, kind: str) -> Row:
        return _row(one.name, NAN, one.moa, kind, sirna=one.name, sirna_id=number, pathway=one.moa)

    treated = [well_of(one, number, TREATMENT) for number, one in enumerate(everything)]
    positive = [well_of(one, len(treated) + number, POSITIVE) for number, one in enumerate(controls)]
    first = len(treated) + len(positive)
    empty = well_of(Compound(EMPTY, ""), first, NEGATIVE)
    scrambled = well_of(Compound(NON_TARGETING, ""), first + 1, NEGATIVE)
    for line, experiments in experiments_of(config).items():
        for experiment in experiments:
            order = generator(config.seed, config.preset, experiment, "layout").permutation(len(treated)).tolist()
            for plate in range(1, PLATES + 1):
                rows = [treated[index] for index in order[plate - 1 :: PLATES]] + positive
                rows += [scrambled] if len(rows) + 1 < len(config.screen.rows) * len(config.screen.columns) else []
                name = f"{experiment}_{plate}"
                place = {"plate": name, "batch": experiment, "cell_line": line, "replicate": 1}
                yield place, _random_wells(config, name, rows, {"B02": empty})


def _infection_plates(config: SimConfig) -> Iterator[tuple[Row, dict[str, Row]]]:
    """Every plate of an RxRx19a-like screen: drugs on infected cells, and untreated cells of all three conditions.

    The line with the fewest rows in the real set, VERO, gets a quarter of the drugs.
    """
    for line, experiments in experiments_of(config).items():
        mine = compounds_of(config)
        mine = mine[: max(1, len(mine) // 4)] if line == "VERO" else mine
        rows = [
            _row(one.name, dose, one.moa, TREATMENT, disease_condition=ACTIVE) for one in mine for dose in one.doses
        ]
        each = max(4, len(rows) // 24)
        for condition, kind, number in (
            (MOCK, NEGATIVE, each),
            (INACTIVATED, NEGATIVE, each),
            (ACTIVE, POSITIVE, each),
        ):
            control = _row(UNTREATED, NAN, "", kind, disease_condition=condition) | {"treatment": condition}
            rows += [control] * number
        for experiment in experiments:
            for replicate in range(1, config.chosen("replicates") + 1):
                name = f"{experiment}_{replicate}"
                place = {"plate": name, "batch": experiment, "cell_line": line, "replicate": replicate}
                yield place, _random_wells(config, name, rows, {})


def _compound_splits(config: SimConfig) -> dict[str, str]:
    """Split of each compound, stratified by MoA; the controls DMSO and taxol, which stand on every plate, train."""
    everything = [one for one in compounds_of(config) if one.name != TAXOL]
    rng = generator(config.seed, config.preset, "split")
    splits = stratified_split(rng, [one.moa for one in everything])
    return dict(zip((one.name for one in everything), splits, strict=True)) | {TAXOL: "train", DMSO: "train"}


def _plate_splits(config: SimConfig) -> dict[str, str]:
    """Split of each plate of an RxRx-like screen.

    Of the n experiments of a cell line the last round(n / 3) are test (a lone one trains), as in RxRx1. For siRNAs the
    last training experiment is val where three or more are left; for drugs the last plate of the training experiments
    is, where an experiment has two or more plates, for each of its plates holds everything.
    """
    result = {}
    for experiments in experiments_of(config).values():
        tests = round(len(experiments) / 3)
        train = experiments[: len(experiments) - tests]
        plates = PLATES if config.screen.kind == "sirnas" else config.chosen("replicates")
        for experiment in experiments:
            for plate in range(1, plates + 1):
                split = "train" if experiment in train else "test"
                if config.screen.kind == "sirnas":
                    held = len(train) >= 3 and experiment == train[-1]
                else:
                    held = plates >= 2 and plate == plates
                result[f"{experiment}_{plate}"] = "val" if held and split == "train" else split
    return result


@lru_cache(maxsize=8)
def cached_screen(config: SimConfig) -> pd.DataFrame:
    """The shared table behind the catalogue of a screen; callers must not write to it."""
    screen = config.screen
    plates = {"compounds": _compound_plates, "sirnas": _sirna_plates, "infection": _infection_plates}[screen.kind]
    by_compound = _compound_splits(config) if screen.kind == "compounds" else {}
    by_plate = {} if screen.kind == "compounds" else _plate_splits(config)
    rows = []
    for place, wells in plates(config):
        for well, what in wells.items():
            split = by_compound[what["compound"]] if by_compound else by_plate[place["plate"]]
            for site in range(1, config.chosen("sites") + 1):
                name = f"{place['plate']}_{well}" + (f"_s{site}" if screen.kind == "compounds" else f"_{site}")
                rows.append({"id": name, "well": well, "site": site, **place, **what, "split": split})
    columns = (*COMMON, *OWN_COLUMNS[screen.kind], "split")
    return pd.DataFrame({column: [row[column] for row in rows] for column in columns})
