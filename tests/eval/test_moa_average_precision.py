"""Average precision by hand, against scikit-learn and copairs; nulls against all rankings."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score

from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.moa import average_precision as ap
from protloc_jax.eval.moa.aggregate import AGGREGATIONS
from protloc_jax.eval.moa.columns import Columns
from protloc_jax.eval.moa.retrieval import activity, control_wells, mechanism
from protloc_jax.eval.moa.treatments import treatments_of


def test_one_ranking_by_hand():
    # + - + - - +: precision 1/1, 2/3, 3/6 at the positives.
    assert ap.average_precision([0.9, 0.7, 0.1], [0.8, 0.5, 0.3]) == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)
    assert ap.average_precision([0.5], []) == 1.0
    # Features that are all alike tell nothing: the one positive comes after three negatives.
    assert ap.average_precision([1.0], [1.0, 1.0, 1.0]) == 0.25
    with pytest.raises(ValueError, match="without positives"):
        ap.average_precision([], [0.1])


def test_random_rankings_equal_scikit_learn():
    rng = np.random.default_rng(0)
    for _ in range(20):
        positive, negative = rng.normal(size=rng.integers(1, 9)), rng.normal(size=rng.integers(1, 30))
        truth = np.r_[np.ones(len(positive)), np.zeros(len(negative))]
        theirs = average_precision_score(truth, np.r_[positive, negative])
        assert ap.average_precision(positive, negative) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("n_pos", [2, 5])  # few of many, and by partition
def test_the_null_is_that_of_all_rankings(n_pos):
    total = 6
    every = []
    for places in itertools.combinations(range(1, total + 1), n_pos):
        every.append(np.mean([(i + 1) / place for i, place in enumerate(places)]))
    drawn = ap.null_distribution(n_pos, total, 20_000, 1)
    found, counts = np.unique(np.round(drawn, 12), return_counts=True)
    values, expected = np.unique(np.round(every, 12), return_counts=True)
    np.testing.assert_allclose(found, values)
    assert stats.chisquare(counts, expected / expected.sum() * 20_000).pvalue > 1e-3
    assert ap.null_distribution(n_pos, total, 20_000, 1) is drawn
    assert (ap.null_distribution(n_pos, total, 20_000, 2) != drawn).any()


def screen(seed=0, fitted=None):
    """Four compounds of two mechanisms, two doses, on three plates, with four DMSO wells a plate."""
    rng = np.random.default_rng(seed)
    rows, x = [], []
    signal = {name: rng.normal(size=8) for name in ("A", "B", "a", "b", "c", "d")}
    for plate in ("P1", "P2", "P3"):
        for number, (compound, moa) in enumerate(zip("abcd", "AABB", strict=True)):
            for dose in (1.0, 3.0):
                well = f"C{number * 2 + int(dose > 1):02d}"
                rows.append((f"{plate}/{well}", plate, well, compound, dose, moa, "treatment"))
                x.append(0.5 * signal[moa] + 0.5 * signal[compound] * dose**0.5 + rng.normal(size=8))
        for number in range(4):
            well = f"D{number:02d}"
            rows.append((f"{plate}/{well}", plate, well, "DMSO", 0.0, "DMSO", "negative_control"))
            x.append(rng.normal(size=8))
    names = ["id", "plate", "well", "compound", "concentration", "moa", "well_type"]
    obs = pd.DataFrame(rows, columns=names).assign(batch="Week1")
    if fitted is not None:
        obs["fitted_on"] = fitted(obs)
    return FeatureTable(np.array(x), obs)


@pytest.fixture
def copairs(tmp_path, monkeypatch):
    reason = "copairs is the oracle here: pip install 'protloc_jax[profiling]'"
    copairs = pytest.importorskip("copairs.map", reason=reason)
    from copairs import compute

    def ours(confs, null_size, seed, cache_dir=None, progress_bar=True):
        return np.stack([ap.null_distribution(int(k), int(n), null_size, seed) for k, n in confs])

    monkeypatch.setenv("HOME", str(tmp_path))  # it keeps null distributions there
    copairs.nulls = compute.get_null_dists
    monkeypatch.setattr(compute, "get_null_dists", ours)
    return copairs


def test_activity_is_that_of_copairs(copairs):
    table = screen()
    obs = table.obs.assign(control=table.obs["compound"] == "DMSO")
    obs["treatment"] = obs["compound"] + "@" + obs["concentration"].astype(int).astype(str)
    scores = copairs.average_precision(
        obs.assign(treatment=obs["treatment"].where(~obs["control"], "DMSO " + obs["id"])),
        table.x, ["treatment"], ["plate"], [], ["control"], progress_bar=False,
    )  # fmt: skip
    scores = scores[~obs["control"]].set_index("id")
    own = activity(table, null_size=2000, seed=5)
    assert sorted(own.names) == sorted(scores.index)
    np.testing.assert_allclose(own.ap, scores.loc[own.names, "average_precision"], atol=1e-6)
    assert own.n_pos.tolist() == scores.loc[own.names, "n_pos_pairs"].tolist() == [2] * 24
    assert own.n_total.tolist() == scores.loc[own.names, "n_total_pairs"].tolist() == [14] * 24
    theirs = copairs.mean_average_precision(
        scores, ["treatment"], null_size=2000, threshold=0.05, seed=5, progress_bar=False
    ).set_index("treatment")
    np.testing.assert_allclose(own.mean_ap, theirs.loc[own.groups, "mean_average_precision"], atol=1e-6)
    np.testing.assert_allclose(own.group_p, theirs.loc[own.groups, "p_value"], atol=1e-9)
    np.testing.assert_allclose(own.group_q, theirs.loc[own.groups, "corrected_p_value"], atol=1e-9)
    from copairs.map.average_precision import p_values

    np.testing.assert_allclose(own.p_value, p_values(scores.loc[own.names], 2000, 5, False), atol=1e-6)


def test_mechanisms_and_nulls_are_those_of_copairs(copairs, tmp_path):
    treatments = treatments_of(screen(3), AGGREGATIONS["wells"])
    meta = pd.DataFrame({"moa": treatments.moa, "compound": treatments.compound})
    rules = (["moa"], ["compound"], [], ["moa", "compound"])
    scores = copairs.average_precision(meta, treatments.profiles, *rules, progress_bar=False)
    own = mechanism(treatments, null_size=20_000)
    np.testing.assert_allclose(own.ap, scores["average_precision"], atol=1e-6)
    nulls = copairs.nulls(np.array([[2, 6]]), 20_000, 0, cache_dir=tmp_path, progress_bar=False)[0]
    p = np.array([((nulls > v).sum() + 1) / 20_001 for v in own.mean_ap])
    assert (np.abs(p - own.group_p) < 4 * np.sqrt(p * (1 - p) / 10_000) + 1e-4).all()


def test_replicates_stand_out_where_there_is_a_signal_and_q_is_benjamini_hochbergs():
    own = activity(screen(), null_size=1000)
    assert own.map > own.chance + 0.2
    order = np.argsort(own.group_p)
    steps = own.group_p[order] * len(order) / np.arange(1, len(order) + 1)
    np.testing.assert_allclose(own.group_q[order], np.minimum.accumulate(steps[::-1])[::-1])
    noise = screen()
    flat = activity(FeatureTable(np.random.default_rng(1).normal(size=noise.x.shape), noise.obs), null_size=1000)
    assert (flat.group_q > 0.05).all()
    interval = own.interval(resamples=50)
    assert interval.low < own.map < interval.high and interval.groups == 4
    json.dumps(own.as_dict(resamples=20), allow_nan=False)


def test_controls_that_were_fitted_on_score_nothing():
    def half(obs):
        return (obs["compound"] == "DMSO") & obs["well"].isin(["D00", "D01"])

    own = activity(screen(fitted=half), null_size=100)
    assert set(own.n_total) == {2 + 6}
    assert own.notes == ("6 control wells held out of the fit are the negatives; 6 were fitted on.",)
    as_text = screen(fitted=lambda obs: half(obs).map({True: "True", False: "False"}))
    assert len(control_wells(as_text, Columns())[0].x) == 6
    everything = activity(screen(fitted=lambda obs: obs["compound"] == "DMSO"), null_size=100)
    assert everything.notes[0].startswith("NOT HELD OUT") and set(everything.n_total) == {14}
    with pytest.raises(ValueError, match=r"neither true nor false in rows P1/D00"):
        activity(screen(fitted=lambda obs: "perhaps"))


def test_who_cannot_be_asked_is_listed():
    table = screen()
    rows = np.flatnonzero(
        (table.obs["compound"] != "a") | ((table.obs["plate"] == "P1") & (table.obs["concentration"] == 1))
    )
    fewer = FeatureTable(table.x[rows], table.obs.iloc[rows].reset_index(drop=True))
    own = activity(fewer, null_size=100)
    assert own.without_positives == ("P1/C00",)
    twice = fewer.obs.assign(
        plate="P0", well=[f"{w}-{p}" for w, p in zip(fewer.obs["well"], fewer.obs["plate"], strict=True)]
    )
    one_plate = activity(FeatureTable(fewer.x, twice), null_size=100)
    assert one_plate.notes == ("18 wells have replicates on their own plate only, and are asked for these.",)
    assert set(one_plate.n_pos) == {2}
    treated = np.flatnonzero(table.obs["compound"] != "DMSO")
    uncontrolled = FeatureTable(table.x[treated], table.obs.iloc[treated].reset_index(drop=True))
    with pytest.raises(ValueError, match="no negative control"):
        activity(uncontrolled)
    lone = treatments_of(screen(), AGGREGATIONS["wells"])
    assert mechanism(lone.take(lone.compound != "b"), null_size=100).without_positives == ("a@1", "a@3")
