"""`protloc background`: records to made images to scores through the command line, and what it refuses."""

from __future__ import annotations

import csv
import json

import pandas as pd
import pytest
from background_cells import one_hot, pack_cells

from protloc_jax.cli.main import main


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("command")
    cells = pack_cells(out / "cells", simulated=True)
    command = ["background", "make", "--data", str(cells), "--out", str(out / "made"), "--quiet", "--grid", "4x3"]
    assert main([*command, "--images", str(out / "files"), "--workers", "0", "images=8", "seed=2"]) == 0
    return out


def test_make_then_score(made, capsys):
    table = pd.read_csv(made / "files" / "images.csv", keep_default_na=False)
    x = one_hot(table["centre_class"]) + 2 * one_hot(table["donor_class"])
    pd.DataFrame(x, columns=["a", "b", "c"]).assign(id=table["id"]).to_csv(made / "x.csv", index=False)
    score = ["background", "score", "--features", str(made / "x.csv"), "--made", str(made / "made"), "--quiet"]
    assert (
        main([*score, "--out", str(made / "scores"), "--svc", "published", "resamples=50", "protocols=transfer"]) == 0
    )
    said = capsys.readouterr().out
    assert "SYNTHETIC IMAGES" in said and "probe transfer: baseline - different = +1.000" in said
    results = json.loads((made / "scores" / "background.json").read_text())
    assert results["synthetic"].startswith("simulated yeast") and results["made"]["sets"]["seed"] == 2
    assert results["rows"] == {
        "baseline": 24, "same": 24, "different": 48, "masked": 24, "crossed": 48, "random_b": 24, "self_paste": 24,
        "grid": 12,
    }  # fmt: skip
    with (made / "scores" / "pairs.csv").open() as file:
        assert {row["condition"] for row in csv.DictReader(file)} == set(results["rows"]) - {"crossed", "grid"}
    assert main([*score, "--out", str(made / "scores"), "--parts", "label_free"]) == 0
    assert not (made / "scores" / "pairs.csv").exists()


def test_make_says_what_it_does_and_writes_nothing_when_asked(made, capsys, tmp_path):
    command = ["background", "make", "--data", str(made / "cells"), "--out", str(tmp_path / "no")]
    assert main([*command, "--check-only", "--floor", "60", "--classes", "ER,Golgi", "images=5"]) == 0
    said = capsys.readouterr().out
    assert "SYNTHETIC IMAGES" in said and "of other classes" in said and "floor     60" in said
    assert "left out: needs patches without cells (--patches)" in said and not (tmp_path / "no").exists()


def test_refusals_in_words(made, capsys, tmp_path):
    bare = pack_cells(tmp_path / "bare", masks=False)
    make = ["background", "make", "--out", str(tmp_path / "no")]
    cells = ["--data", str(made / "cells")]
    for words, needed in (
        (["--data", str(bare)], "protloc data crops"),
        ([*cells, "imges=3"], "Did you mean 'images'"),
        ([*cells, "--grid", "64"], "cells x backgrounds"),
        ([*cells, "--split", "train"], "the split 'train' is empty"),
        ([*cells, "--split-file", "x.parquet"], "--split"),
        ([*cells, "--protein", "gene"], "no column 'gene'"),
        ([*cells, "--conditions", "cell_free"], "no cell-free patch"),
    ):
        assert main([*make, *words]) == 2
        assert needed in capsys.readouterr().err
    score = ["background", "score", "--features", str(tmp_path / "x.csv"), "--out", str(tmp_path / "s")]
    assert main(score) == 2 and "does not exist" in capsys.readouterr().err
