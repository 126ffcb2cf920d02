"""Splits by group: nothing torn apart, fractions and classes as near as whole groups allow."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from protloc_jax.datasets.splitting import split_groups

SPLITS = ("train", "val", "test")


def draw(seed, n_groups=60, classes=5, n=600):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, n_groups, n)
    of_group = rng.integers(0, classes, n_groups)
    hot = np.eye(classes, dtype=np.float32)[of_group[groups]]
    return np.array([f"g{g}" for g in groups]), hot


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_whole_and_classes_are_spread(seed):
    groups, hot = draw(seed)
    split = split_groups(groups, hot, (0.7, 0.1, 0.2), seed=seed)
    for group in set(groups):
        assert len(set(split[groups == group])) == 1
    for name, wanted in zip(SPLITS, (0.7, 0.1, 0.2), strict=True):
        assert abs((split == name).mean() - wanted) < 0.03
        shares = hot[split == name].sum(0) / hot.sum(0)
        assert np.abs(shares - wanted).max() < 0.12


def test_stratified_beats_a_random_deal():
    groups, hot = draw(7)
    names = sorted(set(groups))

    def spread(split):
        return np.abs(hot[split == "test"].sum(0) / hot.sum(0) - 0.2).max()

    rng = np.random.default_rng(0)
    random = []
    for _ in range(50):
        test = set(rng.permutation(names)[:12])
        random.append(spread(np.array(["test" if g in test else "train" for g in groups])))
    assert spread(split_groups(groups, hot, (0.8, 0.0, 0.2))) < np.percentile(random, 5)


def test_as_good_as_trying_every_assignment():
    """Oracle: with 7 groups and two splits all assignments can be tried."""
    for seed in range(10):
        groups, hot = draw(seed, n_groups=7, classes=3, n=80)
        names = sorted(set(groups))
        whole = np.concatenate([hot, np.ones((len(hot), 1))], 1)

        def badness(split, whole=whole):
            total = whole.sum(0)
            return sum(
                (((whole[split == name].sum(0) - f * total) / np.maximum(total, 1)) ** 2).sum()
                for name, f in (("train", 0.6), ("test", 0.4))
            )

        best = min(
            badness(np.array([dict(zip(names, deal, strict=True))[g] for g in groups]))
            for deal in itertools.product(("train", "test"), repeat=len(names))
            if len(set(deal)) == 2
        )
        got = badness(split_groups(groups, hot, (0.6, 0.0, 0.4), seed=seed))
        assert got <= best * 1.5 + 0.02, f"seed {seed}: {got} where {best} is possible"


def test_a_class_that_lives_in_one_group_goes_to_train():
    groups = np.array(["a"] * 20 + ["b"] * 20 + ["c"] * 20 + ["only"] * 4)
    hot = np.zeros((64, 2), np.float32)
    hot[:60, 0] = 1
    hot[60:, 1] = 1
    assert set(split_groups(groups, hot, (0.6, 0.2, 0.2))[60:]) == {"train"}


def test_every_wanted_split_gets_a_group_and_unwanted_none():
    groups = np.array(["big"] * 98 + ["x", "y"])
    hot = np.zeros((100, 0), np.float32)
    assert set(split_groups(groups, hot, (0.7, 0.1, 0.2))) == set(SPLITS)
    assert set(split_groups(groups, hot, (0.7, 0.0, 0.3))) == {"train", "test"}
    assert set(split_groups(groups, hot, (1.0, 0.0, 0.0))) == {"train"}


def test_deterministic_in_the_seed_and_free_of_row_order():
    groups, hot = draw(3)
    first = split_groups(groups, hot, (0.7, 0.1, 0.2), seed=1)
    np.testing.assert_array_equal(first, split_groups(groups, hot, (0.7, 0.1, 0.2), seed=1))
    order = np.random.default_rng(0).permutation(len(groups))
    np.testing.assert_array_equal(split_groups(groups[order], hot[order], (0.7, 0.1, 0.2), seed=1), first[order])
    others = [split_groups(groups, hot, (0.7, 0.1, 0.2), seed=s) for s in range(2, 8)]
    assert any((other != first).any() for other in others)


@pytest.mark.parametrize("fractions", [(0.5, 0.2), (0.5, 0.2, 0.2), (0.0, 0.5, 0.5), (1.2, -0.1, -0.1)])
def test_fractions_that_cannot_be(fractions):
    with pytest.raises(ValueError, match="split_fractions"):
        split_groups(["a", "b", "c"], np.zeros((3, 0), np.float32), fractions)


def test_fewer_groups_than_splits():
    with pytest.raises(ValueError, match=r"2 group\(s\) cannot fill 3 splits"):
        split_groups(["a", "a", "b"], np.zeros((3, 0), np.float32), (0.7, 0.1, 0.2))
