"""Scores of whole tables and the page made of them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from protloc_jax.eval.evaluate import EvaluateConfig
from protloc_jax.eval.features import FeatureTable
from protloc_jax.studies.overview import score
from protloc_jax.studies.page import build, summary_rows

CONFIG = EvaluateConfig(k=(1, 5), fixed_k=5, l2=(1e-2,), resamples=100, evaluators=("knn",))


def tables(seed=0):
    """24 proteins of 3 classes, 4 images each: "good" features tell the class, "noise" does not."""
    rng = np.random.default_rng(seed)
    protein = np.repeat(np.arange(24), 4)
    label = protein % 3
    split = np.where(protein < 12, "train", np.where(protein < 15, "val", "test"))
    obs = pd.DataFrame(
        {
            "id": [f"i{k}" for k in range(len(protein))],
            "split": split,
            "labels": np.array(["er", "golgi", "nucleoli"])[label],
            "protein": [f"P{p:02d}" for p in protein],
            "well": [f"W{k // 2}" for k in range(len(protein))],
        }
    )
    good = np.eye(3)[label] * 4 + rng.normal(size=(len(label), 3))
    return {
        "noise": FeatureTable(rng.normal(size=(len(label), 3)).astype(np.float32), obs, {}),
        "good": FeatureTable(good.astype(np.float32), obs, {"data_source": "simulated opencell"}),
    }


def test_good_features_score_and_noise_does_not():
    results = score(tables(), config=CONFIG)
    f1 = {name: entry["knn"]["macro_f1"]["estimate"] for name, entry in results["systems"].items()}
    assert f1["good"] > 0.9
    assert f1["noise"] < 0.6
    assert results["task"]["unit"] == "protein"
    assert results["task"]["test_units"] == 9
    assert results["differences"][0]["macro_f1"]["low"] > 0
    assert results["synthetic"] == "simulated opencell"
    json.dumps(results, allow_nan=False)


def test_tables_are_aligned_by_id():
    both = tables()
    order = np.random.default_rng(1).permutation(96)
    good = both["good"]
    both["good"] = FeatureTable(good.x[order], good.obs.iloc[order].reset_index(drop=True), good.uns)
    again, plain = score(both, config=CONFIG), score(tables(), config=CONFIG)
    assert again["systems"]["good"]["knn"]["macro_f1"] == plain["systems"]["good"]["knn"]["macro_f1"]


def test_folds_and_leaving_out():
    folds = score(tables(), split="k-fold", folds=4, config=CONFIG)
    assert folds["task"]["test_rows"] == 96
    left = score(tables(), leave_out="protein", config=CONFIG)
    assert len(left["task"]["splits"]) == 24


def test_another_label_column():
    results = score(tables(), label="split", split="k-fold", config=CONFIG)
    assert results["task"]["label_names"] == ["test", "train", "val"]


def test_refusals_name_the_table_and_the_column():
    both = tables()
    short = both["good"]
    both["good"] = FeatureTable(short.x[1:], short.obs.iloc[1:].reset_index(drop=True))
    with pytest.raises(ValueError, match="table 'good' lacks 1 ids"):
        score(both, config=CONFIG)
    with pytest.raises(ValueError, match=r"no column 'protien'\. Did you mean 'protein'"):
        score(tables(), unit="protien", config=CONFIG)
    only = {n: FeatureTable(t.x, t.obs.assign(split="train")) for n, t in tables().items()}
    with pytest.raises(ValueError, match="needs train and test rows"):
        score(only, config=CONFIG)


def test_the_page_says_synthetic_and_holds_the_numbers():
    results = score(tables(), config=CONFIG)
    log = [{"step": 1, "loss": 5.0, "teacher_entropy": 4.0}, {"step": 2, "loss": 4.0, "teacher_entropy": 3.5}]
    text = build(results, title="t", log=log, prototypes=256).render()
    value = results["systems"]["good"]["knn"]["macro_f1"]["estimate"]
    assert f"{value:.3f}" in text
    assert text.count("<img ") == 4  # bars, classes, confusion, curves
    assert text.count("Synthetic") == 1 + text.count("<table") + text.count("<img ")
    names = [row["features"] for row in summary_rows(results)]
    assert names == ["chance (prior)", "chance (majority)", "noise", "good"]
