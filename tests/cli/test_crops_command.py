"""`protloc data crops` from the command line: simulated fields and their true labels as files, cut out and checked."""

from __future__ import annotations

import argparse
import csv
import json

import imagecodecs
import numpy as np
import pytest
import tifffile

from protloc_jax import simulate
from protloc_jax.cli import data
from protloc_jax.data import records
from protloc_jax.simulate import SimConfig

CONFIG = SimConfig(preset="opencell", n_proteins=3, fovs_per_protein=1, size=192)


def protloc(*words):
    parser = argparse.ArgumentParser()
    data.add_parser(parser.add_subparsers(dest="command"))
    return data.run(parser.parse_args(["data", *map(str, words)]))


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Three simulated fields, a 16-bit PNG a channel, with the true labels of cells and nuclei as TIFFs."""
    folder = tmp_path_factory.mktemp("fields")
    lines = ["id,label,well"]
    for row in range(3):
        field = simulate.render(CONFIG, row)
        for channel, name in enumerate(CONFIG.domain.channels):
            plane = np.ascontiguousarray(field.image[..., channel])
            (folder / f"f{row}_{name}.png").write_bytes(imagecodecs.png_encode(plane))
        tifffile.imwrite(folder / f"f{row}_cells.tif", field.cell_labels)
        tifffile.imwrite(folder / f"f{row}_nuclei.tif", field.nucleus_labels.astype(np.uint16))
        lines.append(f"f{row},{field.truth['protein']},B0{row}")
    (folder / "fields.csv").write_text("\n".join(lines) + "\n")
    return folder


def words(raw, *more):
    channels = ",".join(CONFIG.domain.channels)
    return [
        "crops", raw / "fields.csv", "--channels", channels, "--pattern", "{id}_{channel}.png", "--um-per-pixel",
        CONFIG.domain.um_per_pixel, "--cells", "{id}_cells.tif", "--workers", 0, "--quiet", *more,
    ]  # fmt: skip


def test_all_true_cells_arrive_with_their_pixels(raw, tmp_path, capsys):
    more = ["--nuclei", "{id}_nuclei.tif", "--side", "8um", "--margin", 0, "--out", tmp_path / "out"]
    assert protloc(*words(raw, *more)) == 0
    fields = [simulate.render(CONFIG, row) for row in range(3)]
    true = sum(len(np.unique(field.cell_labels)) - 1 for field in fields)
    said = capsys.readouterr().out
    assert f"{true} cells found, {true} to cut out of 3 fields." in said
    assert f"{true} cells of 40 x 40 x 2 uint16" in said
    with records.open(tmp_path / "out") as opened:
        table = opened.manifest.table
        assert opened.n == true
        for row in range(true):
            field = fields[int(table["field"][row][1:])]
            cell = int(table["cell"][row])
            assert table["area"][row] == (field.cell_labels == cell).sum()
            own = opened.mask(row) == 1
            top, left = (int(np.floor(table[axis][row] + 0.5)) - 20 for axis in ("row", "column"))
            inside = np.argwhere(own)
            truth = field.cell_labels[top + inside[:, 0], left + inside[:, 1]]
            assert (truth == cell).all()
            np.testing.assert_array_equal(opened[row][own], field.image[top + inside[:, 0], left + inside[:, 1]])
        assert list(table["well"].unique()) == ["B00", "B01", "B02"]
        assert (table["nuclei"] >= 0).all()
        assert {v for labels in table["labels"] for v in labels} == {f.truth["protein"] for f in fields}


def test_saved_options_make_the_same_records(raw, tmp_path, capsys):
    more = ["--box", "scaled", "--out-size", 32, "--max-cells", 1, "--masked", "others", "--min-area", "4um2"]
    assert protloc(*words(raw, *more, "--out", tmp_path / "a")) == 0
    first = capsys.readouterr().out
    assert "left out: nearer to the field's border than margin" in first
    assert "max_cells others of the field were drawn" in first
    saved = json.loads((tmp_path / "a" / "crops.json").read_text())
    assert saved["crops"]["min_area"] == "4um2"
    assert saved["folder"]["pattern"] == "{id}_{channel}.png"
    again = ["crops", "--config", tmp_path / "a" / "crops.json", "--quiet", "--workers", 0]
    assert protloc(*again, "--out", tmp_path / "b") == 0
    assert records.open(tmp_path / "a").info.digest == records.open(tmp_path / "b").info.digest
    assert protloc(*again, "--max-cells", 2, "--margin", 0, "--check-only") == 0
    assert "6 to cut out of 3 fields" in capsys.readouterr().out
    with (tmp_path / "a" / "left_out.csv").open() as file:
        listed = list(csv.DictReader(file))
    found = int(first.split(" cells found")[0])
    assert len([row for row in listed if row["reason"] != "note"]) == found - records.open(tmp_path / "a").n


def test_records_are_cut_and_their_own_options_refused(raw, tmp_path):
    fields = tmp_path / "fields"
    channels = ",".join(CONFIG.domain.channels)
    pack = ["pack", "folder", raw / "fields.csv", "--channels", channels, "--pattern", "{id}_{channel}.png"]
    assert protloc(*pack, "--out", fields, "--workers", 0, "--quiet") == 0
    cut = ["crops", fields, "--cells", "{id}_cells.tif", "--label-root", raw, "--workers", 0, "--quiet"]
    assert protloc(*cut, "--side", 32, "--out", tmp_path / "cells") == 0
    assert records.open(tmp_path / "cells").info.has_mask
    assert json.loads((tmp_path / "cells" / "crops.json").read_text())["records"] == str(fields)
    assert protloc("crops", "--config", tmp_path / "cells" / "crops.json", "--check-only", "--quiet") == 0
    with pytest.raises(ValueError, match=r"holds records.*leave out --channels"):
        protloc(*cut, "--channels", "a,b", "--out", tmp_path / "x")
    with pytest.raises(ValueError, match="side=8um: the pixel size"):
        protloc(*cut, "--side", "8um", "--check-only")


def test_bad_options(raw, tmp_path):
    for more, message in (
        (["--box", "scald"], "Did you mean 'scaled'"),
        (["--max-cells", "x"], "--max-cells x: expected int"),
        (["--side", "8 furlongs"], "is not a length"),
        ([], "--out DIR is needed"),
        (["--segment", "cells", "--check-only"], "exclude each other"),
    ):
        with pytest.raises(ValueError, match=message):
            protloc(*words(raw, *more))
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ValueError, match="not a saved crops"):
        protloc("crops", "--config", tmp_path / "x.json", "--check-only")
    with pytest.raises(ValueError, match="path: give a folder"):
        protloc("crops", "--check-only", "--cells", "x")


def test_the_help_names_every_option(capsys):
    from protloc_jax.config import describe
    from protloc_jax.datasets.crop_config import CropConfig
    from protloc_jax.datasets.watershed import SegmentConfig

    with pytest.raises(SystemExit) as stop:
        protloc("crops", "--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for key, _, _, help_text in [*describe(CropConfig), *describe(SegmentConfig)]:
        assert help_text
        assert f"--{key.replace('_', '-')} " in text
