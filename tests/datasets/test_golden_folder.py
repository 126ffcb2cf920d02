"""A committed folder of ten tiny files: what packing it gives must never change without being noticed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from small_folders import config

from protloc_jax.data import records
from protloc_jax.data.write import content_digest
from protloc_jax.datasets import folder

GOLDEN = Path(__file__).parent.parent / "golden" / "tiny_folder"


def plane(row: int, channel: int) -> np.ndarray:
    """The formula that the files were written with."""
    y, x = np.mgrid[:8, :6]
    return ((row * 9973 + channel * 4001 + y * 257 + x * 31) % 65536).astype(np.uint16)


def test_the_golden_folder(tmp_path):
    names = ("nucleus", "protein")
    found = folder.prepare(config(GOLDEN / "images", ",".join(names), pattern="{id}_{channel}"))
    assert found.manifest.ids == ("a1", "a2", "b1", "b2", "c1")
    table = (GOLDEN / "images.csv").read_text().splitlines()
    lines = [f"{line},{_files(line)}" for line in table[1:]]
    (tmp_path / "t.csv").write_text("\n".join([table[0] + ",path_nucleus,path_protein", *lines]) + "\n")
    info = folder.pack(
        config(tmp_path / "t.csv", ",".join(names), root=str(GOLDEN), name="tiny", um_per_pixel=0.1),
        tmp_path / "out",
        workers=0,
    )
    with records.open(tmp_path / "out") as opened:
        for row in range(5):
            np.testing.assert_array_equal(opened[row], np.stack([plane(row, c) for c in range(2)], -1))
        manifest = opened.manifest
    expected = json.loads((GOLDEN / "expected.json").read_text())
    assert manifest.table.drop(columns="labels").to_dict("list") == expected["columns"]
    assert [list(v) for v in manifest.table["labels"]] == expected["labels"]
    assert manifest.multi_hot().astype(int).tolist() == expected["multi_hot"]
    assert content_digest(manifest) == expected["content_digest"]
    assert {name: {k: round(v, 6) for k, v in own.items()} for name, own in info.intensity.items()} == expected[
        "intensity"
    ]


def _files(line: str) -> str:
    name = line.split(",")[0]
    suffix = "png" if (GOLDEN / "images" / f"{name}_nucleus.png").exists() else "tif"
    return f"images/{name}_nucleus.{suffix},images/{name}_protein.{suffix}"
