"""RxRx1 and RxRx19a from files to records: pixels, groups, what is missing, strange or left out, the command."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_rxrx import RXRX19A_HEADER, pixels_of, rxrx1_lines, rxrx19a_lines, write

from protloc_jax import simulate
from protloc_jax.cli.main import main
from protloc_jax.config import ConfigError
from protloc_jax.data import records
from protloc_jax.datasets import simulated
from protloc_jax.datasets.pack_rows import Work, pack_fields
from protloc_jax.datasets.problems import DatasetError
from protloc_jax.datasets.raw_writer import write_raw
from protloc_jax.datasets.rxrx import RxRxConfig, read_rxrx1, read_rxrx19a
from protloc_jax.simulate import SimConfig

QUIET = Work(workers=0)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write(tmp_path_factory.mktemp("rxrx1"), rxrx1_lines())


def halved(plane: np.ndarray) -> np.ndarray:
    """The mean of every two by two pixels."""
    side = len(plane) // 2
    return np.rint(plane.reshape(side, 2, side, 2).astype(float).mean(axis=(1, 3)))


def test_pixels_and_groups_of_rxrx1(raw, tmp_path):
    rows = read_rxrx1(RxRxConfig(), raw)
    assert not rows.left_out and rows.notes == [
        "images are 16 x 16, not 512 x 512 as published; resize_factor applies all the same."
    ]
    pack_fields(rows, raw, tmp_path / "out", {}, QUIET)
    with records.open(tmp_path / "out") as opened:
        info, manifest = opened.info, opened.manifest
        assert (info.height, info.width, info.dtype, info.um_per_pixel) == (8, 8, "uint8", None)
        assert manifest.channels.names == ("nucleus", "er", "actin", "rna", "mitochondria", "golgi")
        assert json.loads(info.packing["source"])["prepared"]["resize_factor"] == 0.5
        assert json.loads(info.packing["source"])["prepared"]["resample"] == "area"
        for i in range(opened.n):
            for channel in range(6):
                assert (opened[i][..., channel] == halved(pixels_of(i, channel))).all()
        table = manifest.table
    assert manifest.label_kind == "none"
    assert list(table["perturbation"][:6]) == [None, None, "s36985", "s36985", "s15652", "s15652"]
    assert list(table["sirna"][:2]) == ["EMPTY", "EMPTY"] and list(table["sirna_id"][:3]) == [1138, 1138, 0]
    assert list(table["split"]) == ["train"] * 8 + ["test"] * 4 == list(table["published_split"])
    last = table.iloc[-1]
    assert [last[c] for c in ("id", "plate", "well", "position", "batch", "cell_line", "sirna_names")] == [
        "U2OS-04_4_C06_2", "U2OS-04_4", "U2OS-04_4_C06", "C06", "U2OS-04", "U2OS", "catalogue",
    ]  # fmt: skip
    assert table["site"].dtype.kind == "i" and set(table["site"]) == {1, 2}


def test_rxrx19a(tmp_path):
    raw = write(tmp_path / "raw", rxrx19a_lines(), header=RXRX19A_HEADER, images="{experiment}")
    pack_fields(read_rxrx19a(RxRxConfig(), raw), raw, tmp_path / "out", {"resize_factor": 0}, QUIET)
    with records.open(tmp_path / "out") as opened:
        assert opened.info.um_per_pixel == 0.65 and len(opened.info.channels) == 5
        assert (opened[2][..., 4] == pixels_of(2, 4)).all()
        table = opened.manifest.table
    assert set(table["split"]) == {"train"}
    assert list(table["disease_condition"][3:6]) == ["Mock", "UV Inactivated SARS-CoV-2", None]
    dose = table["concentration"].to_numpy()
    np.testing.assert_array_equal(dose, [3, 3, np.nan, np.nan, np.nan, np.nan, 0.03])
    assert list(table["perturbation"]) == ["Remdesivir"] * 2 + [None] * 4 + ["Remdesivir"]
    assert table["well"][2] == "HRCE-1_1_AF48" and table["smiles"][0] == "CCO |r|"


def test_folders_may_be_unpadded_and_lie_anywhere(tmp_path):
    """Recursion's README writes HUVEC-1, and the competition's files lie below train/ and test/."""
    lines = rxrx1_lines()
    root = write(tmp_path / "raw", lines, images="elsewhere/{dataset}/{experiment}")
    (root / "elsewhere/train/HUVEC-01").rename(root / "elsewhere/train/HUVEC-1")
    rows = read_rxrx1(RxRxConfig(), root)
    assert rows.frame["path_er"][0] == "elsewhere/train/HUVEC-1/Plate1/B02_s1_w2.png" and not rows.left_out
    assert list(rows.frame["batch"].unique()) == ["HUVEC-01", "U2OS-04"]
    other = root / "HUVEC-01" / "Plate1"
    other.mkdir(parents=True)
    Image.fromarray(pixels_of(0, 0)).save(other / "B02_s1_w1.png")
    with pytest.raises(DatasetError, match=r"found twice \(1\):\n +metadata.csv line 2: HUVEC-01/Plate1/B02_s1_w1.png"):
        read_rxrx1(RxRxConfig(), root)


def test_what_lacks_files_and_what_has_too_many(tmp_path):
    root = write(tmp_path / "raw", rxrx1_lines())
    plate = root / "images/HUVEC-01/Plate1"
    for channel in range(1, 7):
        (plate / f"B03_s2_w{channel}.png").rename(plate / f"B04_s2_w{channel}.png")  # no row
    (plate / "N22_s1_w6.png").unlink()
    Image.fromarray(pixels_of(0, 0)).save(plate / "B02_s1_w7.png")
    Image.fromarray(pixels_of(0, 0)).save(plate / "overview.png")
    for path in (root / "images/U2OS-04/Plate4").iterdir():
        path.unlink()
    with pytest.raises(DatasetError) as error:
        read_rxrx1(RxRxConfig(), root)
    text = str(error.value)
    for what in (
        "line 2: HUVEC-01_1_B02_1 has w7; the set has w1 to w6",
        "line 5: HUVEC-01_1_B03_2 lacks w1, w2, w3, w4, w5, w6. Did you mean 'HUVEC-01_1_B04_2'?",
        "line 6: HUVEC-01_1_N22_1 lacks w6.",
        "1 plates, of which no <experiment>/Plate<n> folder",
        "U2OS-04_4 (4 sites)",
    ):
        assert what in text, text
    (plate / "B02_s1_w7.png").unlink()
    rows = read_rxrx1(RxRxConfig(missing="leave_out"), root)
    assert len(rows.frame) == 12 - 1 - 1 - 4
    left = pd.DataFrame(rows.left_out, columns=["kind", "name", "reason"])
    assert set(left["name"][left["kind"] == "image"]) == {
        "HUVEC-01_1_B03_2", "HUVEC-01_1_N22_1", *(f"U2OS-04_4_C0{w}_{s}" for w in (5, 6) for s in (1, 2)),
    }  # fmt: skip
    files = left[left["kind"] == "file"]
    assert len(files) == 7 and (files["reason"] == "no row in the site table").sum() == 6
    assert "files are missing (of HUVEC-01_1: w6)" in set(left["reason"])
    assert "files are missing (nothing of plate U2OS-04_4)" in set(left["reason"])


def test_an_image_of_another_size_is_named(tmp_path):
    rows = read_rxrx1(RxRxConfig(), write(tmp_path / "raw", rxrx1_lines()))
    for channel in range(1, 7):
        Image.fromarray(pixels_of(3, channel, 20)).save(tmp_path / f"raw/images/HUVEC-01/Plate1/B03_s2_w{channel}.png")
    with pytest.raises(DatasetError, match=r"mixed sizes.*\(1\):\n.*Plate1/B03_s2_w1.png is 10 x 10"):
        pack_fields(rows, tmp_path / "raw", tmp_path / "out", {}, QUIET)


def test_some_cell_lines_only(raw):
    rows = read_rxrx1(RxRxConfig(lines=("U2OS",)), raw)
    assert set(rows.frame["cell_line"]) == {"U2OS"}
    assert rows.summary() == ["8 image(s) left out: its cell line is not among those wanted"]
    with pytest.raises(
        DatasetError, match=r"no such cell line: 'U20S' Did you mean 'U2OS'\? The table has HUVEC, U2OS"
    ):
        read_rxrx1(RxRxConfig(lines=("U20S",)), raw)
    with pytest.raises(ConfigError, match="sirnas"):
        RxRxConfig(sirnas="thermo")  # type: ignore[arg-type]


def test_names_of_the_competition_are_taken_for_images_and_refused_for_genes(tmp_path):
    root = write(tmp_path / "raw", [line.replace(",s", ",sirna_") for line in rxrx1_lines()])
    rows = read_rxrx1(RxRxConfig(), root)
    assert set(rows.frame["sirna_names"]) == {"competition"} and "no gene can be found for them" in rows.notes[0]
    with pytest.raises(DatasetError, match="no catalogue numbers"):
        read_rxrx1(RxRxConfig(sirnas="catalogue"), root)


def test_the_command_on_a_simulated_screen(tmp_path, capsys):
    """Four cell lines with positive controls, from the raw layout to records: pixels are the simulator's."""
    config = SimConfig(preset="rxrx1", n_compounds=4, batches=1, sites=1, size=40)
    write_raw(config, tmp_path / "raw", workers=0)
    words = ["--raw", tmp_path / "raw", "--out", tmp_path / "out", "--resize-factor", 0, "--quiet", "--workers", 0]
    assert main(["data", "prepare", "rxrx1", *map(str, words)]) == 0
    said = capsys.readouterr().out
    counted = pd.read_csv(tmp_path / "out" / "perturbations.csv")
    truth = simulate.catalogue(config)
    assert "HUVEC            4          4                 8                 8              6" in said, said
    assert "4 perturbations in treatment wells, 2 in positive control wells; 80 wells on 16 plates." in said
    assert set(counted["cell_line"]) == {"HUVEC", "RPE", "HEPG2", "U2OS"} and counted["images"].sum() == 4 * (4 + 8)
    with records.open(tmp_path / "out") as opened:
        table = opened.manifest.table
        assert list(table["id"]) == list(truth["id"]) and simulated.config_of(opened.info) == config
        for row in (0, 37):
            assert (opened[row] == simulate.render(config, row).image).all()
    kept = truth["well_type"] != "negative_control"
    assert list(table["perturbation"][kept]) == list(truth["sirna"][kept]) and table["perturbation"][~kept].isna().all()
