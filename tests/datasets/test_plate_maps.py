"""Plate maps joined by well: ways to write wells, barcodes, and everything that is missing, double or unused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from small_folders import config, pixels, rewrite, save

from protloc_jax.datasets import folder
from protloc_jax.datasets.problems import DatasetError
from protloc_jax.datasets.wells import well_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("A1", "A01"), ("a01", "A01"), (" A001 ", "A01"), ("A-1", "A01"), ("h_12", "H12"), ("P24", "P24"),
        ("AF48", "AF48"), ("af7", "AF07"), ("r01c01", "A01"), ("r03c12f01p01", "C12"), ("R27C5", "AA05"),
    ],
)  # fmt: skip
def test_wells_have_one_name(text, name):
    assert well_name(text) == name


@pytest.mark.parametrize("text", ["", "1", "12", "A0", "A00", "AG1", "A49", "AAA1", "r33c01", "c01r01", "A1B", "Ä1"])
def test_what_is_no_well(text):
    with pytest.raises(ValueError, match=r"is not a well|lies on no plate"):
        well_name(text)


def images_of(tmp_path, places: list[tuple[str, str]]):
    """A table of one image a (plate, well)."""
    lines = ["path,plate,well"]
    for number, (plate, well) in enumerate(places):
        save(tmp_path / f"{number}.tif", pixels(number))
        lines.append(f"{number}.tif,{plate},{well}")
    return rewrite(tmp_path, lines)


def refusal(cfg) -> str:
    with pytest.raises(DatasetError) as caught:
        folder.prepare(cfg)
    return str(caught.value)


def test_a_map_by_well_alone(tmp_path):
    table = images_of(tmp_path, [("p1", "a1"), ("p1", "A02"), ("p2", "A1")])
    (tmp_path / "map.csv").write_text("Well,compound,moa\nA01,DMSO,none\nA2,taxol,tubulin\nA3,nothing,none\nB1,x,y\n")
    found = folder.prepare(
        config(table, plate_map=str(tmp_path / "map.csv"), labels=("moa",), label_names=("none", "tubulin"))
    )
    assert found.manifest.table["compound"].to_list() == ["DMSO", "taxol", "DMSO"]
    assert found.manifest.table["well"].to_list() == ["A01", "A02", "A01"]
    assert found.manifest.table["labels"].to_list() == [("none",), ("tubulin",), ("none",)]
    assert any("2 of 4 plate map entries belong to no image: map.csv line 4, map.csv line 5" in n for n in found.notes)


def test_barcodes_and_a_folder_of_maps(tmp_path):
    """The gallery's shape: barcode_platemap.csv, and one tab-separated text a map."""
    table = images_of(tmp_path, [("BR1", "A01"), ("BR2", "A01"), ("BR3", "A01")])
    maps = tmp_path / "platemap"
    maps.mkdir()
    head = "plate_map_name\twell_position\tbroad_sample\tmg_per_ml\n"
    (maps / "M1.txt").write_text(head + "M1\tA01\tBRD-1\t0.5\n")
    (maps / "M2.txt").write_text(head + "M2\tA01\tBRD-2\t1.5\n")
    (tmp_path / "barcode_platemap.csv").write_text(
        "Assay_Plate_Barcode,Plate_Map_Name\nBR1,M1\nBR2,M2\nBR3,M1\nBR9,M2\n"
    )
    beside = maps / "barcode_platemap.csv"
    beside.write_bytes((tmp_path / "barcode_platemap.csv").read_bytes())
    assert folder.prepare(config(table, plate_map=str(maps), barcode=str(beside))).manifest.n == 3
    beside.unlink()
    options = {"plate_map": str(maps), "barcode": str(tmp_path / "barcode_platemap.csv")}
    found = folder.prepare(config(table, **options))
    assert found.manifest.table["broad_sample"].to_list() == ["BRD-1", "BRD-2", "BRD-1"]
    assert found.manifest.table["mg_per_ml"].to_list() == ["0.5", "1.5", "0.5"]
    assert found.manifest.table["plate_map"].to_list() == ["M1", "M2", "M1"]
    assert any("1 of 4 barcode entries belong to no image: barcode_platemap.csv line 5" in n for n in found.notes)
    images_of(tmp_path, [("BR1", "A01"), ("BR7", "A01"), ("BR2", "B02")])
    text = refusal(config(table, **options))
    assert "plates without a barcode entry (1)" in text
    assert "plate 'BR7' (cells.csv line 3). Did you mean 'BR" in text
    assert "plate 'BR2' (map 'M2') well B02 (cells.csv line 4, 1 row(s))" in text
    (tmp_path / "barcode_platemap.csv").write_text("Assay_Plate_Barcode,Plate_Map_Name\nBR1,M1\nBR1,M2\n,M1\n")
    text = refusal(config(table, **options))
    assert "barcode_platemap.csv line 3: 'BR1' was in barcode_platemap.csv line 2" in text
    assert "empty cells (1)" in text
    (tmp_path / "barcode_platemap.csv").write_text("Assay_Plate_Barcode,Plate_Map_Name\nBR1,M3\n")
    assert "no plate map is named M3; there are M1, M2" in refusal(config(table, **options))


def test_a_map_with_plates_in_parquet(tmp_path):
    table = images_of(tmp_path, [("p1", "A1"), ("p2", "A1")])
    frame = pd.DataFrame({"Metadata_Plate": ["p1", "p2"], "Metadata_Well": ["A01", "A01"], "dose": [0.25, 4.0]})
    frame.to_parquet(tmp_path / "map.parquet")
    found = folder.prepare(config(table, plate_map=str(tmp_path / "map.parquet")))
    assert found.manifest.table["dose"].to_list() == [0.25, 4.0]
    assert found.manifest.table["dose"].dtype == np.float64


def test_all_that_is_missing_or_double_is_named(tmp_path):
    table = images_of(tmp_path, [("p1", "A1"), ("p1", "B7"), ("p1", "B7"), ("p1", "C1")])
    (tmp_path / "map.csv").write_text("well,compound\nA1,x\n")
    text = refusal(config(table, plate_map=str(tmp_path / "map.csv")))
    assert "wells without an entry in the plate map (2)" in text
    assert "well B07 (cells.csv line 3, 2 row(s))" in text
    assert "well C01 (cells.csv line 5, 1 row(s))" in text
    kept = folder.prepare(config(table, plate_map=str(tmp_path / "map.csv"), where=("compound=x",)))
    assert kept.manifest.n == 1
    (tmp_path / "map.csv").write_text("well,compound\nA1,x\na01,x\nB7,y\nC1,z\nQ99,z\nrow,z\n")
    text = refusal(config(table, plate_map=str(tmp_path / "map.csv")))
    assert "map.csv line 3: A01 was in map.csv line 2" in text
    assert "map.csv line 6: 'Q99' lies on no plate" in text
    assert "map.csv line 7: 'row' is not a well" in text


def test_columns_on_both_sides(tmp_path):
    save(tmp_path / "0.tif", pixels(0))
    table = rewrite(tmp_path, ["path,well,dose", "0.tif,A1,3"])
    (tmp_path / "map.csv").write_text("well,dose,drug\nA1,3,x\n")
    assert folder.prepare(config(table, plate_map=str(tmp_path / "map.csv"))).manifest.table["drug"].to_list() == ["x"]
    (tmp_path / "map.csv").write_text("well,dose\nA1,4\n")
    text = refusal(config(table, plate_map=str(tmp_path / "map.csv")))
    assert "column 'dose' of images and plate map differ (1)" in text
    assert "cells.csv line 2: '3' and '4'" in text
    (tmp_path / "map.csv").write_text("well,id\nA1,4\n")
    assert "cannot have the column id" in refusal(config(table, plate_map=str(tmp_path / "map.csv")))
    (tmp_path / "map.csv").write_text("position,drug\nA1,4\n")
    assert "needs a column 'well'" in refusal(config(table, plate_map=str(tmp_path / "map.csv")))
    (tmp_path / "map.csv").write_text("plate,well,drug\np,A1,4\n")
    assert "the images have no column 'plate'" in refusal(config(table, plate_map=str(tmp_path / "map.csv")))
    with pytest.raises(FileNotFoundError, match="no such plate map"):
        folder.prepare(config(table, plate_map=str(tmp_path / "nowhere.csv")))
    with pytest.raises(ValueError, match="barcode: needs plate_map"):
        config(table, barcode="x.csv")


def test_a_folder_of_images_named_by_a_pattern_is_joined_too(tmp_path):
    for name in ("P1_r01c02", "P1_r02c01"):
        for c, word in enumerate(("gfp", "rfp")):
            save(tmp_path / "images" / f"{name}_{word}.png", pixels(len(name) + c)[..., c])
    (tmp_path / "map.csv").write_text("plate,well,drug\nP1,A02,x\nP1,B01,y\n")
    found = folder.prepare(
        config(tmp_path / "images", pattern="{plate}_{position}_{channel}.png", well_column="position",
               plate_map=str(tmp_path / "map.csv"), labels=("drug",))
    )  # fmt: skip
    assert found.manifest.table["position"].to_list() == ["A02", "B01"]
    assert found.manifest.table["labels"].to_list() == [("x",), ("y",)]
