"""Profiles of the WS-DINO study: channels corrected apart, batches apart where asked, screens that cannot be scored."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.moa.columns import Columns
from protloc_jax.eval.moa.nearest import nscb
from protloc_jax.studies.ws_dino.profiles import Profiling, check_screen, profiles, side_by_side

NESTED, CROSSED = Profiling(Columns(), "ws_dino", "ws_dino"), Profiling(Columns(), "ws_dino", "per_batch")


def fields(*, crossed, seed=0, width=3, plates=2):
    """Fields of DMSO and of compounds a to d (mechanisms X, X, Y, Y), nested: one batch a compound; crossed: both."""
    rows = []
    for batch in ("1", "2"):
        for plate in range(plates):
            wells = [("DMSO", "DMSO")] * 5
            wells += [(c, m) for c, m, b in zip("abcd", "XXYY", "1212", strict=True) if crossed or b == batch]
            for well, (compound, moa) in enumerate(wells):
                place = {"batch": batch, "plate": f"{batch}-{plate}", "well": f"B{well:02d}"}
                rows.append({"compound": compound, "moa": moa, "concentration": float(compound != "DMSO"), **place})
    obs = pd.DataFrame(rows)
    obs.insert(0, "id", [f"i{i}" for i in range(len(obs))])
    x = np.random.default_rng(seed).standard_normal((len(obs), width)).astype(np.float32)
    return FeatureTable(x, obs)


def by_hand(table, *, batch=None):
    """Fields of each channel whitened on DMSO, then mean over a plate and median over plates, in plain NumPy."""
    x, obs = np.asarray(table.x, np.float64), table.obs
    dmso = (obs["compound"] == "DMSO").to_numpy()
    mean, cov = x[dmso].mean(axis=0), np.cov(x[dmso].T)
    values, axes = np.linalg.eigh(cov)
    white = (x - mean) @ axes / np.sqrt(values)
    kept = np.ones(len(obs), bool) if batch is None else (obs["batch"] == batch).to_numpy()
    found = {}
    for compound in "abcd":
        own = kept & (obs["compound"] == compound).to_numpy()
        plates = sorted(set(obs["plate"][own]))
        found[compound] = np.median([white[own & (obs["plate"] == p).to_numpy()].mean(axis=0) for p in plates], axis=0)
    return found


def test_channels_are_whitened_apart_and_stand_side_by_side():
    one, two = fields(crossed=False), fields(crossed=False, seed=1, width=4)
    made = profiles([one, two], "whiten:0", NESTED)
    assert made.names == tuple(f"{c}@1" for c in "abcd") and made.profiles.shape == (4, 7)
    for part, table in ((made.profiles[:, :3], one), (made.profiles[:, 3:], two)):
        expected = np.stack(list(by_hand(table).values()))
        # Axes of a whitening have no sign and no order of their own: distances and cosines are what counts.
        assert part @ part.T == pytest.approx(expected @ expected.T, abs=1e-5)


def test_batches_apart_give_every_treatment_a_profile_a_batch():
    table = fields(crossed=True)
    made = profiles([table], "whiten:0", CROSSED)
    assert made.names == tuple(f"{c}@1 in {b}" for c in "abcd" for b in "12")
    expected = np.stack([by_hand(table, batch=b)[c] for c in "abcd" for b in "12"])
    assert made.profiles @ made.profiles.T == pytest.approx(expected @ expected.T, abs=1e-5)
    found = nscb(made)
    assert found.of == 8 and found.without_candidate == 0
    assert all(n[-1] != name[-1] and n[0] != name[0] for n, name in zip(found.neighbour, found.names, strict=True))


def test_a_screen_that_cannot_be_scored_is_refused_with_what_helps():
    check_screen("nested", fields(crossed=False).obs, NESTED)
    check_screen("crossed", fields(crossed=True).obs, CROSSED)
    with pytest.raises(ValueError, match=r"screens.crossed: NSCB: no treatments are left.*set convention=per_batch"):
        check_screen("crossed", fields(crossed=True).obs, NESTED)
    obs = fields(crossed=False).obs
    with pytest.raises(ValueError, match=r"screens.odd: .*no column 'moa'"):
        check_screen("odd", obs.drop(columns="moa"), NESTED)


def test_controls_are_needed_to_fit_on_and_tables_must_agree():
    table = fields(crossed=False)
    treated = np.flatnonzero(table.obs["compound"] != "DMSO")
    without = FeatureTable(table.x[treated], table.obs.iloc[treated].reset_index(drop=True))
    with pytest.raises(ValueError, match="correction 'whiten:0': no field of DMSO"):
        profiles([without], "whiten:0", NESTED)
    assert side_by_side([table, table]).x.shape == (len(table.x), 6)
    with pytest.raises(ValueError, match="do not hold the same fields"):
        side_by_side([table, without])
