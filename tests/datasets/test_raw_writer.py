"""Writing raw layouts: the pixels of the simulation in the real set's files, whole or absent, resumable."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from protloc_jax.cli.main import main
from protloc_jax.config import ConfigError
from protloc_jax.data import records
from protloc_jax.datasets.raw_writer import write_raw
from protloc_jax.simulate import SimConfig, catalogue, render
from protloc_jax.simulate.raw_layouts import LAYOUTS

TINY = {
    "hpa_fov": {"n_proteins": 3, "fovs_per_protein": 1, "size": 64},
    "hpa_sc": {"n_proteins": 2, "fovs_per_protein": 1, "size": 192},
    "opencell": {"n_proteins": 3, "fovs_per_protein": 1, "size": 64},
    "yeast": {"n_proteins": 2, "fovs_per_protein": 1, "size": 96},
    "bbbc021": {"n_compounds": 1, "doses": 1, "replicates": 1, "sites": 1, "batches": 1, "size": 48},
    "rxrx1": {"n_compounds": 4, "batches": 1, "sites": 1, "cell_lines": ("HUVEC",), "size": 48},
    "rxrx19a": {"n_compounds": 1, "doses": 1, "replicates": 1, "batches": 1, "cell_lines": ("VERO",), "size": 48},
}


@pytest.mark.parametrize("preset", list(LAYOUTS))
def test_files_hold_the_rendered_pixels(preset, tmp_path):
    config = SimConfig(preset=preset, **TINY[preset])
    done = write_raw(config, tmp_path, workers=0)
    table = catalogue(config)
    assert done.images == len(table) and done.kept == 0
    assert all((tmp_path / name).stat().st_size > 0 for name in (*done.tables, "truth.csv", "SYNTHETIC.txt"))
    depth = np.uint8 if config.domain.bit_depth == 8 else np.uint16
    for position in (0, len(table) - 1):
        field, row = render(config, position), table.iloc[position].to_dict()
        for file in LAYOUTS[preset].files(config, row):
            path = tmp_path / file.path
            found = np.asarray(Image.open(path)) if file.kind == "png" else tifffile.imread(path)
            if not file.channels:
                np.testing.assert_array_equal(found == 255, field.cell_labels == row["cell"])
                assert set(np.unique(found)) == {0, 255}
                continue
            assert found.dtype == depth
            planes = found[None] if found.ndim == 2 else (np.moveaxis(found, -1, 0) if file.kind == "png" else found)
            np.testing.assert_array_equal(planes, np.moveaxis(field.image[..., list(file.channels)], -1, 0))


def test_a_second_run_makes_only_what_is_missing(tmp_path):
    config = SimConfig(preset="opencell", **TINY["opencell"])
    write_raw(config, tmp_path, truth_masks=True, workers=0)
    files = sorted(tmp_path.rglob("*.tif"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    files[1].unlink()
    (tmp_path / "all-public-targets.csv").unlink()
    (files[1].parent / "half.tif.tmp").write_bytes(b"II*")
    stamp = files[0].stat().st_mtime_ns
    done = write_raw(config, tmp_path, truth_masks=True, workers=0)
    assert (done.images, done.files, done.kept) == (3, 9, 6)
    assert files[0].stat().st_mtime_ns == stamp
    assert {path: path.read_bytes() for path in before} == before


def test_masks_of_the_truth_are_label_images(tmp_path):
    config = SimConfig(preset="opencell", **TINY["opencell"])
    write_raw(config, tmp_path, truth_masks=True, workers=0)
    name, field = catalogue(config)["id"][0], render(config, 0)
    for what, labels in (("nuclei", field.nucleus_labels), ("cells", field.cell_labels)):
        found = np.asarray(Image.open(tmp_path / "truth_masks" / f"{name}_{what}.png"))
        np.testing.assert_array_equal(found, labels)


def test_a_folder_with_something_else_is_refused(tmp_path):
    config = SimConfig(preset="opencell", **TINY["opencell"])
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(ConfigError, match=r"is not empty and holds no simulated\.json"):
        write_raw(config, tmp_path, workers=0)
    (tmp_path / "mine.txt").unlink()
    (tmp_path / "simulated.json").write_text(json.dumps({"preset": "yeast"}))
    with pytest.raises(ConfigError, match="of another configuration"):
        write_raw(config, tmp_path, workers=0)


def test_raw_files_pack_to_the_same_records(tmp_path, capsys):
    """Both layouts by the commands; the raw one goes through the folder data set, as real files would."""
    size = ["--n-proteins", "6", "--fovs-per-protein", "1", "--size", "64", "--workers", "0", "--quiet"]
    direct, raw, packed = (str(tmp_path / name) for name in ("direct", "raw", "packed"))
    assert main(["data", "simulate", "hpa_fov", *size, "--out", direct]) == 0
    assert main(["data", "simulate", "hpa_fov", *size, "--layout", "raw", "--out", raw]) == 0
    assert "6 synthetic images in 24 files, with train.csv, whole_images.csv" in capsys.readouterr().out
    table = pd.read_csv(f"{raw}/train.csv", dtype=str)
    table["Target"] = table["Target"].str.replace(" ", ";")
    table.to_csv(f"{raw}/labels.csv", index=False)
    options = ["--pattern", "train/{Id}_{channel}.png", "--id-column", "Id", "--labels", "Target", "--quiet"]
    names = ["--channels", "red:microtubules,green:protein,blue:nucleus,yellow:er"]
    assert main(["data", "pack", "folder", f"{raw}/labels.csv", *names, *options, "--out", packed]) == 0
    first, second = records.open(direct), records.open(packed)
    assert second.info.n == first.info.n == 6
    for number in range(6):
        np.testing.assert_array_equal(first[number], second[number])


def test_options_of_records_are_refused(tmp_path):
    command = ["data", "simulate", "opencell", "--layout", "raw", "--out", str(tmp_path), "--shard-size", "4"]
    assert main(command) != 0
