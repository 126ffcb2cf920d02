"""The site tables of RxRx1 and RxRx19a: `metadata.csv`, checked row by row.

Forms are those of Recursion's releases (github.com/recursionpharma/rxrx-datasets): RxRx1 has site_id, well_id,
cell_type, dataset, experiment, plate, well, site, well_type, sirna, sirna_id; RxRx19a has site_id, well_id, cell_type,
experiment, plate, well, site, disease_condition, treatment, treatment_conc (uM), SMILES. A site's id is
experiment_plate_well_site in both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from protloc_jax.config import nearest
from protloc_jax.data.manifest import capped
from protloc_jax.datasets.problems import DatasetError, Problems
from protloc_jax.datasets.table import cell_text, need_columns, read_table
from protloc_jax.datasets.wells import well_name
from protloc_jax.simulate.compounds import ACTIVE, CONDITIONS, EMPTY
from protloc_jax.simulate.raw_screens import RXRX1_COLUMNS, RXRX19A_COLUMNS
from protloc_jax.simulate.screen_layout import NEGATIVE, POSITIVE, TREATMENT

Screen = Literal["rxrx1", "rxrx19a"]
COLUMNS: dict[str, tuple[str, ...]] = {"rxrx1": RXRX1_COLUMNS, "rxrx19a": RXRX19A_COLUMNS}
# The column that only one of the two has, by which a table of the other is recognised.
OWN: dict[str, str] = {"rxrx1": "sirna", "rxrx19a": "disease_condition"}
WELL_TYPES = (TREATMENT, POSITIVE, NEGATIVE)
NOT_KNOWN = "unknown"  # the well_type of an untreated well of RxRx19a whose condition the table leaves empty
PUBLISHED_SPLITS = ("train", "test")
CATALOGUE, COMPETITION = "catalogue", "competition"  # how a table names siRNAs

_EXPERIMENT = re.compile(r"(?P<line>.+)-0*(?P<number>[1-9][0-9]*)")
_COMPETITION_NAME = re.compile(r"sirna_[0-9]+")
_HINTS = 20  # finding the nearest name is slow


class SiteRow(NamedTuple):
    """One site as the table tells it.

    plate         its number within the experiment; `well` its place on the plate, B02
    perturbation  siRNA or treatment; "" for a negative control and an untreated well
    more          what only one of the sets has, by column of the records
    where         the table's line
    """

    name: str
    cell_line: str
    batch: str
    plate: int
    well: str
    site: int
    well_type: str
    perturbation: str
    more: Mapping[str, Any]
    where: str

    @property
    def plate_name(self) -> str:
        return f"{self.batch}_{self.plate}"

    @property
    def well_id(self) -> str:
        return f"{self.plate_name}_{self.well}"


def is_site_table(header: Sequence[str]) -> bool:
    """The header is that of either set's `metadata.csv` (or of a table one or two columns short of it)."""
    shared = set(RXRX1_COLUMNS) & set(RXRX19A_COLUMNS)
    return len(shared & set(header)) >= len(shared) - 2 and "site_id" in header


def read_site_table(path: Path, screen: Screen) -> list[SiteRow]:
    """The rows of `metadata.csv`, in its order.

    Raises DatasetError for a table of the other set, for missing columns, and listing every row that cannot be: ids
    that contradict their parts, cell lines that are blank or contradict the experiment, unknown well types, conditions
    and splits, siRNA names and numbers that disagree, doses that are no numbers, sites that come twice, wells whose
    sites differ in what they were given.
    """
    frame, lines = read_table(path, index="index")
    header = [str(c) for c in frame.columns]
    missing = need_columns(frame, [(name, f"metadata.csv of {screen}") for name in COLUMNS[screen]])
    if missing:
        raise DatasetError("\n  ".join([f"{path}: not the site table of {screen}.{_whose(header, screen)}", *missing]))
    problems, found = Problems(), []
    columns = [[cell_text(v) for v in frame[name]] for name in COLUMNS[screen]]
    for where, *cells in zip(lines, *columns, strict=True):
        row = _site(where, dict(zip(COLUMNS[screen], cells, strict=True)), screen, problems)
        if row is not None:
            found.append(row)
    _repeated(found, problems)
    if screen == "rxrx1":
        _numbered(found, problems)
    problems.check(str(path))
    return found


def naming(rows: Iterable[SiteRow]) -> str:
    """How siRNAs are named: "competition" (sirna_###, as on Kaggle) or "catalogue" (the vendor's numbers).

    Raises DatasetError for a table that mixes both.
    """
    kinds: dict[bool, SiteRow] = {}
    for row in rows:
        if row.perturbation:
            kinds.setdefault(_COMPETITION_NAME.fullmatch(row.perturbation) is not None, row)
    if len(kinds) > 1:
        shown = " and ".join(f"{row.where}: {row.perturbation}" for row in kinds.values())
        raise DatasetError(f"the table names siRNAs in two ways ({shown}); one siRNA would count as two.")
    return COMPETITION if True in kinds else CATALOGUE


def dose_notes(rows: Sequence[SiteRow]) -> list[str]:
    """Notes on treatments without a concentration and concentrations without a treatment, of RxRx19a."""
    bare = [row.name for row in rows if row.perturbation and not row.more["concentration"]]
    idle = [row.name for row in rows if not row.perturbation and row.more["concentration"]]
    notes = [(bare, "have a treatment and no concentration"), (idle, "have a concentration and no treatment")]
    return [f"{len(names):,} sites {what}: {capped(names)}." for names, what in notes if names]


def _whose(header: Sequence[str], screen: Screen) -> str:
    """What the table is instead, where that can be seen."""
    for name, column in OWN.items():
        if name != screen and column in header and OWN[screen] not in header:
            return f" It looks like that of {name}: use `protloc data prepare {name}`."
    if "id_code" in header:
        return " It looks like the competition's table of wells (id_code); take metadata.csv of the full release."
    return ""


def _site(where: str, cells: Mapping[str, str], screen: Screen, problems: Problems) -> SiteRow | None:
    """One row, or None with its problems added."""
    wrong: list[tuple[str, str]] = []
    line, batch, well = cells["cell_type"], cells["experiment"], cells["well"]
    experiment = _EXPERIMENT.fullmatch(batch)
    if not line:
        wrong.append(("blank cell types", f"cell_type is empty (experiment '{batch}')"))
    if experiment is None:
        wrong.append(("experiments", f"'{batch}' is not <cell line>-<number>"))
    elif line and experiment["line"] != line:
        wrong.append(("cell types", f"cell_type '{line}' in experiment {batch}"))
    for name in ("plate", "site"):
        if not cells[name].isdecimal() or not int(cells[name]):
            wrong.append(("numbers", f"{name} is '{cells[name]}', not a whole number from 1 on"))
    try:
        if well_name(well) != well:
            wrong.append(("wells", f"'{well}' is not written as {well_name(well)}"))
    except ValueError as error:
        wrong.append(("wells", str(error)))
    well_id = "_".join((batch, cells["plate"], well))
    if cells["well_id"] != well_id:
        wrong.append(("ids that contradict their parts", f"well_id is '{cells['well_id']}', not {well_id}"))
    if cells["site_id"] != f"{well_id}_{cells['site']}":
        wrong.append(
            ("ids that contradict their parts", f"site_id is '{cells['site_id']}', not {well_id}_{cells['site']}")
        )
    given = (_sirna if screen == "rxrx1" else _treatment)(cells, wrong)
    for kind, text in wrong:
        problems.add(kind, f"{where}: {text}")
    if wrong:
        return None
    kind, perturbation, more = given
    return SiteRow(
        cells["site_id"], line, batch, int(cells["plate"]), well, int(cells["site"]), kind, perturbation, more, where
    )


def _sirna(cells: Mapping[str, str], wrong: list[tuple[str, str]]) -> tuple[str, str, dict[str, Any]]:
    """(well type, perturbation, more) of a row of RxRx1."""
    kind, sirna = cells["well_type"], cells["sirna"]
    if kind not in WELL_TYPES:
        hint = nearest(kind, WELL_TYPES) if len(wrong) < _HINTS else ""
        wrong.append(("unknown well types", f"'{kind}' is not one of {', '.join(WELL_TYPES)}.{hint}"))
    if cells["dataset"] not in PUBLISHED_SPLITS:
        wrong.append(("published splits", f"dataset is '{cells['dataset']}', not train or test"))
    if not sirna or (sirna == EMPTY and kind in (TREATMENT, POSITIVE)):
        wrong.append(("wells without an siRNA", f"sirna is '{sirna}' in a well of type '{kind}'"))
    if not cells["sirna_id"].isdecimal():
        wrong.append(("numbers", f"sirna_id is '{cells['sirna_id']}', not a whole number"))
    more = {"sirna": sirna, "sirna_id": cells["sirna_id"], "published_split": cells["dataset"]}
    return kind, "" if kind == NEGATIVE else sirna, more


def _treatment(cells: Mapping[str, str], wrong: list[tuple[str, str]]) -> tuple[str, str, dict[str, Any]]:
    """(well type, perturbation, more) of a row of RxRx19a, whose table has no column of well types.

    A treatment is one; untreated cells with the active virus are what an ideal drug has to leave (positive controls),
    those of the mock and the inactivated virus are what it should restore (negative controls).
    """
    condition, treatment, dose = cells["disease_condition"], cells["treatment"], cells["treatment_conc"]
    if condition and condition not in CONDITIONS:
        wrong.append(
            (
                "unknown conditions",
                f"'{condition}' is not one of {', '.join(CONDITIONS)}, or empty.{nearest(condition, CONDITIONS)}",
            )
        )
    concentration = _number(dose)
    if dose and concentration is None:
        wrong.append(("concentrations", f"treatment_conc '{dose}' is no number of uM"))
    kind = TREATMENT if treatment else POSITIVE if condition == ACTIVE else NEGATIVE if condition else NOT_KNOWN
    more = {
        "disease_condition": condition,
        "concentration": "" if concentration is None else f"{concentration:g}",
        "smiles": cells["SMILES"],
    }
    return kind, treatment, more


def _number(text: str) -> float | None:
    """A finite number that is not negative, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _repeated(found: Sequence[SiteRow], problems: Problems) -> None:
    """Sites are unique, and all sites of a well were given the same."""
    sites: dict[str, str] = {}
    wells: dict[str, SiteRow] = {}
    for row in found:
        if row.name in sites:
            problems.add("repeated sites", f"{row.where}: {row.name} as in {sites[row.name]}")
        sites.setdefault(row.name, row.where)
        first = wells.setdefault(row.well_id, row)
        if (first.well_type, first.perturbation, first.more) != (row.well_type, row.perturbation, row.more):
            problems.add(
                "wells whose sites differ",
                f"{row.where}: {row.well_id} is {_shown(row)}, and {_shown(first)} in {first.where}",
            )


def _numbered(found: Sequence[SiteRow], problems: Problems) -> None:
    """One number an siRNA and one siRNA a number."""
    for kind, key, value in (
        ("siRNAs with two numbers", "sirna", "sirna_id"),
        ("numbers of two siRNAs", "sirna_id", "sirna"),
    ):
        known: dict[str, SiteRow] = {}
        told: set[str] = set()
        for row in found:
            first = known.setdefault(row.more[key], row)
            if first.more[value] != row.more[value] and row.more[key] not in told:
                told.add(row.more[key])
                problems.add(
                    kind,
                    f"{row.where}: {row.more[key]} is {row.more[value]}, and {first.more[value]} in {first.where}",
                )


def _shown(row: SiteRow) -> str:
    told = [row.well_type, row.perturbation, *(str(v) for v in row.more.values())]
    return " ".join(text for text in told if text)
