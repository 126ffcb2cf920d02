"""One image of another kind than the rest of a folder: an error with file and row, or a counted skip."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from small_folders import config, pixels, rewrite, save, table_of

from protloc_jax.data import records
from protloc_jax.datasets import folder
from protloc_jax.datasets.problems import DatasetError

N, BAD = 10, 4


def half_deep(path: Path) -> None:
    """One of two channel files of an image is of another depth."""
    save(path, pixels(BAD, 1, dtype="uint8")[..., 0])


TIFF: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda p: p.unlink(), "no file"),
    "more channels": (lambda p: save(p, pixels(BAD, 3)), "has 3 where 2 are named"),
    "fewer channels": (lambda p: save(p, pixels(BAD, 1)), "has 1 where 2 are named"),
    "another bit depth": (lambda p: save(p, pixels(BAD, dtype="uint8")), "is uint8 where 9 are uint16"),
    "another size": (lambda p: save(p, pixels(BAD, side=9)), "is 9 x 9, 9 are 12 x 12"),
    "all black": (lambda p: save(p, np.zeros((12, 12, 2), np.uint16)), "one value everywhere"),
}
PNG: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda p: p.unlink(), "no file"),
    "colour": (
        lambda p: p.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels(BAD, 3, dtype="uint8")))),
        "3 channels in the file of channel 'rfp'",
    ),
    "another size": (lambda p: save(p, pixels(BAD, 1, side=9)[..., 0]), "9 x 9"),
    "another bit depth": (half_deep, "different bit depths"),
}
CASES = [pytest.param("tiff", *TIFF[kind], id=f"tiff: {kind}") for kind in TIFF]
CASES += [pytest.param("png", *PNG[kind], id=f"png: {kind}") for kind in PNG]


def made(root: Path, form: str) -> tuple[Path, Path]:
    """(table, the file of row BAD that will be damaged)."""
    if form == "tiff":
        return table_of(root, N), root / "images" / f"{BAD}.tif"
    lines = ["path_gfp,path_rfp"]
    for i in range(N):
        for name, plane in zip(("gfp", "rfp"), pixels(i).transpose(2, 0, 1), strict=True):
            save(root / "images" / f"{i}_{name}.png", plane)
        lines.append(f"images/{i}_gfp.png,images/{i}_rfp.png")
    return rewrite(root, lines), root / "images" / f"{BAD}_rfp.png"


@pytest.mark.parametrize(("form", "damage", "message"), CASES)
def test_one_bad_file_is_an_error_or_a_counted_skip(tmp_path: Path, form: str, damage, message: str) -> None:
    table, path = made(tmp_path / "raw", form)
    damage(path)
    with pytest.raises(DatasetError) as caught:
        folder.prepare(config(table))
    text = str(caught.value)
    assert "cells.csv line 6" in text and message in text
    assert f"{BAD}.tif" in text or f"{BAD}_rfp.png" in text or f"{BAD}_gfp.png" in text
    with pytest.raises(DatasetError, match=r"1 of 10 images are bad, more than max_dropped=0.001"):
        folder.prepare(config(table, bad_images="drop"))
    out = tmp_path / "out"
    info = folder.pack(config(table, bad_images="drop", max_dropped=0.1), out, workers=0)
    assert info.n == N - 1
    with (out / "skipped.csv").open() as file:
        rows = list(csv.reader(file))
    assert len(rows) == 2 and rows[1][0] == "cells.csv line 6" and message in rows[1][1]
    with records.open(out) as found:
        kept = [i for i in range(N) if i != BAD]
        np.testing.assert_array_equal(np.stack([found[i] for i in range(N - 1)]), np.stack([pixels(i) for i in kept]))


def test_half_of_another_kind_is_no_skip(tmp_path: Path) -> None:
    """What most images are counts as meant only while the others are few."""
    table = table_of(tmp_path, N)
    for i in range(5):
        save(tmp_path / "images" / f"{i}.tif", pixels(i, side=9))
    with pytest.raises(DatasetError, match=r"5 of 10 images are bad, more than max_dropped=0.1"):
        folder.prepare(config(table, bad_images="drop", max_dropped=0.1))
