"""`protloc background proportions`: two tables to shares, records to mixes to errors, and what it refuses."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pytest
from background_cells import CLASSES, one_hot, pack_cells

from protloc_jax.cli.main import main
from protloc_jax.eval.background.made import read_made
from protloc_jax.eval.features import FeatureTable


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Four proteins of each class, and two of two classes that change sides without background."""
    out = tmp_path_factory.mktemp("shares")
    rows = [(f"{c}{p}", c, c, c) for c in CLASSES for p in range(4) for _ in range(4)]
    rows += [("P", "ER;Golgi", "ER", "Golgi")] * 4 + [("Q", "ER;nucleus", "nucleus", "nucleus")] * 4
    obs = pd.DataFrame([r[:2] for r in rows], columns=["protein", "labels"])
    obs.insert(0, "id", [f"c{i}" for i in range(len(obs))])
    uns = {"data_source": "simulated yeast"}
    FeatureTable(one_hot([r[2] for r in rows]), obs, uns).write(out / "whole.parquet")
    FeatureTable(one_hot([r[3] for r in rows]), obs, uns).write(out / "masked.parquet")
    FeatureTable(one_hot([r[3] for r in rows])[1:], obs[1:], uns).write(out / "short.parquet")
    return out


def test_shares_of_two_tables(tables, capsys):
    command = ["background", "proportions", "--features", str(tables / "whole.parquet"), "--out", str(tables / "out")]
    (tables / "names.txt").write_text("Q\n\nP\n")
    words = ["--proteins", str(tables / "names.txt"), "--classes", ",".join(CLASSES), "resamples=20"]
    assert main([*command, "--other", str(tables / "masked.parquet"), *words]) == 0
    said = capsys.readouterr().out
    assert "SYNTHETIC IMAGES" in said and "48 cells of 12 proteins of one of 3 classes" in said
    assert "0.800       0.947       0.003       0.187       0.479       1.047       9.752       0.146" in said
    first = next(line for line in said.splitlines() if line.startswith("  P "))
    assert "KL 23.026  4 cells (ER, Golgi): ER 100.0%" in first and "/ Golgi 100.0%" in first
    results = json.loads((tables / "out" / "proportions.json").read_text())
    # KL of (1, 0, 0) and (0, 1, 0), clipped: log 1e10, less 1e-10 as much.
    assert results["kl"]["hard"]["max"] == pytest.approx(np.log(1e10)) and results["kl"]["hard"]["substantial"] == 0.5
    assert results["held_out"]["macro"]["other"]["f1"]["estimate"] == 1
    with (tables / "out" / "proportions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["protein"], r["hard substantial"]) for r in rows] == [("P", "True"), ("Q", "False")]


def test_make_mixes_then_errors_of_shares(tables, capsys):
    cells, made = pack_cells(tables / "cells", simulated=True), tables / "made"
    make = ["background", "make", "--data", str(cells), "--out", str(made), "--quiet", "--workers", "0", "images=12"]
    assert main([*make, "--mixes", "4", "--mix-cells", "10"]) == 0
    assert "self_paste" in capsys.readouterr().out
    table, _, _ = read_made(made)
    seen = table["donor_class"].where(table["donor_class"] != "", table["centre_class"])
    FeatureTable(one_hot(seen), table[["id"]], {}).write(tables / "mixes.parquet")
    command = ["background", "proportions", "--features", str(tables / "mixes.parquet"), "--mixes"]
    assert main([*command, "--made", str(made), "--out", str(tables / "errors"), "resamples=20"]) == 0
    said = capsys.readouterr().out
    assert "SYNTHETIC IMAGES. 4 of 3 classes, 40 cells" in said and "other groups of proteins" in said
    results = json.loads((tables / "errors" / "mixes.json").read_text())
    # 2 |.9 - .1|, 2 |.8 - .2|, 2 |.7 - .3| and 2 |.6 - .4|
    assert results["errors"]["hard"]["l1"]["crossed"]["estimate"] == pytest.approx(1.0)
    assert results["errors"]["hard"]["l1"]["self_paste"]["estimate"] == 0
    assert len((tables / "errors" / "mixes.csv").read_text().splitlines()) == 1 + 3 * 2 * 4


def test_refusals_in_words(tables, capsys):
    command = ["background", "proportions", "--features", str(tables / "whole.parquet"), "--out", str(tables / "no")]
    other = ["--other", str(tables / "masked.parquet")]
    for words, needed in (
        ([], "give one of --other"),
        ([*other, "--mixes"], "give one of --other"),
        ([*other, "--made", "x"], "--made goes with --mixes"),
        (["--mixes", "--class", "labels"], "--class: not with --mixes"),
        (["--mixes"], "lacks 'condition'"),
        ([*other, "--classes", "ER,golgi"], "Did you mean 'Golgi'"),
        ([*other], "0 class(es) to tell apart (ER 4, Golgi 4, nucleus 4"),
        ([*other, "target=others"], "Did you mean 'targets'"),
        ([*other, "--proteins", str(tables / "none.txt")], "no such file"),
        ([*other, "--class", "lables"], "Did you mean 'labels'"),
        (["--other", str(tables / "short.parquet")], "1 ids of the original table are not in the other: c0."),
    ):
        assert main([*command, *words]) == 2
        assert needed in capsys.readouterr().err
    assert not (tables / "no").exists()
    make = ["background", "make", "--data", "x", "--out", str(tables / "no"), "--mix-cells", "5"]
    assert main(make) == 2 and "--mixes N" in capsys.readouterr().err
