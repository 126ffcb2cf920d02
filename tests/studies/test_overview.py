"""Scores of whole tables and the page made of them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from protloc_jax.channels import parse
from protloc_jax.data import manifest as manifests
from protloc_jax.data.make_splits import make_splits
from protloc_jax.data.split_config import SplitConfig
from protloc_jax.eval.evaluate import EvaluateConfig, System, evaluate_table
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.outcome import Task
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


def stored(**options):
    obs = tables()["good"].obs
    table = obs.assign(labels=[(v,) for v in obs["labels"]])
    return make_splits(manifests.make(table, parse("gfp")), SplitConfig(by=("protein",), **options))


def test_a_split_file_gives_the_scores_of_its_splits():
    both = tables()
    good, file = both["good"], stored(kind="k_fold", folds=4)
    order = np.random.default_rng(2).permutation(96)
    mixed = {n: FeatureTable(t.x[order], t.obs.iloc[order].reset_index(drop=True), t.uns) for n, t in both.items()}
    results = score(mixed, split_file=file, config=CONFIG)
    assert results["task"]["test_rows"] == 96
    assert results["task"]["split"]["split file"] == file.digest[:16]
    assert [s["units_in_several_parts"] for s in results["task"]["splits"]] == [0] * 4
    hot = good.label_matrix()[0]
    task = Task(
        hot, good.label_matrix()[1], "single", good.obs["protein"].to_numpy(), "protein", {}, {"well": good.obs["well"]}
    )
    about = {"layer": "", "pooling": "", "channel_plan": ""}
    plain = evaluate_table({"good": System(good.x, about)}, task, file.splits(), CONFIG)
    f1 = [r["systems"]["good"]["knn"]["macro_f1"]["estimate"] for r in (results, plain)]
    assert f1[0] == pytest.approx(f1[1])


def test_overlapping_tests_are_scored_one_by_one_and_other_tables_refused():
    file = stored(kind="fractions", fractions=(0.3, 1.0))
    with pytest.raises(ValueError, match=r"name one of fraction=0\.3, fraction=1"):
        score(tables(), split_file=file, config=CONFIG)
    results = score(tables(), split_file=file, split_name="fraction=0.3", config=CONFIG)
    assert results["task"]["splits"][0]["rows"]["train"] == len(file.splits(name="fraction=0.3")[0].train) < 24
    other = {n: FeatureTable(t.x, t.obs.assign(id=[f"x{i}" for i in range(96)])) for n, t in tables().items()}
    with pytest.raises(ValueError, match=r"made for another manifest \(digest .*\n.*96 ids are not in the data: i0"):
        score(other, split_file=file, config=CONFIG)
    relabelled = {n: FeatureTable(t.x, t.obs.assign(protein="P00")) for n, t in tables().items()}
    with pytest.raises(ValueError, match="column 'protein' differs in 92 rows"):
        score(relabelled, split_file=file, config=CONFIG)


def test_neighbours_of_the_same_protein_are_excluded_where_the_label_is_the_proteins():
    both = tables()
    assert score(both, config=CONFIG)["task"]["excluded_neighbours"] == ["well", "protein"]
    own = {n: FeatureTable(t.x, t.obs.assign(kind=t.obs["protein"])) for n, t in both.items()}
    asked = score(own, label="kind", split="k-fold", unit="well", config=CONFIG)
    assert asked["task"]["excluded_neighbours"] == ["well"], "a label of one protein alone would never be found"
    rng = np.random.default_rng(0)
    cells = {n: FeatureTable(t.x, t.obs.assign(kind=rng.permutation(t.obs["labels"]))) for n, t in both.items()}
    assert score(cells, label="kind", config=CONFIG)["task"]["excluded_neighbours"] == ["well"], "cells' own labels"
    named = score(both, exclude=["split", "protein"], config=CONFIG)
    assert named["task"]["excluded_neighbours"] == ["split", "protein"]
    assert score(both, exclude=[], config=CONFIG)["task"]["excluded_neighbours"] == []
    with pytest.raises(ValueError, match=r"no column 'xyz', 'wel' Did you mean 'well'\?"):
        score(both, exclude=["xyz", "wel"], config=CONFIG)


def test_images_of_one_protein_that_are_alike_do_not_vote_for_each_other():
    """Fields of a protein look alike and its label is random, so that only a leak can find it."""
    rng = np.random.default_rng(0)
    protein = np.repeat(np.arange(40), 4)
    label = rng.integers(0, 2, 40)[protein]
    x = (rng.normal(size=(40, 8))[protein] + 0.01 * rng.normal(size=(160, 8))).astype(np.float32)
    obs = pd.DataFrame(
        {
            "id": [f"i{k}" for k in range(160)],
            "split": np.array(["train", "train", "val", "test"])[np.arange(160) % 4],
            "labels": np.array(["a", "b"])[label],
            "protein": [f"P{p}" for p in protein],
            "field": [f"F{k}" for k in range(160)],
        }
    )
    table = {"x": FeatureTable(x, obs)}
    honest, leaky = (score(table, config=CONFIG, **more) for more in ({}, {"exclude": ["field"]}))
    f1 = [r["systems"]["x"]["knn"]["macro_f1"]["estimate"] for r in (honest, leaky)]
    assert f1[0] < 0.75 < 0.95 < f1[1]


def test_choices_and_equal_widths_of_whole_tables():
    both = tables()
    wide = both["good"]
    both["wide"] = FeatureTable(np.hstack([wide.x, both["noise"].x]), wide.obs, {})
    compared = score(both, config=CONFIG, equal_width="pairs")
    assert [(d["first"], d["second"]) for d in compared["differences"]] == [("good", "noise")]
    results = score(both, config=CONFIG, equal_width="pca", choices={"chosen": ["noise", "wide"]})
    assert results["systems"]["chosen"]["knn"]["chosen"] == ["wide"]
    assert results["systems"]["wide"]["about"]["projection"] == "6 -> 3 principal components of 48 training rows"
    folds = score(both, config=CONFIG, equal_width="random", split="k-fold", folds=3, choices={"c": ["good", "wide"]})
    assert {s["features"] for n, s in folds["systems"].items() if n != "c"} == {3}
    assert "chosen in" in build(folds, title="t").render()
    for options, words in (
        ({"equal_width": "pca", "split": "k-fold"}, "held out by another split"),
        ({"equal_width": "pca", "leave_out": "protein"}, "use 'random'"),
        ({"equal_width": "pair"}, "Did you mean 'pairs'"),
        ({"choices": {"c": ["good", "wid"]}}, "'wid' Did you mean 'wide'"),
    ):
        with pytest.raises(ValueError, match=words):
            score(both, config=CONFIG, **options)


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
    assert text.count("<img ") == 5  # bars, k, classes, confusion, curves
    assert text.count("Synthetic") == 1 + text.count("<table") + text.count("<img ")
    names = [row["features"] for row in summary_rows(results)]
    assert names == ["chance (prior)", "chance (majority)", "noise", "good"]
