"""Unequal widths: who is compared with whom, projections against scikit-learn and their own promises, no leaks."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from protloc_jax.data.splits import Split
from protloc_jax.eval.equal_width import at_equal_width, by_width, pairs_of_equal_width, principal, randomly_projected
from protloc_jax.eval.evaluate import System

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(60, 5)) @ RNG.normal(size=(5, 12)) + 0.1 * RNG.normal(size=(60, 12))).astype(np.float32)
SPLIT = Split(np.arange(30), np.arange(30, 40), np.arange(40, 60))
TABLES = {
    "one": System(X[:, :6], {"layer": "last"}),
    "two": System(X, {"layer": "last"}),
    "other": System(X[:, 6:], {"layer": "last"}),
}


def test_pairs_within_a_width():
    assert by_width(TABLES) == {6: ["one", "other"], 12: ["two"]}
    assert pairs_of_equal_width(TABLES) == [("other", "one")]


def test_principal_components_are_those_of_the_training_rows():
    ours = principal(X, SPLIT.train, 4)
    peer = PCA(4, svd_solver="full").fit(X[SPLIT.train].astype(np.float64))
    wanted = peer.transform(X.astype(np.float64))
    np.testing.assert_allclose(np.abs(ours), np.abs(wanted), atol=1e-4)
    made = at_equal_width(TABLES, kind="pca", splits=[SPLIT], width=4)
    np.testing.assert_array_equal(made["two"].x, ours)
    assert made["two"].about["projection"] == "12 -> 4 principal components of 30 training rows"
    assert {t.x.shape for t in made.values()} == {(60, 4)}
    changed = X.copy()
    changed[SPLIT.test] = 7
    changed[SPLIT.val] *= -1
    np.testing.assert_array_equal(principal(changed, SPLIT.train, 4)[SPLIT.train], ours[SPLIT.train])


def test_random_projection_keeps_lengths_on_average_and_narrow_tables_as_they_are():
    made = at_equal_width(TABLES, kind="random", seed=3)
    assert made["one"].x is TABLES["one"].x or np.array_equal(made["one"].x, X[:, :6])
    assert made["one"].about["projection"] == "none"
    assert made["two"].about["projection"] == "12 -> 6 at random, seed 3"
    again, other = (at_equal_width(TABLES, kind="random", seed=s)["two"].x for s in (3, 4))
    np.testing.assert_array_equal(made["two"].x, again)
    assert not np.array_equal(again, other)
    wide = np.random.default_rng(1).normal(size=(20, 400)).astype(np.float32)
    ratios = [(randomly_projected(wide, 100, seed=s) ** 2).sum() / (wide**2).sum() for s in range(10)]
    assert np.mean(ratios) == pytest.approx(1, abs=0.03)


def test_refusals():
    with pytest.raises(ValueError, match=r"width 8 asked for; narrower are one \(6\), other \(6\)\."):
        at_equal_width(TABLES, kind="random", width=8)
    with pytest.raises(ValueError, match="not one of random, pca"):
        at_equal_width(TABLES, kind="svd")
    with pytest.raises(ValueError, match="give the splits"):
        at_equal_width(TABLES, kind="pca")
    turned = Split(SPLIT.test, SPLIT.val, SPLIT.train)
    with pytest.raises(ValueError, match="50 training rows are held out by another split"):
        at_equal_width(TABLES, kind="pca", splits=[SPLIT, turned])
    with pytest.raises(ValueError, match="5 training rows of 12 features span no 5"):
        principal(X, np.arange(5), 5)
    units = {**TABLES, "two": TABLES["two"]._replace(scale="standardise")}
    with pytest.raises(ValueError, match="leave out two"):
        at_equal_width(units, kind="random")
