"""Calibration: scipy on the same objective, rules for classes that tell nothing, scores by hand, cuts that stay."""

import jax
import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_softmax, logit

from protloc_jax.eval import calibration, head_network
from protloc_jax.eval import calibration_scores as scored
from protloc_jax.eval.calibration import MIN_SLOPE, Calibration
from protloc_jax.eval.head_config import HeadConfig


def binary_loss(z, y):
    """Sum of -log P(y) by the definition, in float64."""
    return -np.sum(np.where(y, np.log(expit(z)), np.log(expit(-z))))


def margins_and_targets(seed, true_slope, true_offset, n=300):
    rng = np.random.default_rng(seed)
    m = rng.normal(size=n) * 3
    return m, rng.random(n) < expit(true_slope * m + true_offset)


@pytest.mark.parametrize(
    ("seed", "slope", "offset", "n"), [(0, 0.4, -1.5, 300), (1, 2.5, 0.5, 300), (2, -0.6, 0.3, 300), (3, 1, 0, 4)]
)
def test_platt_is_scipys_minimum_of_the_stated_objective(seed, slope, offset, n):
    m, y = margins_and_targets(seed, slope, offset, n)

    def objective(theta):
        return binary_loss(theta[0] * m + theta[1], y) + ((theta[0] - 1) ** 2 + theta[1] ** 2) / 2

    wanted = minimize(
        objective, [1.0, 0.0], method="L-BFGS-B", bounds=[(MIN_SLOPE, None), (None, None)], options={"ftol": 1e-15}
    )
    found = calibration.platt(m, y)
    np.testing.assert_allclose(found, wanted.x, atol=2e-4)
    assert objective(found) <= wanted.fun + 1e-9
    assert (found[0] == MIN_SLOPE) == (slope < 0)


def test_temperatures_are_scipys_minima():
    rng = np.random.default_rng(4)
    m = rng.normal(size=(200, 3)) * 4
    several = rng.random((200, 3)) < expit(0.5 * m)
    one = np.eye(3, dtype=bool)[[rng.choice(3, p=np.exp(row)) for row in log_softmax(0.3 * m, axis=1)]]

    def of_sigmoids(slope):
        return binary_loss(slope * m, several) + (slope - 1) ** 2 / 2

    def of_softmax(slope):
        return -log_softmax(slope * m, axis=1)[one].sum() + (slope - 1) ** 2 / 2

    for objective, found in (
        (of_sigmoids, calibration.temperature(m, several)),
        (of_softmax, calibration.temperature(m, one, softmax=True)),
    ):
        wanted = minimize_scalar(objective, bounds=(MIN_SLOPE, 10), method="bounded", options={"xatol": 1e-10})
        assert found == pytest.approx(wanted.x, abs=1e-6)
        assert found < 0.7
    slope, offset, fitted = calibration.fit(m, one, kind="temperature", softmax=True)
    assert slope.tolist() == [calibration.temperature(m, one, softmax=True)] * 3
    assert not offset.any() and fitted.all()


def test_classes_that_tell_nothing_stay_as_they_are():
    m = np.random.default_rng(5).normal(size=(40, 3)) * 3
    y = np.zeros((40, 3), bool)
    y[:, 1] = True
    y[::3, 2] = True
    for kind in ("platt", "temperature"):
        slope, offset, fitted = calibration.fit(m, y, kind=kind, softmax=False)
        assert (
            slope[:2].tolist() == [1, 1] and offset[:2].tolist() == [0, 0] and fitted.tolist() == [False, False, True]
        )
        assert slope[2] != 1
    assert calibration.fit(m, y, kind="none", softmax=False)[0].tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="which a softmax does not permit"):
        calibration.fit(m, y, kind="platt", softmax=True)
    m[3, 1] = np.inf
    with pytest.raises(ValueError, match="margins of 1 rows are not finite"):
        calibration.fit(m, y, kind="platt", softmax=False)


def test_cuts_move_with_the_probabilities():
    rng = np.random.default_rng(6)
    made = Calibration(rng.uniform(0.05, 3, (2, 2, 3)), rng.normal(size=(2, 2, 3)), np.ones((2, 2, 3), bool))
    m = rng.normal(size=(500, 3)) * 4
    cuts = np.array([0.5, 0.03, 0.9])
    moved = made.cuts(cuts, seed=1, fold=0)
    found = made.probabilities(m, seed=1, fold=0, softmax=False)
    np.testing.assert_array_equal(found > moved, expit(m) > cuts)
    assert not np.allclose(moved, cuts) and not np.array_equal(found > cuts, expit(m) > cuts)
    assert made.cuts([0.0, -0.5, 1.0], seed=0, fold=0).tolist() == [0, -0.5, 1]


def test_calibration_error_by_hand():
    """Bins of 1/15. 0.05 (y 0) and 1/15 (y 1) share the first: |1 - 0.11667| = 0.88333; 0.9 (y 1) alone: 0.1; 1.0 (y 0)
    alone in the last: 1. Their sum over 4 rows is 1.98333 / 4."""
    p, y = np.array([0.05, 1 / 15, 0.9, 1.0]), np.array([0, 1, 1, 0])
    assert scored.calibration_error(y, p) == pytest.approx((0.05 + 1 / 15 - 1) / -4 + 0.1 / 4 + 1 / 4)
    # With two bins: the first as before, the second |1 - 1.9| = 0.9.
    assert scored.calibration_error(y, p, bins=2) == pytest.approx((1 - 0.05 - 1 / 15 + 0.9) / 4)
    assert scored.calibration_error([0, 1], [0.0, 1.0]) == 0
    assert np.isnan(scored.calibration_error([], []))
    with pytest.raises(ValueError, match=r"1 probabilities do not lie in \[0, 1\]"):
        scored.calibration_error([0, 1], [0.5, 1.5])


def test_all_scores_by_hand():
    """Two rows, three classes, the third never occurs."""
    y = np.array([[1, 0, 0], [0, 1, 0]])
    p = np.array([[0.8, 0.2, 0.1], [0.4, 0.6, 0.3]])
    made = scored.agreement(y, p, softmax=False)
    assert made["by_class"] == pytest.approx([(0.2 + 0.4) / 2, (0.2 + 0.4) / 2, (0.1 + 0.3) / 2])
    assert made["expected_calibration_error"] == pytest.approx(0.3)
    assert made["brier"] == pytest.approx((0.04 + 0.04 + 0.01 + 0.16 + 0.16 + 0.09) / 6)
    logs = np.log([0.8, 0.8, 0.9, 0.6, 0.6, 0.7])
    assert made["log_loss"] == pytest.approx(-logs.sum() / 6)
    softmax = scored.agreement(y, p, softmax=True)
    assert softmax["brier"] == pytest.approx(0.5 / 2)
    assert softmax["log_loss"] == pytest.approx(-(np.log(0.8) + np.log(0.6)) / 2)
    assert softmax["top_label_calibration_error"] == pytest.approx((0.2 + 0.4) / 2)
    assert scored.log_loss([[1]], [[0.0]], softmax=False) == pytest.approx(-np.log(1e-12))


def test_margins_are_logits_also_of_products_that_round_to_one():
    config = HeadConfig(groups=("b", "a", "b"))
    z = np.array([[0.3, -2.0, 1.5, 0.7, -0.4], [30.0, 25.0, -40.0, 32.0, 28.0]], np.float32)
    found, own = jax.jit(lambda z: (head_network.margins(z, config), head_network.probabilities(z, config)))(z)
    a, group = z[:, :3].astype(np.longdouble), z[:, 3:][:, [1, 0, 1]].astype(np.longdouble)
    log_p = -np.log1p(np.exp(-a)) - np.log1p(np.exp(-group))
    np.testing.assert_allclose(found, log_p - np.log(-np.expm1(log_p)), rtol=1e-5)
    np.testing.assert_allclose(found[0], logit(np.asarray(own)[0]), rtol=1e-5)
    assert np.isfinite(found).all()
    plain = HeadConfig(loss="cross_entropy", decision="argmax")
    np.testing.assert_allclose(head_network.margins(z, plain), log_softmax(z, axis=1), rtol=1e-5)


def test_the_rule_and_its_refusals():
    assert calibration.kind_of(HeadConfig()) == ("platt", "")
    assert calibration.kind_of(HeadConfig(decision="argmax"))[0] == "temperature"
    kind, why = calibration.kind_of(HeadConfig(fit_rows="train_and_validation"))
    assert kind == "none" and "fitted on the validation rows too" in why
    assert calibration.kind_of(HeadConfig(calibration="none")) == ("none", "head.calibration=none")
    with pytest.raises(
        ValueError, match=r"another class could become the likeliest.*: fit_rows=train.*ood_quantile=1\.0"
    ):
        HeadConfig(calibration="platt", decision="argmax", fit_rows="train_and_validation", ood_quantile=1.0)
