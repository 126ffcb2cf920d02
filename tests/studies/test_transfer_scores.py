"""Scores of the transfer study's cells against the evaluators that anyone calls; differences against a hand count."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from protloc_jax.channels import parse
from protloc_jax.data import manifest as manifests
from protloc_jax.data.make_splits import make_splits
from protloc_jax.data.split_config import SplitConfig
from protloc_jax.eval.evaluate import EvaluateConfig
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.head_config import HeadConfig
from protloc_jax.eval.heads import ClassifyConfig, classify
from protloc_jax.studies.overview import question
from protloc_jax.studies.overview import score as overview_score
from protloc_jax.studies.transfer.cells import Cell, Features
from protloc_jax.studies.transfer.config import Backbone, ImageSet, Level, TransferStudy
from protloc_jax.studies.transfer.results import Table, crossover, curves, differences, rows_with_choices
from protloc_jax.studies.transfer.scores import Scored, Scoring, read, score, score_probabilities, write

CLASSES = ("er", "golgi", "vesicles")
HEAD = HeadConfig(arch="linear", epochs=20, batch=32, lr=0.05, seeds=(0, 1), decision="validation")


def table_of(seed, shift=2.0, proteins=36, images=3):
    """Features that tell three classes apart, of a few images of every protein."""
    rng = np.random.default_rng(7)
    protein = np.repeat(np.arange(proteins), images)
    obs = pd.DataFrame({"id": [f"i{i:03d}" for i in range(len(protein))], "split": "train"})
    obs["labels"] = [CLASSES[p % 3] for p in protein]
    obs["protein"] = [f"P{p:02d}" for p in protein]
    noise = np.random.default_rng(seed).standard_normal((len(protein), 6)) + rng.standard_normal((proteins, 6))[protein]
    x = noise + shift * np.eye(3)[protein % 3] @ np.ones((3, 6)) * np.repeat(np.eye(3), 2, axis=1)[protein % 3]
    return FeatureTable(x.astype(np.float32), obs, {"label_names": list(CLASSES), "channel_plan": "natural"})


@pytest.fixture(scope="module")
def splits():
    table = table_of(0)
    frame = table.obs[["id", "protein"]].assign(labels=[(label,) for label in table.obs["labels"]])
    config = SplitConfig(kind="fractions", by=("protein",), fractions=(0.5, 1.0), shares=(0.5, 0.25, 0.25))
    return make_splits(manifests.make(frame, parse("nucleus,gfp")), config)


@pytest.fixture(scope="module")
def scoring():
    return Scoring(("head", "knn"), HEAD, (1, 3), "labels", "protein", 200)


@pytest.fixture(scope="module")
def scored(splits, scoring):
    return score([table_of(0), table_of(1)], splits, ["fraction=0.5", "fraction=1"], scoring)


def test_heads_score_as_the_classifier_of_each_table_does(scored, splits, scoring):
    # Draws of a head depend on its number among the splits, so each split is compared as the first one.
    alone = score(
        [table_of(0), table_of(1)], splits, ["fraction=1"], dataclasses.replace(scoring, evaluators=("head",))
    )
    for name, found in (("fraction=0.5", scored), ("fraction=1", alone)):
        estimates = []
        for seed in (0, 1):
            asked = question({"t": table_of(seed)}, split_file=splits, split_name=name)
            own = classify(asked.systems, asked.task, asked.splits, ClassifyConfig(head=HEAD, resamples=50)).results
            estimates.append(own["systems"]["t"]["head"]["macro_f1"]["estimate"])
        entry = found.entries["head", name]
        assert entry["macro_f1"]["estimate"] == pytest.approx(np.mean(estimates), abs=1e-12)
        assert entry["by_pretraining_seed"] == pytest.approx(estimates, abs=1e-12)
        assert entry["sd_pretraining_seeds"] == pytest.approx(np.std(estimates, ddof=1), abs=1e-12)
        assert found.counts["head", name].shape == (9, 4, 3, 3)  # tested proteins, 2 x 2 seeds


def test_neighbours_score_as_the_evaluation_of_each_table_does(scored, splits):
    for name in ("fraction=0.5", "fraction=1"):
        config = EvaluateConfig(evaluators=("knn",), k=(1, 3), fixed_k=3, resamples=50)
        own = [
            overview_score({"t": table_of(seed)}, split_file=splits, split_name=name, config=config)["systems"]["t"]
            for seed in (0, 1)
        ]
        entry = scored.entries["knn", name]
        assert entry["macro_f1"]["estimate"] == pytest.approx(np.mean([o["knn"]["macro_f1"]["estimate"] for o in own]))
        by_k = [[row["macro_f1"]["estimate"] for row in o["knn"]["by_k"]] for o in own]
        assert entry["by_k"]["estimate"] == pytest.approx(np.mean(by_k, axis=0))
        assert set(entry["by_k"]["chosen"]) == {k for o in own for k in o["knn"]["k"]}


def test_own_probabilities_are_decided_and_counted_by_hand(splits, scoring):
    table = table_of(0)
    names = dict.fromkeys(table.obs["labels"])
    truth = np.stack([table.obs["labels"] == name for name in CLASSES], axis=1)
    assert set(names) == set(CLASSES)
    wrong = np.zeros(len(truth), bool)
    split = splits.splits(list(table.obs["id"]), "fraction=1")[0]
    wrong[split.test[:4]] = True
    probabilities = np.where(truth, 0.9, 0.1)
    probabilities[wrong] = 0.1  # no label at all: four false negatives
    found = score_probabilities([table], [probabilities], splits, "fraction=1", scoring)
    counts = found.counts["own head", "fraction=1"].sum(axis=(0, 1))
    missed = truth[split.test[:4]].sum(axis=0)
    np.testing.assert_array_equal(counts, [truth[split.test].sum(axis=0) - missed, [0, 0, 0], missed])


def test_scores_are_read_as_they_were_written(scored, tmp_path):
    write(scored, tmp_path)
    found = read(tmp_path)
    assert set(found.entries) == set(scored.entries) == set(found.counts)
    np.testing.assert_array_equal(found.counts["knn", "fraction=1"], scored.counts["knn", "fraction=1"])


def study_of(**more):
    backbone = Backbone(weights="w", finetune_plans=("natural",))
    return TransferStudy(
        images={"oc": ImageSet(records="r")},
        levels={"fov": Level(images="oc")},
        backbones={"hpa": backbone},
        fractions=(0.5, 1.0),
        head=HEAD,
        resamples=100,
        **more,
    )


class Wiring:
    """A channel plan as far as a table of results looks at it."""

    text = "natural:0,gfp"


def cells(splits, scoring):
    """Frozen features of two plans and a fine-tuned row whose features are the easier ones."""
    whole = ["fraction=0.5", "fraction=1"]
    made = {
        Cell("fov", "hpa", "natural", None): score([table_of(0), table_of(1)], splits, whole, scoring),
        Cell("fov", "hpa", "replicate", None): score([table_of(0, 0.3)], splits, whole, scoring),
    }
    for fraction, name in zip((0.5, 1.0), whole, strict=True):
        made[Cell("fov", "hpa", "natural", fraction)] = score([table_of(2, 4.0)], splits, [name], scoring)
    return made


@pytest.fixture(scope="module")
def results(splits, scoring) -> Table:
    made: dict[Cell, Scored] = cells(splits, scoring)
    features = {cell: Features([], (0,), [], Wiring()) for cell in made}  # type: ignore[arg-type]
    return Table(study_of(), made, features, dict.fromkeys(made, 6))


def test_the_plan_is_chosen_by_validation_and_named(results):
    chosen = [row for row in rows_with_choices(results) if row["chosen"]]
    assert [row["evaluator"] for row in chosen] == ["head", "knn"]
    for row in chosen:
        among = [r for r in results.rows if r["evaluator"] == row["evaluator"] and r["mode"] == "frozen"]
        best = max((r for r in among if r["fraction"] == 1), key=lambda r: r["validation_macro_f1"])
        assert row["plan"] == best["plan"] and row["plan"] in row["chosen"]


def test_a_paired_difference_is_that_of_the_estimates_whatever_the_repeats(results):
    for entry in curves(results):
        for point in entry["points"]:
            difference = point["finetuned"]["estimate"] - point["frozen"]["estimate"]
            assert point["difference"]["estimate"] == pytest.approx(difference, abs=1e-12)
            assert point["difference"]["p_value_holm"] >= point["difference"]["p_value"]
    (plans,) = [d for d in differences(results) if d["evaluator"] == "head"]
    rows = {row["plan"]: row for row in results.rows if row["mode"] == "frozen" and row["fraction"] == 1}
    heads = {
        r["plan"]: r for r in results.rows if r["evaluator"] == "head" and r["mode"] == "frozen" and r["fraction"] == 1
    }
    assert plans["family"] == "plans at equal width" and set(rows) == {"natural", "replicate"}
    expected = heads["natural"]["macro_f1"]["estimate"] - heads["replicate"]["macro_f1"]["estimate"]
    assert plans["estimate"] == pytest.approx(expected, abs=1e-12) and plans["first"] == "hpa: natural"


@pytest.mark.parametrize(
    ("estimates", "fraction"),
    [((-0.1, 0.1, 0.2), 0.25), ((0.1, -0.1, 0.2), 1.0), ((0.1, 0.1, 0.1), 0.1), ((0.1, 0.2, -0.1), None)],
)
def test_the_crossover_is_where_it_stays_above(estimates, fraction):
    points = [
        {"fraction": f, "difference": {"estimate": e, "low": e - 0.15, "high": e + 0.15}}
        for f, e in zip((0.1, 0.25, 1.0), estimates, strict=True)
    ]
    found = crossover(points)
    assert found["fraction"] == fraction
    sure = "the interval excludes 0 at 100 %" in found["words"]
    assert sure == (fraction is not None and estimates[-1] > 0.15)
