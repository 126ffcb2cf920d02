"""BBBC021's tables: the image table, the mechanisms of action and the structures, checked row by row.

Forms are those of `BBBC021_v1_image.csv` (13 columns, one row a field of view), `BBBC021_v1_moa.csv` (compound,
concentration in uM, moa) and `BBBC021_v1_compound.csv` (compound, smiles). Compounds keep the tables' spellings
("cyclohexamide", "mevinolin/lovastatin"), for the spelling is what joins them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from protloc_jax.datasets.problems import DatasetError, Problems
from protloc_jax.datasets.table import cell_text, need_columns, read_table

# Stain in the columns' names -> wavelength number in the files' names, in the order of the channels.
STAINS = {"DAPI": "1", "Tubulin": "2", "Actin": "4"}
_ABOUT = {
    "plate": "Image_Metadata_Plate_DAPI",
    "well": "Image_Metadata_Well_DAPI",
    "replicate": "Replicate",
    "compound": "Image_Metadata_Compound",
    "concentration": "Image_Metadata_Concentration",
}
_FILES = tuple(f"Image_{what}_{stain}" for stain in STAINS for what in ("FileName", "PathName"))
IMAGE_COLUMNS = ("TableNumber", "ImageNumber", *_FILES, *_ABOUT.values())
MOA_COLUMNS = ("compound", "concentration", "moa")
COMPOUND_COLUMNS = ("compound", "smiles")

# The prefix names the week, a date and sometimes more; Week4's files have none, so the folder tells the plate.
_NAME = re.compile(
    r"(?:Week(?P<week>[0-9]+)_.*_)?(?P<well>[A-P][0-9]{2})_s(?P<site>[1-9][0-9]*)_w(?P<wavelength>[0-9])"
    r"(?P<guid>[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})\.tif"
)
_FOLDER = re.compile(r"Week(?P<week>[1-9][0-9]*)/(?P<plate>Week(?P=week)_[0-9]+)")
Treatment = tuple[str, float]


class FieldRow(NamedTuple):
    """One field of view as the image table tells it; `files` are names in the order of STAINS, `where` its line."""

    table_number: int
    image_number: int
    batch: str
    plate: str
    well: str
    site: int
    replicate: int
    compound: str
    concentration: float
    files: tuple[str, ...]
    where: str

    @property
    def name(self) -> str:
        """The field's id: plate (which names the week), well and site."""
        return f"{self.plate}_{self.well}_s{self.site}"

    @property
    def treatment(self) -> Treatment:
        return self.compound, self.concentration


@dataclass(frozen=True)
class Mechanisms:
    """The annotated treatments: (compound, uM) -> mechanism, and where each stands."""

    moa: Mapping[Treatment, str]
    where: Mapping[Treatment, str]


def is_image_table(header: Sequence[str]) -> bool:
    """The header is that of the image table."""
    return set(IMAGE_COLUMNS) <= set(header)


def is_moa_table(header: Sequence[str]) -> bool:
    """The header is that of the mechanisms: these columns and no others, but an index without a name."""
    return set(header) - {""} == set(MOA_COLUMNS)


def is_compound_table(header: Sequence[str]) -> bool:
    """The header is that of the structures."""
    return set(header) - {""} == set(COMPOUND_COLUMNS)


def treated(compound: str, concentration: float) -> str:
    """A treatment's name, compound@uM, as the simulated screen writes it."""
    return f"{compound}@{concentration:g}"


def read_image_table(path: Path) -> list[FieldRow]:
    """The rows of the image table, in its order.

    Raises DatasetError listing missing columns, or every row that cannot be: names, folders and plates that contradict
    each other, keys (TableNumber, ImageNumber), sites or files that come twice, wells with two treatments.
    """
    frame, lines = read_table(path)
    missing = need_columns(frame, [(name, "image table") for name in IMAGE_COLUMNS])
    if missing:
        raise DatasetError("\n  ".join([f"{path}: not BBBC021's image table.", *missing]))
    problems, found = Problems(), []
    columns = [[cell_text(v) for v in frame[name]] for name in IMAGE_COLUMNS]
    for where, *cells in zip(lines, *columns, strict=True):
        row = _field(where, dict(zip(IMAGE_COLUMNS, cells, strict=True)), problems)
        if row is not None:
            found.append(row)
    _repeated(found, problems)
    problems.check(str(path))
    return found


def read_moa_table(path: Path) -> Mechanisms:
    """The annotated treatments. Raises DatasetError listing treatments that come twice, alike or contradicting."""
    frame, lines = read_table(path, index="index")
    missing = need_columns(frame, [(name, "mechanisms of action") for name in MOA_COLUMNS])
    if missing:
        raise DatasetError("\n  ".join([f"{path}: not BBBC021's table of mechanisms.", *missing]))
    problems = Problems()
    moa: dict[Treatment, str] = {}
    at: dict[Treatment, str] = {}
    columns = [[cell_text(v) for v in frame[name]] for name in MOA_COLUMNS]
    for where, compound, dose, name in zip(lines, *columns, strict=True):
        concentration = _number(dose)
        if not compound or not name or ";" in name:
            problems.add("rows without compound or moa", f"{where}: '{compound}', '{name}' (no ';' in a moa)")
        elif concentration is None:
            problems.add("concentrations", f"{where}: '{dose}' is no number of uM")
        elif (compound, concentration) not in moa:
            moa[compound, concentration], at[compound, concentration] = name, where
        else:
            before = moa[compound, concentration]
            kind = "repeated treatments" if before == name else "contradicting mechanisms"
            first = at[compound, concentration]
            problems.add(kind, f"{where}: {treated(compound, concentration)} is {name}; {before} in {first}")
    problems.check(str(path))
    return Mechanisms(moa, at)


def read_compound_table(path: Path) -> dict[str, str]:
    """Compound -> SMILES, of the compounds that have one. Raises DatasetError for compounds with two structures."""
    frame, lines = read_table(path, index="index")
    missing = need_columns(frame, [(name, "structures") for name in COMPOUND_COLUMNS])
    if missing:
        raise DatasetError("\n  ".join([f"{path}: not BBBC021's table of compounds.", *missing]))
    problems, found, at = Problems(), {}, {}
    for where, name, smiles in zip(lines, frame["compound"], frame["smiles"], strict=True):
        compound, structure = cell_text(name), cell_text(smiles)
        if compound in at and found.get(compound, "") != structure:
            problems.add("two structures for one compound", f"{where}: {compound}, also in {at[compound]}")
        at.setdefault(compound, where)
        if structure:
            found.setdefault(compound, structure)
    problems.check(str(path))
    return found


def _number(text: str) -> float | None:
    """A finite number that is not negative, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _field(where: str, cells: Mapping[str, str], problems: Problems) -> FieldRow | None:
    """One row, or None with its problems added."""
    wrong: list[tuple[str, str]] = []
    about = {key: cells[column] for key, column in _ABOUT.items()}
    for column in ("TableNumber", "ImageNumber", "Replicate"):
        if not cells[column].isdecimal():
            wrong.append(("numbers", f"{column} is '{cells[column]}', not a whole number"))
    dose = _number(about["concentration"])
    if dose is None:
        wrong.append(("numbers", f"concentration '{about['concentration']}' is no number of uM"))
    if not about["compound"]:
        wrong.append(("rows without a compound", "empty Image_Metadata_Compound"))
    folders = list(dict.fromkeys(cells[f"Image_PathName_{stain}"] for stain in STAINS))
    folder = _FOLDER.fullmatch(folders[0])
    if len(folders) > 1:
        wrong.append(("folders", f"the channels lie in {', '.join(folders)}"))
    elif folder is None:
        wrong.append(("folders", f"'{folders[0]}' is not Week<n>/Week<n>_<plate>"))
    elif folder["plate"] != about["plate"]:
        wrong.append(("folders", f"plate {about['plate']} in the folder of {folder['plate']}"))
    elif cells["TableNumber"].isdecimal() and int(cells["TableNumber"]) != int(folder["week"]) % 10:
        wrong.append(("folders", f"TableNumber {cells['TableNumber']} in Week{folder['week']} (Week10 is 0)"))
    names = tuple(cells[f"Image_FileName_{stain}"] for stain in STAINS)
    site = _site(names, about["well"], folder["week"] if folder else "", wrong)
    for kind, text in wrong:
        problems.add(kind, f"{where}: {text}")
    if wrong or folder is None or dose is None:
        return None
    return FieldRow(
        int(cells["TableNumber"]),
        int(cells["ImageNumber"]),
        f"Week{folder['week']}",
        about["plate"],
        about["well"],
        site,
        int(cells["Replicate"]),
        about["compound"],
        dose,
        names,
        where,
    )


def _site(names: Sequence[str], well: str, week: str, wrong: list[tuple[str, str]]) -> int:
    """The site that the files' names agree on; what does not fit goes to `wrong`."""
    sites = set()
    for name, (stain, wavelength) in zip(names, STAINS.items(), strict=True):
        match = _NAME.fullmatch(name)
        if match is None:
            wrong.append(("names that do not fit", f"'{name}' is not [prefix_]<well>_s<site>_w<n><GUID>.tif"))
            continue
        sites.add(int(match["site"]))
        if match["well"] != well:
            wrong.append(("names that do not fit", f"'{name}' is of well {match['well']}, the row of '{well}'"))
        if match["wavelength"] != wavelength:
            wrong.append(("names that do not fit", f"'{name}' is w{match['wavelength']}; {stain} is w{wavelength}"))
        if week and match["week"] and match["week"] != week:
            wrong.append(("names that do not fit", f"'{name}' is of Week{match['week']}, its folder of Week{week}"))
    if len(sites) > 1:
        wrong.append(("names that do not fit", f"channels of different sites: {', '.join(names)}"))
    return min(sites, default=0)


def _repeated(found: Sequence[FieldRow], problems: Problems) -> None:
    """What must be unique over the rows: keys, sites, files; and one treatment a well."""
    keys: dict[tuple[int, int], str] = {}
    sites: dict[str, str] = {}
    files: dict[tuple[str, str], str] = {}
    wells: dict[tuple[str, str], FieldRow] = {}
    for row in found:
        key = row.table_number, row.image_number
        if key in keys:
            problems.add("repeated keys", f"{row.where}: TableNumber {key[0]}, ImageNumber {key[1]} as in {keys[key]}")
        elif row.name in sites:
            problems.add("repeated sites", f"{row.where}: {row.name} as in {sites[row.name]}")
        for name in row.files:
            if (row.plate, name) in files:
                problems.add("repeated files", f"{row.where}: {name} as in {files[row.plate, name]}")
            files.setdefault((row.plate, name), row.where)
        keys.setdefault(key, row.where)
        sites.setdefault(row.name, row.where)
        first = wells.setdefault((row.plate, row.well), row)
        if first.treatment != row.treatment:
            problems.add(
                "wells with two treatments",
                f"{row.where}: {row.plate} {row.well} has {treated(*row.treatment)}, and {treated(*first.treatment)} "
                f"in {first.where}",
            )
