"""Scores against scikit-learn and against values worked out by hand."""

import numpy as np
import pytest
from sklearn import metrics

from protloc_jax.eval import scores


def multi_hot(seed, rows=200, classes=6, rate=0.3):
    rng = np.random.default_rng(seed)
    return rng.random((rows, classes)) < rate


def test_golden_single_label_by_hand():
    # True 0 0 0 1 1 2, predicted 0 0 1 1 2 0: class 0 tp 2 fp 1 fn 1, class 1 tp 1 fp 1 fn 1, class 2 tp 0 fp 1 fn 1.
    targets = scores.one_hot(np.array([0, 0, 0, 1, 1, 2]), 4)
    predictions = scores.one_hot(np.array([0, 0, 1, 1, 2, 0]), 4)
    counts = scores.counts(targets, predictions)
    np.testing.assert_array_equal(counts, [[2, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0]])
    np.testing.assert_allclose(scores.f1_of(counts), [2 / 3, 1 / 2, 0, 0])
    assert scores.macro_f1(targets, predictions) == pytest.approx((2 / 3 + 1 / 2) / 3)
    assert scores.accuracy(targets, predictions) == pytest.approx(3 / 6)
    assert scores.balanced_accuracy(targets, predictions) == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)


def test_golden_average_precision_by_hand():
    # Ranked hits 1, 0, 1: precision 1 at recall 1/2, 2/3 at recall 1; then two rows tied at one level.
    targets = np.array([[1, 1], [0, 0], [1, 0]])
    values = np.array([[0.9, 0.5], [0.8, 0.5], [0.7, 0.1]])
    np.testing.assert_allclose(scores.average_precision(targets, values), [(1 + 2 / 3) / 2, 1 / 2])


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_scikit_learn_multi_label(seed):
    targets, predictions = multi_hot(seed), multi_hot(seed + 100)
    values = np.round(np.random.default_rng(seed).random(targets.shape), 1)  # rounding makes ties
    counts = scores.counts(targets, predictions)
    f1 = metrics.f1_score(targets, predictions, average=None, zero_division=0)
    np.testing.assert_allclose(scores.f1_of(counts), f1)
    assert scores.macro_f1(targets, predictions) == pytest.approx(f1.mean())
    assert scores.accuracy(targets, predictions) == pytest.approx(metrics.accuracy_score(targets, predictions))
    ours = scores.average_precision(targets, values)
    np.testing.assert_allclose(ours, metrics.average_precision_score(targets, values, average=None))
    assert scores.mean_average_precision(targets, values) == pytest.approx(ours.mean())
    table = scores.per_class(counts, "abcdef")
    wanted = metrics.precision_recall_fscore_support(targets, predictions, zero_division=0)
    for i, name in enumerate("abcdef"):
        row = table[name]
        assert [row["precision"], row["recall"], row["f1"], row["support"]] == pytest.approx([w[i] for w in wanted])


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_scikit_learn_single_label(seed):
    rng = np.random.default_rng(seed)
    true, predicted = rng.integers(0, 5, 100), rng.integers(0, 5, 100)
    targets, predictions = scores.one_hot(true, 7), scores.one_hot(predicted, 7)  # classes 5 and 6 never occur
    assert scores.macro_f1(targets, predictions) == pytest.approx(metrics.f1_score(true, predicted, average="macro"))
    assert scores.accuracy(targets, predictions) == pytest.approx((true == predicted).mean())
    wanted = metrics.balanced_accuracy_score(true, predicted)
    assert scores.balanced_accuracy(targets, predictions) == pytest.approx(wanted)


def test_class_missing_from_the_rows_is_left_out_but_its_false_positives_cost_recall_elsewhere():
    true, predicted = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    ours = scores.macro_f1(scores.one_hot(true, 3), scores.one_hot(predicted, 3))
    assert ours == pytest.approx((2 / 3 + 1) / 2)
    assert ours == pytest.approx(metrics.f1_score(true, predicted, labels=[0, 1], average="macro"))
    never_predicted = scores.macro_f1(scores.one_hot(true, 3), scores.one_hot(np.zeros(4, int), 3))
    assert never_predicted == pytest.approx((2 / 3 + 0) / 2)


def test_no_rows_or_no_positive_is_nan_and_not_a_number_made_up():
    empty = np.zeros((4, 3), bool)
    assert np.isnan(scores.macro_f1(empty, ~empty))
    assert np.isnan(scores.mean_average_precision(empty, np.ones((4, 3))))
    assert np.isnan(scores.accuracy(np.zeros((0, 3)), np.zeros((0, 3))))


def test_decisions():
    values = np.array([[0.2, 0.4, 0.4], [0.0, 0.0, 0.0], [0.6, 0.1, 0.7]])
    np.testing.assert_array_equal(scores.decide(values, kind="single"), [[0, 1, 0], [0, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(scores.decide(values, kind="multi"), [[0, 0, 0], [0, 0, 0], [1, 0, 1]])
    cut = scores.decide(values, kind="multi", threshold=[0.1, 0.3, 0.9])
    np.testing.assert_array_equal(cut, [[1, 1, 0], [0, 0, 0], [1, 0, 0]])


@pytest.mark.parametrize("seed", range(5))
def test_best_thresholds_equal_a_search_over_all_cuts(seed):
    rng = np.random.default_rng(seed)
    values = np.round(rng.random((40, 3)), 1)
    targets = rng.random((40, 3)) < values
    targets[:, 2] = False
    cuts = scores.best_thresholds(targets, values)
    ours = scores.f1_of(scores.counts(targets, scores.decide(values, kind="multi", threshold=cuts)))
    grid = np.arange(-0.05, 1.1, 0.1)
    every = [metrics.f1_score(targets, values > cut, average=None, zero_division=0) for cut in grid]
    np.testing.assert_allclose(ours[:2], np.max(every, axis=0)[:2])
    assert cuts[2] == 0.5


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"row 1: 3, row 2: -1"):
        scores.one_hot(np.array([0, 3, -1]), 3)
    with pytest.raises(ValueError, match="one shape"):
        scores.macro_f1(np.zeros((3, 2)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="zeros and ones"):
        scores.macro_f1(np.full((3, 2), 0.4), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="first is row 1"):
        scores.average_precision(np.ones((2, 1)), np.array([[0.0], [np.nan]]))
