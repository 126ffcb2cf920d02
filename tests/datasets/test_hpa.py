"""Layouts of the Human Protein Atlas: miniatures with every oddity, counted by hand."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from protloc_jax.config import ConfigError
from protloc_jax.data import records
from protloc_jax.datasets.hpa import HpaFovConfig, read_hpa_fov
from protloc_jax.datasets.hpa_cells import HpaCellConfig, read_hpa_cells
from protloc_jax.datasets.hpa_tables import CELL_CLASSES, CLASSES, place_of, read_dino4cells
from protloc_jax.datasets.pack_rows import Work, pack_fields
from protloc_jax.datasets.problems import DatasetError

QUIET = Work(workers=0)
COLOURS = ("red", "green", "blue", "yellow")
KAGGLE = "00070df0-bbc3-11e8-b2bc-ac1f6b6435d0"
ALL = {"split_by": ""}


def pixels(name: str, side: int = 8) -> np.ndarray:
    """[H, W, 4] uint8 that belongs to a name."""
    return np.random.default_rng(list(name.encode())).integers(1, 255, (side, side, 4)).astype(np.uint8)


def png(path, array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(array)))


def colours(raw, name: str, *, false_colour: bool = False, only=COLOURS, folder: str = "train") -> None:
    """One PNG a colour: grey, or the grey levels in the place of the colour in RGB."""
    for i, colour in enumerate(COLOURS):
        if colour in only:
            plane = pixels(name)[..., i]
            if false_colour:
                rgb = np.zeros((*plane.shape, 3), np.uint8)
                rgb[..., {"red": [0], "green": [1], "blue": [2], "yellow": [0, 1]}[colour]] = plane[..., None]
                plane = rgb
            png(raw / folder / f"{name}_{colour}.png", plane)


def write(path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def flags(names, classes) -> str:
    return ",".join(str(c in names) for c in classes)


def refusal(read, config, raw) -> str:
    with pytest.raises(DatasetError) as caught:
        read(config, raw)
    return str(caught.value)


def test_the_class_lists():
    assert len(CLASSES) == 28 and len(set(CLASSES)) == 28
    for number, name in {0: "nucleoplasm", 3: "nucleoli fibrillar center", 8: "peroxisomes", 15: "microtubule ends",
                         19: "centrosome", 25: "cytosol", 27: "rods & rings"}.items():  # fmt: skip
        assert CLASSES[number] == name
    assert len(CELL_CLASSES) == 19 and list(CELL_CLASSES) == sorted(CELL_CLASSES)


def test_kaggle(tmp_path):
    """Random IDs, class numbers; an image without row, a row without image, numbers in any order."""
    second = KAGGLE.replace("0007", "0008")
    colours(tmp_path, KAGGLE)
    colours(tmp_path, second)
    colours(tmp_path, "ffff", folder="test")
    write(tmp_path / "train.csv", "Id,Target", f"{KAGGLE},25 0", f"{second},", "gone,7")
    rows = read_hpa_fov(HpaFovConfig(unlabelled="keep"), tmp_path)
    assert rows.frame["id"].tolist() == [KAGGLE, second, "ffff"]
    assert rows.frame["labels"].tolist() == ["cytosol;nucleoplasm", "", ""]
    assert rows.frame["protein"].tolist() == [""] * 3 and "cell_line" not in rows.frame
    assert rows.left_out == [("annotation", "gone", "no image")]
    assert read_hpa_fov(HpaFovConfig(), tmp_path).left_out == [
        ("image", "test/ffff", "no row in the label table"), ("annotation", "gone", "no image"),
        ("image", second, "no label"),
    ]  # fmt: skip
    assert rows.label_names == tuple(sorted(CLASSES)) and rows.settings["split_by"] == ""
    assert any("3 of 3 IDs name no antibody" in n for n in rows.notes)
    packed = pack_fields(rows, tmp_path, tmp_path / "out", {}, QUIET)
    with records.open(tmp_path / "out") as opened:
        np.testing.assert_array_equal(opened[0], pixels(KAGGLE))
        np.testing.assert_array_equal(opened[1], pixels(second))
    assert packed.manifest.channels.names == ("microtubules", "protein", "nucleus", "er")
    alone = HpaFovConfig(without_antibody="alone", class_order="kaggle", colours=("blue", "green"))
    rows = read_hpa_fov(alone, tmp_path)
    assert rows.frame["protein"].tolist() == [f"alone {KAGGLE}"] and rows.settings["split_by"] == "protein"
    assert rows.label_names == CLASSES and rows.channels == "nucleus,protein"


def test_a_colour_that_is_missing(tmp_path):
    colours(tmp_path, "1_2_A1_1", only=("red", "green", "blue"))
    colours(tmp_path, "1_2_A1_2")
    write(tmp_path / "train.csv", "Id,Target", "1_2_A1_1,25", "1_2_A1_2,25")
    rows = read_hpa_fov(HpaFovConfig(), tmp_path)
    with pytest.raises(DatasetError, match="missing channels"):
        pack_fields(rows, tmp_path, tmp_path / "out", ALL, QUIET)
    packed = pack_fields(rows, tmp_path, tmp_path / "out", {**ALL, "missing_channels": "zero"}, QUIET)
    with records.open(tmp_path / "out") as opened:
        assert (opened[0][..., 3] == 0).all() and (opened[1] == pixels("1_2_A1_2")).all()
    assert any("er in 1" in n for n in packed.notes)


def test_atlas_names(tmp_path):
    """Antibody, plate, well, site; names without the antibody; a region's name as a fifth part; false colour."""
    for name in ("75112_1646_F7_1", "10008_57_F11_1", "11651_1732_F3_13_cr580610dc203b9"):
        colours(tmp_path, name, false_colour=name.startswith("7"))
    for colour in COLOURS:
        (tmp_path / f"train/10008_57_F11_1_{colour}.png").rename(tmp_path / f"train/57_F11_1_{colour}.png")
    write(tmp_path / "hpa.csv", "Id,Target", "75112_1646_F7_1,6", "10008_57_F11_1,21", "75112_1646_F7_2,6",
          "11651_1732_F3_13_cr580610dc203b9,23 0")  # fmt: skip
    rows = read_hpa_fov(HpaFovConfig(layout="atlas"), tmp_path)
    assert rows.frame["id"].tolist() == ["75112_1646_F7_1", "10008_57_F11_1", "11651_1732_F3_13_cr580610dc203b9"]
    assert rows.frame["protein"].tolist() == ["75112", "10008", "11651"]
    assert rows.frame[["plate", "well", "site"]].values.tolist() == [
        ["1646", "F7", "1"], ["57", "F11", "1"], ["1732", "F3", "13_cr580610dc203b9"]
    ]  # fmt: skip
    assert rows.frame["path_nucleus"][1] == "train/57_F11_1_blue.png"
    assert rows.left_out == [("annotation", "75112_1646_F7_2", "no image Did you mean '75112_1646_F7_1'?")]
    assert rows.settings["split_by"] == "protein"
    pack_fields(rows, tmp_path, tmp_path / "out", ALL, QUIET)
    with records.open(tmp_path / "out") as opened:
        np.testing.assert_array_equal(opened[0], pixels("75112_1646_F7_1"))
    # A second antibody on the same plate, well and site: the short name may mean either.
    with (tmp_path / "hpa.csv").open("a") as file:
        file.write("99_57_F11_1,0\n")
    text = refusal(read_hpa_fov, HpaFovConfig(), tmp_path)
    assert "images that several rows may mean (1)" in text and "99_57_F11_1" in text
    assert place_of(KAGGLE) == {}


WHOLE = "file,ID,cell_type," + ",".join(sorted(CLASSES))


def whole(tmp_path, *rows: tuple[str, str, str, tuple[str, ...]], name: str = "whole_images.csv", index: bool = False):
    lines = [f"{file},{own},{line},{flags(labels, sorted(CLASSES))}" for file, own, line, labels in rows]
    lines = [f"{i},{line}" for i, line in enumerate(lines)] if index else lines
    write(tmp_path / name, ("," if index else "") + WHOLE, *lines)


def test_dino4cells_with_a_file_an_image(tmp_path):
    """RGBA with yellow in the place of alpha, one of them under the odd ending _blue; the index of a data frame."""
    png(tmp_path / "images/1_2_A1_1.png", pixels("a"))
    png(tmp_path / "images/1_2_A1_2_blue.png", pixels("b"))
    png(tmp_path / "images/3_2_A1_1.png", pixels("c"))
    whole(
        tmp_path,
        ("images/1_2_A1_1.png", "1_2_A1_1", "U2OS", ("cytosol", "nucleoli")),
        ("1_2_A1_2_blue.png", "1_2_A1_2", "HeLa", ("rods & rings",)),
        ("3_2_A1_1", "3_2_A1_1", "U2OS", ("cytosol",)),
        index=True,
    )
    rows = read_hpa_fov(HpaFovConfig(), tmp_path)
    assert rows.frame["labels"].tolist() == ["cytosol;nucleoli", "rods & rings", "cytosol"]
    assert rows.frame["cell_line"].tolist() == ["U2OS", "HeLa", "U2OS"]
    assert rows.frame["path"].tolist() == ["images/1_2_A1_1.png", "images/1_2_A1_2_blue.png", "images/3_2_A1_1.png"]
    packed = pack_fields(rows, tmp_path, tmp_path / "out", {"split_fractions": (0.5, 0, 0.5)}, QUIET)
    with records.open(tmp_path / "out") as opened:
        for i, name in enumerate("abc"):
            np.testing.assert_array_equal(opened[i], pixels(name))
    assert packed.manifest.table.groupby("protein")["split"].nunique().max() == 1
    with pytest.raises(DatasetError, match="files of all colours hold red, green, blue, yellow"):
        read_hpa_fov(HpaFovConfig(colours=("green", "blue")), tmp_path)
    colours(tmp_path, "4_2_A1_1")
    with (tmp_path / "whole_images.csv").open("a") as file:
        file.write(f"3,4_2_A1_1,4_2_A1_1,U2OS,{flags(('cytosol',), sorted(CLASSES))}\n")
    text = refusal(read_hpa_fov, HpaFovConfig(), tmp_path)
    assert "3 images are one file and 1 a file a colour" in text and "4_2_A1_1_blue.png" in text


def test_dino4cells_with_lists_and_a_file_a_colour(tmp_path):
    """protein_location as a written-out list; the table names the blue file; train.csv agrees."""
    colours(tmp_path, "1_2_A1_1")
    colours(tmp_path, "2_2_A1_1")
    first = '''train/1_2_A1_1_blue.png,1_2_A1_1,U2OS,"['cytosol', ""nucleoli""]"'''
    write(tmp_path / "whole_images.csv", "file,ID,cell_type,protein_location", first, "2_2_A1_1,2_2_A1_1,A-431,[]")
    write(tmp_path / "train.csv", "Id,Target", "1_2_A1_1,2 25", "2_2_A1_1,")
    rows = read_hpa_fov(HpaFovConfig(), tmp_path)
    assert rows.frame["labels"].tolist() == ["cytosol;nucleoli"]
    assert rows.left_out == [("image", "2_2_A1_1", "no label")]
    assert rows.frame["path_er"].tolist() == ["train/1_2_A1_1_yellow.png"]
    write(tmp_path / "train.csv", "Id,Target", "1_2_A1_1,2 24", "2_2_A1_1,")
    text = refusal(read_hpa_fov, HpaFovConfig(), tmp_path)
    assert "tables that differ (1)" in text and "1_2_A1_1: cytosol, nucleoli in whole_images.csv line 2" in text
    assert read_hpa_fov(HpaFovConfig(layout="kaggle"), tmp_path).frame["labels"].tolist() == ["nucleoli;aggresome"]


def test_bad_tables_say_everything_at_once(tmp_path):
    colours(tmp_path, "1_2_A1_1")
    write(tmp_path / "train.csv", "Id,Target", "a,28", "b,x 1", "c,1 1", "d,2", "d,3")
    text = refusal(read_hpa_fov, HpaFovConfig(), tmp_path)
    assert "4 problems" in text and "'28': not a class number" in text and "repeats a class" in text
    assert "'d' stands in train.csv line 5" in text
    write(tmp_path / "train.csv", "Id,Target", "1_2_A1_9,2")
    assert "Did you mean '1_2_A1_1'?" in refusal(read_hpa_fov, HpaFovConfig(), tmp_path)
    (tmp_path / "train.csv").unlink()
    assert "no label table" in refusal(read_hpa_fov, HpaFovConfig(), tmp_path)
    write(tmp_path / "w.csv", WHOLE.replace("nucleoli,", "nucleolus,"), "f,i,U2OS," + flags((), sorted(CLASSES)))
    with pytest.raises(DatasetError, match=r"1 of 28 class columns are missing.*\n.*'nucleoli'. Did you mean 'nucleol"):
        read_dino4cells(tmp_path / "w.csv")
    write(tmp_path / "w.csv", "file,ID,cell_type,protein_location", "f,i,U,__import__('os')", "g,j,U,['cytosoll']")
    with pytest.raises(DatasetError) as caught:
        read_dino4cells(tmp_path / "w.csv")
    assert "protein_location (2)" in str(caught.value) and "Did you mean 'cytosol'?" in str(caught.value)
    with pytest.raises(ConfigError, match="Did you mean 'green'"):
        HpaFovConfig(colours=("gren",))


LINES = ("A431", "HeLa", "U-2 OS")
CELLS = ",file,ID,cell_type," + ",".join((*CELL_CLASSES, *LINES))


def cells(tmp_path, *rows: tuple[str, str, str, tuple[str, ...]]) -> None:
    lines = [
        f"{i},{file},{own},{line},{flags(labels, CELL_CLASSES)},{flags((line.replace('A-', 'A'),), LINES)}"
        for i, (file, own, line, labels) in enumerate(rows)
    ]
    write(tmp_path / "fixed_size_masked_single_cells_for_sc.csv", CELLS, *lines)


def test_single_cells(tmp_path):
    for name in ("10005_921_B9_1_3", "10005_921_B9_1_4", f"{KAGGLE}_1", "10006_921_B9_2_11"):
        png(tmp_path / f"cells/{name}.png", pixels(name))
    cells(
        tmp_path,
        ("10005_921_B9_1_3", "10005_921_B9_1", "U-2 OS", ("vesicles", "cytosol")),
        ("10005_921_B9_1_4", "10005_921_B9_1", "U-2 OS", ("negative",)),
        (f"{KAGGLE}_1", KAGGLE, "HeLa", ("nucleoli",)),
        ("10006_921_B9_2_11", "10006_921_B9_2", "A-431", ("negative", "cytosol")),
        ("10007_921_B9_2_1", "10007_921_B9_2", "A-431", ("cytosol",)),
    )
    rows = read_hpa_cells(HpaCellConfig(without_antibody="alone"), tmp_path)
    assert rows.frame["labels"].tolist() == ["cytosol;vesicles", "negative", "nucleoli", "cytosol;negative"]
    assert rows.frame["image"].tolist() == ["10005_921_B9_1", "10005_921_B9_1", KAGGLE, "10006_921_B9_2"]
    assert rows.frame["protein"].tolist() == ["10005", "10005", f"alone {KAGGLE}_1", "10006"]
    assert rows.frame["cell_line"].tolist() == ["U-2 OS", "U-2 OS", "HeLa", "A-431"]
    assert [(kind, name) for kind, name, _ in rows.left_out] == [("annotation", "10007_921_B9_2_1")]
    assert any("1 cells are negative and something else, such as 10006_921_B9_2_11" in n for n in rows.notes)
    packed = pack_fields(rows, tmp_path, tmp_path / "out", ALL, QUIET)
    with records.open(tmp_path / "out") as opened:
        np.testing.assert_array_equal(opened[2], pixels(f"{KAGGLE}_1"))
    assert packed.manifest.label_names == CELL_CLASSES
    fewer = read_hpa_cells(HpaCellConfig(negative="drop"), tmp_path)
    assert fewer.frame["labels"].tolist() == ["cytosol;vesicles", "nucleoli", "cytosol;negative"]


def test_single_cells_that_contradict_themselves(tmp_path):
    png(tmp_path / "1_2_A1_1_3.png", pixels("a"))
    cells(tmp_path, ("1_2_A1_1_3", "1_2_A1_1", "HeLa", ("cytosol",)), ("1_2_A1_9_4", "1_2_A1_1", "HeLa", ("cytosol",)))
    path = tmp_path / "fixed_size_masked_single_cells_for_sc.csv"
    path.write_text(path.read_text().replace("0,1_2_A1_1_3,1_2_A1_1,HeLa", "0,1_2_A1_1_3,1_2_A1_1,A-431"))
    text = refusal(read_hpa_cells, HpaCellConfig(), tmp_path)
    assert "2 problems" in text and "cell_type is A-431, the columns say ['HeLa']" in text
    assert "'1_2_A1_9_4' is not 1_2_A1_1_<cell number>" in text
    path.unlink()
    assert "no table of single cells below it" in refusal(read_hpa_cells, HpaCellConfig(), tmp_path)
