"""Heads scored on held-out groups: golden cases by hand, scikit-learn, the control, and what is kept on disk."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file
from sklearn.metrics import f1_score, precision_score, recall_score

from protloc_jax.cli.main import main
from protloc_jax.data.splits import Split, k_fold, k_fold_splits
from protloc_jax.eval import heads as trained_heads
from protloc_jax.eval import outcome, scores
from protloc_jax.eval.evaluate import System
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.head_config import HeadConfig
from protloc_jax.eval.head_file import digest_of, load_heads, save_heads
from protloc_jax.eval.heads import ClassifyConfig, classify, permuted_labels

ABOUT = {"layer": "last", "pooling": "cls", "channel_plan": "natural"}
UNS = {**ABOUT, "weights_sha256": "ab", "weights": "here", "data": "one"}
NAMES = ("er", "golgi", "nucleus")
HEAD = HeadConfig(arch="linear", batch=16, epochs=30, lr=1.0, seeds=(5, 6), decision="validation")
CONFIG = ClassifyConfig(HEAD, resamples=200)


def proteins(seed=0, number=30, cells=4, dim=5):
    """Images of proteins with one or two of three labels: features are the classes' directions and noise."""
    rng = np.random.default_rng(seed)
    label = np.eye(3, dtype=bool)[np.arange(number) % 3] | (rng.random((number, 3)) < 0.15)
    protein = np.repeat(np.arange(number), cells)
    x = 3 * label[protein] @ np.eye(3, dim) + rng.normal(size=(len(protein), dim))
    ids = np.array([f"P{p:02d}" for p in protein])
    task = outcome.Task(label[protein], NAMES, "multi", ids, "protein", {"grouped by": "protein"})
    splits = k_fold_splits(k_fold(task.labels, ids, folds=3, seed=0))
    return x.astype(np.float32), task, splits


@pytest.fixture(scope="module")
def case():
    x, task, splits = proteins()
    noise = np.random.default_rng(9).normal(size=x.shape).astype(np.float32)
    tables = {"noise": System(noise, ABOUT), "good": System(x, ABOUT)}
    made = classify(tables, task, splits, CONFIG, provenance={"good": UNS})
    return x, task, splits, made


def test_scores_are_those_of_scikit_learn_on_the_saved_heads(case, tmp_path):
    x, task, splits, made = case
    heads = load_heads(save_heads(made.heads["good"], tmp_path / "h"))
    entry = made.results["systems"]["good"]["head"]
    rows = np.concatenate([split.test for split in splits])
    truth = task.hot[rows]
    image, unit, f1, precision, recall, folds = [], [], [], [], [], []
    for s, seed in enumerate(HEAD.seeds):
        p, cut = np.zeros(truth.shape), np.zeros(truth.shape)
        at = 0
        for f, split in enumerate(splits):
            name = f"fold {f}"
            val = heads.predict(x[split.val], seed=seed, split=name).probabilities
            wanted = scores.best_thresholds(task.hot[split.val], val)
            np.testing.assert_allclose(heads.thresholds[s, f], wanted)
            own = heads.predict(x[split.test], seed=seed, split=name)
            end = at + len(split.test)
            p[at:end], cut[at:end], at = own.probabilities, heads.thresholds[s, f], end
            np.testing.assert_array_equal(own.labels, own.probabilities > wanted)
            folds.append(f1_score(task.hot[split.test], own.labels, average="macro", zero_division=0))
        image.append(f1_score(truth, p > cut, average="macro", zero_division=0))
        f1.append(f1_score(truth, p > cut, average=None, zero_division=0))
        precision.append(precision_score(truth, p > cut, average=None, zero_division=0))
        recall.append(recall_score(truth, p > cut, average=None, zero_division=0))
        frame = pd.DataFrame(np.hstack([p, cut, truth])).groupby(task.unit[rows]).mean().to_numpy()
        unit.append(f1_score(frame[:, 6:] > 0, frame[:, :3] > frame[:, 3:6], average="macro", zero_division=0))
    assert entry["macro_f1"]["estimate"] == pytest.approx(np.mean(image))
    assert entry["macro_f1"]["groups"] == 30 and entry["by_unit"]["units"] == 30
    assert entry["by_unit"]["macro_f1"]["estimate"] == pytest.approx(np.mean(unit))
    assert entry["over_seeds"]["image_macro_f1"]["sd"] == pytest.approx(np.std(image, ddof=1))
    assert entry["over_seeds"]["unit_macro_f1"]["values"] == pytest.approx(unit)
    by_fold = np.reshape(folds, (2, 3)).mean(axis=0)
    assert entry["over_splits"]["image_macro_f1"]["sd"] == pytest.approx(np.std(by_fold, ddof=1))
    for i, name in enumerate(NAMES):
        own = entry["per_class"][name]
        assert own["f1"] == pytest.approx(np.mean(f1, axis=0)[i])
        assert own["precision"] == pytest.approx(np.mean(precision, axis=0)[i])
        assert own["recall"] == pytest.approx(np.mean(recall, axis=0)[i])
        assert own["support"] == truth[:, i].sum() and own["low"] <= own["f1"] <= own["high"]


def test_good_features_win_and_results_are_plain(case):
    _, _, _, made = case
    results = made.results
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    good, noise = (results["systems"][name]["head"]["macro_f1"]["estimate"] for name in ("good", "noise"))
    (difference,) = results["differences"]
    assert (difference["first"], difference["second"]) == ("good", "noise")
    assert difference["macro_f1"]["estimate"] == pytest.approx(good - noise)
    assert difference["macro_f1"]["low"] > 0 and good > 0.75
    assert all(loss < 0.45 for seed in results["systems"]["good"]["head"]["last_loss"] for loss in seed)


def test_the_mean_over_all_heads_is_the_default(case):
    x, _, splits, made = case
    heads = made.heads["good"]
    each = [
        heads.predict(x[:9], seed=seed, split=name).probabilities for seed in HEAD.seeds for name in heads.split_names
    ]
    np.testing.assert_allclose(heads.predict(x[:9]).probabilities, np.mean(each, axis=0))
    assert len(each) == len(splits) * 2


def test_protein_scores_are_means_of_probabilities_then_the_cut():
    """Protein A: 0.9, 0.9, 0.0 for its label - mean 0.6 > 0.5 though one image fails; B: 0.6, 0.1 - mean 0.35 fails.

    By image tp 3, fn 2: F1 = 6 / 8; by protein tp 1, fn 1: F1 = 2 / 3.
    """
    task = outcome.Task(
        np.ones((5, 1), bool), ("er",), "multi", np.array(["A", "A", "A", "B", "B"]), "protein", {"made": "by hand"}
    )
    split = Split(np.arange(5), np.arange(0), np.arange(5), "all")
    p = np.array([[0.9], [0.9], [0.0], [0.6], [0.1]])
    made = outcome.pooled([p], task, [split], cut=np.full((1, 1), 0.5))
    seen = []
    entry, counts = trained_heads.summarised(
        [made, made], task, [split], lambda c: (seen.append(c), {"low": 0, "high": 1})[1]
    )
    assert counts.sum(axis=0).tolist() == [[[3], [0], [2]]] * 2
    assert seen[1].sum(axis=0).tolist() == [[[1], [0], [1]]] * 2
    assert entry["over_seeds"]["image_macro_f1"] == {"mean": 0.75, "sd": 0.0, "values": [0.75, 0.75]}
    assert entry["over_seeds"]["unit_macro_f1"]["mean"] == pytest.approx(2 / 3)
    assert entry["over_splits"]["image_macro_f1"]["sd"] is None


def test_tuned_thresholds_by_hand():
    """Positives at 0.9 and 0.3, a negative at 0.6, 0.2 and 0.1: the best F1 is 0.8, between 0.3 and 0.2."""
    truth = np.array([[1], [0], [1], [0], [0]], bool)
    assert scores.best_thresholds(truth, [[0.9], [0.6], [0.3], [0.2], [0.1]]) == pytest.approx([0.25])
    # F1 is 2/3 after the first row and after all four: the higher cut wins.
    tie = np.array([[1], [0], [0], [1]], bool)
    assert scores.best_thresholds(tie, [[0.8], [0.6], [0.4], [0.2]]) == pytest.approx([0.7])


def test_permuted_labels_move_whole_groups_and_the_control_scores_at_chance(case):
    x, task, splits, _ = case
    labels = permuted_labels(task.labels, task.unit, seed=1)
    for protein in np.unique(task.unit):
        assert len(np.unique(labels[task.unit == protein], axis=0)) == 1
    assert labels.sum(axis=0).tolist() == task.hot.sum(axis=0).tolist()
    assert (labels != task.hot).any()
    head = dataclasses.replace(HEAD, labels="permuted", decision="half", permutation=1)
    control = classify({"good": System(x, ABOUT)}, task, splits, dataclasses.replace(CONFIG, head=head)).results
    assert control["control"] == "labels permuted over groups"
    assert control["systems"]["good"]["head"]["macro_f1"]["estimate"] < 0.55


def test_one_label_a_row_by_the_likeliest_class(case):
    x, task, splits, _ = case
    one = np.eye(3, dtype=bool)[task.hot.argmax(axis=1)]
    single = dataclasses.replace(task, labels=one, kind="single")
    head = dataclasses.replace(HEAD, loss="cross_entropy", decision="argmax", fit_rows="train_and_validation")
    made = classify({"good": System(x, ABOUT)}, single, splits, dataclasses.replace(CONFIG, head=head))
    entry = made.results["systems"]["good"]["head"]
    assert np.sum(entry["confusion"]) == pytest.approx(len(x))
    assert np.trace(entry["confusion"]) / len(x) == pytest.approx(entry["accuracy"])
    predicted = made.heads["good"].predict(x)
    np.testing.assert_allclose(predicted.probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (predicted.labels.sum(axis=1) == 1).all()
    with pytest.raises(ValueError, match="rows have several labels"):
        classify({"good": System(x, ABOUT)}, task, splits, dataclasses.replace(CONFIG, head=head))
    bare = [split._replace(val=split.val[:0]) for split in splits]
    with pytest.raises(ValueError, match="these splits lack: fold 0, fold 1, fold 2"):
        classify({"good": System(x, ABOUT)}, task, bare, CONFIG)


def test_saved_heads_refuse_what_is_not_theirs(case, tmp_path):
    x, _, _, made = case
    folder = save_heads(made.heads["good"], tmp_path / "h")
    heads = load_heads(folder)
    obs = pd.DataFrame({"id": [str(i) for i in range(len(x))]})
    moved = FeatureTable(x, obs, {**UNS, "weights": "there", "data": "another"})
    np.testing.assert_array_equal(heads.predict(moved).labels, heads.predict(x).labels)
    assert heads.features_digest == digest_of(moved.uns)
    with pytest.raises(ValueError, match="pooling: cls in the head, mean in the table"):
        heads.predict(FeatureTable(x, obs, {**UNS, "pooling": "mean"}))
    with pytest.raises(ValueError, match=r"\[120, 4\] do not fit a head for \[N, 5\]"):
        heads.predict(x[:, :4])
    with pytest.raises(ValueError, match="no head of seed 7; there are 5, 6"):
        heads.predict(x, seed=7)
    tensors = load_file(folder / "head.safetensors")
    save_file({**tensors, "mean": tensors["mean"] + 1}, folder / "head.safetensors")
    with pytest.raises(ValueError, match="was changed after writing"):
        load_heads(folder)
    (folder / "head.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"head\.json is missing"):
        load_heads(folder)


def test_two_stages_are_scored_and_kept(case, tmp_path):
    x, task, splits, _ = case
    head = dataclasses.replace(HEAD, groups=("cytoplasm", "cytoplasm", "nucleus"), seeds=(1,))
    made = classify({"good": System(x, ABOUT)}, task, splits, dataclasses.replace(CONFIG, head=head))
    assert made.results["systems"]["good"]["head"]["macro_f1"]["estimate"] > 0.75
    heads = load_heads(save_heads(made.heads["good"], tmp_path / "h"))
    assert heads.params["out"]["bias"].shape == (1, 3, 5)
    assert heads.predict(x).probabilities.shape == (len(x), 3)


def test_the_command_scores_and_keeps_heads(case, tmp_path, capsys):
    x, task, splits, _ = case
    part = np.full(len(x), "train", object)
    part[splits[0].val], part[splits[0].test] = "val", "test"
    labels = [";".join(NAMES[i] for i in np.flatnonzero(row)) for row in task.hot]
    obs = pd.DataFrame({"id": [f"i{i}" for i in range(len(x))], "split": part, "labels": labels, "protein": task.unit})
    FeatureTable(x, obs, {**UNS, "label_names": list(NAMES)}).write(tmp_path / "t.parquet")
    words = [
        "classify",
        f"good={tmp_path / 't.parquet'}",
        "--head",
        "linear",
        "--out",
        str(tmp_path / "out"),
        "--quiet",
    ]
    settings = ["head.epochs=3", "head.seeds=1,2", "resamples=50", "head.batch=32"]
    assert main([*words, *(word for s in settings for word in ("--set", s))]) == 0
    shown = capsys.readouterr().out
    # Headers are wrapped to the width of the screen.
    assert {"good", "protein", "seeds", "splits", "interval"} <= set(shown.replace("│", " ").replace("┃", " ").split())
    results = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert results["settings"]["head"]["arch"] == "linear" and results["provenance"]["good"]["weights_sha256"] == "ab"
    heads = load_heads(tmp_path / "out" / "heads" / "good")
    assert heads.label_names == NAMES and heads.split_names == ("given",)
    assert main([*words, "--set", "head.dropuot=0"]) == 2
    assert "head.dropout" in capsys.readouterr().err
