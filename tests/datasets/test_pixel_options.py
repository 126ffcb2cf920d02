"""Resizing by a factor, the white point, numbers of text tables, and illumination from more images than are packed."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from small_folders import config, pixels, rewrite, save, table_of

from protloc_jax.config import ConfigError
from protloc_jax.data import records
from protloc_jax.datasets import folder
from protloc_jax.datasets.problems import DatasetError
from protloc_jax.datasets.resampling import resample
from protloc_jax.datasets.white_point import stretched
from protloc_jax.images import ImageError


def test_the_white_point_by_hand():
    values = np.array([[[0, 1, 2, 5000, 9999, 10_000, 10_001, 65535]]], np.uint16)
    found, above = stretched(values, 10_000)
    # value * 6.5535 to the nearest whole number, and 65535 from 10,000 on
    assert found.tolist() == [[[0, 7, 13, 32768, 65528, 65535, 65535, 65535]]]
    assert above == 2 and found.dtype == np.uint16
    found, above = stretched(np.array([[[0, 40, 100, 200]]], np.uint8), 100)
    assert found.tolist() == [[[0, 102, 255, 255]]] and above == 1
    with pytest.raises(ImageError, match="white_point=300 lies above the largest value of uint8 pixels, 255"):
        stretched(np.zeros((1, 1, 1), np.uint8), 300)


def test_a_factor_halves_images_and_doubles_the_pixel_size(tmp_path):
    table = table_of(tmp_path, n=2)
    cfg = config(table, resize_factor=0.5, resample="area", um_per_pixel=0.2, white_point=30_000)
    found = folder.prepare(cfg, workers=0)
    assert found.manifest.um_per_pixel == pytest.approx(0.4)
    small = resample(pixels(0), (0.5, 0.5), "area").astype(float)
    wanted = np.rint(np.minimum(small, 30_000) * 65535 / 30_000)
    np.testing.assert_array_equal(found.images(0), wanted)
    above = sum(int((resample(pixels(i), (0.5, 0.5), "area") > 30_000).sum()) for i in range(2))
    assert any(f"white_point=30000: {above} of 144 values" in note for note in found.notes)
    assert any("resized by 0.5 (area" in note for note in found.notes)
    # Other pixels, another mark: records packed before are not taken for these.
    assert folder.prepare(config(table, resize_factor=0.5, um_per_pixel=0.2), workers=0).source != found.source
    assert folder.prepare(config(table), workers=0).manifest.um_per_pixel is None


def test_options_that_cannot_be(tmp_path):
    with pytest.raises(ConfigError) as caught:
        config("x.csv", resize_factor=0.01, target_um_per_pixel=1.0, white_point=70_000, illumination_images="more.csv")
    for said in ("resize_factor=0.01", "exclude each other", "white_point=70000", "illumination=estimate only"):
        assert said in str(caught.value)
    table = table_of(tmp_path, n=2, dtype="uint8")
    with pytest.raises(DatasetError, match="white_point=10000 lies above"):
        folder.prepare(config(table, white_point=10_000), workers=0)


def test_numbers_of_text_tables(tmp_path):
    for i in range(3):
        save(tmp_path / f"{i}.tif", pixels(i))
    table = rewrite(tmp_path, ["path,dose,site,well", "0.tif,3e-2,1,01", "1.tif,,2,02", "2.tif,10,3,03"])
    found = folder.prepare(config(table, numbers=("dose", "site")), workers=0).manifest.table
    assert found["dose"].dtype == np.float64 and found["site"].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(found["dose"], [0.03, np.nan, 10])
    assert found["well"].tolist() == ["01", "02", "03"]  # text, unless it is said to be a number
    assert folder.prepare(config(table), workers=0).manifest.table["site"].tolist() == ["1", "2", "3"]
    rewrite(tmp_path, ["path,dose", "0.tif,much", "1.tif,1", "2.tif,more"])
    with pytest.raises(DatasetError, match=r"numbers \(2\)") as caught:
        folder.prepare(config(table, numbers=("dose",)), workers=0)
    assert "cells.csv line 2: dose is 'much', not a number" in str(caught.value)
    with pytest.raises(DatasetError, match="no column 'dos'") as caught:
        folder.prepare(config(table, numbers=("dos",)), workers=0)


def more_images(tmp_path):
    """One packed image of two plates each, and a table of all six images."""
    rows = ["path,plate"]
    for i in range(6):
        save(tmp_path / "images" / f"{i}.tif", 20_000 + pixels(i) // 4)
        rows.append(f"images/{i}.tif,P{i % 2}")
    (tmp_path / "more.csv").write_text("\n".join(rows) + "\n")
    return rewrite(tmp_path, rows[:3])


def test_illumination_from_more_images_than_are_packed(tmp_path):
    table = more_images(tmp_path)
    options = {"illumination": "estimate", "illumination_window": 0.01}
    cfg = config(table, illumination_images=str(tmp_path / "more.csv"), **options)
    folder.pack(cfg, tmp_path / "out", workers=0)
    with records.open(tmp_path / "out") as opened:
        assert opened.n == 2
        for plate in range(2):
            # A window of one pixel: the function is the mean of the plate's three images, and its mean is 1.
            own = [20_000 + pixels(i).astype(float) // 4 for i in (plate, plate + 2, plate + 4)]
            mean = np.mean(own, 0)
            wanted = np.rint(own[0] / (mean / mean.mean((0, 1))))
            assert np.abs(opened[plate] - np.minimum(wanted, 65535)).max() <= 1
    with pytest.raises(DatasetError, match="constant images"):  # an image divided by itself
        folder.prepare(config(table, **options), workers=0)


def test_more_images_that_cannot_be_read_are_named(tmp_path):
    table = more_images(tmp_path)
    cfg = config(table, illumination="estimate", illumination_images=str(tmp_path / "more.csv"))
    (tmp_path / "images" / "4.tif").write_bytes(b"II*\0 no")
    (tmp_path / "images" / "5.tif").unlink()
    with pytest.raises(DatasetError) as caught:
        folder.prepare(cfg, workers=0)
    text = str(caught.value)
    assert "missing files of illumination_images" in text and "more.csv line 7" in text
    tifffile.imwrite(tmp_path / "images" / "5.tif", pixels(5).transpose(2, 0, 1), metadata={"axes": "CYX"})
    with pytest.raises(DatasetError, match="unreadable images of illumination_images") as caught:
        folder.prepare(cfg, workers=0)
    assert "more.csv line 6" in str(caught.value)
    dropped = config(table, illumination="estimate", illumination_images=str(tmp_path / "more.csv"), bad_images="drop")
    notes = folder.prepare(dropped, workers=0).notes
    assert any("1 images to estimate illumination from are bad: more.csv line 6" in note for note in notes)
