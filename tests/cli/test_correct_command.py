"""`protloc correct` from the command line: fit, apply to a new plate, score; and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent.parent / "eval"))
from corrected_tables import rows_of, screen

from protloc_jax.cli.main import main
from protloc_jax.eval.corrections import load
from protloc_jax.eval.features import read

SIMULATED = {"data_source": "simulated bbbc021, difficulty hard, seed 0", "channel_passes": "N;P", "pooling": "cls"}


@pytest.fixture
def folder(tmp_path):
    table, _ = screen(uns=SIMULATED)
    last = (table.obs["plate"] == "P5").to_numpy()
    rows_of(table, ~last).write(tmp_path / "old.h5ad")
    rows_of(table, last).write(tmp_path / "new.parquet")
    return tmp_path


def protloc(*words):
    return main(["correct", *map(str, words)])


def test_from_tables_to_scores(folder, capsys):
    old, file, done = folder / "old.h5ad", folder / "c.npz", folder / "done.h5ad"
    steps = ["--steps", "standardise:plate+whiten:1", "--controls", "role=dmso"]
    assert protloc("fit", old, *steps, "--blocks", "auto", "--share", 0.5, "--out", file) == 0
    shown = capsys.readouterr().out
    assert "6 in 2 blocks" in shown and "35 of 70 controls fitted on, 200 in all" in shown
    assert f"digest {load(file).digest[:16]}" in shown
    assert protloc("apply", file, old, "--out", done) == 0
    assert "35 of 200 rows were fitted on" in capsys.readouterr().out
    table = read(done)
    assert table.obs["fitted_on"].sum() == 35 and table.uns["data_source"] == SIMULATED["data_source"]
    np.testing.assert_array_equal(table.x, load(file).apply(read(old)).x)
    # A new plate needs its own controls.
    new, corrected = folder / "new.parquet", folder / "new_done.parquet"
    assert protloc("apply", file, new, "--out", corrected) == 2
    assert "plate P5 not among the 5 fitted on" in capsys.readouterr().err and not corrected.exists()
    assert protloc("apply", file, new, "--controls", "role=dmso", "--out", corrected) == 0
    assert "fitted here on this table's controls: plate P5" in capsys.readouterr().out
    assert read(corrected).obs["fitted_on"].sum() == 7, "the same share of the new plate's wells"
    words = [f"before={old}", f"after={done}", "--batch", "plate", "--label", "moa", "--out", folder / "s" / "m.json"]
    assert protloc("score", *words) == 0
    shown = capsys.readouterr().out
    assert "SYNTHETIC IMAGES. 165 rows, 5 batches (plate), 4 labels" in shown and "35 rows left out" in shown
    found = json.loads((folder / "s" / "m.json").read_text())
    assert found["tables"]["after"]["batch_variance"]["found"] < found["tables"]["before"]["batch_variance"]["found"]
    assert found["corrections"]["after"][0]["steps"] == "standardise:plate+whiten:1"


def test_harmony_says_that_it_is_transductive(folder, capsys):
    words = ["--steps", "harmony:batch,clusters=2", "--controls", "role=dmso", "--out", folder / "h.npz"]
    assert protloc("fit", folder / "old.h5ad", *words) == 0
    assert "harmony:batch,clusters=2 is fitted on all rows, treated ones too" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"--steps": "whitten"}, "Did you mean 'whiten'?"),
        ({"--controls": "rle=dmso"}, "no column 'rle'. Did you mean 'role'?"),
        ({"--controls": "role=dmsoo"}, "Did you mean 'dmso'?"),
        ({"--blocks": "many"}, "a whole number, or auto"),
        ({"--share": "2"}, "share=2: must lie in (0, 1]"),
        ({"--out": "c.pkl"}, "ends in .npz"),
    ],
)
def test_bad_options_are_refused(folder, capsys, options, message):
    words = {"--steps": "whiten", "--controls": "role=dmso", "--out": str(folder / "c.npz")} | options
    assert protloc("fit", folder / "old.h5ad", *(w for item in words.items() for w in item)) == 2
    assert message in capsys.readouterr().err
