"""`protloc evaluate` and `protloc report` on tables of several channel plans: curve over k, choice, equal width."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from protloc_jax.cli.main import main
from protloc_jax.eval.features import FeatureTable

QUICK = ["--set", "k=1,5,10", "--set", "fixed_k=5", "--set", "resamples=100", "--set", "evaluators=knn"]


@pytest.fixture
def tables(tmp_path):
    """Cells of 24 proteins by two plans, one of them twice as wide; the words that name them."""
    rng = np.random.default_rng(0)
    protein = np.repeat(np.arange(24), 5)
    obs = pd.DataFrame(
        {
            "id": [f"c{i}" for i in range(len(protein))],
            "split": np.where(protein < 12, "train", np.where(protein < 16, "val", "test")),
            "labels": np.array(["er", "golgi", "nucleoli"])[protein % 3],
            "protein": [f"P{p:02d}" for p in protein],
            "field": [f"F{i // 2}" for i in range(len(protein))],
        }
    )
    words = []
    for plan, width in (("natural", 8), ("per-channel", 16)):
        x = 3 * np.eye(3)[protein % 3] @ rng.normal(size=(3, width)) + rng.normal(size=(len(protein), width))
        file = tmp_path / f"{plan}.parquet"
        FeatureTable(x.astype(np.float32), obs, {"channel_plan": plan, "layer": "last", "pooling": "cls"}).write(file)
        words.append(f"{plan}={file}")
    return words


def test_curve_choice_and_page(tables, tmp_path, capsys):
    out, page = tmp_path / "scores.json", tmp_path / "page.html"
    options = ["--choose", "plan by validation=all", "--set", "vote=majority", "--out", str(out)]
    assert main(["evaluate", *tables, *QUICK, *options]) == 0
    said = capsys.readouterr().out
    assert "k-NN over k" in said and "k-NN: plan by validation = " in said
    results = json.loads(out.read_text())
    assert results["task"]["excluded_neighbours"] == ["field", "protein"]
    for name in ("natural", "per-channel"):
        entry = results["systems"][name]["knn"]
        assert [row["k"] for row in entry["by_k"]] == [1, 5, 10]
        assert entry["vote"] == "majority"
    chosen = results["systems"]["plan by validation"]["knn"]
    assert chosen["macro_f1"] == results["systems"][chosen["chosen"][0]]["knn"]["macro_f1"]
    assert main(["report", str(out), "--out", str(page), "--published", "a paper, k=5=0.796"]) == 0
    assert "Number of neighbours" in page.read_text()
    assert main(["report", str(out), "--out", str(page), "--published", "0,8"]) == 2
    assert "write NAME=VALUE" in capsys.readouterr().err


def test_exclusion_and_equal_width(tables, tmp_path, capsys):
    out = tmp_path / "scores.json"
    assert main(["evaluate", *tables, *QUICK, "--exclude", "none", "--equal-width", "random", "--out", str(out)]) == 0
    results = json.loads(out.read_text())
    assert results["task"]["excluded_neighbours"] == []
    assert results["systems"]["per-channel"]["about"]["projection"] == "16 -> 8 at random, seed 0"
    capsys.readouterr()
    for words, message in (
        (["--exclude", "fields"], "Did you mean 'field'"),
        (["--choose", "x"], "write NAME=TABLE,TABLE"),
        (["--choose", "x=natural,natral"], "Did you mean 'natural'"),
        (["--set", "vote=mean"], "vote"),
    ):
        assert main(["evaluate", *tables, *QUICK, *words]) == 2
        assert message in capsys.readouterr().err
