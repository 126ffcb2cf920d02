"""Few shots a class, and refinement: hand-computed cases, nesting, fixed tests, rare classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protloc_jax.data import splits
from protloc_jax.data.stratified import assign


def wells(seed=0, classes=6, wells_a_class=5, images=3):
    """Images in wells; every well holds one class."""
    rng = np.random.default_rng(seed)
    well = np.repeat(rng.permutation(classes * wells_a_class), images)
    return well % classes, well


def test_one_shot_takes_exactly_one_well_of_each_class_and_tests_the_rest():
    labels, well = wells()
    split = splits.few_shot(labels, well, shots=[1], val_shots=2, seed=3)[1]
    for rows, each in ((split.train, 1), (split.val, 2), (split.test, 2)):
        assert [len(set(well[rows][labels[rows] == c])) for c in range(6)] == [each] * 6
        assert len(rows) == 6 * each * 3
    assert splits.overlaps(split, well) == []


def test_shots_are_nested_and_their_test_is_the_same():
    labels, well = wells()
    found = splits.few_shot(labels, well, shots=[3, 1, 2], seed=0)
    assert list(found) == [1, 2, 3]
    assert set(found[1].train) < set(found[2].train) < set(found[3].train)
    np.testing.assert_array_equal(found[1].test, found[3].test)
    np.testing.assert_array_equal(found[1].test, np.setdiff1d(np.arange(len(labels)), found[3].train))
    again = splits.few_shot(labels, well, shots=[1, 2, 3], seed=0)
    assert all(np.array_equal(found[k].train, again[k].train) for k in found)
    assert any(
        not np.array_equal(found[1].train, splits.few_shot(labels, well, shots=[1], seed=s)[1].train) for s in (1, 2)
    )


def test_single_examples_leave_their_sisters_unused():
    labels, well = wells()
    split = splits.few_shot(labels, well, shots=[2], of="examples", val_shots=1, seed=1)[2]
    assert np.bincount(labels[split.train]).tolist() == [2] * 6
    assert np.bincount(labels[split.val]).tolist() == [1] * 6
    unused = np.setdiff1d(np.arange(len(labels)), np.concatenate(split[:3]))
    assert len(unused) == 6 * 3 * 2
    assert set(well[unused]) == set(well[np.concatenate(split[:2])])
    assert splits.overlaps(split, well) == []


def test_rule_for_rare_classes():
    # Class 0 has four groups, class 1 two, class 2 one: two shots give 2, 1 (one stays to be tested) and 1 (untested).
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    split = splits.few_shot(labels, np.arange(7), shots=[2], seed=0)[2]
    assert np.bincount(labels[split.train], minlength=3).tolist() == [2, 1, 1]
    assert np.bincount(labels[split.test], minlength=3).tolist() == [2, 1, 0]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), groups=st.integers(8, 40), k=st.integers(1, 3))
def test_several_labels_a_row(seed, groups, k):
    rng = np.random.default_rng(seed)
    hot = (rng.random((groups, 4)) < [0.6, 0.4, 0.25, 0.15])[rows := np.repeat(np.arange(groups), 2)]
    held = hot[::2].sum(axis=0)
    if k >= held.max():
        with pytest.raises(ValueError, match="leave none to test"):
            splits.few_shot(hot, rows, shots=[k], seed=seed)
        return
    split = splits.few_shot(hot, rows, shots=[k], seed=seed)[k]
    trained = hot[split.train][::2].sum(axis=0)
    # Every class in two groups or more is tested; none has more groups than asked unless others brought them.
    assert (hot[split.test].any(axis=0) | (held < 2)).all()
    assert len(split.train) <= 2 * k * 4
    assert (trained <= np.maximum(held - 1, 1) * (held > 0)).all()


def test_refusals():
    labels, well = wells()
    with pytest.raises(ValueError, match="no class has more than 5 groups"):
        splits.few_shot(labels, well, shots=[4], val_shots=1, seed=0)
    with pytest.raises(ValueError, match=r"shots=\[0\]"):
        splits.few_shot(labels, well, shots=[0], seed=0)
    with pytest.raises(ValueError, match="of='images'"):
        splits.few_shot(labels, well, shots=[1], of="images", seed=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no row has one"):
        splits.few_shot(np.zeros((4, 2), bool), np.arange(4), shots=[1], seed=0)


def test_refinement_makes_the_parts_more_even_and_both_beat_the_best_of_300_random_deals():
    shares, better = np.array([0.7, 0.1, 0.2]), []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        group = np.repeat(np.arange(60), rng.integers(1, 12, 60))
        hot = (rng.random((60, 5)) < [0.5, 0.3, 0.2, 0.1, 0.05])[group]
        whole = np.concatenate([hot, np.ones((len(hot), 1))], axis=1)
        cost = []
        for refine in (False, True):
            part = assign(hot, group, shares=shares, names=list("abc"), seed=seed, refine=refine).part
            got = np.stack([whole[part == p].sum(axis=0) for p in range(3)]) / whole.sum(axis=0)
            cost.append(((got - shares[:, None]) ** 2).sum())
            assert all(len(set(part[group == g])) == 1 for g in range(60))
        deals = rng.choice(3, (300, 60), p=shares)[:, group]
        got = np.stack([(deals == p).astype(float) @ whole for p in range(3)], axis=1) / whole.sum(axis=0)
        assert cost[1] < ((got - shares[:, None]) ** 2).sum(axis=(1, 2)).min()
        assert cost[1] <= cost[0] + 1e-12
        better.append(cost[1] < cost[0] - 1e-6)
    assert any(better)


def test_holdout_by_hand():
    # Six groups of two rows, three of each class: shares of 2/3 and 1/3 can be met exactly, one way up to names.
    labels, groups = np.repeat([0, 0, 0, 1, 1, 1], 2), np.repeat(np.arange(6), 2)
    made = splits.train_val_test(labels, groups, shares=(2 / 3, 0.0, 1 / 3), seed=0)
    for label in (0, 1):
        assert (made.part[labels == label] == 0).sum() == 4
        assert (made.part[labels == label] == 2).sum() == 2
    assert len(made.rows("val")) == 0
