"""Every kind of damage to a file, met in a data set: strict packing stops and names file and row, `drop` lists them."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from small_folders import config, pixels, rewrite

from protloc_jax.data import records
from protloc_jax.datasets import folder
from protloc_jax.datasets.problems import DatasetError

sys.path.append(str(Path(__file__).parent.parent / "images"))
from small_zarr import write_image

GREY = "gfp:protein"


def good(number: int) -> np.ndarray:
    return pixels(number, channels=1, side=32)[..., 0]


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def damaged_files(root: Path) -> dict[str, str]:
    """{file name: what the message must say}."""
    png = imagecodecs.png_encode(good(0))
    (root / "cut.png").write_bytes(png[: len(png) // 2])
    (root / "head.png").write_bytes(png[:20])
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 255
    (root / "flipped.png").write_bytes(flipped)
    (root / "zero.png").write_bytes(b"")
    (root / "nulls.png").write_bytes(bytes(500))
    (root / "text.tif").write_text("<html>404 not found</html>")
    (root / "colours.png").write_bytes(imagecodecs.png_encode(pixels(0, channels=3, side=32, dtype="uint8")))
    for name, options in (("cut.tif", {}), ("cut_zlib.tif", {"compression": "zlib"})):
        tifffile.imwrite(root / name, good(1), **options)
        cut(root / name, 0.6)
    tifffile.imwrite(root / "cut.ome.tif", good(2), metadata={"axes": "YX"})
    cut(root / "cut.ome.tif", 0.9)
    tifffile.imwrite(root / "float.tif", good(3).astype(np.float32))
    (root / "cut.jpg").write_bytes(imagecodecs.jpeg_encode(good(4).astype(np.uint8))[:-40])
    write_image(root / "cut.zarr", good(5), "yx", chunks=(32, 32))
    cut(root / "cut.zarr" / "0" / "0.0", 0.5)
    write_image(root / "hole.zarr", good(6), "yx", "0.5", chunks=(32, 32))
    (root / "hole.zarr" / "0" / "c" / "0" / "0").unlink()
    return {
        "cut.png": "truncated or damaged PNG",
        "head.png": "damaged PNG",
        "flipped.png": "truncated or damaged PNG",
        "zero.png": "empty file (0 bytes)",
        "nulls.png": "not a PNG, JPEG or TIFF image",
        "text.tif": "not a PNG, JPEG or TIFF image",
        "cut.tif": "truncated TIFF",
        "cut_zlib.tif": "truncated TIFF",
        "cut.ome.tif": "truncated TIFF",
        "float.tif": "float32 pixels",
        "cut.jpg": "truncated JPEG",
        "cut.zarr": "damaged chunk",
        "hole.zarr": "missing chunk",
        "gone.png": "no file 'gone.png'",
    }


@pytest.fixture
def damaged(tmp_path):
    """A table whose first 20 rows are good and the rest damaged, each in its own way."""
    for i in range(20):
        (tmp_path / f"good{i}.png").write_bytes(imagecodecs.png_encode(good(i)))
    bad = damaged_files(tmp_path)
    return rewrite(tmp_path, ["path", *(f"good{i}.png" for i in range(20)), *bad]), bad


def test_strict_packing_names_file_and_row(damaged, tmp_path):
    table, bad = damaged
    for name, words in bad.items():
        rewrite(tmp_path, ["path", "good0.png", "good1.png", name])
        with pytest.raises(DatasetError) as caught:
            folder.pack(config(table, GREY), tmp_path / "out")
        text = str(caught.value)
        assert "cells.csv line 4: " in text, name
        assert name in text
        assert words in text, text
        assert "1 problem." in text
    assert not (tmp_path / "out").exists()


def test_dropped_files_are_listed_and_the_others_keep_their_order(damaged, tmp_path):
    table, bad = damaged
    lines = table.read_text().splitlines()
    mixed = [lines[0], *(line for pair in zip(lines[1:15], lines[21:35], strict=True) for line in pair), *lines[15:21]]
    rewrite(tmp_path, mixed)
    info = folder.pack(config(table, GREY, bad_images="drop", max_dropped=0.5), tmp_path / "out", workers=0)
    assert info.n == 20
    with records.open(tmp_path / "out") as opened:
        for i in range(20):
            np.testing.assert_array_equal(opened[i][..., 0], good(i))
    with (tmp_path / "out" / "skipped.csv").open() as file:
        rows = list(csv.reader(file))[1:]
    assert [row for row, _ in rows] == [f"cells.csv line {number}" for number in range(3, 31, 2)]
    for (_, reason), (name, words) in zip(rows, bad.items(), strict=True):
        assert name in reason
        assert words in reason


def test_a_colour_file_where_one_channel_is_named(damaged, tmp_path):
    table, _ = damaged
    rewrite(tmp_path, ["path", "good0.png", "good1.png", "colours.png"])
    with pytest.raises(DatasetError) as caught:
        folder.prepare(config(table, GREY))
    text = str(caught.value)
    assert "cells.csv line 4" in text
    assert "colours.png has 3 where 1 are named (gfp)" in text
    assert "colours.png is uint8 where 2 are uint16" in text
