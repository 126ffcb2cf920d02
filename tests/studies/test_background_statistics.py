"""The background study's statistics by hand, the paper's numbers against each other, and the detector of seams."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from protloc_jax.eval.background.averaging import mean_and_spread
from protloc_jax.eval.background.seam import edge_features, seam_score
from protloc_jax.eval.features import FeatureTable
from protloc_jax.studies.background import published
from protloc_jax.studies.background import statistics as stats
from protloc_jax.studies.background.config import Classify
from protloc_jax.studies.background.scores import score_native


def counts(right, of=10):
    """Counts [G, 3, 2] of proteins of two classes in turn, of which `right` [G] of `of` answers are right."""
    found = np.zeros((len(right), 3, 2))
    for g, n in enumerate(right):
        own, other = g % 2, 1 - g % 2
        found[g, 0, own] = n
        found[g, 1, other] = found[g, 2, own] = of - n
    return found


def native(shift):
    """Features of 2 classes x 4 proteins x 3 cells; `shift` moves all towards the second class."""
    obs = pd.DataFrame([(f"p{c}{p}", c, f"p{c}{p}.{k}") for c in "ab" for p in range(4) for k in range(3)],
                       columns=["protein", "class", "id"])  # fmt: skip
    x = np.where(obs["class"] == "a", -1.0, 1.0)[:, None] + shift
    return FeatureTable(x.astype(np.float32), obs)


def test_native_neighbours_are_scored_on_the_cells_that_all_kinds_share():
    other = native(3.0)
    fewer = FeatureTable(other.x[1:], other.obs.iloc[1:].reset_index(drop=True))
    found = score_native({"other": fewer, "same": native(0.0)}, category="class", protein="protein",
                         options=Classify(folds=2))  # fmt: skip
    assert found.classes == ("a", "b") and len(found.proteins) == 8
    # Fitted among their like, every cell among others looks like the second class; one cell of the first is missing.
    assert found.counts["transfer"]["native_same"].sum(axis=0)[0].tolist() == [11, 12]
    assert found.counts["transfer"]["native_other"].sum(axis=0).tolist() == [[0, 12], [0, 11], [11, 0]]
    assert found.counts["retrained"]["native_other"].sum(axis=0)[0].tolist() == [11, 12]
    with pytest.raises(ValueError, match="lack the columns kind"):
        score_native({"same": native(0.0), "other": other}, category="kind", protein="protein", options=Classify())


def test_native_classes_of_one_protein_are_left_out_and_named():
    def with_third(shift):
        table = native(shift)
        obs = pd.concat(
            [table.obs, pd.DataFrame({"protein": "pc0", "class": "c", "id": [f"pc0.{k}" for k in range(3)]})]
        )
        return FeatureTable(np.concatenate([table.x, np.full((3, 1), 9, "f4")]), obs.reset_index(drop=True))

    how = {"category": "class", "protein": "protein", "options": Classify(folds=2)}
    found = score_native({"same": with_third(0.0), "other": with_third(3.0)}, **how)
    alone = score_native({"same": native(0.0), "other": native(3.0)}, **how)
    assert set(found.not_scored) == {"native, c"} and found.classes == ("a", "b")
    for protocol in ("transfer", "retrained"):
        for name, counts in alone.counts[protocol].items():
            np.testing.assert_array_equal(found.counts[protocol][name], counts)
    lone = [FeatureTable(t.x[:15], t.obs.iloc[:15]) for t in (native(0.0), native(3.0))]
    nothing = score_native({"same": lone[0], "other": lone[1]}, **how)
    assert "fewer than two classes" in nothing.not_scored["native"] and nothing.counts == {
        "transfer": {},
        "retrained": {},
    }


def test_published_rows_by_rule_are_the_means_of_the_classes():
    for model, values in published.BY_RULE.items():
        for condition, (mean, spread) in zip(published.CONDITIONS, values, strict=True):
            own = mean_and_spread(list(published.per_class(model, condition).values()))
            assert own == pytest.approx((mean, spread), abs=6e-4), (model, condition)


def test_published_gaps():
    rounded = {m: round(v[1][0] - v[2][0], 3) for m, v in published.TABLE_1.items()}
    assert rounded == {"PIFiA": 0.096, "PCI": 0.158, "DeepLoc": 0.134}  # the abstract's 15.8 points
    pifia = published.decomposition("PIFiA")
    assert [round(pifia[t], 3) for t in ("artifact", "cue_lost", "interference", "neighbour_effect")] == [
        0.011, 0.056, 0.041, 0.058,
    ]  # fmt: skip
    for model in published.MODELS:
        terms = published.decomposition(model)
        assert terms["artifact"] + terms["cue_lost"] + terms["interference"] == pytest.approx(terms["clean_drop"])
    assert len(published.rows()) == 30


def test_accuracy_drop_and_share_removed_by_hand():
    # Recall of the first class: (8 + 6) / 20 and (10 + 8) / 20; of the second: (6 + 4) / 20 and (8 + 6) / 20.
    same = stats.stacked([counts([8, 6, 6, 4]), counts([10, 8, 8, 6])])
    assert stats.accuracy(same.sum(axis=0)) == pytest.approx((0.6 + 0.8) / 2)
    different = stats.stacked([counts([4, 2, 4, 2]), counts([6, 4, 4, 2])])  # 0.3 and 0.4
    found = stats.drop_interval(same, different, resamples=50)
    assert found["estimate"] == pytest.approx(0.7 - 0.35)
    own = {"same": same, "different": stats.stacked([counts([6, 4, 6, 4])])}  # one seed of 0.5 against two
    entry = stats.compared({**own, "same": same[:, :1]}, {"same": same, "different": different}, resamples=200)["drop"]
    assert entry["estimate"] == pytest.approx((0.6 - 0.5) - 0.35)
    assert entry["removed"]["estimate"] == pytest.approx(1 - 0.1 / 0.35)
    assert entry["low"] <= entry["estimate"] <= entry["high"] and 0 < entry["p_value"] <= 1


def test_costs_are_differences_of_accuracies_and_an_own_comparison_is_nothing():
    plain = {"baseline": stats.stacked([counts([9, 9, 7, 7])]), "same": stats.stacked([counts([8, 8, 8, 8])])}
    better = {"baseline": stats.stacked([counts([10, 10, 8, 8])]), "same": plain["same"]}
    found = stats.compared(better, plain, resamples=100)
    assert set(found) == {"cost_baseline", "cost_same"}
    assert found["cost_baseline"]["estimate"] == pytest.approx(0.1)
    assert (found["cost_same"]["estimate"], found["cost_same"]["p_value"]) == (0.0, 1.0)


def test_removed_has_no_value_where_the_plain_encoder_loses_nothing():
    flat = np.stack([counts([5, 5]), counts([5, 5])])[:, :, None].swapaxes(0, 1)  # [G, 2, 1, 3, L]
    assert np.isnan(stats.removed(np.stack([flat, flat], 1).sum(axis=0)))


def test_holm_within_families():
    entries = [{"data": d, "p_value": p} for d, p in (("a", 0.01), ("a", 0.04), ("b", 0.04))]
    stats.with_holm(entries, ("data",))
    assert [e["p_value_holm"] for e in entries] == pytest.approx([0.02, 0.04, 0.04])


def test_a_hard_paste_is_found_by_its_edge_and_a_natural_crop_is_not():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:24, :24]
    mask = ((y - 12) ** 2 + (x - 12) ** 2 < 49).astype(np.uint8)

    def crops(step):
        smooth = [np.sin(y / 5 + p) + np.cos(x / 6 + q) for p, q in rng.uniform(0, 6, (60, 2))]
        return [(s + step * mask + 0.05 * rng.standard_normal(s.shape))[..., None] for s in smooth]

    natural, again, pasted = (edge_features(crops(step), [mask] * 60) for step in (0, 0, 1.5))
    groups = np.arange(60) % 6
    assert natural.shape == (60, 5)
    assert seam_score(natural, pasted, (groups, groups)).balanced_accuracy > 0.95
    assert 0.35 < seam_score(natural, again, (groups, groups)).balanced_accuracy < 0.65
    with pytest.raises(ValueError, match="1 group"):
        seam_score(natural, again, (np.zeros(60), np.zeros(60)))


def test_edge_features_by_hand():
    image = np.zeros((7, 7))
    image[2:5, 2:5] = 1.0
    mask = (image > 0).astype(np.uint8)
    slope, inside, outside, step, _ = edge_features([image[..., None]], [mask])[0] * image.std()
    assert inside == 0.0 and outside == 0.0  # the gradient is on the edge alone
    down, right = np.gradient(image)
    edge = np.zeros((7, 7), bool)
    edge[1:6, 2:5] = edge[2:5, 1:6] = True  # dilated by a cross, without the middle
    edge[3, 3] = False
    assert slope == pytest.approx(np.hypot(down, right)[edge].mean())
    assert step == pytest.approx(1.0)
