"""Corrections beside those of other packages: pycytominer's MAD scaling and sphering, harmonypy's Harmony.

pycytominer comes with the extra `profiling`; harmonypy with none, and its tests are skipped where it is missing.
"""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from corrected_tables import rows_of, screen

from protloc_jax.eval.corrections import fit
from protloc_jax.eval.corrections.mixture import first_centroids, harmonise
from protloc_jax.eval.features import FeatureTable

pytestmark = pytest.mark.filterwarnings("default")  # other packages' warnings are not ours
PROFILING = "the extra 'profiling' is not installed"
HARMONY = "harmonypy is the oracle here and is not installed"


def framed(table):
    frame = pd.DataFrame(table.x.astype(np.float64), columns=[f"f{i}" for i in range(table.x.shape[1])])
    return frame.assign(Metadata_role=table.obs["role"])


def test_robust_is_pycytominers():
    pycytominer = pytest.importorskip("pycytominer", reason=PROFILING)
    table, controls = screen()
    options = {"features": [f"f{i}" for i in range(6)], "samples": "Metadata_role == 'dmso'", "method": "mad_robustize"}
    theirs = pycytominer.normalize(
        framed(table), meta_features=["Metadata_role"], mad_robustize_epsilon=1e-18, **options
    )
    ours = fit("robust", table, controls).apply(table).x
    np.testing.assert_allclose(ours, theirs[options["features"]].to_numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("word", "method"), [("whiten", "PCA"), ("sphere", "ZCA")])
def test_sphering_is_pycytominers_where_controls_are_many(word, method):
    """Their epsilon is added to singular values, which here moves nothing beyond the seventh digit; and some releases
    take the axes of the raw features, so that these are centred beforehand."""
    transform = pytest.importorskip("pycytominer.operations.transform", reason=PROFILING)
    table, controls = screen()
    x = table.x.astype(np.float64)
    x -= x[controls].mean(axis=0)
    frame = pd.DataFrame(x)
    theirs = transform.Spherize(method=method, epsilon=1e-6).fit(frame[controls]).transform(frame).to_numpy()
    centred = FeatureTable(x.astype(np.float32), table.obs)
    ours = fit(word, centred, controls).apply(centred).x
    if method == "PCA":  # an axis may point either way
        ours, theirs = np.abs(ours), np.abs(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def clustered(n=180, d=5):
    """Three kinds of rows in three batches of unequal size, which shift each kind another way."""
    rng = np.random.default_rng(2)
    batch = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    kind = rng.integers(0, 3, n)
    x = 4 * np.eye(3, d)[kind] + rng.normal(size=(3, 3, d))[kind, batch] + 0.4 * rng.normal(size=(n, d))
    x[:, -1] += 2  # the software divides by the largest value of a row, which must not be negative
    obs = pd.DataFrame({"id": [f"i{i}" for i in range(n)], "batch": [f"b{b}" for b in batch], "kind": kind})
    return FeatureTable(x.astype(np.float32), obs)


@pytest.mark.parametrize(("clusters", "theta"), [(3, 2.0), (6, 1.0), (1, 2.0)])
def test_harmony_is_harmonypys(clusters, theta):
    harmonypy = pytest.importorskip("harmonypy", reason=HARMONY)
    logging.getLogger("harmonypy").setLevel(logging.ERROR)
    table = clustered()
    x = table.x.astype(np.float64)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    start = first_centroids(unit, clusters, seed=0)
    options = {"theta": theta, "lamb": 1, "random_state": 0, "verbose": False, "sigma": np.repeat(0.1, clusters)}
    theirs = harmonypy.run_harmony(x, table.obs, "batch", nclust=clusters, cluster_fn=lambda data, k: start, **options)
    ours = harmonise(x, table.obs["batch"].to_numpy(), start, theta=theta)
    np.testing.assert_allclose(ours.x, np.asarray(theirs.Z_corr).T, rtol=1e-8, atol=1e-8)
    assert np.abs(ours.x - x).max() > 0.5


def test_harmony_mixes_batches_and_keeps_kinds():
    table = clustered()
    correction = fit("harmony:batch,clusters=3", table, np.ones(180, bool))
    done = correction.apply(table)
    batch, kind = table.obs["batch"].to_numpy(), table.obs["kind"].to_numpy()

    def shares(x):
        """Nearest neighbours of the same batch, and of the same kind."""
        near = ((x[:, None] - x[None]) ** 2).sum(axis=2) + 1e9 * np.eye(len(x))
        first = near.argmin(axis=1)
        return (batch[first] == batch).mean(), (kind[first] == kind).mean()

    before, after = shares(table.x), shares(done.x)
    assert before[0] > 0.75 and after[0] < 0.55  # by chance 0.38
    assert after[1] > 0.97
    # The algorithm's own result on the rows it was fitted on is close to what the saved rounds give.
    own = harmonise(table.x.astype(np.float64), batch, first_centroids(_unit(table.x.astype(np.float64)), 3, seed=0)).x
    assert np.abs(own - done.x).mean() < 0.02 * np.abs(own - table.x).mean()
    assert done.uns["correction_notes"][0]["steps_fitted_on_all_rows"] == ["harmony:batch,clusters=3"]
    # A row is corrected by itself: alone as among others.
    np.testing.assert_allclose(correction.apply(rows_of(table, np.arange(7))).x, done.x[:7], rtol=1e-6)


def test_harmony_refuses_new_batches_by_name():
    table = clustered()
    old = (table.obs["batch"] != "b2").to_numpy()
    correction = fit("harmony:batch,clusters=3", rows_of(table, old), np.ones(old.sum(), bool))
    for options in ({}, {"controls": np.ones(180, bool)}):
        with pytest.raises(ValueError, match="batch b2 not among the 2 fitted on; this step cannot take new ones"):
            correction.apply(table, **options)
    with pytest.raises(ValueError, match="two batches"):
        fit("harmony:batch", rows_of(table, ~old), np.ones((~old).sum(), bool))


def _unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)
