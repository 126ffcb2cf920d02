"""OME-Zarr as a data set: plates by plate, well and site, and folders in which a `.zarr` is one image file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from small_folders import config, pixels, rewrite, save

from protloc_jax.data import records
from protloc_jax.datasets import folder
from protloc_jax.datasets.problems import DatasetError
from protloc_jax.datasets.zarr_plate import plate_table

sys.path.append(str(Path(__file__).parent.parent / "images"))
from small_zarr import put_attributes, write_image, write_plate


def field(number: int) -> np.ndarray:
    return pixels(number).transpose(2, 0, 1)


WELLS = {"A/1": [field(0), field(1)], "B/03": [field(2)], "AA/12": [field(3)]}
WELL_NAMES = {"A/1": "A01", "B/03": "B03", "AA/12": "AA12"}


def refusal(cfg) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - callers check the text
        folder.prepare(cfg)
    return str(caught.value)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_plate_packs_with_its_wells_and_sites_as_groups(tmp_path, version):
    write_plate(tmp_path / "P1.zarr", WELLS, version, names=("gfp", "rfp"), scale=[1, 0.5, 0.5])
    cfg = config(tmp_path / "P1.zarr", split_by="well", split_fractions=(0.5, 0.25, 0.25))
    info = folder.pack(cfg, tmp_path / "out", workers=0)
    assert (info.n, info.height, info.dtype) == (4, 12, "uint16")
    with records.open(tmp_path / "out") as opened:
        table = opened.manifest.table
        assert list(table["id"]) == ["P1_A01_0", "P1_A01_1", "P1_B03_0", "P1_AA12_0"]
        assert list(table["source"]) == ["A/1/0", "A/1/1", "B/03/0", "AA/12/0"]
        assert {"plate", "row", "column", "well", "site"} <= set(table.columns)
        assert "acquisition" not in table.columns
        assert list(table["well"]) == ["A01", "A01", "B03", "AA12"]
        assert table["split"][0] == table["split"][1]
        assert opened.manifest.um_per_pixel == 0.5
        for i in range(4):
            np.testing.assert_array_equal(opened[i], pixels(i))


def test_acquisitions_and_rows_to_keep(tmp_path):
    write_plate(tmp_path / "P1.zarr", WELLS, acquisitions=("first", "second"))
    table = plate_table(tmp_path / "P1.zarr")
    assert list(table["acquisition"]) == ["first", "second", "first", "first"]
    found = folder.prepare(config(tmp_path / "P1.zarr", where=("acquisition=first", "row=A|B")))
    assert list(found.manifest.table["id"]) == ["P1_A01_0", "P1_B03_0"]
    np.testing.assert_array_equal(found.images(1), pixels(2))
    assert "no column 'wells' (split_by). Did you mean 'well'?" in refusal(
        config(tmp_path / "P1.zarr", split_by="wells")
    )
    assert "do not apply to a plate" in refusal(config(tmp_path / "P1.zarr", pattern="{id}.zarr"))


def test_a_folder_of_plates_is_one_data_set(tmp_path):
    for name in ("one", "two"):
        write_plate(tmp_path / f"{name}.ome.zarr", {"A/1": [field(0)], "A/2": [field(1)]})
        attributes = json.loads((tmp_path / f"{name}.ome.zarr" / ".zattrs").read_text())
        attributes["plate"].pop("name")
        (tmp_path / f"{name}.ome.zarr" / ".zattrs").write_text(json.dumps(attributes))
    found = folder.prepare(config(tmp_path))
    assert list(found.manifest.table["id"]) == ["one_A01_0", "one_A02_0", "two_A01_0", "two_A02_0"]
    assert found.manifest.table["source"][2] == "two.ome.zarr/A/1/0"
    np.testing.assert_array_equal(found.images(3), pixels(1))
    write_image(tmp_path / "single.zarr", field(0), "cyx")
    assert "some Zarr folders are plates (one.ome.zarr) and others are not (single.zarr)" in refusal(config(tmp_path))


def test_everything_wrong_with_a_plate_is_named_at_once(tmp_path):
    plate = write_plate(tmp_path / "P1.zarr", WELLS)
    (plate / "A" / "1" / "1").rename(plate / "A" / "1" / "gone")
    (plate / "B" / "03" / ".zattrs").write_text('{"well": {}}')
    attributes = json.loads((plate / ".zattrs").read_text())
    attributes["plate"]["wells"] += [{"path": "C/1"}, {"path": "../x"}]
    (plate / ".zattrs").write_text(json.dumps(attributes))
    text = refusal(config(plate))
    assert "wells and fields (4)" in text
    for part in (
        "A/1/1: its metadata names this member, and it is not there",
        "B/03: its well metadata lack what the format asks for (KeyError('images'))",
        "the well 'C/1' is in no row and column of the plate",
        "the well '../x' is in no row and column of the plate",
    ):
        assert part in text, text
    put_attributes(plate, "0.4", plate={"rows": []})
    assert "its plate metadata lack what the format asks for (KeyError('columns'))" in refusal(config(plate))
    put_attributes(plate, "0.4", plate={"rows": [], "columns": [], "wells": []})
    assert "the data set is empty" in refusal(config(plate))


def test_damaged_fields_are_named_with_their_row(tmp_path):
    plate = write_plate(tmp_path / "P1.zarr", WELLS, chunks=(1, 12, 12))
    chunk = plate / "B" / "03" / "0" / "0" / "1.0.0"
    chunk.write_bytes(chunk.read_bytes()[:20])
    (plate / "A" / "1" / "0" / "0" / "0.0.0").unlink()
    text = refusal(config(plate))
    assert "unreadable images (2)" in text
    assert f"B/03/0: {chunk}: damaged chunk" in text
    assert "A/1/0: " in text
    assert "missing chunk(s)" in text
    found = folder.prepare(config(plate, bad_images="drop", max_dropped=0.5))
    assert list(found.manifest.table["id"]) == ["P1_A01_1", "P1_AA12_0"]


def test_zarr_folders_are_files_among_others(tmp_path):
    write_image(tmp_path / "a" / "x.ome.zarr", field(0), "cyx")
    write_image(tmp_path / "a" / "y.zarr", field(1), "cyx", "0.5")
    save(tmp_path / "b" / "z.ome.tif", pixels(2))
    found = folder.prepare(config(tmp_path, labels_from="parent"))
    assert list(found.manifest.table["id"]) == ["a/x", "a/y", "b/z"]
    np.testing.assert_array_equal(found.manifest.multi_hot(), [[1, 0], [1, 0], [0, 1]])
    for i in range(3):
        np.testing.assert_array_equal(found.images(i), pixels(i))
    by_pattern = folder.prepare(config(tmp_path, pattern="{id}"))
    assert list(by_pattern.manifest.table["id"]) == ["a/x", "a/y", "b/z"]
    table = rewrite(tmp_path, ["path,gene", "a/x.ome.zarr,g1", "b/z.ome.tif,g2"])
    np.testing.assert_array_equal(folder.prepare(config(table)).images(0), pixels(0))
    headers = folder.prepare(config(tmp_path, check="headers"))
    chunk = next((tmp_path / "a" / "y.zarr" / "0" / "c").rglob("0"))
    while chunk.is_dir():
        chunk = next(chunk.iterdir())
    chunk.write_bytes(chunk.read_bytes() + b" ")
    assert folder.prepare(config(tmp_path, check="headers")).source != headers.source
    assert "leaves its folder by '..'" in refusal(config(rewrite(tmp_path / "a", ["path", "../a/x.ome.zarr"])))


def test_one_zarr_image_is_no_data_set(tmp_path):
    write_image(tmp_path / "x.zarr", field(0), "cyx")
    assert f"a data set is a plate or a folder of images. Give the folder it lies in: {tmp_path}" in refusal(
        config(tmp_path / "x.zarr")
    )
    (tmp_path / "y.zarr").mkdir()
    (tmp_path / "y.zarr" / ".zattrs").write_text("{")
    with pytest.raises(DatasetError, match=r"y\.zarr/\.zattrs: damaged metadata"):
        folder.prepare(config(tmp_path / "y.zarr"))


def test_series_time_level_and_projection_are_options(tmp_path):
    stack = np.stack([np.stack([field(4 * t + z) for z in range(4)], 1) for t in range(2)])  # T C Z Y X
    write_image(tmp_path / "x.zarr", [stack, stack[..., ::2, ::2]], "tczyx")
    assert "time series" in refusal(config(tmp_path, projection="max"))
    found = folder.prepare(config(tmp_path, projection="middle", time=1, level=1))
    np.testing.assert_array_equal(found.images(0), pixels(6)[::2, ::2])
    assert found.source != folder.prepare(config(tmp_path, projection="middle", time=0, level=1)).source
    assert "series=-2: must be at least -1" in refusal_of(tmp_path, series=-2, time=-9, level=-1)


def refusal_of(path, **options) -> str:
    with pytest.raises(ValueError, match="must be at least") as caught:
        config(path, **options)
    return str(caught.value)


def test_channel_names_in_files_are_held_against_those_given(tmp_path):
    write_image(tmp_path / "a.zarr", field(0), "cyx", names=("RFP", "GFP"))
    write_image(tmp_path / "b.zarr", field(1), "cyx", names=("GFP", "RFP"))
    text = refusal(config(tmp_path))
    assert "channel order (1)" in text
    assert "a: 'RFP' stands where 'gfp' is named, 'GFP' stands where 'rfp' is named (the file has RFP, GFP)" in text
    write_image(tmp_path / "dyes" / "c.zarr", field(0), "cyx", names=("Hoechst", "Tubulin"))
    text = refusal(config(tmp_path / "dyes", channels="tub:microtubules,dna:nucleus"))
    assert "'Hoechst' stands where 'tub' is named" in text
    good = folder.prepare(config(tmp_path / "dyes", channels="dna:nucleus,gfp:protein"))
    assert "1 file(s) call their channels Hoechst, Tubulin; read as dna, gfp." in good.notes
    silent = folder.prepare(config(tmp_path / "dyes", channels="hoechst,tubulin"))
    assert not any("call their channels" in note for note in silent.notes)
