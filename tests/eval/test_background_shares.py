"""Shares with and without background: three classes and few proteins, where every number is known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from protloc_jax.config import ConfigError
from protloc_jax.eval.background import share_analysis, share_output
from protloc_jax.eval.background.proportions import CLIP
from protloc_jax.eval.background.share_analysis import analyse_shares, class_scores, distribution
from protloc_jax.eval.background.share_cells import ShareOptions, join_tables, roles_of
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.probe import fit_probe

CLASSES = ("ER", "Golgi", "nucleus")
EASY = ShareOptions(min_proteins=3, resamples=20)
# Per protein of several classes: the class that a cell looks like, in the original and in the other table.
COUNTS = {
    "M1": ((8, 2, 0), (2, 8, 0)),
    "M2": ((5, 5, 0), (5, 5, 0)),
    "M3": ((4, 3, 3), (0, 5, 5)),
    "M4": ((0, 1, 9), (0, 2, 8)),
}
KL = {
    "M1": 0.8 * math.log(4) + 0.2 * math.log(1 / 4),
    "M2": 0.0,
    "M3": 0.4 * math.log(0.4 / CLIP) + 0.6 * math.log(0.3 / 0.5),
    "M4": 0.1 * math.log(1 / 2) + 0.9 * math.log(9 / 8),
}


def looks(counts):
    return [k for k, n in enumerate(counts) for _ in range(n)]


def tables():
    """Four proteins of each class of four cells, all looking like their class, and the four of COUNTS."""
    rows = [(f"{c}{p}", c, k, k) for k, c in enumerate(CLASSES) for p in range(4) for _ in range(4)]
    for protein, both in COUNTS.items():
        rows += [(protein, "ER;Golgi", a, b) for a, b in zip(*map(looks, both), strict=True)]
    obs = pd.DataFrame([r[:2] for r in rows], columns=["protein", "labels"])
    obs.insert(0, "id", [f"c{i}" for i in range(len(obs))])
    obs["split"] = ["test" if p.endswith("3") and p[0] != "M" else "train" for p in obs["protein"]]
    seen = np.array([r[2:] for r in rows])
    one, two = (np.eye(3, dtype=np.float32)[seen[:, k]] for k in (0, 1))
    turn = np.random.default_rng(0).permutation(len(obs))
    original = FeatureTable(one, obs, {"label_names": list(CLASSES), "data_source": "simulated yeast"})
    return original, FeatureTable(two[turn], obs.iloc[turn].reset_index(drop=True), {})


@pytest.fixture(scope="module")
def found():
    return analyse_shares(*tables(), EASY)


def test_hard_shares_and_divergences_by_hand_whatever_the_order_of_the_other_table(found):
    hard = found.by["hard"]
    assert found.proteins == tuple(COUNTS) and found.cells.tolist() == [10] * 4
    np.testing.assert_allclose(hard.original, [np.array(a) / 10 for a, _ in COUNTS.values()])
    np.testing.assert_allclose(hard.other, [np.array(b) / 10 for _, b in COUNTS.values()])
    np.testing.assert_allclose(hard.found.kl, list(KL.values()), atol=1e-8)
    # To uniform: log 3 - entropy. M1: 1.0986 - 0.5004 = .598 < KL .832; M3: .0096; M4: .774 > KL.
    assert hard.found.substantial.tolist() == [True, False, True, False] and hard.found.share == 0.5
    assert hard.kl["n"] == 4 and hard.kl["max"] == pytest.approx(KL["M3"]) and hard.kl["min"] == pytest.approx(0)
    assert hard.kl["mean"] == pytest.approx(sum(KL.values()) / 4)


def test_two_proteins_held_out_of_each_class_and_all_four_in_the_last_fit(found):
    assert found.roles.classes == CLASSES and found.training_cells == 48 and len(found.roles.own) == 12
    assert len(found.held_out.proteins) in (2, 3) and set(found.held_out.proteins) == set(found.roles.held)
    assert found.held_out.macro["original"]["f1"].estimate == 1
    assert found.held_out.difference["recall"].interval.estimate == 0
    by_split = analyse_shares(*tables(), ShareOptions(min_proteins=3, resamples=20, train="split"))
    assert by_split.held_out.proteins == ("ER3", "Golgi3", "nucleus3")


def test_precision_recall_and_f1_of_a_table_that_errs_by_hand():
    original, other = tables()
    of = dict(zip(original.obs["id"], original.obs["protein"], strict=True))
    x = other.x.copy()
    wrong = [r for r, i in enumerate(other.obs["id"]) if of[i] == "ER3"]
    x[wrong] = [0, 1, 0]  # a held-out protein that looks like Golgi without its background
    options = ShareOptions(min_proteins=3, resamples=20, train="split")
    macro = analyse_shares(original, FeatureTable(x, other.obs, {}), options).held_out.macro["other"]
    # ER: nothing found. Golgi: 4 of 8 right, all found. Nucleus: all right.
    assert macro["precision"].estimate == pytest.approx((0 + 1 / 2 + 1) / 3)
    assert macro["recall"].estimate == pytest.approx(2 / 3)
    assert macro["f1"].estimate == pytest.approx((0 + 2 / 3 + 1) / 3)


def test_scores_before_the_softmax_are_those_of_scikit_learn():
    rng = np.random.default_rng(2)
    y = rng.integers(0, 3, 48)
    x = (rng.normal(size=(48, 3)) + np.eye(3)[y]).astype(np.float32)
    how = {"kind": "multinomial", "l2": [0.05], "tolerance": 1e-10, "train": np.ones((2, 48), bool)}
    path = fit_probe(x, np.eye(3, dtype=bool)[y], **how)
    standard = (x - x.mean(0)) / x.std(0)
    peer = LogisticRegression(C=1 / (0.05 * 48), tol=1e-10, max_iter=1000).fit(standard, y)
    ours, theirs = class_scores(path, x, fold=0), peer.decision_function(standard)
    np.testing.assert_allclose(ours - ours.mean(1, keepdims=True), theirs - theirs.mean(1, keepdims=True), atol=2e-3)
    np.testing.assert_allclose(np.exp(ours) / np.exp(ours).sum(1, keepdims=True), path.scores(x), atol=1e-5)
    half = fit_probe(x, np.eye(3, dtype=bool)[y % 2], **how)
    with pytest.raises(ValueError, match="no training row of classes 2"):
        class_scores(half, x, fold=0)


def test_distribution_by_hand():
    assert distribution(np.array([4.0, 1, 2, 3])) == {
        "n": 4, "mean": 2.5, "sd": pytest.approx(math.sqrt(5 / 3)), "min": 1, "q25": 1.75, "median": 2.5, "q75": 3.25,
        "max": 4,
    }  # fmt: skip
    assert math.isnan(distribution(np.array([4.0]))["sd"])


def test_output_lists_the_largest_disagreements_and_one_row_a_protein(found):
    results = share_output.as_dict(found)
    assert results["synthetic"] == "simulated yeast" and results["classes"] == dict.fromkeys(CLASSES, 4)
    assert [one["protein"] for one in results["top"]["hard"]] == ["M3", "M1", "M4", "M2"]
    assert results["top"]["hard"][1]["original"] == {"ER": 0.8, "Golgi": 0.2}
    assert results["kl"]["hard"]["substantial"] == 0.5
    assert results["published"]["kl"]["n"] == 1531 and results["published"]["held_out"]["other"]["f1"] == 0.428
    rows = share_output.protein_rows(found)
    assert [row["protein"] for row in rows] == list(COUNTS) and rows[0]["hard other: Golgi"] == 0.8
    assert rows[0]["hard substantial"] is True and rows[0]["classes"] == "ER;Golgi"


def test_who_trains_and_who_is_estimated():
    original, other = tables()
    obs = original.obs.copy()
    obs.loc[obs["protein"] == "M4", "labels"] = "vacuole"
    obs.loc[obs["protein"] == "M2", "labels"] = ""
    cells = join_tables(FeatureTable(original.x, obs, {}), FeatureTable(other.x, other.obs[["id"]], {}), EASY)
    roles = roles_of(cells, EASY)
    assert roles.dropped == {"vacuole": 1} and roles.targets == ("M1", "M3")
    assert roles.left_out == {"of a dropped class alone": 1, "without a class": 1}
    others = roles_of(cells, ShareOptions(min_proteins=3, targets="others"))
    assert others.targets == ("M1", "M3", "M4") and "of a dropped class alone" not in others.left_out
    named = roles_of(cells, EASY, ["ER0", "M2"])
    assert named.targets == ("ER0", "M2") and "ER0" not in named.own and len(named.own) == 11
    assert roles_of(cells, ShareOptions(classes=("nucleus", "ER"))).classes == ("nucleus", "ER")


def change(**columns):
    original, other = tables()
    return FeatureTable(original.x, original.obs.assign(**columns), original.uns), other


def first_of(table, n):
    return FeatureTable(table.x[:n], table.obs.iloc[:n], table.uns)


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda: (change(labels="ER"), {}), "'labels' differs between the tables for 72 ids: c16"),
        (lambda: (change(id="c0"), {}), "original: 1 ids stand more than once"),
        (lambda: (tables(), {"protein_column": "protien"}), "no column 'protien'.*Did you mean 'protein'"),
        (lambda: (tables(), {"min_proteins": 5}), "0 class.*ER 4, Golgi 4, nucleus 4"),
        (lambda: (tables(), {"classes": ("ER", "golgi")}), "no protein of 'golgi' alone.*Did you mean 'Golgi'"),
        (lambda: (tables(), {"class_column": "id"}), "proteins whose cells have different classes: ER0"),
        (lambda: (change(split="test"), {"train": "split"}), "all proteins of ER, Golgi, nucleus are held out"),
        (lambda: (change(split="train"), {"train": "split"}), "no protein of one class is in the split test"),
    ],
)  # fmt: skip
def test_refusals(work, message):
    both, options = work()
    with pytest.raises(ValueError, match=message):
        analyse_shares(*both, ShareOptions(**{"min_proteins": 3, **options}))


def test_cells_of_one_table_only_are_listed_and_refused_or_dropped_and_counted():
    original, other = tables()
    with pytest.raises(ValueError, match=r"(?s)8 ids of the original table are not in the other: .*missing=drop"):
        join_tables(original, first_of(other, 80), EASY)
    with pytest.raises(ValueError, match="8 ids of the other table are not in the original: c80, "):
        join_tables(first_of(original, 80), other, EASY)
    both = join_tables(first_of(original, 80), first_of(other, 80), ShareOptions(missing="drop"))
    assert len(both.ids) == 88 - sum(both.left_out.values()) and set(both.left_out) == {
        "of the original table only", "of the other table only",
    }  # fmt: skip
    names = dict(zip(other.obs["id"], other.x, strict=True))
    np.testing.assert_array_equal(both.other, [names[i] for i in both.ids])
    with pytest.raises(ConfigError, match=r"(?s)held_out=1.*l2=0"):
        ShareOptions(held_out=1.0, l2=0.0)
    with pytest.raises(ValueError, match=r"no protein 'M5'.*Did you mean 'M"):
        analyse_shares(original, other, EASY, proteins=["M5"])


def test_published_numbers_are_those_of_the_paper():
    kl = share_analysis.PUBLISHED["kl"]
    assert 223 / kl["n"] == pytest.approx(share_analysis.PUBLISHED["substantial"], abs=5e-4)
