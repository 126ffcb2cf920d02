"""Scores of features whose answers are known: the class alone, or the class and, louder, the background's class."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from background_cells import CLASSES, one_hot, pack_cells
from sklearn.svm import SVC

from protloc_jax.config import ConfigError
from protloc_jax.data import read as records_file
from protloc_jax.eval.background.made import COMPARABLE, prepare_made, read_made, write_made
from protloc_jax.eval.background.score import ScoreOptions, score_table
from protloc_jax.eval.background.score_output import as_dict, table_rows
from protloc_jax.eval.features import FeatureTable

OPTIONS = ScoreOptions(resamples=100, workers=1, k=3)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("scored")
    with records_file.open(pack_cells(out / "cells", proteins=4)) as cells:
        prepared = prepare_made(cells, replace(COMPARABLE, images=12, filler="own"), grid=(6, 5))
        write_made(prepared, out / "made", workers=0)
    return out / "made"


def features(made, *, background: float = 0.0, noise: float = 0.0) -> FeatureTable:
    """One-hot of the cell's class, plus the background's so much; without neighbours there is no background."""
    table, info, _ = read_made(made)
    seen = table["donor_class"].where(table["donor_class"] != "", table["centre_class"])
    seen = seen.where(~table["condition"].isin(["masked", "others_masked"]), "")
    x = one_hot(table["centre_class"]) + np.float32(background) * one_hot(seen)
    x += noise * np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    return FeatureTable(x.astype(np.float32), table.drop(columns="labels"), {"data_sha256": info.digest})


def test_features_of_the_cell_alone_lose_nothing(made):
    found = score_table(features(made), OPTIONS)
    assert not found.not_scored
    assert {(c.classifier, c.protocol) for c in found.classified} == {
        (c, p) for c in ("probe", "knn") for p in ("retrained", "transfer")
    }
    for one in found.classified:
        expected = set(found.made.conditions) - {"grid", "crossed"}
        assert set(one.intervals) == expected
        assert all(i.estimate == i.low == i.high == 1 and i.groups == 12 for i in one.intervals.values())
        assert [(d.higher, d.lower) for d in one.drops] == [("baseline", "different"), ("same", "different")]
        assert all(d.difference.interval.estimate == 0 and d.holm == 1 for d in one.drops)
        assert one.decomposition is not None
        assert set(one.decomposition.terms) == {"artifact", "cue_lost", "interference"}
        assert all(s.left_out == s.purged == 0 for s in one.scores.values())
        assert one.options.folds == 2 and one.options.group_by == ("group",)
    for mode in ("published", "grouped"):
        assert set(found.svc[mode]) == {*expected}
        assert all(s.text.mean == 1 and len(s.scores) == s.of == 3 for s in found.svc[mode].values())
        assert (found.svc[mode]["baseline"].table1 is None) == (found.svc[mode]["self_paste"].table1 is not None)
    crossed = found.crossed
    assert crossed is not None and crossed.pairs == 3
    assert all(i.estimate == 1 for i in crossed.intervals.values())
    grid = found.grid
    assert grid is not None and (grid.cells, grid.backgrounds) == (6, 5)
    assert grid.variance.background == pytest.approx(0, abs=1e-12) and grid.raw.same_cell == pytest.approx(1)
    assert grid.flips is not None and (grid.flips.worst_of_k, grid.flips.worst_case_accuracy) == (0, 1)


def test_features_of_the_background_fail_where_it_contradicts(made):
    found = score_table(features(made, background=2), OPTIONS)
    for one in (c for c in found.classified if c.protocol == "transfer"):
        accuracy = {name: i.estimate for name, i in one.intervals.items()}
        assert accuracy["baseline"] == accuracy["same"] == accuracy["self_paste"] == accuracy["masked"] == 1
        assert accuracy["different"] == 0
        drops = {(d.higher, d.lower): d for d in one.drops}
        assert drops["baseline", "different"].difference.interval.estimate == 1
        assert drops["baseline", "different"].holm < 0.05
        random_b = found.made.conditions["random_b"]
        own = random_b.background == random_b.label
        assert accuracy["random_b"] == pytest.approx(np.mean([own[random_b.label == c].mean() for c in CLASSES]))
        assert one.decomposition is not None
        terms = {t: d.interval.estimate for t, d in one.decomposition.terms.items()}
        assert terms == {"artifact": 0, "cue_lost": 0, "interference": 1}
    crossed = found.crossed
    assert crossed is not None
    # On a third class the two of a pair stay apart; on one another's they are taken for each other.
    assert {n: i.estimate for n, i in crossed.intervals.items()} == {
        "baseline": 1, "same": 1, "masked": 1, "different": 1, "crossed": 0,
    }  # fmt: skip
    assert [d.difference.interval.estimate for d in crossed.drops] == [0, 0, 1]
    assert found.svc["published"]["different"].text.mean == 1
    grid = found.grid
    assert grid is not None and grid.flips is not None
    rows = found.made.conditions["grid"]
    other = (rows.background != rows.label).reshape(6, 5)
    assert (grid.flips.worst_of_k, grid.flips.mean) == (other.any(axis=1).mean(), other.mean())
    assert grid.variance.background > 2 * grid.variance.cell
    # `different` shows other cells in part of its images only; whatever their share, none is right.
    assert {b.balanced_accuracy for b in found.bins if b.condition == "different" and b.rows} == {0}
    for name in ("same", "different"):
        assert sum(b.rows for b in found.bins if b.condition == name) == len(found.made.conditions[name])


def test_pairs_are_scikit_learn_s_on_the_rows_of_the_manifest(made):
    table = features(made, background=1, noise=0.8)
    found = score_table(table, replace(OPTIONS, parts=("svc",), svc=("published",)))
    rows = found.made.conditions["different"]
    score = next(s for s in found.svc["published"]["different"].scores if s.background == "ER")
    x = np.concatenate(
        [rows.features[(rows.label == c) & (rows.background == "ER")] for c in (score.first, score.second)]
    )
    y = np.repeat([0, 1], 12)
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    model = SVC(kernel="linear", C=1, max_iter=100_000, random_state=42)
    expected = cross_val_score(model, x, y, cv=StratifiedKFold(5, shuffle=False))
    np.testing.assert_allclose(score.fold_accuracy, expected)
    assert 0.5 < score.mean < 1
    some = score_table(table, replace(OPTIONS, parts=("svc",), triplets=2)).svc["published"]["different"]
    assert len(some.scores) == 2 and some.of == 3 and some.table1 is None
    every = {(s.first, s.second, s.background): s.mean for s in found.svc["published"]["different"].scores}
    assert all(every[s.first, s.second, s.background] == s.mean for s in some.scores)
    assert some.text.mean == pytest.approx(
        np.mean([np.mean([s.mean for s in some.scores if c in (s.first, s.second)]) for c in some.text.classes])
    )


def test_a_table_of_another_tool_is_joined_by_id(made, tmp_path):
    ours = features(made, background=1, noise=0.5)
    order = np.random.default_rng(1).permutation(len(ours.x))
    frame = pd.DataFrame(ours.x, columns=["x", "y", "z"]).assign(id=ours.obs["id"]).iloc[order[5:]]
    frame["others_share"] = ours.obs["others_share"]  # a column of ours among theirs is no feature
    extra = frame.iloc[:1].assign(id="stranger")
    path = tmp_path / "theirs.csv"
    pd.concat([frame, extra]).to_csv(path, index=False)
    from protloc_jax.eval.features import read

    theirs = score_table(read(path), replace(OPTIONS, parts=("classifiers",), protocols=("transfer",)), made=made)
    assert sorted(theirs.made.missing) == sorted(ours.obs["id"].iloc[order[:5]]) and theirs.made.extra == ("stranger",)
    left = FeatureTable(ours.x[np.sort(order[5:])], ours.obs.iloc[np.sort(order[5:])].reset_index(drop=True))
    direct = score_table(left, theirs.options)
    assert [c.intervals for c in theirs.classified] == [c.intervals for c in direct.classified]
    told = json.loads(json.dumps(as_dict(theirs), allow_nan=False))
    assert told["missing"]["count"] == 5 and told["made"]["sets"]["groups"] == 2 and told["not_scored"] == {}
    tables = table_rows(theirs)
    assert set(tables) == {"classes", "proteins"}
    recalls = [
        r["value"] for r in tables["classes"] if (r["score"], r["condition"]) == ("knn transfer, recall", "same")
    ]
    knn = next(c for c in theirs.classified if c.classifier == "knn")
    assert np.mean(recalls) == pytest.approx(knn.intervals["same"].estimate)


def test_what_cannot_be_scored_is_named_with_its_reason(made):
    whole = features(made)
    bare = FeatureTable(whole.x, whole.obs[["id"]])
    with pytest.raises(ValueError, match=r"lacks 'condition'.*--made DIR"):
        score_table(bare)
    with pytest.raises(ValueError, match="of other images"):
        score_table(FeatureTable(whole.x, whole.obs, {"data_sha256": "0" * 64}), made=made)
    strangers = FeatureTable(whole.x, pd.DataFrame({"id": [f"s{i}" for i in range(len(whole.x))]}))
    with pytest.raises(ValueError, match="none of the table's ids"):
        score_table(strangers, made=made)
    twice = whole.obs.assign(id="same")
    with pytest.raises(ValueError, match="stand more than once"):
        score_table(FeatureTable(whole.x, twice))
    odd = whole.obs.assign(condition=whole.obs["condition"].replace("masked", "maskd"))
    with pytest.raises(ValueError, match="'maskd' Did you mean 'masked'"):
        score_table(FeatureTable(whole.x, odd))
    some = (whole.obs["condition"] == "same").to_numpy()
    with pytest.raises(ValueError, match="no image of condition baseline, only same"):
        score_table(FeatureTable(whole.x[some], whole.obs[some]))
    with pytest.raises(
        ConfigError, match=r"(?s)parts: 'svm' is not.*Did you mean 'svc'.*classifiers: 'prob'.*triplets=-1"
    ):
        ScoreOptions(parts=("svm",), classifiers=("prob",), triplets=-1)
    # Without groups and the grid: folds by protein, so donors of `same` lie in other folds.
    few = whole.obs["condition"].isin(["baseline", "same"]).to_numpy()
    obs = whole.obs[few].drop(columns=["donor_group", "others_share"])
    found = score_table(FeatureTable(whole.x[few], obs), replace(OPTIONS, svc=("grouped",), classifiers=("knn",)))
    transferred = next(c for c in found.classified if c.protocol == "transfer")
    assert transferred.options.group_by == ("cell", "protein") and transferred.options.folds == 4
    assert transferred.scores["same"].left_out > 0 == transferred.scores["baseline"].left_out
    assert "no column others_share" in found.not_scored["bins"]
    assert "no images of the grid" in found.not_scored["label_free"]
    assert "no images of different" in found.not_scored["crossed"]
