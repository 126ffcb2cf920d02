"""`protloc data` from the command line: packing, the exit status of verify, what show prints and draws, bad options."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from protloc_jax.cli import data
from protloc_jax.data import records


def protloc(*words):
    """Parse and run `data ...` in this process."""
    parser = argparse.ArgumentParser()
    data.add_parser(parser.add_subparsers(dest="command"))
    args = parser.parse_args(["data", *map(str, words)])
    return data.run(args)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Twelve two-channel images in four fields."""
    folder = tmp_path_factory.mktemp("raw")
    rng = np.random.default_rng(0)
    lines = ["path,localization,field"]
    for i in range(12):
        array = rng.integers(0, 4096, (2, 16, 16)).astype(np.uint16)
        tifffile.imwrite(folder / f"{i}.tif", array, photometric="minisblack", metadata={"axes": "CYX"})
        lines.append(f"{i}.tif,{('er', 'golgi')[i % 2]},[f{i // 3}]")
    (folder / "cells.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def packed(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("records") / "mine"
    words = ["pack", "folder", raw / "cells.csv", "--channels", "gfp:protein,rfp:cytosol", "--labels", "localization"]
    words += ["--split-by", "field", "--split-fractions", ".5,.25,.25", "--um-per-pixel", "0.2", "--shard-size", 5]
    assert protloc(*words, "--out", out, "--workers", 0, "--quiet") == 0
    return out


def test_pack_writes_records_and_the_resolved_options(packed, raw):
    with records.open(packed) as opened:
        assert opened.n == 12
        assert opened.info.um_per_pixel == 0.2
        assert len(opened.info.shards) == 3
        assert set(opened.manifest.table["split"]) == {"train", "val", "test"}
        stored = tifffile.imread(raw / "7.tif")
        np.testing.assert_array_equal(opened[7], stored.transpose(1, 2, 0))
    saved = json.loads((packed / "folder.json").read_text())
    assert saved["split_by"] == "field"
    assert saved["split_fractions"] == [0.5, 0.25, 0.25]


def test_saved_options_make_the_same_records_and_can_be_changed(packed, tmp_path):
    words = ["pack", "folder", "--config", packed / "folder.json", "--workers", 0, "--quiet", "--shard-size", 5]
    assert protloc(*words, "--out", tmp_path / "a") == 0
    assert records.open(tmp_path / "a").info.digest == records.open(packed).info.digest
    assert protloc(*words, "--out", tmp_path / "b", "--split-seed", 1, "--name", "other") == 0
    assert records.open(tmp_path / "b").info.name == "other"


def test_check_only_writes_nothing(raw, tmp_path, capsys):
    words = ["pack", "folder", raw, "--channels", "gfp,rfp", "--check-only", "--quiet"]
    assert protloc(*words, "--out", tmp_path / "x") == 0
    assert not (tmp_path / "x").exists()
    shown = capsys.readouterr()
    assert "12 images are fit to be packed" in shown.out
    assert "the records have no labels" in shown.err
    with pytest.raises(ValueError, match="--out DIR is needed"):
        protloc("pack", "folder", raw, "--channels", "gfp,rfp")


def test_verify_says_which_shard_and_record_is_damaged(packed, tmp_path, capsys):
    assert protloc("verify", packed, "--quiet") == 0
    assert "every digest agrees" in capsys.readouterr().out
    words = ["pack", "folder", "--config", packed / "folder.json", "--workers", 0, "--quiet", "--shard-size", 5]
    protloc(*words, "--out", tmp_path / "bad")
    shard = sorted((tmp_path / "bad").glob("*.array_record"))[1]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)
    capsys.readouterr()
    assert protloc("verify", packed, tmp_path / "bad", "--quiet") == 1
    assert f"{shard.name}" in capsys.readouterr().out


def test_show_prints_counts_and_draws_a_sheet(packed, tmp_path, capsys):
    assert protloc("show", packed, "--png", tmp_path / "sheet.png", "--rows", 3, "--tile", 40) == 0
    text = capsys.readouterr().out
    for part in ("12 records, 16 x 16, uint16, 0.2 um a pixel", "gfp (protein)", "golgi", "images", "field", "p999"):
        assert part in text, text
    assert "SYNTHETIC" not in text
    with Pillow.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    assert sheet.size[0] == 3 * 44 + 4
    assert pixels.std() > 10
    assert protloc("show", packed, "--png", tmp_path / "two.png", "--stretch", "image", "--split", "val") == 0
    with pytest.raises(ValueError, match="Did you mean 'val'"):
        protloc("show", packed, "--png", tmp_path / "no.png", "--split", "vla")


def test_simulated_cells_by_both_names(tmp_path, capsys):
    size = ["--n-proteins", 3, "--fovs-per-protein", 1, "--size", 32, "--workers", 0, "--quiet"]
    assert protloc("simulate", "opencell", "--difficulty", "easy", *size, "--out", tmp_path / "a") == 0
    assert (
        protloc("pack", "simulated", "--preset", "opencell", "--difficulty", "easy", *size, "--out", tmp_path / "b")
        == 0
    )
    assert records.open(tmp_path / "a").info.digest == records.open(tmp_path / "b").info.digest
    assert json.loads((tmp_path / "a" / "simulated.json").read_text())["difficulty"] == "easy"
    capsys.readouterr()
    assert protloc("show", tmp_path / "a") == 0
    assert "SYNTHETIC IMAGES" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sizes", "crp"], "sizes=crp: not one of .* Did you mean 'crop'"),
        (["--split-seed", "x"], "--split-seed x: expected int"),
        (["--size", "a"], "--size a: expected"),
        (["--split-by", "feild"], "no column 'feild' .* Did you mean 'field'"),
        (["--files", "gpf=a"], "Did you mean 'gfp'"),
    ],
)
def test_bad_options_name_the_nearest(raw, tmp_path, words, message):
    with pytest.raises(ValueError, match=message):
        protloc(
            "pack", "folder", raw / "cells.csv", "--channels", "gfp,rfp", "--out", tmp_path / "x", "--quiet", *words
        )


@pytest.mark.parametrize(
    "words",
    [[], ["pack"], ["pack", "folder"], ["pack", "simulated"], ["simulate"], ["cell-free"], ["verify"], ["show"]],
)
def test_help_of_every_job(words, capsys):
    with pytest.raises(SystemExit) as stop:
        protloc(*words, "--help")
    assert stop.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_every_option_of_the_folder_has_a_help_text(capsys):
    with pytest.raises(SystemExit):
        protloc("pack", "folder", "--help")
    text = capsys.readouterr().out
    from protloc_jax.config import describe
    from protloc_jax.datasets.folder_config import FolderConfig

    for key, _, _, help_text in describe(FolderConfig):
        assert help_text, key
        assert key == "path" or f"--{key.replace('_', '-')}" in text


def test_the_data_commands_leave_jax_unloaded(packed):
    code = (
        "import sys\nfrom protloc_jax.cli.main import main\n"
        f"status = main(['data', 'show', {str(packed)!r}])\n"
        "loaded = sorted(m for m in sys.modules if m == 'jax' or m.startswith('jax.'))\n"
        "sys.exit(status or (f'loaded {loaded[:3]}' if loaded else 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_clear_message_and_no_traceback_from_the_program(tmp_path):
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(np.zeros((4, 4), np.uint8)))
    words = ["data", "pack", "folder", str(tmp_path), "--channels", "gfp", "--out", str(tmp_path / "out"), "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "protloc_jax.cli.main", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "constant images (1)" in done.stderr
    assert "Traceback" not in done.stderr
