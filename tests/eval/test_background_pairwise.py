"""Pairwise support vector machines against scikit-learn's own cross-validation, and folds that do not leak."""

import itertools

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from protloc_jax.eval.background import pairwise
from protloc_jax.eval.background.folds import grouped_folds, joined
from protloc_jax.eval.background.rows import ConditionRows

CLASSES = ("a", "b", "c")


def some_rows(seed=0, per_set=30, backgrounds=("",)):
    rng = np.random.default_rng(seed)
    label, background = (
        np.array(column, object)
        for column in zip(*list(itertools.product(CLASSES, backgrounds)) * per_set, strict=True)
    )
    n = len(label)
    features = rng.normal(size=(n, 4)) + np.array([CLASSES.index(c) for c in label])[:, None] * 0.4
    ids = np.arange(n)
    return ConditionRows(features, label, ids, ids // 3, background, np.full(n, "", object))


def test_published_mode_is_scikit_learns_cross_validation_of_the_first_rows():
    rows = some_rows()
    options = pairwise.SvmOptions(split="published", standardise=False, rows_per_class=20)
    scores = pairwise.pairwise_scores(rows, options)
    assert [(s.first, s.second) for s in scores] == [("a", "b"), ("a", "c"), ("b", "c")]
    for score in scores:
        sets = [np.flatnonzero(rows.label == c)[:20] for c in (score.first, score.second)]
        model = SVC(kernel="linear", max_iter=100_000, random_state=42)
        y = np.repeat([score.first, score.second], 20)
        expected = cross_val_score(model, rows.features[np.concatenate(sets)], y, cv=StratifiedKFold(5))
        np.testing.assert_array_equal(score.fold_accuracy, expected)
        assert score.mean == pytest.approx(expected.mean()) and score.sd == pytest.approx(np.std(expected))
        assert score.rows == (20, 20) and score.balanced_accuracy == pytest.approx(expected.mean())
    paper = pairwise.PUBLISHED
    assert (paper.split, paper.standardise, paper.rows_per_class, paper.folds) == ("published", False, 1000, 5)
    assert (paper.classifier, paper.c, paper.max_iterations, paper.seed) == ("svc", 1.0, 100_000, 42)


def test_triplets_take_the_rows_of_both_classes_on_one_other_background():
    rows = some_rows(1, per_set=10, backgrounds=(*CLASSES, "d"))
    options = pairwise.SvmOptions(split="published", standardise=True)
    scores = pairwise.pairwise_scores(rows, options, by="triplet", classes="bac")
    assert [(s.first, s.second, s.background) for s in scores] == [
        ("b", "a", "c"), ("b", "a", "d"), ("b", "c", "a"), ("b", "c", "d"), ("a", "c", "b"), ("a", "c", "d"),
    ]  # fmt: skip
    members = [np.flatnonzero((rows.label == c) & (rows.background == "a")) for c in ("b", "c")]
    model = make_pipeline(StandardScaler(), SVC(kernel="linear"))
    expected = cross_val_score(model, rows.features[np.concatenate(members)], np.repeat([0, 1], 10), cv=5)
    np.testing.assert_array_equal(scores[2].fold_accuracy, expected)
    columns = pairwise.columns_of(scores)
    assert list(columns["background"]) == ["c", "d", "a", "d", "b", "d"] and columns["accuracy"][2] == expected.mean()


@pytest.mark.parametrize("classifier", ["svc", "linear_svc"])
def test_rows_of_one_cell_help_in_the_published_split_only(classifier):
    rng = np.random.default_rng(2)
    cell = np.tile(np.arange(40), 5)
    # Features tell cells apart and nothing of the class: whatever is learned is learned by heart.
    features = np.eye(40)[cell] + 0.01 * rng.normal(size=(200, 40))
    rows = ConditionRows(features, np.where(cell % 2, "odd", "even").astype(object), cell, cell)
    (published,) = pairwise.pairwise_scores(rows, pairwise.SvmOptions(split="published", classifier=classifier))
    (grouped,) = pairwise.pairwise_scores(rows, pairwise.SvmOptions(classifier=classifier))
    assert published.mean == 1 and grouped.mean < 0.6
    assert grouped.groups == 40 and grouped.purged == grouped.unconverged == 0


def test_groups_are_joined_through_cells_donors_and_proteins():
    features = np.zeros((6, 1))
    rows = ConditionRows(
        features, ["x"] * 6, cell=[0, 1, 2, 3, 4, 5], protein=list("ppqrst"), donor=["", "9", "9", "", "3", ""]
    )
    assert list(joined(rows, ("protein",))) == [0, 0, 1, 2, 3, 4]
    assert list(joined(rows, ("cell", "donor", "protein"))) == [0, 0, 0, 1, 2, 3]
    crops = ConditionRows(
        features, ["x"] * 6, cell=list("012345"), protein=list("ppqrst"), donor=["", "9", "9", "", "3", ""]
    )
    assert list(joined(crops, ("crop",))) == [0, 1, 1, 2, 2, 3]  # the cell of row 3 is the donor of row 4


def test_donors_that_tie_all_rows_together_are_refused_and_can_be_purged():
    rng = np.random.default_rng(3)
    n = 120
    donor = np.array([f"d{i}" for i in rng.integers(0, 40, n)], object)
    rows = ConditionRows(
        rng.normal(size=(n, 3)), np.repeat(["x", "y"], n // 2), np.arange(n), np.arange(n) // 6, donor=donor
    )
    with pytest.raises(ValueError, match=r"x / y: 1 joined groups for 5 folds;.*cell 120, donor 37, protein 20"):
        pairwise.pairwise_scores(rows)
    folds, groups = grouped_folds(rows, folds=5, seed=0, group_by=("cell", "protein"), purge_by=("donor",))
    assert groups == 20 and sorted(np.concatenate([f.test for f in folds])) == list(range(n))
    for fold in folds:
        every = np.setdiff1d(np.arange(n), fold.test)
        clear = [r for r in every if donor[r] not in set(donor[fold.test])]
        assert list(fold.train) == clear and fold.purged == len(every) - len(clear) > 0
        assert not set(rows.protein[every]) & set(rows.protein[fold.test])
    (score,) = pairwise.pairwise_scores(rows, pairwise.SvmOptions(group_by=("cell", "protein"), purge_by=("donor",)))
    assert score.purged > 0 and score.groups == 20


def test_threads_change_nothing_and_report_their_progress():
    rows, seen = some_rows(4), []
    options = pairwise.SvmOptions(max_iterations=2)
    one = pairwise.pairwise_scores(rows, options)
    two = pairwise.pairwise_scores(rows, options, workers=2, progress=lambda *at: seen.append(at))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.fold_accuracy, b.fold_accuracy)
        assert a[4:] == b[4:] and a.unconverged == 5  # two iterations are too few, and that is said


def test_all_that_cannot_be_scored_is_named_before_anything_is_fitted():
    rows = some_rows(5, per_set=3)
    with pytest.raises(ValueError, match=r"(?s)a: 3 rows for 5 folds.*b: 3 rows.*c: 3 rows"):
        pairwise.pairwise_scores(rows)
    with pytest.raises(ValueError, match=r"(?s)no rows of class 'x'.*no rows of class 'y'"):
        pairwise.pairwise_scores(rows, classes=("a", "x", "y"))
    with pytest.raises(ValueError, match="no row has a background class"):
        pairwise.pairwise_scores(some_rows(), by="triplet")
    with pytest.raises(ValueError, match=r"(?s)split='publshed'.*Did you mean 'published'.*folds=1"):
        pairwise.SvmOptions(split="publshed", folds=1)
    with pytest.raises(ValueError, match=r"(?s)not finite in rows 1.*'cell' must be \[2\].*no protein in rows 0"):
        ConditionRows(np.array([[0.0], [np.nan]]), ["x", "y"], [1], ["", "p"])
