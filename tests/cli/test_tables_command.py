"""`protloc data pack folder` on a plate as screens keep it: load_data.csv, plate map, pixel size, illumination."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest
import tifffile

from protloc_jax.cli import data
from protloc_jax.data import records


def protloc(*words):
    """Parse and run `data ...` in this process."""
    parser = argparse.ArgumentParser()
    data.add_parser(parser.add_subparsers(dest="command"))
    return data.run(parser.parse_args(["data", *map(str, words)]))


@pytest.fixture
def plate(tmp_path):
    rng = np.random.default_rng(0)
    lines = [
        "FileName_OrigDNA,PathName_OrigDNA,FileName_OrigER,PathName_OrigER,Metadata_Plate,Metadata_Well,Metadata_Site"
    ]
    for well in ("A01", "A02", "B01"):
        for site in (1, 2):
            names = []
            for channel in ("dna", "er"):
                names.append(f"{well}_{site}_{channel}.tif")
                (tmp_path / "images").mkdir(exist_ok=True)
                tifffile.imwrite(tmp_path / "images" / names[-1], rng.integers(100, 900, (32, 32)).astype(np.uint16))
            lines.append(f"{names[0]},/far/away/images,{names[1]},/far/away/images,BR1,{well},{site}")
    (tmp_path / "load_data.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "map.txt").write_text(
        "well_position\tcompound\tmoa\na1\tDMSO\tcontrol\nA2\ttaxol\ttubulin\nb1\tDMSO\tcontrol\n"
    )
    return tmp_path


def test_a_plate_with_everything(plate, capsys):
    words = ["pack", "folder", plate / "load_data.csv", "--channels", "dna,er", "--path-prefix", "/far/away"]
    words += ["--root", plate, "--plate-map", plate / "map.txt", "--labels", "moa", "--um-per-pixel", "0.3"]
    words += ["--target-um-per-pixel", "0.6", "--resample", "area", "--illumination", "estimate"]
    assert protloc(*words, "--out", plate / "out", "--workers", 0, "--quiet") == 0
    shown = capsys.readouterr()
    assert "6 records of 16 x 16 x 2 uint16" in shown.out
    for note in ("layout=load_data", "resampled to 0.6", "illumination functions of 1 plate(s)", "saturated 0 of"):
        assert note in shown.err, shown.err
    with records.open(plate / "out") as opened:
        assert opened.info.um_per_pixel == 0.6
        assert opened.info.group_columns == ("plate", "well", "site", "compound", "moa")
        assert opened.manifest.ids[2] == "BR1_A02_1"
        assert opened.manifest.table["labels"].to_list()[1:3] == [("control",), ("tubulin",)]
    saved = json.loads((plate / "out" / "folder.json").read_text())
    assert saved["path_prefix"] == ["/far/away"]
    assert protloc("pack", "folder", "--config", plate / "out" / "folder.json", "--out", plate / "out", "--quiet") == 0


def test_channels_and_columns_that_are_not_there(plate, tmp_path):
    words = ["pack", "folder", plate / "load_data.csv", "--check-only", "--quiet", "--channels"]
    with pytest.raises(ValueError, match=r"'dnaa'. Did you mean 'dna'"):
        protloc(*words, "dnaa")
    with pytest.raises(ValueError, match=r"layout=loaddata: not one of .* Did you mean 'load_data'"):
        protloc(*words, "dna", "--layout", "loaddata")
    with pytest.raises(ValueError, match=r"no column 'wll'\. Did you mean 'well'"):
        protloc(*words, "dna", "--plate-map", plate / "map.txt", "--well-column", "wll")


@pytest.mark.parametrize("job", [["pack", "folder", "x.csv", "--channels", "a"], ["simulate", "opencell"]])
def test_records_are_not_written_to_an_object_store(job):
    with pytest.raises(ValueError, match=r"'s3://bucket/records' is an address, and records are written to local"):
        protloc(*job, "--out", "s3://bucket/records")
