"""A plan chosen on validation groups inside every split: what is taken, what is scored, what is refused."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from protloc_jax.data.splits import Split, k_fold, k_fold_splits
from protloc_jax.eval import evaluate, outcome, scores
from protloc_jax.eval.choose_plan import choose_plan
from protloc_jax.eval.evaluate import EvaluateConfig, System
from protloc_jax.eval.outcome import Outcome

CONFIG = EvaluateConfig(k=(1, 5), fixed_k=5, l2=(1e-2, 1e-1), resamples=100)


def about(plan):
    return {"layer": "last", "pooling": "cls", "channel_plan": plan}


def task_of(rows=180, seed=0):
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(rows // 6), 6)
    hot = np.eye(3, dtype=bool)[rng.integers(0, 3, rows // 6)][unit]
    return hot, outcome.Task(hot, ("a", "b", "c"), "single", unit, "protein", {})


def good_in(hot, good, seed, dim=4):
    """Features that tell the class only in some rows."""
    rng = np.random.default_rng(seed)
    signal = 4 * hot @ np.random.default_rng(9).normal(size=(3, dim))
    return (np.where(good[:, None], signal, 0) + rng.normal(size=(len(hot), dim))).astype(np.float32)


def test_the_plan_that_is_best_on_test_rows_is_not_taken_for_it():
    """Plan "late" tells classes in training and test rows, plan "early" in training and validation rows: an honest
    choice takes "early", and its (bad) test score is what is reported."""
    hot, task = task_of()
    part = task.unit % 3
    split = Split(*(np.flatnonzero(part == p) for p in range(3)))
    tables = {
        "late": System(good_in(hot, part != 1, 1), about("replicate")),
        "early": System(good_in(hot, part != 2, 2), about("natural")),
    }
    results = evaluate.evaluate_table(
        tables, task, [split], CONFIG, choices={"chosen": ("late", "early")}, pairs=[("chosen", "late")]
    )
    systems = results["systems"]
    for evaluator in ("knn", "probe"):
        late, early, chosen = (systems[n][evaluator] for n in ("late", "early", "chosen"))
        assert early["macro_f1"]["estimate"] < 0.5 < 0.8 < late["macro_f1"]["estimate"], "test rows say late"
        assert chosen["chosen"] == ["early"], "validation rows say early"
        for key in ("macro_f1", "accuracy", "per_class", "confusion", "by_unit"):
            assert chosen[key] == early[key]
        assert chosen["validation_of_all"]["early"][0] > 0.8 > chosen["validation_of_all"]["late"][0]
    assert systems["chosen"]["about"] == about("chosen") | {"layer": "last", "pooling": "cls"}
    assert systems["chosen"]["knn"]["k"] == systems["early"]["knn"]["k"]
    assert [d["first"] for d in results["differences"]] == ["chosen", "chosen"]
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    last = evaluate.report_rows(results)[-1]
    assert (last["channel plan"], last["width"]) == ("chosen", "4")
    assert "; early (validation macro-F1)" in last["choice"]


def test_every_split_chooses_for_itself_and_rows_are_pooled():
    hot, task = task_of(seed=3)
    folds = k_fold_splits(k_fold(task.labels, task.unit, folds=3, seed=0))
    rng = np.random.default_rng(4)
    tables = {n: System(good_in(hot, rng.random(len(hot)) < 0.5, s), about(n)) for s, n in enumerate(("p", "q", "r"))}
    config = dataclasses.replace(CONFIG, evaluators=("knn",))
    results = evaluate.evaluate_table(tables, task, folds, config, choices={"chosen": list(tables)})
    entry = results["systems"]["chosen"]["knn"]
    alone = {n: results["systems"][n]["knn"] for n in tables}
    for s, fold in enumerate(entry["by_split"]):
        values = {n: a["validation_macro_f1_of_choice"][s] for n, a in alone.items()}
        best = max(values, key=values.__getitem__)
        assert entry["chosen"][s] == best
        assert fold["macro_f1"] == alone[best]["by_split"][s]["macro_f1"]
        assert entry["k"][s] == alone[best]["k"][s]
    assert sum(s["test_rows"] for s in entry["by_split"]) == len(hot)


def test_test_rows_cannot_change_the_choice():
    hot, task = task_of(seed=5)
    split = Split(*(np.flatnonzero(task.unit % 3 == p) for p in range(3)))
    x = {n: good_in(hot, np.random.default_rng(s).random(len(hot)) < 0.6, s) for s, n in enumerate(("p", "q"))}

    def choice(features):
        tables = {n: System(v, about(n)) for n, v in features.items()}
        return evaluate.evaluate_table(tables, task, [split], CONFIG, choices={"c": ("p", "q")})["systems"]["c"]

    changed = {n: v.copy() for n, v in x.items()}
    for v in changed.values():
        v[split.test] = np.random.default_rng(8).normal(size=v[split.test].shape)
    assert [choice(x)[e]["chosen"] for e in ("knn", "probe")] == [
        choice(changed)[e]["chosen"] for e in ("knn", "probe")
    ]


def made(validation, value):
    scored = np.full((4, 2), value, np.float32)
    split = np.array([0, 0, 1, 1])
    facts = {"validation_macro_f1_of_choice": validation, "k": [1, 5]}
    cut = np.full((2, 2), value)
    return Outcome(np.arange(4), split, scored, scores.decide(scored, kind="multi"), cut, facts)


def test_ties_go_to_the_narrower_plan_then_to_the_first():
    outcomes = {"wide": made([0.5, 0.7], 0.1), "first": made([0.5, 0.7], 0.2), "second": made([0.5, 0.8], 0.3)}
    found = choose_plan(outcomes, widths={"wide": 20, "first": 10, "second": 10})
    assert found.facts["chosen"] == ["first", "second"]
    np.testing.assert_allclose(found.scores[:, 0], [0.2, 0.2, 0.3, 0.3])
    np.testing.assert_allclose(found.cut, [[0.2, 0.2], [0.3, 0.3]])
    assert found.facts["k"] == [1, 5]


def test_refusals():
    hot, task = task_of()
    rows = np.arange(len(hot))
    blind = Split(rows[:120], rows[:0], rows[120:])
    x = System(good_in(hot, np.ones(len(hot), bool), 0), about("x"))
    with pytest.raises(ValueError, match="choice 'c' names unknown tables 'xx' Did you mean 'x'") as refusal:
        evaluate.evaluate_table({"x": x, "y": x}, task, [blind], CONFIG, choices={"c": ("x", "xx"), "x": ("x",)})
    for words in (
        "choice 'x' is called like a table",
        "'x' needs two or more different tables",
        "need validation rows",
    ):
        assert words in str(refusal.value)
    with pytest.raises(ValueError, match="nothing to choose by: b have no validation rows"):
        choose_plan({"a": made([0.1, 0.2], 0.5), "b": made([0.1, float("nan")], 0.5)}, widths={"a": 1, "b": 1})
    moved = made([0.1, 0.2], 0.5)._replace(row=np.arange(4)[::-1])
    with pytest.raises(ValueError, match="others have b"):
        choose_plan({"a": made([0.1, 0.2], 0.5), "b": moved}, widths={"a": 1, "b": 1})
