"""Distances from untreated cells by dose: tables by hand, a loop over wells, and curves that are known."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.moa.dose_response import dose_responses, hill_fit

DOSES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


def screen(strengths, plates=3, controls=12, dim=6, fitted=False, seed=0):
    """`strengths`: {compound: shift of the first feature by dose}; unit noise; `controls` DMSO wells a plate."""
    rng = np.random.default_rng(seed)
    rows, x = [], []
    for plate in range(plates):
        for number, (name, shifts) in enumerate(strengths.items()):
            for dose, shift in zip(DOSES, shifts, strict=False):
                rows.append((f"P{plate}", f"{'CDEF'[number]}{int(dose * 10):03d}", name, dose, "X"))
                x.append(rng.normal(size=dim) + shift * np.eye(dim)[0])
        for number in range(controls):
            rows.append((f"P{plate}", f"B{number:02d}", "DMSO", 0.0, "DMSO"))
            x.append(rng.normal(size=dim))
    obs = pd.DataFrame(rows, columns=["plate", "well", "compound", "concentration", "moa"])
    obs.insert(0, "id", obs["plate"] + obs["well"])
    if fitted:
        obs["fitted_on"] = (obs["compound"] == "DMSO") & (obs["well"] < "B06")
    return FeatureTable(np.array(x), obs)


def test_distances_and_limits_equal_a_loop():
    table = screen({"one": [0, 0, 2, 4, 8, 9]}, fitted=True)
    found = dose_responses(table, draws=4000)
    obs = table.obs
    fitted, held = (table.x[(obs["compound"] == "DMSO") & (obs["fitted_on"] == f)] for f in (True, False))
    centre = fitted.mean(axis=0)
    assert found["untreated"]["centroid_of"] == "wells fitted on"
    rng = np.random.default_rng(9)
    drawn = [np.linalg.norm(held[rng.choice(len(held), 3, replace=False)].mean(axis=0) - centre) for _ in range(4000)]
    (one,) = found["compounds"]
    for dose in one["doses"]:
        own = table.x[(obs["compound"] == "one") & (obs["concentration"] == dose["dose"])]
        assert dose["distance"] == pytest.approx(np.linalg.norm(own.mean(axis=0) - centre))
        assert dose["n_wells"] == 3
        assert dose["limit"] == pytest.approx(np.quantile(drawn, 0.95), rel=0.05)
        assert dose["outside"] == (dose["distance"] > dose["limit"])
    distances = [dose["distance"] for dose in one["doses"]]
    assert one["spearman"] == pytest.approx(stats.spearmanr(DOSES, distances).statistic)
    json.dumps(found, allow_nan=False)


def test_strong_and_silent_compounds_are_told_apart():
    found = dose_responses(screen({"strong": [0, 0, 4, 6, 8, 8.5], "silent": [0] * 6}, dim=3))
    strong, silent = sorted(found["compounds"], key=lambda c: c["compound"] == "silent")
    assert strong["outside_from"] == 1.0 and strong["spearman"] > 0.7
    assert 0.3 < strong["hill"]["ec50"] < 3 and strong["hill"]["r2"] > 0.9
    assert silent["outside_from"] is None
    assert found["untreated"]["centroid_of"] == "all but the wells drawn" and found["notes"] == []


def test_untreated_wells_are_outside_their_own_range_as_often_as_it_says():
    outside = []
    for seed in range(12):
        one = dose_responses(screen({"silent": [0] * 6}, controls=20, seed=seed), draws=300)["compounds"][0]
        outside += [dose["outside"] for dose in one["doses"]]
    assert stats.binomtest(sum(outside), len(outside), 0.05).pvalue > 0.01


def test_what_cannot_be_judged_is_said():
    table = screen({"one": [0, 1, 2], "bare": [1]}, controls=1)
    obs = table.obs.assign(fitted_on=table.obs["compound"] == "DMSO")
    obs.loc[obs["compound"] == "bare", "concentration"] = np.nan
    found = dose_responses(FeatureTable(table.x, obs))
    (one,) = found["compounds"]
    assert one["hill"] == {"failed": "4 doses are needed, there are 3"}
    assert len(found["left_out"]) == 3 and found["left_out"][0]["reason"] == "no compound or dose"
    assert found["notes"][0].startswith("NOT HELD OUT")
    assert found["notes"][1].startswith("Doses of more than 1 wells")
    treated = table.obs["compound"] != "DMSO"
    with pytest.raises(ValueError, match="no negative control"):
        dose_responses(FeatureTable(table.x[treated], table.obs[treated].reset_index(drop=True)))


def test_a_hill_curve_is_found_again_and_failures_are_named():
    dose = np.array(DOSES)
    curve = 1.5 + 6 / (1 + (2.0 / dose) ** 1.7)
    found = hill_fit(dose, curve, bottom=1.5)
    assert found == pytest.approx({"bottom": 1.5, "ec50": 2.0, "top": 7.5, "slope": 1.7, "r2": 1.0}, rel=1e-4)
    assert hill_fit(dose, np.full(6, 1.0), bottom=1.5) == {"failed": "no dose is farther than untreated cells"}
    late = 1.5 + 6 / (1 + (500.0 / dose) ** 1.7)
    assert "outside the doses tested" in hill_fit(dose, late, bottom=1.5)["failed"]
    assert "failed" in hill_fit(dose, curve[::-1], bottom=1.5)
