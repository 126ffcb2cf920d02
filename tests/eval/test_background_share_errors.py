"""Mixes of known shares: drawn by hand-checked rules, made as records, and encoders whose errors on them are known."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from background_cells import CLASSES, one_hot, pack_cells

from protloc_jax.data import read as records_file
from protloc_jax.eval.background import share_errors
from protloc_jax.eval.background.made import COMPARABLE, prepare_made, read_made, write_made
from protloc_jax.eval.background.mix_sets import MixPlan, draw_mixes
from protloc_jax.eval.background.rows import ConditionRows
from protloc_jax.eval.background.score import score_table
from protloc_jax.eval.background.share_cells import ShareOptions
from protloc_jax.eval.background.share_errors import training_rows
from protloc_jax.eval.background.spec import BackgroundError
from protloc_jax.eval.features import FeatureTable

OPTIONS = ShareOptions(resamples=50)
PLAN = MixPlan(4, 10, (0.9, 0.6))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("mixed")
    with records_file.open(pack_cells(out / "cells", proteins=4, simulated=True)) as cells:
        prepared = prepare_made(cells, replace(COMPARABLE, images=12, groups=2), mixes=PLAN)
        write_made(prepared, out / "made", workers=0)
    return out / "made"


def features(made, column: str) -> FeatureTable:
    """One-hot of the class of the cell, or of the crop around it."""
    table, info, _ = read_made(made)
    seen = table[column].where(table[column] != "", table["centre_class"])
    return FeatureTable(one_hot(seen), table.drop(columns="labels"), {"data_sha256": info.digest})


def test_mixes_are_of_two_classes_with_shares_in_turn():
    drawn = draw_mixes(("a", "b", "c"), MixPlan(12, 10, (0.9, 0.6)), seed=3)
    assert all(sum(n for _, n in one.counts) == 10 for one in drawn)
    assert [one.counts[0][1] for one in drawn] == [9, 6, 9, 6, 9, 6, 6, 9, 6, 9, 6, 9]
    pairs = [tuple(name for name, _ in one.counts) for one in drawn]
    assert len(set(pairs[:6])) == 6 and pairs[:6] == pairs[6:]
    assert draw_mixes(("a", "b", "c"), MixPlan(5, 10, (0.9, 0.6)), seed=3) == drawn[:5]
    assert draw_mixes(("a", "b", "c"), MixPlan(12, 10, (0.9, 0.6)), seed=4) != drawn


def test_both_conditions_show_the_same_cells_and_a_mix_stays_within_a_group_of_proteins(made):
    table, _, about = read_made(made)
    assert about["mixes"] == {
        "number": 4, "cells": 10, "shares": [0.9, 0.6], "conditions": ["crossed", "self_paste"],
    }  # fmt: skip
    assert Counter(table["condition"]) == {"baseline": 36, "crossed": 40, "self_paste": 40}
    assert table["id"].is_unique and set(table["mix"][table["condition"] == "baseline"]) == {""}
    group_of = {}
    for mix, rows in table[table["mix"] != ""].groupby("mix"):
        crossed, own = (rows[rows["condition"] == c] for c in ("crossed", "self_paste"))
        assert sorted(crossed["centre_id"]) == sorted(own["centre_id"]) and (own["donor_id"] == own["centre_id"]).all()
        assert (crossed["donor_class"] != crossed["centre_class"]).all()
        assert set(crossed["donor_class"]) == set(crossed["centre_class"]) and len(set(rows["donor_group"])) == 1
        group_of[mix] = rows["donor_group"].iloc[0]
        trained = table[(table["condition"] == "baseline") & (table["donor_group"] != group_of[mix])]
        assert not set(trained["centre_protein"]) & (set(rows["centre_protein"]) | set(rows["donor_protein"]))
    assert list(group_of.values()) == ["0", "1", "0", "1"]


def test_an_encoder_of_the_cell_errs_nowhere_and_one_of_the_surroundings_by_hand(made):
    right = share_errors.score_mixes(features(made, "centre_class"), OPTIONS)
    assert right.mixes == ("mix0000", "mix0001", "mix0002", "mix0003") and right.cells.tolist() == [10] * 4
    assert right.grouped and not right.seen.any() and not right.left_out
    hard = right.means["hard"]["l1"]
    assert hard.crossed.estimate == hard.self_paste.estimate == hard.difference.interval.estimate == 0
    wrong = share_errors.score_mixes(features(made, "donor_class"), OPTIONS)
    hard = wrong.means["hard"]
    # Shares change places: 2 |.9 - .1| and 2 |.6 - .4|; KL .8 log 9 and .2 log 1.5.
    np.testing.assert_allclose(wrong.each["hard"]["crossed"].l1, [1.6, 0.4, 1.6, 0.4])
    assert hard["l1"].crossed.estimate == pytest.approx(1.0) and hard["l1"].self_paste.estimate == 0
    assert hard["l1"].difference.interval.estimate == pytest.approx(1.0)
    assert hard["kl"].crossed.estimate == pytest.approx((0.8 * np.log(9) + 0.2 * np.log(1.5)) / 2, abs=1e-7)
    # All sixteen ways to swap four mixes: two reach the estimate.
    assert hard["l1"].difference.p_value == pytest.approx(2 / 16)
    rows = share_errors.mix_rows(wrong)
    assert len(rows) == 3 * 2 * 4 and rows[0]["l1"] == pytest.approx(1.6)
    truth = {c: rows[0][f"true: {c}"] for c in CLASSES}
    assert sorted(truth.values()) == pytest.approx([0, 0.1, 0.9])
    assert {c: rows[0][f"estimate: {c}"] for c in CLASSES}[max(truth, key=truth.__getitem__)] == pytest.approx(0.1)


def test_by_id_alone_it_is_synthetic(made):
    table = features(made, "centre_class")
    bare = FeatureTable(table.x, table.obs[["id"]], {})
    found = share_errors.as_dict(share_errors.score_mixes(bare, OPTIONS, made=made))
    assert found["synthetic"].startswith("simulated yeast") and found["made"]["mixes"]["number"] == 4
    assert found["training"] == "baseline images of the other groups of proteins"


def test_without_groups_a_mix_is_kept_from_its_proteins_where_every_class_has_others():
    base = ConditionRows(np.zeros((5, 1)), *map(np.array, (list("aabbb"), list("12345"), list("pqrst"))))
    # m: proteins p, r and, behind its cells, s; n: p and q, all of class a; k: as m by its centres and donors.
    at, mix, donors = [0, 2, 0, 1, 3, 2], np.array(list("mmnnkk")), np.array(list("srppps"))
    crossed, own = base.take(at), base.take(at)
    rows, mix_of = {"crossed": crossed, "self_paste": own}, {"crossed": mix, "self_paste": mix}
    donors_of = {"crossed": donors, "self_paste": crossed.protein}
    masks, fold_of, seen, grouped = training_rows(base, rows, mix_of, donors_of, ["k", "m", "n"])
    assert masks.tolist() == [[False, True, False, False, True], [True] * 5] and not grouped
    assert fold_of == {"k": 0, "m": 0, "n": 1} and seen.tolist() == [False, False, True]


def test_what_was_trained_on_is_said(made):
    found = share_errors.score_mixes(features(made, "centre_class"), OPTIONS)
    other = replace(found, grouped=False)
    assert share_errors.as_dict(other)["training"] == "baseline images of other proteins than the mix's"
    seen = share_errors.as_dict(replace(other, seen=np.array([True, False, False, True])))
    assert "for 2 of 4 mixes their own proteins" in seen["training"] and seen["mixes_of_proteins_trained_on"] == 2


def test_mixes_that_lack_a_cell_are_left_out_and_what_cannot_be_scored_is_refused(made):
    table = features(made, "centre_class")
    gone = np.flatnonzero((table.obs["mix"] == "mix0002") & (table.obs["condition"] == "crossed"))[:1]
    kept = np.setdiff1d(np.arange(len(table.obs)), gone)
    found = share_errors.score_mixes(FeatureTable(table.x[kept], table.obs.iloc[kept], {}), OPTIONS)
    assert found.mixes == ("mix0000", "mix0001", "mix0003")
    assert found.left_out == {"mix0002": "9 cells in crossed and 10 in self_paste, not the same"}
    with pytest.raises(ValueError, match=r"no column 'mix'.*--mixes N"):
        share_errors.score_mixes(FeatureTable(table.x, table.obs.drop(columns="mix"), {}), OPTIONS)
    own = (table.obs["condition"] != "self_paste").to_numpy()
    with pytest.raises(ValueError, match="no image of self_paste"):
        share_errors.score_mixes(FeatureTable(table.x[own], table.obs[own], {}), OPTIONS)
    with pytest.raises(ValueError, match="proportions --mixes"):
        score_table(table)
    for plan, message in (((1, 10), "at least 2"), ((3, 5), "no whole cell"), ((3, 10, (1.0,)), "between 0 and 1")):
        with pytest.raises(BackgroundError, match=message):
            MixPlan(*plan)
    with records_file.open(made.parent / "cells") as cells:
        for sets, more, message in (
            (replace(COMPARABLE, centres="own"), {}, "centres=shared"),
            (replace(COMPARABLE, proteins="per_set", groups=1), {}, "proteins=per_image"),
            (COMPARABLE, {"conditions": ("same",)}, "conditions of their own"),
        ):
            with pytest.raises(BackgroundError, match=message):
                prepare_made(cells, sets, mixes=PLAN, **more)
