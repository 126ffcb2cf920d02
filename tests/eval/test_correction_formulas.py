"""Every step against its formula in float64, written another way than in the package."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from corrected_tables import rows_of, screen
from sklearn.covariance import empirical_covariance
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from protloc_jax.eval.corrections import fit

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def corrected(text, table, controls, **options):
    return fit(text, table, controls, **options).apply(table).x


def power(matrix, exponent):
    """A symmetric matrix to a power, by scipy's general function."""
    return np.real(scipy.linalg.fractional_matrix_power(matrix, exponent))


def test_standardise_over_all_and_by_plate():
    table, controls = screen()
    x = table.x.astype(np.float64)
    wanted = StandardScaler().fit(x[controls]).transform(x)
    np.testing.assert_allclose(corrected("standardise:ddof=0", table, controls), wanted, **TOLERANCE)
    np.testing.assert_allclose(
        corrected("standardise:on=all,ddof=0", table, controls), scipy.stats.zscore(x), **TOLERANCE
    )
    found = corrected("standardise:plate", table, controls)
    for plate, frame in table.obs.groupby("plate"):
        own = x[frame.index]
        dmso = own[(frame["role"] == "dmso").to_numpy()]
        wanted = np.stack([(own[:, j] - np.mean(dmso[:, j])) / scipy.stats.tstd(dmso[:, j]) for j in range(6)], axis=1)
        np.testing.assert_allclose(found[frame.index], wanted, **TOLERANCE, err_msg=plate)


def test_robust_is_median_and_scaled_mad():
    table, controls = screen()
    x = table.x.astype(np.float64)
    found = corrected("robust:plate", table, controls)
    for _, frame in table.obs.groupby("plate"):
        own = x[frame.index]
        dmso = own[(frame["role"] == "dmso").to_numpy()]
        spread = scipy.stats.median_abs_deviation(dmso, scale=1 / 1.4826) + 1e-18
        np.testing.assert_allclose(found[frame.index], (own - np.median(dmso, axis=0)) / spread, **TOLERANCE)


def test_features_without_spread_become_zero_and_are_counted():
    table, controls = screen()
    table.x[:, 2] = 0.1  # constant in float32, and 0.1 is no float64 of few digits
    plate = (table.obs["plate"] == "P3").to_numpy()
    table.x[plate & controls, 4] = 7.0
    for word in ("standardise", "robust"):
        correction = fit(f"{word}:plate", table, controls)
        done = correction.apply(table).x
        assert np.all(done[:, 2] == 0) and np.all(done[plate, 4] == 0) and np.all(done[~plate, 4] != 0)
        (note,) = correction.notes
        assert "of 6 features those that do not vary" in note and note.endswith("0: P0 1, P1 1, P2 1, P3 2, P4 1, P5 1")
        (note,) = fit(word, table, controls).notes
        assert note.endswith("are set to 0: 1")


def test_whitening_is_scikit_learns_and_leaves_the_identity():
    table, controls = screen()
    x = table.x.astype(np.float64)
    found = corrected("whiten", table, controls).astype(np.float64)
    theirs = PCA(whiten=True).fit(x[controls]).transform(x)
    np.testing.assert_allclose(np.abs(found), np.abs(theirs), rtol=1e-4, atol=1e-4)  # an axis may point either way
    np.testing.assert_allclose(np.cov(found[controls].T), np.eye(6), atol=1e-5)
    np.testing.assert_allclose(found[controls].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(corrected("whiten:components=3", table, controls), found[:, :3], **TOLERANCE)


def test_sphering_is_the_inverse_root_of_the_covariance():
    table, controls = screen()
    x = table.x.astype(np.float64)
    centred = x - x[controls].mean(axis=0)
    n = controls.sum()
    for text, ridge, divisor in (("sphere", 0, n - 1), ("sphere:1,moment=n", 1, n), ("sphere:0.3", 0.3, n - 1)):
        moment = centred[controls].T @ centred[controls] / divisor
        wanted = centred @ power(moment + ridge * np.eye(6), -0.5)
        np.testing.assert_allclose(corrected(text, table, controls), wanted, rtol=1e-4, atol=1e-4)
    # PCA whitening differs by a rotation only: all inner products are the same.
    whitened, sphered = (corrected(f"{w}:1,moment=n", table, controls).astype(np.float64) for w in ("whiten", "sphere"))
    np.testing.assert_allclose(whitened @ whitened.T, sphered @ sphered.T, rtol=1e-4, atol=1e-4)


def test_a_large_lambda_leaves_the_centred_features():
    table, controls = screen()
    x = table.x.astype(np.float64)
    centred = x - x[controls].mean(axis=0)
    found = corrected("sphere:1e12", table, controls).astype(np.float64) * 1e6
    np.testing.assert_allclose(found, centred, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ridge", [1.0, 0.1])
def test_tvn_by_explicit_matrices(ridge):
    table, controls = screen()
    x = table.x.astype(np.float64)
    centred = x - x[controls].mean(axis=0)
    u, s, _ = np.linalg.svd(centred[controls].T @ centred[controls] / controls.sum())
    white = centred @ (u @ np.diag((s + ridge) ** -0.5))
    wanted = np.empty_like(white)
    every = white[controls].T @ white[controls] / controls.sum()
    for batch in ("b0", "b1"):
        rows = (table.obs["batch"] == batch).to_numpy()
        own = empirical_covariance(white[rows & controls], assume_centered=True)
        wanted[rows] = white[rows] @ power(own + np.eye(6), -0.5) @ power(every + ridge * np.eye(6), 0.5)
    found = corrected(f"tvn:batch,lambda={ridge}", table, controls)
    np.testing.assert_allclose(np.abs(found), np.abs(wanted), rtol=1e-4, atol=1e-4)
    found, wanted = found.astype(np.float64), wanted
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, rtol=1e-4, atol=1e-3)
    longer = corrected(f"whiten:{ridge},moment=n+coral:batch,lambda={ridge}", table, controls)
    np.testing.assert_array_equal(longer, found.astype(np.float32))


def test_efaar_by_explicit_matrices():
    table, controls = screen()
    x = table.x.astype(np.float64)
    x = StandardScaler().fit(x[controls]).transform(x)
    x = PCA().fit(x[controls]).transform(x)
    x = StandardScaler().fit(x[controls]).transform(x)
    wanted = np.empty_like(x)
    for batch in ("b0", "b1"):
        rows = (table.obs["batch"] == batch).to_numpy()
        wanted[rows] = x[rows] @ power(np.cov(x[rows & controls].T) + 0.5 * np.eye(6), -0.5)
    found = corrected("efaar:batch", table, controls).astype(np.float64)
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, rtol=1e-4, atol=1e-4)


def test_fewer_controls_than_features():
    table, controls = screen(n=60, d=40, plates=2)
    assert controls.sum() == 20
    for text in ("whiten", "sphere", "whiten:components=20"):
        with pytest.raises(ValueError, match=r"20 controls of 40 features have rank 19.*components=19 or fewer"):
            fit(text, table, controls)
    white = corrected("whiten:components=19", table, controls).astype(np.float64)
    np.testing.assert_allclose(np.cov(white[controls].T), np.eye(19), atol=1e-5)
    x = table.x.astype(np.float64)
    centred = x - x[controls].mean(axis=0)
    wanted = centred @ power(centred[controls].T @ centred[controls] / 20 + np.eye(40), -0.5)
    np.testing.assert_allclose(corrected("sphere:1,moment=n", table, controls), wanted, rtol=1e-4, atol=1e-4)
    # Batches of ten controls: the short way to the root of a moment, against the long one.
    own = {b: (table.obs["batch"] == b).to_numpy() for b in ("b0", "b1")}
    every = power(x[controls].T @ x[controls] / 20 + np.eye(40), 0.5)
    found = corrected("coral:batch", table, controls)
    for rows in own.values():
        mine = power(x[rows & controls].T @ x[rows & controls] / 10 + np.eye(40), -0.5)
        np.testing.assert_allclose(found[rows], x[rows] @ mine @ every, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match=r"batch b0: 10 rows of 40 features reach 10 directions only, batch b1: 10"):
        fit("coral:batch,source_lambda=0", table, controls)
    efaar = corrected("efaar:batch", table, controls)
    assert efaar.shape == (60, 19)


def test_directions_that_hold_almost_nothing_are_found_by_singular_values():
    table, controls = screen(n=300, d=5)
    wide = rows_of(table, np.arange(300))
    wide.x[:, 4] = wide.x[:, 0] * 1e-6 + wide.x[:, 4] * 1e-6  # a small unit, not a missing direction
    white = corrected("whiten", wide, controls).astype(np.float64)
    np.testing.assert_allclose(np.cov(white[controls].T), np.eye(5), atol=1e-4)
    wide.x[:, 4] = wide.x[:, 3]
    with pytest.raises(ValueError, match="have rank 4"):
        fit("whiten", wide, controls)
