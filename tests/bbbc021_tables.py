"""BBBC021's real tables, where they are at hand, and Ljosa's published profiles as a feature table."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from protloc_jax.eval.features import FeatureTable

FOLDER = Path(os.environ.get("PROTLOC_BBBC021", os.environ.get("PROTLOC_DATA", ".") + "/../reference/bbbc021"))
FILES = ("BBBC021_v1_image.csv.gz", "BBBC021_v1_moa.csv", "ljosa_jbiomolscreen_2013_per_well_mean.csv.gz")
needs_tables = pytest.mark.skipif(
    not all((FOLDER / name).is_file() for name in FILES),
    reason="PROTLOC_BBBC021 names no folder with BBBC021's image and moa tables and Ljosa's per-well profiles",
)
TAXOL_WELLS = ("B11", "C11", "D11", "E02", "F02", "G02")


def wells() -> pd.DataFrame:
    """One row a well of the 55 plates: plate, well, batch, compound, concentration, moa and well_type."""
    image = pd.read_csv(FOLDER / FILES[0])
    place = "Image_Metadata_"
    names = {
        f"{place}Plate_DAPI": "plate",
        f"{place}Well_DAPI": "well",
        f"{place}Compound": "compound",
        f"{place}Concentration": "concentration",
    }
    table = image.rename(columns=names)
    table["batch"] = table["Image_PathName_DAPI"].str.split("/").str[0]
    table = table[["plate", "well", "batch", "compound", "concentration"]].drop_duplicates().reset_index(drop=True)
    table = table.merge(pd.read_csv(FOLDER / FILES[1]), how="left", on=["compound", "concentration"])
    table["moa"] = table["moa"].fillna("")
    kinds = np.where(table["compound"] == "DMSO", "negative_control", "treatment")
    positive = (table["compound"] == "taxol") & table["well"].isin(TAXOL_WELLS)
    table["well_type"] = np.where(positive, "positive_control", kinds)
    table.insert(0, "id", "/" + table["well"])
    table["id"] = table["plate"] + table["id"]
    return table


def ljosa() -> FeatureTable:
    """The 632 per-well means of 516 CellProfiler features with their wells' metadata."""
    profiles = pd.read_csv(FOLDER / FILES[2])
    obs = profiles.iloc[:, :2].set_axis(["plate", "well"], axis=1)
    obs["plate"] = obs["plate"].str.split("_").str[-1]
    layout = wells()
    layout["plate"] = layout["plate"].str.split("_").str[-1]
    obs = obs.astype(str).merge(layout, how="left", on=["plate", "well"], validate="one_to_one")
    return FeatureTable(profiles.iloc[:, 2:].to_numpy(np.float64), obs)
