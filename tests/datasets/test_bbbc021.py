"""BBBC021 from files to records: pixels against a float64 definition, splits, what is missing or left out, the CLI."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import tifffile
from small_bbbc021 import WELLS, lines, write

from protloc_jax.cli.main import main
from protloc_jax.config import ConfigError
from protloc_jax.data import records
from protloc_jax.datasets import simulated
from protloc_jax.datasets.bbbc021 import Bbbc021Config, read_bbbc021
from protloc_jax.datasets.pack_rows import Work, pack_fields
from protloc_jax.datasets.problems import DatasetError
from protloc_jax.datasets.raw_writer import write_raw
from protloc_jax.simulate import SimConfig

QUIET = Work(workers=0)


def files_of(root, rows: list[str]) -> dict[str, np.ndarray]:
    """Field id -> its pixels [H, W, 3] as the files hold them."""
    found = {}
    for row in rows:
        cells = row.split(",")
        site = cells[2].split("_s")[1][0]
        planes = [tifffile.imread(root / cells[at + 1] / cells[at]) for at in (2, 4, 6)]
        found[f"{cells[8]}_{cells[9]}_s{site}"] = np.stack(planes, -1)
    return found


def keys(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def halved(plane: np.ndarray) -> np.ndarray:
    """Half the size by Keys' bicubic kernel over twice its width, taps outside dropped; one axis after the other."""
    for axis in (0, 1):
        n = plane.shape[axis]
        centres = 2 * np.arange(n // 2)[:, None] + 1
        weights = keys((np.arange(n)[None] + 0.5 - centres) / 2)
        plane = np.moveaxis(np.tensordot(weights / weights.sum(1, keepdims=True), plane, (1, axis)), 0, axis)
    return plane


def published(images: list[np.ndarray], image: np.ndarray, white: int = 10_000) -> np.ndarray:
    """What the preparation makes of one image of a plate whose images are all small enough to be one pixel a block."""
    mean = np.mean([one.astype(float) for one in images], 0)
    side = max(1, round(320 / 1024 * min(mean.shape[:2])) // 2 * 2 + 1)
    padded = np.pad(mean, ((side // 2,) * 2, (side // 2,) * 2, (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(0, 1))
    smooth = np.median(windows, axis=(-2, -1))
    function = np.maximum(smooth / np.quantile(smooth, 0.02, axis=(0, 1)), 1)
    even = np.clip(np.rint(image / function.astype(np.float32)), 0, 65535)
    small = np.stack([halved(even[..., c]) for c in range(3)], -1)
    small = np.clip(np.rint(small), 0, 65535)
    return np.rint(np.minimum(small, white) * (65535 / white))


def test_pixels_are_prepared_as_published(tmp_path):
    """The illumination of a plate is that of all its fields, of which one well has no mechanism and is not packed."""
    rows = lines()
    raw = write(tmp_path / "raw", rows)
    seen = files_of(raw, rows)
    pack_fields(read_bbbc021(Bbbc021Config(), raw), raw, tmp_path / "out", {"white_point": 3000}, QUIET)
    with records.open(tmp_path / "out") as opened:
        assert opened.info.dtype == "uint16" and (opened.info.height, opened.info.width) == (8, 12)
        assert opened.manifest.channels.names == ("dna", "tubulin", "actin") and opened.info.um_per_pixel is None
        told = json.loads(opened.info.packing["source"])["prepared"]
        assert (told["white_point"], told["resize_factor"], told["illumination_window"]) == (3000, 0.5, 0.3125)
        checked = 0
        for i, name in enumerate(opened.manifest.ids):
            plate = "_".join(name.split("_")[:2])
            wanted = published([v for k, v in seen.items() if k.startswith(plate)], seen[name], 3000)
            found = opened[i].astype(float)
            # One step of 16 bit before the stretch, where float32 and float64 fall on two sides of a half.
            assert np.abs(found - wanted).max() <= np.ceil(65535 / 3000)
            assert (found == wanted).mean() > 0.99
            checked += 1
        assert checked == opened.n == 18
        assert (opened[3] == 65535).any() and (opened[3] < 65535).any()
    alone = read_bbbc021(Bbbc021Config(illumination_from="packed"), raw)
    assert alone.light_frame is None
    pack_fields(alone, raw, tmp_path / "alone", {"white_point": 3000}, QUIET)
    with records.open(tmp_path / "out") as one, records.open(tmp_path / "alone") as two:
        differ = {n.rsplit("_", 2)[0] for i, n in enumerate(one.manifest.ids) if (one[i] != two[i]).any()}
    assert differ == {"Week4_27481"}  # the plate with a field that is not packed


def test_the_default_white_point_is_the_published_one(tmp_path):
    raw = write(tmp_path / "raw")
    pack_fields(read_bbbc021(Bbbc021Config(rows="all"), raw), raw, tmp_path / "out", {"illumination": "none"}, QUIET)
    rows = files_of(raw, lines())
    with records.open(tmp_path / "out") as opened:
        assert opened.n == 2 * len(WELLS)
        for i, name in enumerate(opened.manifest.ids):
            small = np.rint(np.stack([halved(rows[name][..., c].astype(float)) for c in range(3)], -1))
            # One step of the files where float32 and float64 fall on two sides of a half, and half a step of records.
            most = 1 / 10_000 + 0.5001 / 65535
            assert np.abs(opened[i] / 65535 - np.minimum(small, 10_000) / 10_000).max() <= most


def test_splits_and_the_manifest(tmp_path):
    raw = write(tmp_path / "raw")
    rows = read_bbbc021(Bbbc021Config(dmso_split="test"), raw)
    found = pack_fields(rows, raw, "", None, Work(workers=0, check_only=True)).manifest
    table = found.table.set_index("id")
    assert set(table.loc[table["compound"] == "DMSO", "split"]) == {"test"}
    assert set(table.loc[table["compound"] != "DMSO", "split"]) == {"train"}
    assert found.label_names == (
        "Cholesterol-lowering", "Microtubule destabilizers", "Microtubule stabilizers", "Protein synthesis",
    )  # fmt: skip
    assert found.label_kind == "single" and table["concentration"].dtype == np.float64
    assert table["site"].dtype == table["table_number"].dtype == np.int64
    names = pd.DataFrame(simulated.manifest_of(SimConfig(preset="bbbc021")).table).columns
    assert set(names) | {"table_number", "image_number"} == {"id", *table.columns}
    by = pack_fields(rows, raw, "", {"split_by": "compound"}, Work(workers=0, check_only=True)).manifest.table
    assert by.groupby("compound")["split"].nunique().max() == 1 and set(by["split"]) == {"train", "val", "test"}


def test_missing_and_misnamed_files_are_all_named(tmp_path):
    rows = lines()
    raw = write(tmp_path / "raw", rows)
    cells = rows[2].split(",")
    old = raw / cells[3] / cells[2]
    old.rename(old.with_name("taxol_" + old.name))
    (raw / rows[8].split(",")[5] / rows[8].split(",")[4]).unlink()
    plate = raw / "Week9/Week9_39206"
    for file in plate.iterdir():
        file.unlink()
    (raw / "Week1" / "notes.png").touch()
    with pytest.raises(DatasetError) as caught:
        read_bbbc021(Bbbc021Config(), raw)
    text = str(caught.value)
    assert f"line 4: no file {old.name} in a folder Week1_22123. Did you mean 'taxol_{old.name}'?" in text
    assert f"line 10: no file {rows[8].split(',')[4]} in a folder Week4_27481." in text
    assert "Week9_39206: no folder of that name with images" in text and "(2 fields)" in text
    rows = read_bbbc021(Bbbc021Config(missing="leave_out"), raw)
    assert len(rows.frame) == 18 - 4
    assert ("image", "Week9_39206_E05_s1", "files are missing (nothing of plate Week9_39206)") in rows.left_out
    assert ("annotation", "mevinolin/lovastatin@1.5", "no field") in rows.left_out
    assert ("file", "Week1/notes.png", "no row in the image table") in rows.left_out
    assert "4 image(s) left out: files are missing" in rows.summary()
    for row in lines()[10:12]:  # the well that is not packed, but belongs to its plate's illumination
        (raw / row.split(",")[3] / row.split(",")[2]).unlink()
    rows = read_bbbc021(Bbbc021Config(missing="leave_out"), raw)
    assert any(note.startswith("2 other fields of the plates lack files") for note in rows.notes)
    assert (
        len(rows.frame) == 14
        and len(read_bbbc021(Bbbc021Config(illumination_from="packed", missing="leave_out"), raw).frame) == 14
    )


def test_plate_folders_may_lie_anywhere_but_once(tmp_path):
    raw = write(tmp_path / "raw")
    (raw / "Week1" / "Week1_22123").rename(raw / "Week1_22123")  # as its archive unpacks
    assert len(read_bbbc021(Bbbc021Config(), raw).frame) == 18
    name = lines()[0].split(",")[2]
    (raw / "copy" / "Week1_22123").mkdir(parents=True)
    (raw / "copy" / "Week1_22123" / name).write_bytes(b"")
    with pytest.raises(DatasetError, match="files found twice"):
        read_bbbc021(Bbbc021Config(), raw)


def test_tables_that_are_not_there(tmp_path):
    raw = write(tmp_path / "raw")
    (raw / "BBBC021_v1_moa.csv").rename(tmp_path / "elsewhere.csv")
    with pytest.raises(DatasetError, match="moa_table=FILE"):
        read_bbbc021(Bbbc021Config(), raw)
    assert len(read_bbbc021(Bbbc021Config(moa_table=str(tmp_path / "elsewhere.csv")), raw).frame) == 18
    with pytest.raises(ConfigError, match="rows=anotated: not one of"):
        Bbbc021Config(rows="anotated")  # type: ignore[arg-type]


def test_simulated_raw_files_become_the_simulated_records(tmp_path, capsys):
    config = SimConfig(preset="bbbc021", n_compounds=6, doses=2, replicates=1, sites=1, batches=2, size=48)
    write_raw(config, tmp_path / "raw", workers=0)
    words = ["--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out"), "--quiet", "--workers", "0"]
    assert main(["data", "prepare", "bbbc021", *words, "--illumination", "none", "--folds", "3"]) == 0
    said = capsys.readouterr()
    assert "images of 24 x 24 x 3 uint16" in said.out and "folds, compounds kept whole" in said.out
    assert "treatments of" in said.out and "taxol: 12 of the" in said.out and "DMSO: 12 fields." in said.out
    truth = simulated.manifest_of(config).table.set_index("id")
    with records.open(tmp_path / "out") as opened:
        table = opened.manifest.table.set_index("id")
        assert simulated.config_of(opened.info) == config  # what is synthetic says so
    known = truth[[moa is not None for moa in truth["moa"]]]
    assert set(table.index) == set(known.index) and len(known) < len(truth)
    columns = [c for c in truth.columns if c not in ("split", "source")]
    pd.testing.assert_frame_equal(table[columns].sort_index(), known[columns].sort_index(), check_like=True)
    listed = pd.read_csv(tmp_path / "out" / "treatments.csv")
    assert listed["fields"].sum() == (table["compound"] != "DMSO").sum()
    saved = json.loads((tmp_path / "out" / "prepare.json").read_text())
    assert saved["set"] == "bbbc021" and saved["config"]["illumination_from"] == "packed"
    assert main(["data", "prepare", "bbbc021", *words, "--illumination", "none"]) == 0  # finds that all is done
    assert main(["data", "prepare", "bbbc021", *words[:2], "--check-only", "--quiet", "--workers", "0"]) == 0
    assert "are fit to be packed" in capsys.readouterr().out
