"""Tables of CellProfiler, the Cell Painting Gallery and HPA tools are read as they are."""

from __future__ import annotations

import csv
import gzip

import numpy as np
import pytest
from small_folders import config, pixels, rewrite, save

from protloc_jax.datasets import folder
from protloc_jax.datasets.folder_config import FolderConfig
from protloc_jax.datasets.problems import DatasetError

CHANNELS = ("DNA", "ER", "AGP")


def refusal(cfg) -> str:
    with pytest.raises(DatasetError) as caught:
        folder.prepare(cfg)
    return str(caught.value)


def load_data(tmp_path, prefix: str = "Orig", start: str = "", kind: str = "path"):
    """Two plates, two wells, two sites, three channels: files and load_data.csv as the JUMP pipeline writes it."""
    header = [f"{k}_{prefix}{c}" for c in CHANNELS for k in (("FileName", "PathName") if kind == "path" else ("URL",))]
    lines = [",".join([*header, "Metadata_Plate", "Metadata_Well", "Metadata_Site"])]
    number = 0
    for plate in ("BR1", "BR2"):
        for well in ("A01", "B02"):
            for site in (1, 2):
                cells = []
                for c in range(3):
                    name = f"r0{site}-ch{c}sk1fk1fl1.tiff"
                    place = f"{plate}__2021/{well}/Images"
                    save(tmp_path / place / name, pixels(number, channels=3)[..., c : c + 1])
                    cells += [name, f"{start}{place}"] if kind == "path" else [f"{start}{place}/{name}"]
                lines.append(",".join([*cells, plate, well, str(site)]))
                number += 1
    (tmp_path / "load_data.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "load_data.csv"


def test_load_data_as_the_gallery_has_it(tmp_path):
    found = folder.prepare(config(load_data(tmp_path), "agp,dna", labels_from="none"))
    table = found.manifest.table
    assert found.manifest.ids[:3] == ("BR1_A01_1", "BR1_A01_2", "BR1_B02_1")
    assert found.manifest.group_columns == ("plate", "well", "site")
    assert table["plate"].to_list() == ["BR1"] * 4 + ["BR2"] * 4
    np.testing.assert_array_equal(found.images(5), pixels(5, channels=3)[..., [2, 0]])
    assert table["source"][0] == "BR1__2021/A01/Images/r01-ch2sk1fk1fl1.tiff;BR1__2021/A01/Images/r01-ch0sk1fk1fl1.tiff"
    assert any("layout=load_data" in n and "agp = OrigAGP, dna = OrigDNA; not used: OrigER" in n for n in found.notes)


def test_load_data_of_another_machine(tmp_path):
    """Absolute folders of the machine that wrote the table: refused, then cut off by path_prefix."""
    table = load_data(tmp_path, start="/home/ubuntu/bucket/projects/")
    text = refusal(config(table, "dna,er"))
    assert "refused paths (16)" in text
    assert "absolute path '/home/ubuntu/bucket/projects/BR1__2021/A01/Images/r01-ch0" in text
    assert "path_prefix" in text
    here = config(table, "dna,er", path_prefix=("/home/ubuntu/bucket/projects/",), root=str(tmp_path))
    np.testing.assert_array_equal(folder.prepare(here).images(7), pixels(7, channels=3)[..., :2])
    table = load_data(tmp_path, start=f"{tmp_path}/")
    np.testing.assert_array_equal(
        folder.prepare(config(table, "dna", root=str(tmp_path))).images(1), pixels(1, channels=3)[..., :1]
    )
    with pytest.raises(ValueError, match="say with root what it stands for"):
        config(table, "dna", path_prefix=("/x",))


def test_url_columns_of_this_machine(tmp_path):
    table = load_data(tmp_path / "a b", start=f"file://{str(tmp_path / 'a b').replace(' ', '%20')}/", kind="url")
    found = folder.prepare(config(table, "er", root=str(tmp_path / "a b")))
    np.testing.assert_array_equal(found.images(3), pixels(3, channels=3)[..., 1:2])


def test_channels_that_the_table_lacks(tmp_path):
    table = load_data(tmp_path)
    text = refusal(config(table, "dna,mito,rea", files=("rea=OrigRE",)))
    assert "2 channel(s) are not in the table" in text
    assert "'mito'" in text
    assert "'OrigRE'. Did you mean 'OrigER'? The table has OrigDNA, OrigER, OrigAGP (files=rea=<one of them>)" in text
    found = folder.prepare(config(table, "nucleus,x:er", files=("nucleus=OrigDNA", "x=ER")))
    np.testing.assert_array_equal(found.images(0), pixels(0, channels=3)[..., :2])
    text = table.read_text().replace("OrigAGP", "CorrDNA")
    table.write_text(text)
    assert "'dna' may be OrigDNA or CorrDNA; say which with files=dna=OrigDNA" in refusal(config(table, "dna"))
    assert folder.prepare(config(table, "dna", files=("dna=CorrDNA",))).manifest.n == 8


def test_illumination_columns_are_no_channels(tmp_path):
    table = load_data(tmp_path)
    lines = table.read_text().splitlines()
    lines = [lines[0] + ",FileName_IllumDNA,PathName_IllumDNA", *(f"{line},x.npy,illum" for line in lines[1:])]
    table.write_text("\n".join(lines))
    found = folder.prepare(config(table, "dna"))
    assert found.manifest.group_columns == ("plate", "well", "site")


def test_sites_with_several_rows_are_noted(tmp_path):
    table = load_data(tmp_path)
    table.write_text(table.read_text().replace("A01,2\n", "A01,1\n"))
    found = folder.prepare(config(table, "dna"))
    assert any("2 sites have several rows" in n and "BR1_A01_1" in n for n in found.notes)
    assert len(set(found.manifest.ids)) == 8


BBBC021 = (
    "TableNumber,ImageNumber,Image_FileName_DAPI,Image_PathName_DAPI,Image_FileName_Tubulin,Image_PathName_Tubulin,"
    "Image_FileName_Actin,Image_PathName_Actin,Image_Metadata_Plate_DAPI,Image_Metadata_Well_DAPI,Replicate,"
    "Image_Metadata_Compound,Image_Metadata_Concentration"
)


def test_the_image_table_of_bbbc021(tmp_path):
    """Its 13 columns, compressed as it is often kept; no site column, metadata named after a channel."""
    lines = [BBBC021]
    for i in range(4):
        names = [f"G10_s{i}_w{w}ABC{i}.tif" for w in (1, 2, 4)]
        for c, name in enumerate(names):
            save(tmp_path / "Week4" / "Week4_27481" / name, pixels(i, channels=3)[..., c : c + 1])
        cells = [part for name in names for part in (name, "Week4/Week4_27481")]
        lines.append(",".join(["4", str(i), *cells, "Week4_27481", "G10", "1", "taxol", "0.3"]))
    table = tmp_path / "BBBC021_v1_image.csv.gz"
    table.write_bytes(gzip.compress("\n".join(lines).encode()))
    found = folder.prepare(
        config(table, "dapi,tubulin,actin", labels=("compound",), groups=("plate", "well", "compound"))
    )
    assert found.manifest.ids[2] == "Week4/Week4_27481/G10_s2_w"
    assert found.manifest.group_columns == ("plate", "well", "compound")
    assert [c.role for c in found.manifest.channels] == ["nucleus", "microtubules", "actin"]
    every = folder.prepare(config(table, "dapi")).manifest.group_columns
    assert every == ("TableNumber", "ImageNumber", "plate", "well", "Replicate", "compound", "concentration")
    np.testing.assert_array_equal(found.images(3), pixels(3, channels=3))
    table.write_bytes(table.read_bytes()[:60])
    assert "truncated or damaged gzip file" in refusal(config(table, "dapi"))


def test_metadata_columns_that_disagree_or_are_taken(tmp_path):
    save(tmp_path / "a.tif", pixels(0)[..., :1])
    rewrite(
        tmp_path,
        [
            "FileName_A,FileName_B,Metadata_Plate_A,Metadata_Plate_B,Metadata_CellLine,site,Metadata_Site",
            "a.tif,a.tif,p,q,HeLa,1,7",
        ],
    )
    found = folder.prepare(config(tmp_path / "cells.csv", "a", files=("a=A",)))
    columns = ["plate", "Metadata_Plate_B", "cell_line", "site", "Metadata_Site"]
    assert found.manifest.table[columns].iloc[0].to_list() == ["p", "q", "HeLa", "1", "7"]
    assert any("Metadata_Plate_A and Metadata_Plate_B differ" in n for n in found.notes)


def test_a_path_list_with_missing_channels(tmp_path):
    rows = []
    for i in range(3):
        for word, c in (("mt", 0), ("er", 1), ("nuc", 2), ("prot", 3)):
            save(tmp_path / f"c{i}_{word}.png", pixels(i, channels=4)[..., c])
        er = f"c{i}_er.png" if i else ""
        rows.append([f"c{i}_mt.png", er, f"c{i}_nuc.png", f"c{i}_prot.png", f"cell{i}_"])
    with (tmp_path / "path_list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["r_image", "y_image", "b_image", "g_image", "output_prefix"], *rows])
    table = tmp_path / "path_list.csv"
    found = folder.prepare(config(table, "red,green,blue"))
    assert found.manifest.ids == ("cell0", "cell1", "cell2")
    assert found.manifest.group_columns == ()
    assert [c.role for c in found.manifest.channels] == ["microtubules", "protein", "nucleus"]
    np.testing.assert_array_equal(found.images(2), pixels(2, channels=4)[..., [0, 3, 2]])
    assert any("layout=path_list" in n and "red = r_image" in n for n in found.notes)
    assert "path_list.csv line 2: no path for yellow" in refusal(config(table, "red,yellow,blue,green"))
    filled = folder.prepare(config(table, "red,yellow,blue,green", missing_channels="zero"))
    expected = pixels(0, channels=4)
    expected[..., 1] = 0
    np.testing.assert_array_equal(filled.images(0), expected)
    np.testing.assert_array_equal(filled.images(1), pixels(1, channels=4))
    assert any("channels without a file are zero: yellow in 1 of 3 rows" in n for n in filled.notes)
    assert not any("one value everywhere" in n for n in filled.notes)
    text = refusal(config(table, "red,purple"))
    assert "'purple'" in text
    assert "A path list has red, yellow, blue, green" in text
    named = folder.prepare(config(table, "protein,dna", files=("protein=green", "dna=b_image")))
    np.testing.assert_array_equal(named.images(1), pixels(1, channels=4)[..., [3, 2]])


def test_a_path_list_without_header_line_as_a_comment(tmp_path):
    for word in ("n", "p"):
        save(tmp_path / f"{word}.png", pixels("np".index(word))[..., 0])
    lines = ["#r_image,y_image,b_image,g_image,output_folder,output_prefix", ",,n.png,p.png,out,a_", "#,,x,x,,"]
    rewrite(tmp_path, [*lines, ",,p.png,n.png,out,b_"])
    found = folder.prepare(config(tmp_path / "cells.csv", "blue,green"))
    assert found.manifest.ids == ("a", "b")
    assert any("1 rows of the path list begin with '#'" in n for n in found.notes)
    assert found.manifest.group_columns == ()


def test_zeros_where_a_pattern_finds_no_file(tmp_path):
    save(tmp_path / "a_gfp.png", pixels(0)[..., 0])
    save(tmp_path / "a_rfp.png", pixels(0)[..., 1])
    save(tmp_path / "b_rfp.png", pixels(1)[..., 1])
    found = folder.prepare(config(tmp_path, pattern="{id}_{channel}.png", missing_channels="zero"))
    np.testing.assert_array_equal(found.images(1)[..., 0], 0)
    np.testing.assert_array_equal(found.images(1)[..., 1], pixels(1)[..., 1])
    headers = folder.prepare(config(tmp_path, pattern="{id}_{channel}.png", missing_channels="zero", check="headers"))
    np.testing.assert_array_equal(headers.images(1), found.images(1))


def test_the_layout_can_be_told(tmp_path):
    table = load_data(tmp_path)
    assert "no column 'path'" in refusal(config(table, "dna", layout="plain"))
    assert "layout=path_list: no columns r_image" in refusal(config(table, "dna", layout="path_list"))
    rewrite(tmp_path, ["path,x", "BR1__2021/A01/Images/r01-ch0sk1fk1fl1.tiff,1"])
    assert "layout=load_data: no column FileName_<channel>" in refusal(
        config(tmp_path / "cells.csv", "dna", layout="load_data")
    )
    with pytest.raises(ValueError, match="a pattern makes the paths"):
        FolderConfig(path="x", channels="a", pattern="{id}", layout="load_data")
