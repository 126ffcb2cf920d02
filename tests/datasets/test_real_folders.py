"""The folder data set on real files; set PROTLOC_DATA to the folder that holds them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tifffile

from protloc_jax.data import records
from protloc_jax.datasets import folder
from protloc_jax.datasets.folder_config import FolderConfig
from protloc_jax.datasets.table import read_table
from protloc_jax.datasets.table_layouts import recognise
from protloc_jax.datasets.wells import well_name

DATA = Path(os.environ.get("PROTLOC_DATA", ""))
pytestmark = pytest.mark.skipif("PROTLOC_DATA" not in os.environ, reason="PROTLOC_DATA names no folder with real data")


def needs(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is not there")
    return DATA / name


def test_yeast_cells_split_by_field(tmp_path):
    table = needs("yeast_gfp_single_cells") / "cells.csv"
    config = FolderConfig(
        path=str(table), channels="gfp:protein,rfp:cytosol", labels=("localization",), split_by="field",
        split_stratify=("gene",),
    )  # fmt: skip
    info = folder.pack(config, tmp_path / "out")
    assert (info.n, info.height, info.width, info.dtype) == (1642, 64, 64, "uint16")
    with records.open(tmp_path / "out") as opened:
        manifest = opened.manifest
        stored = tifffile.imread(table.parent / manifest.table["source"][1000])
        assert (opened[1000] == stored.transpose(1, 2, 0)).all()
    assert manifest.label_names == ("cytosol", "mitochondria")
    groups, split = manifest.table["field"], manifest.table["split"]
    assert all(split[groups == f].nunique() == 1 for f in groups.unique())
    assert set(manifest.table["gene"][split == "train"]) == set(manifest.table["gene"])


@pytest.mark.parametrize(
    ("name", "options", "n"),
    [
        ("hpa_excerpt/cells", {"channels": "red,green,blue", "pattern": "{id}_{channel}.png", "sizes": "pad"}, 75),
        ("cell_painting_excerpt", {"channels": "a,b,c", "files": ("a=2", "b=3", "c=5"),
                                   "pattern": "{plate}_{position}_ch{channel}.png"}, 2),
        ("imagehts_submorph_sirna/wells.csv", {"channels": "hoechst,fitc:protein,tritc:actin", "labels": ("content",),
         "files": ("hoechst=hoechst_file", "fitc=fitc_file", "tritc=tritc_file")}, 12),
        ("dsb2018_nuclei/images.csv", {"channels": "nucleus", "pattern": "images/{id}.png",
                                       "masks": "labels/{id}.png", "sizes": "crop"}, 541),
        ("hpa_excerpt/fov", {"channels": "red,green,blue,yellow", "colour": "max", "sizes": "crop",
                             "pattern": "{plate}_{well}_{field:int}_{channel}"}, 3),
        ("opencell_excerpt/fov", {"channels": "nucleus"}, 3),
        ("opencell_excerpt/thumbnails.csv", {"channels": "r,g,b", "path_column": "file", "sizes": "resize",
                                             "size": (224,)}, 15),
    ],
)  # fmt: skip
def test_other_real_folders(tmp_path, name, options, n):
    found = folder.prepare(FolderConfig(path=str(needs(name)), **options))
    assert found.manifest.n == n
    assert found.images(n - 1).ndim == 3


def test_the_real_image_table_of_bbbc021_is_recognised():
    """Its 13,200 rows as they are published, without the images: channels, groups, and wells that a map can join."""
    frame, rows = read_table(needs("../reference/bbbc021/BBBC021_v1_image.csv.gz"))
    found = recognise(frame, rows, {"dna": "DAPI", "tubulin": "tubulin", "actin": "Actin"}, "auto")
    assert (found.layout, len(found.rows)) == ("load_data", 13_200)
    assert found.parts["dna"] == ("Image_PathName_DAPI", "Image_FileName_DAPI")
    groups = found.frame.drop(columns=list(found.hidden))
    assert list(groups) == ["TableNumber", "ImageNumber", "plate", "well", "Replicate", "compound", "concentration"]
    assert groups["plate"].nunique() == 55
    assert {well_name(w) for w in groups["well"].unique()} == set(groups["well"])
