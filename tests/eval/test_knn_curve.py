"""The k-NN curve: by hand, against a loop over k, marked choices, and the figure."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from protloc_jax.data.splits import Split
from protloc_jax.eval import evaluate, knn, outcome, scores, statistics
from protloc_jax.eval.evaluate import EvaluateConfig, System
from protloc_jax.eval.knn_curve import curve_lines, curve_rows
from protloc_jax.report import plots

ABOUT = {"layer": "last", "pooling": "cls", "channel_plan": "natural"}
CONFIG = EvaluateConfig(k=(1, 3, 9), fixed_k=3, resamples=100, evaluators=("knn",))


def cells(seed=0, multi=False):
    """Cells of 30 fields, ten a part; the label is the cell's own."""
    rng = np.random.default_rng(seed)
    field = np.repeat(np.arange(30), 6)
    label = rng.integers(0, 3, len(field))
    hot = np.eye(3, dtype=bool)[label]
    x = hot @ rng.normal(size=(3, 6)) * 2 + rng.normal(size=(len(field), 6))
    if multi:
        hot = hot | np.eye(3, dtype=bool)[rng.integers(0, 3, len(field))]
    names = np.array([f"F{f:02d}" for f in field])
    kind = "multi" if multi else "single"
    task = outcome.Task(hot, ("a", "b", "c"), kind, names, "field", {}, {"field": names})
    rows = [np.flatnonzero(field % 3 == part) for part in range(3)]
    return x.astype(np.float32), task, Split(*rows)


@pytest.mark.parametrize("vote", ["weighted", "majority", "cell-dino"])
@pytest.mark.parametrize("multi", [False, True])
def test_every_k_is_scored_as_if_it_were_alone(multi, vote):
    x, task, split = cells(multi=multi)
    config = dataclasses.replace(CONFIG, vote=vote)
    entry = evaluate.evaluate_table({"x": System(x, ABOUT)}, task, [split], config)["systems"]["x"]["knn"]
    bank = np.concatenate([split.train, split.val])
    found = {}
    for part, rows, asked in (("val", split.train, split.val), ("test", bank, split.test)):
        made = knn.knn_scores(x[rows], task.hot[rows], x[asked], k=[1, 3, 9], rule=vote)
        found[part] = [scores.decide(v, kind=task.kind) for v in made]
    validated = [scores.macro_f1(task.hot[split.val], d) for d in found["val"]]
    best = int(np.argmax(validated))
    assert entry["k"] == [CONFIG.k[best]]
    assert entry["macro_f1"] == entry["by_k"][best]["macro_f1"]
    assert entry["validation_macro_f1_of_choice"] == pytest.approx([validated[best]])
    for i, row in enumerate(entry["by_k"]):
        truth = task.hot[split.test]
        counts = statistics.group_sums(scores.row_counts(truth, found["test"][i]), task.unit[split.test])[0]
        interval = statistics.bootstrap(counts, scores.macro_f1_of, resamples=100).as_dict()
        assert row["macro_f1"] == interval
        assert row["macro_f1"]["groups"] == 10, "intervals are over fields, not cells"
        assert row["accuracy"] == pytest.approx(scores.accuracy(truth, found["test"][i]))
        assert row["validation_macro_f1"] == pytest.approx(validated[i])
        assert row["chosen"] == int(i == best)


def test_a_curve_by_hand():
    # Test row at angle 0; bank at 10 (b), 20 (a), 30 (a) degrees: k = 1 says b, k = 3 by majority says a.
    angle = np.deg2rad([10, 20, 30, 0, 5])
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    labels = np.array([[0, 1], [1, 0], [1, 0], [1, 0], [1, 0]])
    task = outcome.Task(labels, ("a", "b"), "single", np.arange(5), "row", {})
    split = Split(np.arange(3), np.array([], int), np.array([3, 4]))
    config = dataclasses.replace(CONFIG, k=(1, 3), fixed_k=3, vote="majority")
    entry = evaluate.evaluate_table({"x": System(x, ABOUT)}, task, [split], config)["systems"]["x"]["knn"]
    assert [(r["k"], r["macro_f1"]["estimate"], r["chosen"]) for r in entry["by_k"]] == [(1, 0.0, 0), (3, 1.0, 1)]
    assert [r["validation_macro_f1"] for r in entry["by_k"]] == [None, None]
    assert entry["macro_f1_by_k"] == {"1": 0.0, "3": 1.0}


def test_cuts_belong_to_their_k():
    x, task, split = cells(multi=True)
    config = dataclasses.replace(CONFIG, threshold="validation")
    entry = evaluate.evaluate_table({"x": System(x, ABOUT)}, task, [split], config)["systems"]["x"]["knn"]
    bank = np.concatenate([split.train, split.val])
    for row in entry["by_k"]:
        on_val = knn.knn_scores(x[split.train], task.hot[split.train], x[split.val], k=row["k"])
        cut = scores.best_thresholds(task.hot[split.val], on_val)
        decided = scores.decide(
            knn.knn_scores(x[bank], task.hot[bank], x[split.test], k=row["k"]), kind="multi", threshold=cut
        )
        assert row["macro_f1"]["estimate"] == pytest.approx(scores.macro_f1(task.hot[split.test], decided))


def test_rows_and_figure_say_which_k_was_chosen():
    x, task, split = cells()
    tables = {"one": System(x, ABOUT), "other": System(x[:, :2], ABOUT)}
    results = evaluate.evaluate_table(tables, task, [split], CONFIG)
    rows = curve_rows(results)
    assert [(r["features"], r["k"]) for r in rows] == [(n, k) for n in tables for k in (1, 3, 9)]
    for name, system in results["systems"].items():
        marked = [r["k"] for r in rows if r["features"] == name and r["choice"] == "chosen"]
        assert marked == system["knn"]["k"]
    lines = curve_lines(results)
    assert lines["one"]["chosen"] == results["systems"]["one"]["knn"]["k"]
    picture = np.asarray(
        Image.open(io.BytesIO(plots.over_k(lines, published={"paper": 0.7}, chance=0.3))).convert("RGB")
    )
    without = np.asarray(Image.open(io.BytesIO(plots.over_k(lines, chance=0.3))).convert("RGB"))
    assert picture.shape == without.shape and (picture != without).any()
    unknown = {"x": {"k": [1], "estimate": [0.5], "low": [np.nan], "high": [np.nan], "chosen": []}}
    assert plots.over_k(unknown)[:4] == b"\x89PNG"
    without_knn = {"task": results["task"], "systems": {"x": {"probe": {}}}}
    assert curve_rows(without_knn) == [] and curve_lines(without_knn) == {}
