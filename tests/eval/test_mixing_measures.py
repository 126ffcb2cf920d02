"""Measures of mixed batches and kept labels: hand-computed cases, scikit-learn, and harmonypy's LISI."""

from __future__ import annotations

import numpy as np
import pytest
from corrected_tables import rows_of, screen
from scipy.optimize import brentq
from scipy.stats import entropy
from sklearn.linear_model import LinearRegression, RidgeClassifier
from sklearn.metrics import r2_score, silhouette_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from protloc_jax.eval.corrections import FITTED_ON, fit, mixing
from protloc_jax.eval.corrections.comparison import MEASURES, compare
from protloc_jax.eval.features import FeatureTable


def sample():
    table, _ = screen()
    x = table.x.astype(np.float64)
    return mixing.unit_rows(x - x.mean(axis=0)), table.obs


def test_neighbours_are_scikit_learns_and_wells_stay_apart():
    unit, _ = sample()
    near, far = mixing.nearest_rows(unit, 7)
    distance, wanted = NearestNeighbors(n_neighbors=8).fit(unit).kneighbors(unit)
    np.testing.assert_array_equal(near, wanted[:, 1:])
    np.testing.assert_allclose(far, distance[:, 1:], atol=1e-7)
    apart = np.arange(240) // 60
    near, _ = mixing.nearest_rows(unit, 7, apart=apart)
    assert not np.any(apart[near] == apart[:, None])
    few, far = mixing.nearest_rows(unit[:5], 4, apart=np.asarray([0, 0, 0, 0, 1]))
    assert (few >= 0).sum(axis=1).tolist() == [1, 1, 1, 1, 4] and np.isinf(far[few < 0]).all()


def test_shares_by_hand():
    # On a circle, two of batch a beside each other, then b, b, then a: angles 0, 10, 30, 40, 55 degrees.
    angle = np.deg2rad([0, 10, 30, 40, 55])
    unit = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    batch = np.asarray(["a", "a", "b", "b", "a"])
    near, _ = mixing.nearest_rows(unit, 1)
    assert near.ravel().tolist() == [1, 0, 3, 2, 3]
    share = mixing.other_share(near, batch)
    assert share.found == pytest.approx(1 / 5)  # only the last row
    # Of four other rows, two of the three a's are b, and three of the b's are a.
    assert share.chance == pytest.approx((3 * 2 / 4 + 2 * 3 / 4) / 5)
    # Rows 0 and 1 are one well: their nearest is row 2 (b), of three others, two of which are b.
    apart = np.asarray([0, 0, 1, 2, 3])
    near, _ = mixing.nearest_rows(unit, 1, apart=apart)
    assert near.ravel().tolist() == [2, 2, 3, 2, 3]
    share = mixing.other_share(near, batch, apart=apart)
    assert share.found == pytest.approx(3 / 5)
    assert share.chance == pytest.approx((2 / 3 + 2 / 3 + 3 / 4 + 3 / 4 + 2 / 4) / 5)


def test_silhouette_is_scikit_learns():
    unit, obs = sample()
    groups = obs["plate"].to_numpy().copy()
    groups[0] = "alone"
    assert mixing.silhouette(unit, groups) == pytest.approx(silhouette_score(unit, groups, metric="cosine"), abs=1e-10)
    assert np.isnan(mixing.silhouette(unit, np.full(240, "one")))


def test_variance_between_groups_is_that_of_a_regression_on_them():
    unit, obs = sample()
    indicators = (obs["plate"].to_numpy()[:, None] == np.unique(obs["plate"])).astype(float)
    fitted = LinearRegression().fit(indicators, unit).predict(indicators)
    share = mixing.explained(unit, obs["plate"].to_numpy())
    assert share.found == pytest.approx(r2_score(unit, fitted, multioutput="variance_weighted"))
    shuffled = [mixing.explained(unit, np.random.default_rng(i).permutation(obs["plate"])).found for i in range(200)]
    assert np.mean(shuffled) == pytest.approx(share.chance, abs=0.002)


def test_lisi_counts_groups_in_a_neighbourhood():
    rng = np.random.default_rng(0)
    groups = np.arange(600) % 3
    apart = mixing.unit_rows(20 * np.eye(3)[groups] + rng.normal(size=(600, 3)))
    near, far = mixing.nearest_rows(apart, 90)
    np.testing.assert_allclose(mixing.lisi(far, near, groups, perplexity=30), 1.0, atol=1e-9)
    near, far = mixing.nearest_rows(mixing.unit_rows(rng.normal(size=(600, 3))), 90)
    found = mixing.lisi(far, near, groups, perplexity=30)
    assert 2.6 < found.mean() < 2.85  # 30 neighbours hold less than three groups in equal shares
    for row in range(0, 600, 40):

        def weights(beta, d=far[row]):
            return np.exp(-beta * d) / np.exp(-beta * d).sum()

        beta = brentq(lambda b: entropy(weights(b)) - np.log(30), 1e-3, 500)
        shares = [weights(beta)[groups[near[row]] == g].sum() for g in range(3)]
        assert found[row] == pytest.approx(1 / np.sum(np.square(shares)), rel=1e-6)
    # Equal distances: the plain inverse Simpson index of four neighbours, three of one group.
    near, far = np.asarray([[1, 2, 3, 4]]), np.ones((1, 4))
    assert mixing.lisi(far, near, np.asarray([0, 0, 0, 0, 1]), perplexity=4)[0] == pytest.approx(1 / (9 / 16 + 1 / 16))


@pytest.mark.filterwarnings("default")
def test_lisi_is_harmonypys():
    harmonypy = pytest.importorskip("harmonypy", reason="harmonypy is the oracle here and is not installed")
    unit, obs = sample()
    near, far = mixing.nearest_rows(unit, 89)
    ours = mixing.lisi(far, near, obs["plate"].to_numpy(), perplexity=30)
    np.testing.assert_allclose(ours, harmonypy.compute_lisi(unit, obs, ["plate"])[:, 0], rtol=1e-3)


def test_batches_told_by_a_linear_model_on_held_out_plates():
    table, _ = screen()
    batch, plate = table.obs["batch"].to_numpy(), table.obs["plate"].to_numpy()
    share = mixing.batch_accuracy(table.x, batch, plate, folds=3)
    right = np.zeros(240, bool)
    for plates in (("P0", "P3"), ("P1", "P4"), ("P2", "P5")):
        test = np.isin(plate, plates)
        scaler = StandardScaler().fit(table.x[~test].astype(np.float64))
        model = RidgeClassifier(alpha=6, class_weight="balanced").fit(scaler.transform(table.x[~test]), batch[~test])
        right[test] = model.predict(scaler.transform(table.x[test])) == batch[test]
    assert share.found == pytest.approx(np.mean([right[batch == b].mean() for b in ("b0", "b1")]))
    assert share.chance == 0.5
    assert mixing.batch_accuracy(table.x, plate, plate) is None


def test_a_correction_is_seen_to_mix_batches():
    table, controls = screen(n=480, d=8)
    rng = np.random.default_rng(5)
    kind, plate = np.arange(480) // 6 % 4, np.arange(480) % 6
    table.obs["moa"] = kind.astype(str)
    x = rng.normal(size=(480, 8)) + np.where(controls[:, None], 0, 2 * rng.normal(size=(4, 8))[kind])
    x = x * (1 + 0.3 * plate[:, None]) + 5 * rng.normal(size=(6, 8))[plate]
    before = FeatureTable(x.astype(np.float32), table.obs, {"data_source": "simulated x"})
    after = fit("standardise:plate", before, controls, share=0.5).apply(before)
    order = rng.permutation(480)
    results = compare(
        {"before": before, "after": rows_of(after, order)}, batch="plate", label="moa", where=("role=treated",)
    )
    assert results["rows"] == (~controls).sum() and results["synthetic"] == "simulated x"
    assert results["rows_left_out_as_fitted_on"] == 0
    old, new = results["tables"]["before"], results["tables"]["after"]
    assert set(old) == set(MEASURES)
    for key, sign in (("batch_mixing", 1), ("ilisi", 1), ("batch_silhouette", -1), ("batch_variance", -1)):
        assert sign * (new[key]["found"] - old[key]["found"]) > 0, key
    for key, sign in (("label_neighbours", 1), ("clisi", -1), ("label_silhouette", 1), ("label_variance", 1)):
        assert sign * (new[key]["found"] - old[key]["found"]) > 0, key
    assert new["batch_mixing"]["found"] > 0.8
    every = compare({"before": before, "after": after}, batch="batch", label="moa")
    assert every["labels_in_one_batch"] == []
    first = np.arange(480) < 6
    own = FeatureTable(before.x, before.obs.assign(moa=np.where(first, "rare", before.obs["moa"])))
    assert compare({"a": own}, batch="batch", label="moa")["labels_in_one_batch"] == []
    own = FeatureTable(before.x, before.obs.assign(moa=np.where(first & (plate < 3), "rare", before.obs["moa"])))
    assert compare({"a": own}, batch="batch", label="moa")["labels_in_one_batch"] == ["rare"]
    assert every["rows"] == 480 - after.obs[FITTED_ON].sum() == 480 - every["rows_left_out_as_fitted_on"]
    assert every["tables"]["before"]["batch_accuracy"]["chance"] == 0.5
    # Other tools write the same mark in other words; a word that is neither is no "no".
    words = after.obs[FITTED_ON].map({True: "Yes", False: "0"})
    written = FeatureTable(after.x, after.obs.assign(**{FITTED_ON: words}))
    assert compare({"after": written}, batch="batch", label="moa")["rows"] == every["rows"]
    unclear = FeatureTable(after.x, after.obs.assign(**{FITTED_ON: "perhaps"}))
    with pytest.raises(ValueError, match="fitted_on: neither true nor false in rows"):
        compare({"after": unclear}, batch="batch", label="moa")


def test_what_cannot_be_compared_is_refused():
    table, _ = screen()
    with pytest.raises(ValueError, match="no column 'mao'"):
        compare({"a": table}, batch="batch", label="mao")
    with pytest.raises(ValueError, match=r"b lacks i000 of a, and has none more\."):
        compare({"a": table, "b": rows_of(table, np.arange(1, 240))}, batch="batch", label="moa")
    with pytest.raises(ValueError, match="column 'batch' has 1 value in the rows scored"):
        compare({"a": table}, batch="batch", label="moa", where=("batch=b1",))
    spent = fit("whiten", table, np.ones(240, bool)).apply(table)
    with pytest.raises(ValueError, match="no row is left to score: 240 were fitted on"):
        compare({"a": table, "b": spent}, batch="batch", label="moa")
