"""Raw layouts of the perturbation screens: BBBC021, RxRx1 and RxRx19a."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from protloc_jax.simulate.config import SimConfig
from protloc_jax.simulate.raw_files import RawFile, TextTable, guid

Row = Mapping[str, Any]

# What stands before the well in the file names of each week of BBBC021; Week4 has nothing there.
BBBC021_PREFIX = {
    1: "Week1_150607_",
    2: "Week2_180607_",
    3: "Week3_290607_",
    4: "",
    5: "Week5_130707_",
    6: "Week6_200607_",
    7: "Week7_230707_",
    8: "Week8_4sites_",
    9: "Week9_090907_",
    10: "Week10_200907_",
}
# Stain in the columns' names, wavelength number in the files' names, channel of the preset.
BBBC021_STAINS = (("DAPI", 1, 0), ("Tubulin", 2, 1), ("Actin", 4, 2))
RXRX1_COLUMNS = (
    "site_id", "well_id", "cell_type", "dataset", "experiment", "plate", "well", "site", "well_type", "sirna",
    "sirna_id",
)  # fmt: skip
RXRX19A_COLUMNS = (
    "site_id", "well_id", "cell_type", "experiment", "plate", "well", "site", "disease_condition", "treatment",
    "treatment_conc", "SMILES",
)  # fmt: skip


class _SixDecimals(float):
    """A number that is written with six decimals and, being one, without quotes."""

    def __str__(self) -> str:
        return f"{float(self):.6f}"

    __repr__ = __str__


def _week(row: Row) -> int:
    return int(str(row["batch"]).removeprefix("Week"))


def _bbbc021_name(config: SimConfig, row: Row, stain: str, wavelength: int) -> str:
    unique = guid(config.seed, row["plate"], row["well"], row["site"], stain)
    return f"{BBBC021_PREFIX.get(_week(row), '')}{row['well']}_s{row['site']}_w{wavelength}{unique}.tif"


def bbbc021_files(config: SimConfig, row: Row) -> tuple[RawFile, ...]:
    """`Week1/Week1_22123/Week1_150607_B02_s1_w1<GUID>.tif` and so on: one 16-bit TIFF a stain, a GUID for each."""
    return tuple(
        RawFile(f"Week{_week(row)}/{row['plate']}/{_bbbc021_name(config, row, stain, wavelength)}", "tiff", (channel,))
        for stain, wavelength, channel in BBBC021_STAINS
    )


def bbbc021_tables(config: SimConfig, table: pd.DataFrame) -> dict[str, TextTable]:
    """The image table (13 columns), the mechanisms of the labelled treatments with DMSO, and the list of compounds.

    TableNumber is the week, 0 for the tenth; ImageNumber counts the fields of a week. The columns of structures hold
    nothing, for the compounds stand for no real ones.
    """
    rows, counted = [], {}
    for row in table.to_dict("records"):
        week = _week(row)
        counted[week] = counted.get(week, 0) + 1
        own: dict[str, Any] = {"TableNumber": week % 10, "ImageNumber": counted[week]}
        for stain, wavelength, _ in BBBC021_STAINS:
            own[f"Image_FileName_{stain}"] = _bbbc021_name(config, row, stain, wavelength)
            own[f"Image_PathName_{stain}"] = f"Week{week}/{row['plate']}"
        own["Image_Metadata_Plate_DAPI"] = row["plate"]
        own["Image_Metadata_Well_DAPI"] = row["well"]
        own["Replicate"] = row["replicate"]
        own["Image_Metadata_Compound"] = row["compound"]
        own["Image_Metadata_Concentration"] = f"{float(row['concentration']):g}"
        rows.append(own)
    known = pd.DataFrame(table.loc[table["moa"] != "", ["compound", "concentration", "moa"]])
    moas = known.drop_duplicates(["compound", "concentration"])
    moas = moas.sort_values(["moa", "compound", "concentration"])
    written = [_SixDecimals(value) for value in moas["concentration"]]
    moas["concentration"] = pd.Series(written, index=moas.index, dtype=object)
    compounds = pd.DataFrame({"compound": sorted(set(table["compound"])), "smiles": ""})
    return {
        "BBBC021_v1_image.csv": TextTable(pd.DataFrame(rows)),
        "BBBC021_v1_moa.csv": TextTable(moas, quote_text=True),
        "BBBC021_v1_compound.csv": TextTable(compounds),
    }


def _rxrx_files(row: Row, channels: int) -> tuple[RawFile, ...]:
    plate = str(row["plate"]).rpartition("_")[2]
    start = f"images/{row['batch']}/Plate{plate}/{row['well']}_s{row['site']}"
    return tuple(RawFile(f"{start}_w{channel + 1}.png", "png", (channel,)) for channel in range(channels))


def rxrx1_files(config: SimConfig, row: Row) -> tuple[RawFile, ...]:
    """`images/HUVEC-01/Plate1/B02_s1_w1.png` and so on: one 8-bit PNG a channel, w1 to w6."""
    return _rxrx_files(row, len(config.domain.channels))


def rxrx19a_files(config: SimConfig, row: Row) -> tuple[RawFile, ...]:
    """`images/HRCE-1/Plate1/AA02_s2_w3.png` and so on: one 8-bit PNG a channel, w1 to w5."""
    return _rxrx_files(row, len(config.domain.channels))


def _rxrx_sites(table: pd.DataFrame) -> pd.DataFrame:
    """What the site tables of both sets share; site_id is experiment_plate_well_site, as the catalogue's id."""
    number = table["plate"].str.rpartition("_")[2].astype(int)
    well = table["batch"] + "_" + number.astype(str) + "_" + table["well"]
    return pd.DataFrame(
        {
            "site_id": well + "_" + table["site"].astype(str),
            "well_id": well,
            "cell_type": table["cell_line"],
            "experiment": table["batch"],
            "plate": number,
            "well": table["well"],
            "site": table["site"],
        }
    )


def rxrx1_tables(config: SimConfig, table: pd.DataFrame) -> dict[str, TextTable]:
    """`metadata.csv`; whole experiments are `test`, the catalogue's validation experiments count as `train`."""
    sites = _rxrx_sites(table)
    sites["dataset"] = table["split"].where(table["split"] == "test", "train")
    for name in ("well_type", "sirna", "sirna_id"):
        sites[name] = table[name]
    return {"metadata.csv": TextTable(sites.reindex(columns=list(RXRX1_COLUMNS)))}


def rxrx19a_tables(config: SimConfig, table: pd.DataFrame) -> dict[str, TextTable]:
    """`metadata.csv`; untreated wells have neither treatment nor concentration, and no structure is given."""
    sites = _rxrx_sites(table)
    drugged = table["well_type"] == "treatment"
    sites["disease_condition"] = table["disease_condition"]
    sites["treatment"] = table["compound"].where(drugged, "")
    sites["treatment_conc"] = table["concentration"].where(drugged)
    sites["SMILES"] = ""
    return {"metadata.csv": TextTable(sites.reindex(columns=list(RXRX19A_COLUMNS)))}
