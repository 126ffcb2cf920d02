"""Estimated shares, divergences and errors on known mixes, by hand."""

import math

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from protloc_jax.eval.background import proportions

LOG = math.log
# Three cells of two classes with odds 3:1, 1:1 and 1:9 (a tie counts for the first class).
LOGITS = np.array([[LOG(3), 0.0], [0.0, 0.0], [0.0, LOG(9)]])


def test_three_estimators_by_hand():
    np.testing.assert_allclose(proportions.shares(LOGITS, estimator="hard"), [2 / 3, 1 / 3])
    np.testing.assert_allclose(proportions.shares(LOGITS, estimator="mean_softmax"), [1.35 / 3, 1.65 / 3])
    # Mean scores log(3) / 3 and log(9) / 3: odds 1 : 3^(1/3)
    first = 1 / (1 + 3 ** (1 / 3))
    np.testing.assert_allclose(proportions.shares(LOGITS, estimator="mean_profile"), [first, 1 - first])


def test_mean_profile_is_the_classifier_at_the_mean_features():
    rng = np.random.default_rng(0)
    x, weight, bias = rng.normal(size=(9, 4)), rng.normal(size=(4, 3)), rng.normal(size=3)
    found = proportions.shares(x @ weight + bias, estimator="mean_profile")
    np.testing.assert_allclose(found, softmax(x.mean(axis=0) @ weight + bias))


def test_shares_by_group_are_those_of_its_cells():
    found, names = proportions.shares_by_group(LOGITS, ["q", "p", "q"], estimator="mean_softmax")
    assert list(names) == ["p", "q"]
    np.testing.assert_allclose(found, [[0.5, 0.5], [0.85 / 2, 1.15 / 2]])


def test_kl_by_hand_with_natural_logarithm_normalisation_and_clip():
    assert proportions.kl_divergence([0.5, 0.5], [0.25, 0.75]) == pytest.approx(0.5 * LOG(2) + 0.5 * LOG(2 / 3))
    assert proportions.kl_divergence([5, 5], [1, 3]) == pytest.approx(0.5 * LOG(2) + 0.5 * LOG(2 / 3))
    # A class that the second rules out costs p log(p / 1e-10), not infinity; both sides are clipped.
    assert proportions.kl_divergence([0.5, 0.5], [1, 0]) == pytest.approx(0.5 * LOG(0.5) + 0.5 * LOG(0.5e10))
    assert proportions.kl_divergence([1, 0], [0.5, 0.5]) == pytest.approx(LOG(2) + 1e-10 * LOG(2e-10), rel=1e-14)
    p, q = np.random.default_rng(1).dirichlet(np.ones(15), size=(2, 8))
    np.testing.assert_allclose(proportions.kl_divergence(p, q), entropy(p, q, axis=1))


def test_substantial_disagreement_is_larger_than_the_distance_to_uniform():
    first = np.array([[0.6, 0.2, 0.2], [0.9, 0.05, 0.05], [0.4, 0.3, 0.3]])
    second = np.array([[0.2, 0.2, 0.6], [0.8, 0.1, 0.1], [0.3, 0.4, 0.3]])
    found = proportions.disagreement(first, second)
    # KL(first, second) = .4 log 3, and .1 log (4 / 3); to uniform: log 3 - entropy.
    assert found.kl[0] == pytest.approx(0.4 * LOG(3))
    assert found.to_uniform[0] == pytest.approx(LOG(3) + 0.6 * LOG(0.6) + 0.4 * LOG(0.2))
    assert list(found.substantial) == [True, False, True] and found.share == pytest.approx(2 / 3)


def test_errors_on_known_mixes_by_hand():
    logits = np.array([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0], [0, 1, 0]])
    classes, groups = np.array([0, 0, 1, 1, 1, 1]), np.array([7, 7, 7, 7, 8, 8])
    found = proportions.mix_errors(logits, classes, groups, estimator="hard")
    assert list(found.groups) == [7, 8]
    np.testing.assert_allclose(found.truth, [[0.5, 0.5, 0], [0, 1, 0]])
    np.testing.assert_allclose(found.estimate, [[0.5, 0.25, 0.25], [0, 1, 0]])
    np.testing.assert_allclose(found.l1, [0.5, 0])
    np.testing.assert_allclose(found.kl, [0.5 * LOG(2), 0], atol=1e-8)  # 1e-10 x log(.25e10) is left of the clip


def test_what_is_no_score_class_or_share_is_named():
    with pytest.raises(ValueError, match="not finite in rows 0, 2"):
        proportions.shares(np.array([[np.nan, 0], [0, 0], [0, np.inf]]), estimator="hard")
    with pytest.raises(ValueError, match="Did you mean 'mean_softmax'"):
        proportions.shares(LOGITS, estimator="meansoftmax")
    with pytest.raises(ValueError, match=r"outside 0..1: row 0: 2, row 2: -1"):
        proportions.mix_errors(LOGITS, np.array([2, 0, -1]), [0, 0, 0], estimator="hard")
    with pytest.raises(ValueError, match=r"first shares must be .*: rows 0, 2"):
        proportions.kl_divergence([[0, 0], [1, 0], [-1, 2]], [0.5, 0.5])
    with pytest.raises(ValueError, match=r"\[1, 2\] and \[1, 3\]"):
        proportions.disagreement([[0.5, 0.5]], [[0.5, 0.25, 0.25]])
