"""The table of scores: hand-computed cases, agreement with its parts, honesty of choices, refusals."""

import dataclasses
import json

import numpy as np
import pytest

from protloc_jax.data import splits
from protloc_jax.eval import evaluate, knn, outcome, probe, scores, statistics
from protloc_jax.eval.evaluate import EvaluateConfig, System

ABOUT = {"layer": "last", "pooling": "cls", "channel_plan": "natural"}
QUICK = EvaluateConfig(k=(1, 5, 15), l2=(1e-3, 1e-1), resamples=200)
NAMES = ("golgi", "mitochondria", "nucleus")


def proteins(seed=0, per_class=8, cells=6, dim=8, noise=1.0, multi=False):
    """Cells of proteins: features are class centre + protein offset + noise; the label belongs to the protein."""
    rng = np.random.default_rng(seed)
    label = np.tile(np.arange(3), per_class)
    protein = np.repeat(np.arange(3 * per_class), cells)
    centre = np.random.default_rng(5).normal(size=(3, dim))
    x = (centre[label] + 0.5 * rng.normal(size=(3 * per_class, dim)))[protein] + noise * rng.normal(
        size=(len(protein), dim)
    )
    hot = np.eye(3, dtype=bool)[label]
    if multi:
        hot |= np.eye(3, dtype=bool)[rng.integers(0, 3, 3 * per_class)]
    names = np.array([f"P{p:02d}" for p in protein])
    task = outcome.Task(
        labels=hot[protein],
        label_names=NAMES,
        kind="multi" if multi else "single",
        unit=names,
        unit_name="protein",
        split={"grouped by": "protein", "seed": 0},
        exclude={"protein": names},
    )
    made = splits.split_of(splits.train_val_test(task.labels, names, shares=(0.5, 0.2, 0.3), seed=0), "fixed")
    return x.astype(np.float32), task, made


def tables(x, task, seed=1):
    rng = np.random.default_rng(seed)
    return {
        "untrained": System(rng.normal(size=x.shape).astype(np.float32), ABOUT),
        "trained": System(x, ABOUT),
    }


@pytest.fixture(scope="module")
def single():
    x, task, split = proteins()
    return x, task, split, evaluate.evaluate_table(tables(x, task), task, [split], QUICK)


@pytest.fixture(scope="module")
def multi():
    x, task, split = proteins(multi=True)
    config = dataclasses.replace(QUICK, threshold="validation")
    return x, task, split, evaluate.evaluate_table(tables(x, task), task, [split], config)


def test_probe_and_knn_equal_their_parts(single):
    x, task, split, results = single
    entry = results["systems"]["trained"]
    both = np.concatenate([split.train, split.val])
    ids = task.excluded()
    assert ids is not None
    f1 = []
    for k in QUICK.k:
        votes = knn.knn_scores(x[split.train], task.hot[split.train], x[split.val], k=k)
        f1.append(scores.macro_f1(task.hot[split.val], scores.decide(votes, kind="single")))
    k = QUICK.k[int(np.argmax(f1))]
    assert entry["knn"]["k"] == [k]
    votes = knn.knn_scores(x[both], task.hot[both], x[split.test], k=k)
    decided = scores.decide(votes, kind="single")
    assert entry["knn"]["macro_f1"]["estimate"] == pytest.approx(scores.macro_f1(task.hot[split.test], decided))
    assert entry["knn"]["accuracy"] == pytest.approx(scores.accuracy(task.hot[split.test], decided))
    assert entry["knn"]["macro_f1_by_k"][str(k)] == pytest.approx(entry["knn"]["macro_f1"]["estimate"])
    fitted = probe.nested_probe(x, task.hot, [split], kind="multinomial", l2=QUICK.l2)
    decided = scores.decide(fitted.scores[0], kind="single")
    assert entry["probe"]["l2"] == fitted.l2.tolist()
    assert entry["probe"]["macro_f1"]["estimate"] == pytest.approx(scores.macro_f1(task.hot[split.test], decided))
    counts = statistics.group_sums(scores.row_counts(task.hot[split.test], decided), task.unit[split.test])[0]
    interval = statistics.bootstrap(counts, scores.macro_f1_of, resamples=200)
    assert entry["probe"]["macro_f1"] == interval.as_dict()
    classes = entry["probe"]["per_class"]
    wanted = scores.per_class(counts.sum(axis=0), NAMES)
    assert {n: classes[n]["f1"] for n in NAMES} == pytest.approx({n: wanted[n]["f1"] for n in NAMES})
    assert all(classes[n]["low"] <= classes[n]["f1"] <= classes[n]["high"] for n in NAMES)
    confusion = np.array(entry["probe"]["confusion"])
    assert confusion.sum(axis=1).tolist() == [classes[n]["support"] for n in NAMES]
    assert np.trace(confusion) / confusion.sum() == pytest.approx(entry["probe"]["accuracy"])


def test_trained_features_win_and_the_difference_is_paired(single):
    _, task, split, results = single
    trained, untrained = (results["systems"][n]["probe"]["macro_f1"]["estimate"] for n in ("trained", "untrained"))
    difference = next(d for d in results["differences"] if d["evaluator"] == "probe")
    assert (difference["first"], difference["second"]) == ("trained", "untrained")
    assert difference["macro_f1"]["estimate"] == pytest.approx(trained - untrained)
    assert difference["macro_f1"]["low"] > 0
    assert difference["p_value_holm"] >= difference["p_value"]
    assert difference["macro_f1"]["groups"] == len(set(task.unit[split.test]))
    assert untrained < 0.6 < trained


def test_every_result_says_how_it_was_made_and_is_plain_json(single, multi):
    for results in (single[3], multi[3]):
        again = json.loads(json.dumps(results, allow_nan=False))
        assert again == results
        assert again["settings"]["resamples"] == 200
        rows = evaluate.report_rows(results)
        named = [(r["features"], r["evaluator"]) for r in rows]
        assert named[-4:] == [(n, e) for n in ("untrained", "trained") for e in ("knn", "probe")]
        for row in rows[-4:]:
            assert {"split", "choice", "layer", "pooling", "channel plan", "bootstrap seed", "interval over"} <= set(
                row
            )
            assert (row["layer"], row["pooling"], row["channel plan"]) == ("last", "cls", "natural")
            assert "validation" in row["choice"]
            assert row["low"] <= row["macro-F1"] <= row["high"]


def test_chance_by_hand():
    # Training shares 3/4 and 1/4; one test row a class. Majority: class 0 always, F1 2/3 and 0. Prior: expected counts
    # of class 0 tp 3/4, fp 3/4, fn 1/4, of class 1 tp 1/4, fp 1/4, fn 3/4: F1 0.6 and 1/3.
    labels = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [1, 0], [0, 1]])
    task = outcome.Task(labels, ("a", "b"), "single", np.arange(6), "row", {})
    split = splits.Split(np.arange(3), np.array([3]), np.array([4, 5]))
    made = outcome.chance(task, [split])
    f1 = {name: float(scores.macro_f1_of(outcome.row_counts(o, task).sum(axis=0))) for name, o in made.items()}
    assert f1 == pytest.approx({"prior": (0.6 + 1 / 3) / 2, "majority": (2 / 3 + 0) / 2})


def test_prior_chance_is_the_mean_of_random_draws(single, multi):
    for _, task, split, results in (single, multi):
        rng = np.random.default_rng(0)
        share = task.hot[np.concatenate([split.train, split.val])].mean(axis=0)
        truth = task.hot[split.test]
        drawn = []
        for _ in range(300):
            one = rng.choice(3, len(truth), p=share / share.sum())[:, None] == np.arange(3)
            drawn.append(scores.macro_f1(truth, one if task.kind == "single" else rng.random(truth.shape) < share))
        assert results["chance"]["prior"]["macro_f1"]["estimate"] == pytest.approx(np.mean(drawn), abs=0.02)


def test_several_labels_use_cuts_chosen_on_validation_rows(multi):
    x, task, split, results = multi
    entry = results["systems"]["trained"]["probe"]
    fitted = probe.nested_probe(x, task.hot, [split], kind="multilabel", l2=QUICK.l2)
    cut = scores.best_thresholds(task.hot[split.val], fitted.val_scores[0])
    np.testing.assert_allclose(entry["thresholds"], [cut], atol=1e-6)
    decided = scores.decide(fitted.scores[0], kind="multi", threshold=cut)
    assert entry["macro_f1"]["estimate"] == pytest.approx(scores.macro_f1(task.hot[split.test], decided))
    precision = scores.mean_average_precision(task.hot[split.test], fitted.scores[0])
    assert entry["mean_average_precision"] == pytest.approx(precision)
    assert "confusion" not in entry
    assert set(results["chance"]) == {"prior", "majority", "all positive"}


def test_protein_level_averages_the_scores_of_a_proteins_cells(single):
    x, task, split, results = single
    fitted = probe.nested_probe(x, task.hot, [split], kind="multinomial", l2=QUICK.l2).scores[0]
    units = task.unit[split.test]
    mean = np.stack([fitted[units == u].mean(axis=0) for u in np.unique(units)])
    truth = np.stack([task.hot[split.test][units == u][0] for u in np.unique(units)])
    by_unit = results["systems"]["trained"]["probe"]["by_unit"]
    assert by_unit["units"] == len(truth)
    assert by_unit["macro_f1"]["estimate"] == pytest.approx(scores.macro_f1(truth, scores.decide(mean, kind="single")))


def test_test_rows_cannot_influence_choices_or_each_other(single):
    x, task, split, results = single
    half = split.test[: len(split.test) // 2]
    changed = x.copy()
    changed[split.test[len(split.test) // 2 :]] *= -3
    again = evaluate.evaluate_table({"trained": System(changed, ABOUT)}, task, [split._replace(test=half)], QUICK)[
        "systems"
    ]["trained"]
    before = evaluate.evaluate_table({"trained": System(x, ABOUT)}, task, [split._replace(test=half)], QUICK)
    assert again == before["systems"]["trained"]
    assert again["knn"]["k"] == results["systems"]["trained"]["knn"]["k"]
    assert again["probe"]["l2"] == results["systems"]["trained"]["probe"]["l2"]


def test_neighbours_of_the_same_well_do_not_vote():
    # Cells of a well are near copies; a well's label is random, so an honest k-NN is at chance and a leaky one is not.
    rng = np.random.default_rng(0)
    well = np.repeat(np.arange(60), 4)
    x = (rng.normal(size=(60, 16))[well] + 0.01 * rng.normal(size=(240, 16))).astype(np.float32)
    labels = np.eye(2, dtype=bool)[rng.integers(0, 2, 60)[well]]
    parts = np.arange(240) % 4  # every well lies in all parts: a split by cell, which is what must be survived
    split = splits.Split(*(np.flatnonzero(np.isin(parts, p)) for p in ([0, 1], [2], [3])))
    task = outcome.Task(labels, ("a", "b"), "single", well, "well", {"by": "cell"})
    config = dataclasses.replace(QUICK, evaluators=("knn",))
    leaky = evaluate.evaluate_table({"x": System(x, ABOUT)}, task, [split], config)
    honest = evaluate.evaluate_table(
        {"x": System(x, ABOUT)}, dataclasses.replace(task, exclude={"well": well}), [split], config
    )
    assert leaky["systems"]["x"]["knn"]["macro_f1"]["estimate"] > 0.95
    assert honest["systems"]["x"]["knn"]["macro_f1"]["estimate"] < 0.7
    assert honest["task"]["excluded_neighbours"] == ["well"]
    assert leaky["task"]["splits"][0]["units_in_several_parts"] == 60


def test_standardised_features_survive_a_unit_that_dominates():
    x, task, split = proteins(noise=0.3)
    x = np.hstack([x, 1e4 * np.random.default_rng(0).normal(size=(len(x), 1)).astype(np.float32) + 1e5])
    config = dataclasses.replace(QUICK, evaluators=("knn",))
    found = evaluate.evaluate_table(
        {"raw": System(x, ABOUT), "scaled": System(x, ABOUT, "standardise")}, task, [split], config
    )["systems"]
    raw, scaled = (found[n]["knn"]["macro_f1"]["estimate"] for n in ("raw", "scaled"))
    assert raw < 0.6 < 0.8 < scaled


def test_folds_pool_every_row_once_and_choose_for_each_fold():
    x, task, _ = proteins()
    folds = splits.k_fold_splits(splits.k_fold(task.labels, task.unit, folds=4, seed=0))
    results = evaluate.evaluate_table({"trained": System(x, ABOUT)}, task, folds, QUICK)
    entry = results["systems"]["trained"]
    assert results["task"]["test_rows"] == len(x)
    assert sum(c["support"] for c in entry["probe"]["per_class"].values()) == len(x)
    assert len(entry["knn"]["k"]) == len(entry["probe"]["l2"]) == len(entry["probe"]["by_split"]) == 4
    shares = [s["test_rows"] / len(x) for s in entry["knn"]["by_split"]]
    mean = np.average([s["accuracy"] for s in entry["knn"]["by_split"]], weights=shares)
    assert mean == pytest.approx(entry["knn"]["accuracy"])


def test_one_protein_left_out_in_turn():
    x, task, _ = proteins(per_class=3, cells=20, noise=0.5)
    field = np.array([f"{p}_{i % 4}" for i, p in enumerate(task.unit)])
    task = dataclasses.replace(task, unit=field, unit_name="field", exclude={"field": field})
    protein = np.array([f.split("_")[0] for f in field])
    table = {"trained": System(x, ABOUT)}
    results = evaluate.evaluate_left_out(table, task, protein, group_name="protein", inner_groups=field, config=QUICK)
    entry = results["systems"]["trained"]["probe"]
    assert [s["name"] for s in entry["by_split"]] == [f"without P0{i}" for i in range(9)]
    assert entry["chosen_by"] == "validation macro-F1"
    assert entry["accuracy"] > 0.6
    assert results["task"]["split"]["left out in turn"] == "protein"
    fixed = evaluate.evaluate_left_out(table, task, protein, group_name="protein", config=QUICK)["systems"]["trained"]
    assert fixed["knn"]["k"] == [QUICK.fixed_k] * 9
    assert fixed["probe"]["l2"] == [QUICK.fixed_l2] * 9
    assert fixed["probe"]["chosen_by"] == fixed["knn"]["chosen_by"] == "fixed, no validation rows"


def test_class_never_trained_is_reported_and_counts_as_zero():
    x, task, split = proteins()
    keep = ~task.hot[split.train][:, 2], ~task.hot[split.val][:, 2]
    split = split._replace(train=split.train[keep[0]], val=split.val[keep[1]])
    results = evaluate.evaluate_table({"trained": System(x, ABOUT)}, task, [split], QUICK)
    assert results["task"]["splits"][0]["classes_never_trained"] == ["nucleus"]
    for evaluator in ("knn", "probe"):
        entry = results["systems"]["trained"][evaluator]
        assert entry["per_class"]["nucleus"]["f1"] == 0
        values = [entry["per_class"][n]["f1"] for n in NAMES]
        assert entry["macro_f1"]["estimate"] == pytest.approx(np.mean(values))


def test_units_of_mixed_labels_are_counted_and_left_out():
    x, task, split = proteins()
    labels = task.labels.copy()
    row = split.test[0]
    labels[row] = np.roll(labels[row], 1)
    task = dataclasses.replace(task, labels=labels)
    results = evaluate.evaluate_table(
        {"x": System(x, ABOUT)}, task, [split], dataclasses.replace(QUICK, evaluators=("knn",))
    )
    by_unit = results["systems"]["x"]["knn"]["by_unit"]
    assert by_unit["units_of_mixed_labels_left_out"] == 1
    assert by_unit["units"] == len(set(task.unit[split.test])) - 1


def test_bad_input_is_named_all_at_once():
    x, task, split = proteins()
    labels = task.labels.copy()
    labels[split.train[:2]] = True
    broken = x.copy()
    broken[7] = np.nan
    with pytest.raises(ValueError, match="exactly one label") as refusal:
        evaluate.evaluate_table(
            {"short": System(x[1:], ABOUT), "nan": System(broken, ABOUT), "bare": System(x, {"layer": "last"})},
            dataclasses.replace(task, labels=labels, unit=task.unit[1:]),
            [split, split._replace(test=split.test[:3])],
            QUICK,
            pairs=[("trian", "nan")],
        )
    for words in (
        "table 'short': features [143, 8] for 144 rows",
        "table 'nan': 1 rows are not finite, the first is row 7",
        "table 'bare': about lacks pooling, channel_plan",
        "unknown table 'trian'",
        "protein: 143 group ids for 144 rows",
        "3 rows are tested more than once",
    ):
        assert words in str(refusal.value)
    with pytest.raises(ValueError, match=r"k=\(0, 5\): must be positive.*level=95"):
        EvaluateConfig(k=(0, 5), level=95)
    with pytest.raises(ValueError, match="'svm' is not one of knn, probe"):
        EvaluateConfig(evaluators=("svm",))
