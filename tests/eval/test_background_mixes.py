"""Mixes of known shares, counted by hand, and encoders whose errors on them are known."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from protloc_jax.eval.background.conditions import Cells, prepare
from protloc_jax.eval.background.mixes import Mix, apportion, errors, make_mixes, mix, sets_of
from protloc_jax.eval.background.spec import BackgroundError, SetConfig

LEVELS = {"a": 10, "b": 20, "c": 30}
NONE = SetConfig(standardise="none")


@pytest.fixture(scope="module")
def ready():
    """Per class two proteins of three crops, all pixels at the class's level, the cell in the middle."""
    classes = np.repeat(list(LEVELS), 6)
    proteins = np.array([f"{label}{n // 3}" for label in LEVELS for n in range(6)])
    images = np.array([LEVELS[label] for label in classes], np.uint8)[:, None, None, None] * np.ones(
        (1, 8, 8, 1), np.uint8
    )
    masks = np.zeros((18, 8, 8), np.uint8)
    masks[:, 2:6, 2:6] = 1
    return prepare(Cells(images, masks, classes, proteins, np.array([f"cell{n}" for n in range(18)])))


def test_counts_and_backgrounds_by_hand():
    one = mix("m", {"a": 0.5, "b": 0.3, "c": 0.2}, 10)
    assert one.counts == (("a", 5), ("b", 3), ("c", 2))
    parts = [(s.centre, s.background, numbers.tolist()) for s, numbers in sets_of(one, first={"b": 7})]
    assert parts == [
        ("a", "b", [0, 1, 2]), ("a", "c", [3, 4]),
        ("b", "a", [7, 8]), ("b", "c", [9]),  # 3 by 5 to 2: 2.14 and 0.86
        ("c", "a", [0]), ("c", "b", [1]),  # 2 by 5 to 3: 1.25 and 0.75
    ]  # fmt: skip
    assert apportion(7, [1, 1, 1]) == [3, 2, 2]
    assert apportion(5, [0.2, 0.8]) == [1, 4]
    alone = [(s.centre, s.background, numbers.tolist()) for s, numbers in sets_of(one, "baseline")]
    assert alone == [("a", "", [0, 1, 2, 3, 4]), ("b", "", [0, 1, 2]), ("c", "", [0, 1])]


def test_images_show_the_cell_on_another_class_and_the_same_cells_in_every_condition(ready):
    mixes = [mix("first", {"a": 0.5, "b": 0.3, "c": 0.2}, 20), mix("second", {"a": 0.75, "c": 0.25}, 12)]
    made = make_mixes(ready, mixes, NONE)
    plain = make_mixes(ready, mixes, NONE, condition="baseline")
    assert len(made.images) == len(plain.images) == 32
    who = made.who
    assert Counter(zip(who["mix"].tolist(), who["centre_class"].tolist(), strict=True)) == {
        ("first", "a"): 10, ("first", "b"): 6, ("first", "c"): 4, ("second", "a"): 9, ("second", "c"): 3,
    }  # fmt: skip
    for row in range(32):
        cell, beside = made.images[row][made.masks[row] == 1], made.images[row][0, 0]
        assert (cell == LEVELS[who["centre_class"][row]]).all()
        assert (beside == LEVELS[who["donor_class"][row]]).all()
        assert who["centre_class"][row] != who["donor_class"][row]
    assert not (who["donor_class"][who["mix"] == "second"] == "b").any()
    for name in ("centre_id", "mix", "number"):
        assert sorted(zip(who["centre_class"], who[name], strict=True)) == sorted(
            zip(plain.who["centre_class"], plain.who[name], strict=True)
        ), name
    # The groups draw cells of their own: numbers of a class run on.
    assert sorted(who["number"][who["centre_class"] == "a"]) == list(range(19))


def test_an_encoder_that_sees_the_cell_is_right_and_one_that_sees_its_surroundings_is_wrong_by_hand(ready):
    mixes = [mix("eighty", {"a": 0.8, "b": 0.2}, 10), mix("half", {"a": 0.5, "b": 0.5}, 8)]
    made = make_mixes(ready, mixes, NONE)
    names = ("b", "a", "c")

    def scores(levels):
        return np.stack([-np.abs(levels - LEVELS[name]) for name in names], 1)

    sees_cell = errors(scores(made.images[:, 4, 4, 0]), made.who, names, estimator="hard")
    sees_rest = errors(scores(made.images[:, 0, 0, 0]), made.who, names, estimator="hard")
    assert sees_cell.groups.tolist() == ["eighty", "half"]
    np.testing.assert_allclose(sees_cell.truth, [[0.2, 0.8, 0], [0.5, 0.5, 0]])
    np.testing.assert_allclose(sees_cell.l1, [0, 0])
    # All backgrounds are the other class's: shares change places.
    np.testing.assert_allclose(sees_rest.estimate, [[0.8, 0.2, 0], [0.5, 0.5, 0]])
    np.testing.assert_allclose(sees_rest.l1, [1.2, 0])


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda ready: mix("m", {"a": 0.5, "b": 0.4}, 10), r"mix 'm': .*a sum of 0\.9"),
        (lambda ready: mix("m", {"a": 1.0}, 10), "mix 'm'"),
        (lambda ready: mix("m", {"a": 0.99, "b": 0.01}, 10), "no cell of b"),
        (lambda ready: Mix("m", (("a", 3),)), "two classes or more"),
        (lambda ready: make_mixes(ready, [], NONE), "no mix"),
        (lambda ready: make_mixes(ready, [mix("m", {"a": 0.5, "b": 0.5}, 4)] * 2, NONE), "one name: m"),
        (lambda ready: make_mixes(ready, [mix("m", {"a": 0.5, "d": 0.5}, 4)], NONE), "no crop of class 'd'"),
        (lambda ready: sets_of(mix("m", {"a": 0.5, "b": 0.5}, 4), "crosed"), "Did you mean 'crossed'"),
        (
            lambda ready: errors([[0.0]], {"centre_class": ["Golgi"], "mix": ["m"]}, ["golgi"], estimator="hard"),
            "no class 'Golgi'.*Did you mean 'golgi'",
        ),
    ],
)  # fmt: skip
def test_refusals(ready, work, message):
    with pytest.raises(BackgroundError, match=message):
        work(ready)
