"""Pixel sizes: images against float64 definitions, masks by nearest neighbour, sizes and factors of data sets."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tifffile
from small_folders import config, pixels, rewrite, save, table_of

from protloc_jax.data import records
from protloc_jax.datasets import folder
from protloc_jax.datasets.problems import DatasetError
from protloc_jax.datasets.resampling import resample, resample_mask, resampled_size, scale_to


def lanczos(x: float) -> float:
    if x == 0:
        return 1.0
    if abs(x) >= 3:
        return 0.0
    return 3 * math.sin(math.pi * x) * math.sin(math.pi * x / 3) / (math.pi * x) ** 2


def bicubic(x: float) -> float:
    x = abs(x)
    return (1.5 * x - 2.5) * x * x + 1 if x < 1 else ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0


def weights(have: int, scale: float, filter: str) -> np.ndarray:
    """[n, have] float64: one output pixel after the other, by the definition of the filter."""
    n = max(1, math.floor(have * scale + 1e-6))
    start = (have - n / scale) / 2
    table = np.zeros((n, have))
    for i in range(n):
        left, right = start + i / scale, start + (i + 1) / scale
        for j in range(have):
            if filter == "area":
                table[i, j] = max(0.0, min(right, j + 1) - max(left, j))
            else:
                kernel = lanczos if filter == "lanczos" else bicubic
                table[i, j] = kernel((j + 0.5 - (left + right) / 2) / max(1.0, 1 / scale))
        table[i] /= table[i].sum()
    return table


@pytest.mark.parametrize("filter", ["lanczos", "bicubic", "area"])
@pytest.mark.parametrize("scale", [(0.5, 0.5), (0.37, 0.8), (1.7, 1.7), (1.0, 0.25), (3.1, 0.3)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_images_agree_with_the_definition(filter, scale, dtype):
    image = pixels(1, side=23, dtype=dtype)[:19]
    rows, columns = (weights(n, s, filter) for n, s in zip(image.shape[:2], scale, strict=True))
    expected = np.einsum("yh,hwc,xw->yxc", rows, image.astype(np.float64), columns)
    expected = np.clip(expected, 0, np.iinfo(dtype).max)
    found = resample(image, scale, filter)
    assert found.dtype == image.dtype
    assert found.shape == expected.shape
    # Half a step of rounding, and float32 where Pillow works (relative 1e-6 of the range).
    assert np.abs(found - expected).max() <= 0.5 + 2e-6 * np.iinfo(dtype).max


def test_reducing_is_antialiased_and_keeps_brightness():
    stripes = np.zeros((64, 64, 1), np.uint16)
    stripes[:, ::2] = 60_000
    for filter in ("lanczos", "area"):
        small = resample(stripes, (0.25, 0.25), filter)[4:-4, 4:-4]
        assert abs(int(small.mean()) - 30_000) < 100
        assert int(small.max()) - int(small.min()) < 3_000


def test_masks_keep_their_labels():
    labels = np.zeros((20, 30), np.uint16)
    labels[3:11, 4:20], labels[12:18, 10:28] = 7, 40_000
    for scale in ((0.5, 0.5), (0.31, 0.77), (2.5, 1.5)):
        found = resample_mask(labels, scale)
        assert found.shape == resampled_size((20, 30), scale)
        assert found.dtype == labels.dtype
        assert set(np.unique(found)) == {0, 7, 40_000}
        n, m = found.shape
        for y in range(n):
            for x in range(m):
                at_y = (20 - n / scale[0]) / 2 + (y + 0.5) / scale[0]
                at_x = (30 - m / scale[1]) / 2 + (x + 0.5) / scale[1]
                assert found[y, x] == labels[int(at_y), int(at_x)]


def test_scales():
    assert scale_to(0.65, (0.325, 0.325)) == (0.5, 0.5)
    assert scale_to(0.3, (0.3001, 0.3)) is None
    assert scale_to(0.2, (0.2, 0.4)) == (1.0, 2.0)
    assert resampled_size((100, 101), (0.3, 0.3)) == (30, 30)
    assert resampled_size((100, 3), (0.1, 0.1)) == (10, 1)
    for side in (0.01, 5.0):
        with pytest.raises(ValueError, match="Are the units right"):
            scale_to(0.65, (side, side))


def ome(path, array, um: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"axes": "CYX", "PhysicalSizeX": um, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": um,
                "PhysicalSizeYUnit": "µm"}  # fmt: skip
    tifffile.imwrite(path, array.transpose(2, 0, 1), ome=True, metadata=metadata, photometric="minisblack")


def test_files_of_different_pixel_sizes_become_one(tmp_path):
    """The same 24 um of a cell, imaged at 1 and at 0.5 um: equal sizes come out, and the records say 1 um."""
    for number, (um, side) in enumerate(((1.0, 24), (0.5, 48))):
        ome(tmp_path / "images" / f"{number}.ome.tif", pixels(number, side=side), um)
    lines = ["path", "images/0.ome.tif", "images/1.ome.tif"]
    table = rewrite(tmp_path, lines)
    mixed = folder.prepare(config(table, sizes="pad"))
    assert mixed.manifest.um_per_pixel is None
    assert any("different pixel sizes (0.5, 1 um)" in note for note in mixed.notes)
    info = folder.pack(config(table, target_um_per_pixel=1.0, resample="area"), tmp_path / "out", workers=0)
    assert (info.height, info.width, info.um_per_pixel) == (24, 24, 1.0)
    with records.open(tmp_path / "out") as opened:
        np.testing.assert_array_equal(opened[0], pixels(0, side=24))
        blocks = pixels(1, side=48).reshape(24, 2, 24, 2, 2).astype(np.float64).mean((1, 3))
        np.testing.assert_array_equal(opened[1], np.rint(blocks))
        assert opened.manifest.table["um_per_pixel_before"].to_list() == ["1", "0.5"]
    found = folder.prepare(config(table, target_um_per_pixel=1.0, check="headers"))
    assert any("images of 0.5, 1 um a pixel are resampled to 1 (lanczos" in note for note in found.notes)
    assert found.images(1).shape == (24, 24, 2)


def test_columns_with_pixel_sizes_also_not_square(tmp_path):
    save(tmp_path / "a.tif", pixels(0, side=20))
    save(tmp_path / "b.tif", pixels(1, side=40)[:, :20])
    labels = np.zeros((40, 20), np.uint8)
    labels[10:30, 5:15] = 1
    save(tmp_path / "b.png", labels)
    save(tmp_path / "a.png", labels[:20])
    table = rewrite(tmp_path, ["path,seg,height_um,width_um", "a.tif,a.png,0.4,0.4", "b.tif,b.png,0.2,0.4"])
    cfg = config(table, pixel_columns=("height_um", "width_um"), target_um_per_pixel=0.8, masks="seg", resample="area")
    found = folder.prepare(cfg)
    assert found.manifest.um_per_pixel == 0.8
    assert found.images(0).shape == found.images(1).shape == (10, 10, 2)
    blocks = pixels(1, side=40)[:, :20].reshape(10, 4, 10, 2, 2).astype(np.float64).mean((1, 3))
    np.testing.assert_array_equal(found.images(1), np.rint(blocks))
    assert found.manifest.table["um_per_pixel_before"].to_list() == ["0.4", "0.2 x 0.4"]
    assert found.masks is not None
    assert found.masks(1).sum() == 5 * 5
    apart = folder.prepare(config(table, pixel_columns=("height_um", "width_um"), sizes="pad"))
    assert apart.manifest.um_per_pixel is None
    one = folder.prepare(config(table, pixel_columns=("height_um", "width_um"), where=("path=b.tif",)))
    assert any("pixels are not square (0.2 x 0.4 um)" in note for note in one.notes)


def test_pixel_sizes_that_cannot_be(tmp_path):
    table = table_of(tmp_path, 3)
    with pytest.raises(DatasetError) as caught:
        folder.prepare(config(table, target_um_per_pixel=0.5))
    assert "pixel sizes (3)" in str(caught.value)
    assert "cells.csv line 2: no pixel size is stated" in str(caught.value)
    with pytest.raises(DatasetError, match=r"pixels of 650 um would be resampled to 0\.65 um, a factor of 1e"):
        folder.prepare(config(table, um_per_pixel=650.0, target_um_per_pixel=0.65))
    rewrite(tmp_path, ["path,um", "images/0.tif,0.5", "images/1.tif,wide", "images/2.tif,-1"])
    with pytest.raises(DatasetError) as caught:
        folder.prepare(config(table, pixel_columns=("um",), target_um_per_pixel=0.5))
    assert "cells.csv line 3: 'wide' is no positive number" in str(caught.value)
    assert "cells.csv line 4: '-1'" in str(caught.value)
    with pytest.raises(DatasetError, match="Did you mean 'um'"):
        folder.prepare(config(table, pixel_columns=("umm",)))
    with pytest.raises(ValueError, match="target_um_per_pixel"):
        config(table, target_um_per_pixel=-1.0)


def test_another_target_is_another_packing(tmp_path):
    table = table_of(tmp_path / "raw", 3)
    folder.pack(config(table, um_per_pixel=0.5, target_um_per_pixel=1.0), tmp_path / "out", workers=0)
    folder.pack(config(table, um_per_pixel=0.5, target_um_per_pixel=1.0), tmp_path / "out", workers=0)
    with pytest.raises(ValueError, match="source"):
        folder.pack(
            config(table, um_per_pixel=0.5, target_um_per_pixel=1.0, resample="area"), tmp_path / "out", workers=0
        )
