"""Splits keep groups whole, match scikit-learn's stratification, and say which class is missing where."""

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from protloc_jax.data import splits


def proteins(seed, groups=120, labels=8, multi=False):
    """Rows of groups of unequal size with a long-tailed label distribution; the label belongs to the group."""
    rng = np.random.default_rng(seed)
    rate = 1 / np.arange(1, labels + 1)
    rate /= rate.sum()
    group = np.repeat(np.arange(groups), rng.integers(1, 20, groups))
    if multi:
        return (rng.random((groups, labels)) < 2 * rate)[group], group
    return rng.choice(labels, groups, p=rate)[group], group


def unevenness(hot, part, parts):
    wanted = hot.sum(axis=0) / parts
    return np.mean([np.abs(hot[part == p].sum(axis=0) - wanted) / np.maximum(wanted, 1) for p in range(parts)])


@pytest.mark.parametrize("seed", range(4))
def test_folds_are_group_safe_and_as_even_as_scikit_learn(seed):
    labels, groups = proteins(seed)
    hot = labels[:, None] == np.arange(labels.max() + 1)
    ours = splits.k_fold(labels, groups, folds=5, seed=seed)
    theirs, random = np.zeros(len(labels), int), np.random.default_rng(seed).integers(0, 5, 120)[groups]
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(labels, labels, groups)
    for fold, (_, test) in enumerate(folds):
        theirs[test] = fold
    assert all(len(set(ours.part[groups == g])) == 1 for g in set(groups))
    assert unevenness(hot, ours.part, 5) <= 1.05 * unevenness(hot, theirs, 5)
    assert unevenness(hot, ours.part, 5) < 0.7 * unevenness(hot, random, 5)
    assert np.bincount(ours.part).min() > 0.8 * len(labels) / 5


@pytest.mark.parametrize("seed", range(3))
def test_several_labels_a_row_are_stratified_too(seed):
    hot, groups = proteins(seed, multi=True)
    ours = splits.k_fold(hot, groups, folds=4, seed=seed)
    random = np.random.default_rng(seed).integers(0, 4, 120)[groups]
    assert all(len(set(ours.part[groups == g])) == 1 for g in set(groups))
    assert unevenness(hot, ours.part, 4) < 0.3 * unevenness(hot, random, 4)


def test_deterministic_by_seed_and_blind_to_group_names():
    labels, groups = proteins(1)
    first = splits.k_fold(labels, groups, folds=5, seed=3).part
    np.testing.assert_array_equal(first, splits.k_fold(labels, groups, folds=5, seed=3).part)
    named = np.array([f"ENSG{g:05d}" for g in groups])
    np.testing.assert_array_equal(first, splits.k_fold(labels, named, folds=5, seed=3).part)
    assert (first != splits.k_fold(labels, groups, folds=5, seed=4).part).any()


def test_shares_are_met_and_the_report_adds_up():
    labels, groups = proteins(2, groups=300)
    parts = splits.train_val_test(labels, groups, shares=(0.7, 0.1, 0.2), seed=0)
    report = parts.report("abcdefgh")
    sizes = np.array([report[p]["rows"] for p in ("train", "val", "test")])
    np.testing.assert_allclose(sizes / len(labels), [0.7, 0.1, 0.2], atol=0.02)
    assert sizes.sum() == len(labels)
    assert sum(report[p]["groups"] for p in report) == 300
    for i, name in enumerate("abcdefgh"):
        assert sum(report[p]["class_rows"][name] for p in report) == (labels == i).sum()
        in_train = set(groups[(labels == i) & (parts.part == 0)])
        assert report["train"]["class_groups"][name] == len(in_train)
    assert splits.overlaps(splits.split_of(parts), groups) == []


def test_class_with_one_group_trains_and_with_two_is_tested_before_it_validates():
    # Twenty groups of class 0, two of class 1, one of class 2, ten rows each.
    labels = np.repeat([0] * 20 + [1, 1, 2], 10)
    groups = np.repeat(np.arange(23), 10)
    parts = splits.train_val_test(labels, groups, seed=0)
    assert parts.missing == {"val": [1, 2], "test": [2]}
    assert parts.report(["many", "two", "one"])["val"]["missing"] == ["two", "one"]


def test_folds_report_the_classes_they_miss():
    labels = np.array([0] * 9 + [1, 1, 2])
    folds = splits.k_fold(labels, np.arange(12), folds=3, seed=0)
    assert sorted(sum(2 in classes for classes in folds.missing.values()) for _ in [0]) == [2]
    assert sum(1 in classes for classes in folds.missing.values()) == 1
    assert not any(0 in classes for classes in folds.missing.values())


def test_every_row_is_tested_once_and_validation_is_another_fold():
    labels, groups = proteins(4)
    made = splits.k_fold_splits(splits.k_fold(labels, groups, folds=4, seed=0))
    np.testing.assert_array_equal(np.sort(np.concatenate([s.test for s in made])), np.arange(len(labels)))
    np.testing.assert_array_equal(np.sort(np.concatenate([s.val for s in made])), np.arange(len(labels)))
    for split in made:
        np.testing.assert_array_equal(np.sort(np.concatenate(split[:3])), np.arange(len(labels)))
        assert splits.overlaps(split, groups) == []


def test_overlap_is_found():
    split = splits.Split(np.array([0, 1]), np.array([2]), np.array([3]))
    assert splits.overlaps(split, np.array(["a", "b", "c", "b"])) == ["b"]


@pytest.mark.parametrize("rare", ["report", "keep"])
def test_nested_fractions_are_nested_whole_groups_of_the_right_size(rare):
    labels, groups = proteins(5, groups=200)
    found = splits.nested_fractions(labels, groups, fractions=[0.1, 1.0, 0.5, 0.25], seed=0, rare=rare)
    assert list(found) == [1.0, 0.5, 0.25, 0.1]
    inner = None
    for fraction in sorted(found):
        rows = found[fraction]
        assert len(rows) == pytest.approx(fraction * len(labels), rel=0.15 if rare == "report" else 0.5)
        assert not set(groups[rows]) & set(np.delete(groups, rows))
        assert inner is None or set(inner) <= set(rows)
        inner = rows
    if rare == "keep":
        assert set(labels[found[0.1]]) == set(labels)


def test_leave_one_group_out_with_inner_fields():
    labels = np.repeat([0, 0, 1, 1], 40)
    genes = np.repeat(["AAC1", "AAC3", "AAP1", "AAR2"], 40)
    fields = np.array([f"{g}_{i // 10 % 4}" for i, g in enumerate(genes)])
    made = splits.leave_one_group_out(labels, genes, inner_groups=fields)
    assert [s.name for s in made] == ["without AAC1", "without AAC3", "without AAP1", "without AAR2"]
    for split in made:
        assert len(set(genes[split.test])) == 1
        assert set(genes[split.test]).isdisjoint(genes[np.concatenate([split.train, split.val])])
        assert splits.overlaps(split, fields) == []
        assert len(split.val) == pytest.approx(0.25 * 120, abs=10)
        assert set(labels[split.val]) == {0, 1}
    assert all(len(s.val) == 0 for s in splits.leave_one_group_out(labels, genes))


def test_no_part_stays_empty_even_with_as_many_groups_as_parts():
    for seed in range(5):
        parts = splits.assign(
            np.zeros(12, int),
            np.repeat([0, 1, 2], [10, 1, 1]),
            shares=(0.9, 0.05, 0.05),
            names=("a", "b", "c"),
            seed=seed,
        )
        assert set(parts.part) == {0, 1, 2}


def test_rows_without_labels_are_spread_by_size():
    hot = np.zeros((100, 3), bool)
    parts = splits.k_fold(hot, np.arange(100), folds=5, seed=0)
    np.testing.assert_array_equal(np.bincount(parts.part), [20] * 5)
    assert parts.missing == {}


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="2 groups cannot fill 3 parts"):
        splits.train_val_test(np.zeros(4, int), np.array([0, 0, 1, 1]), seed=0)
    with pytest.raises(ValueError, match="rows without a group id: 1, 3"):
        splits.k_fold(np.zeros(4, int), np.array(["a", "", "b", None], dtype=object), folds=2, seed=0)
    with pytest.raises(ValueError, match="4 rows need 4 group ids"):
        splits.k_fold(np.zeros(4, int), np.zeros(3), folds=2, seed=0)
    with pytest.raises(ValueError, match="folds=1"):
        splits.k_fold(np.zeros(4, int), np.arange(4), folds=1, seed=0)
    with pytest.raises(ValueError, match="multi-hot"):
        splits.k_fold(np.full((4, 2), 0.5), np.arange(4), folds=2, seed=0)
    with pytest.raises(ValueError, match="fractions must lie"):
        splits.nested_fractions(np.zeros(4, int), np.arange(4), fractions=[0.0], seed=0)
    with pytest.raises(ValueError, match="rare='drop'"):
        splits.nested_fractions(np.zeros(4, int), np.arange(4), fractions=[1.0], seed=0, rare="drop")  # type: ignore[arg-type]
