"""Bombs of about a megabyte: refused in well under a second, by next to no memory, measured from outside."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from small_zarr import multiscales, put_attributes, raw_v2, raw_v3
from test_bad_files import jpeg_claim, png_bytes, tiff_bytes, write

HERE = Path(__file__).parent
LIMIT_BYTES = 2 * 2**28  # the default limit: 2**28 values of 16 bit
BYTES = {"name": "bytes", "configuration": {"endian": "little"}}


def zeros(count: int, wbits: int = 15) -> bytes:
    """A deflate stream of `count` zero bytes, about a thousandth as long."""
    packer, block = zlib.compressobj(9, wbits=wbits), bytes(2**20)
    parts = [packer.compress(block[: min(2**20, count - done)]) for done in range(0, count, 2**20)]
    return b"".join([*parts, packer.flush()])


def measure(paths) -> dict[str, dict]:
    done = subprocess.run(
        [sys.executable, str(HERE / "hostile_worker.py"), *map(str, paths)],
        env={**os.environ, "PYTHONPATH": str(HERE.parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {Path(path).name: row for path, row in json.loads(done.stdout).items()}


def bombs(folder: Path) -> list[Path]:
    """Files and stores that claim gigabytes, or unpack to far more than they claim."""
    strip = zlib.compress(bytes(2**27))
    tenfold = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
    ome = f'<?xml version="1.0"?><!DOCTYPE b [<!ENTITY a0 "0123456789">{tenfold}]><OME>&a9;</OME>'
    tifffile.imwrite(folder / "entities.ome.tif", np.zeros((8, 8), np.uint8), description=ome, metadata=None)
    inflating = gzip.compress(bytes(2**27), 9)
    made = [
        write(folder / "claim.png", png_bytes(30_000, 30_000, zlib.compress(bytes(2**20)))),
        write(folder / "claim.tif", tiff_bytes(20_000, 20_000, strip, compression=8)),
        write(folder / "claim.jpg", jpeg_claim(65_535, 65_535)),
        write(folder / "inflates.tif", tiff_bytes(64, 64, strip, compression=8)),
        write(folder / "excess.png", png_bytes(64, 64, strip)),
        folder / "entities.ome.tif",
        raw_v2(folder / "claim2.zarr", b"x", shape=(2**20, 2**20), chunks=(64, 64)),
        raw_v2(folder / "chunk2.zarr", b"x", chunks=(2**20, 2**20)),
        raw_v3(folder / "claim3.zarr", b"x", [BYTES], shape=(2**40, 1)),
        raw_v3(folder / "chunk3.zarr", b"x", [BYTES], chunks=(2**40, 1)),
        raw_v2(folder / "inflates.zarr", inflating, shape=(512, 512), chunks=(512, 512), compressor={"id": "gzip"}),
    ]
    put_attributes(folder / "json.zarr", "0.4", multiscales=[multiscales("yx", "0.4")])
    (folder / "json.zarr" / ".zattrs").write_text("[" * 2**20)
    return [*made, folder / "json.zarr"]


def check(found: dict[str, dict]) -> None:
    for name, row in found.items():
        # libpng stops at the last pixel; what follows is never unpacked.
        assert name in row["error"] or name == "excess.png", (name, row)
        assert row["seconds"] < 1, (name, row)
        assert row["bytes"] < LIMIT_BYTES / 16, (name, row)


def test_bombs_cost_neither_time_nor_memory(tmp_path):
    found = measure(bombs(tmp_path))
    assert len(found) == 12
    check(found)
    assert {name for name in found if name.startswith("claim")} == {
        name for name, row in found.items() if "the header claims" in row["error"] and name[:5] != "chunk"
    }


def test_the_measure_sees_what_a_decoder_takes(tmp_path):
    """A file within the limit is decoded, and its pixels show up in the numbers: the measure is not blind."""
    side = 6000
    strip = zeros(2 * side**2)
    assert len(strip) < 100_000
    row = measure([write(tmp_path / "good.tif", tiff_bytes(side, side, strip, compression=8))])["good.tif"]
    assert row["error"] == ""
    assert row["bytes"] >= 2 * side**2


@pytest.mark.slow
def test_complete_bombs_of_a_megabyte(tmp_path):
    """The same claims with all their pixels there, so that a decoder would not stumble over missing data."""
    png = png_bytes(30_000, 30_000, zeros(30_000 * 30_001))
    tif = tiff_bytes(20_000, 20_000, zeros(2 * 20_000**2), compression=8)
    for data in (png, tif):
        assert 0.7e6 < len(data) < 1.1e6
    check(measure([write(tmp_path / "a.png", png), write(tmp_path / "a.tif", tif)]))
    assert imagecodecs.zlib_decode(zeros(1000)) == bytes(1000)
