"""Aggregation of tables against hand-computed means and medians, torch.median and pandas."""

import numpy as np
import pandas as pd
import pytest

from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.moa import aggregate
from protloc_jax.eval.moa.columns import Columns


def table(rows, **more):
    """Rows of (feature, compound, concentration, plate, well)."""
    x = np.array([[row[0]] for row in rows], np.float64)
    obs = pd.DataFrame([row[1:] for row in rows], columns=["compound", "concentration", "plate", "well"])
    obs.insert(0, "id", [f"i{n}" for n in range(len(obs))])
    return FeatureTable(x, obs.assign(**more))


def values(table):
    return dict(zip(table.obs["id"], table.x[:, 0].tolist(), strict=True))


FIELDS = table(
    [
        (0.0, "taxol", 0.3, "P1", "B11"),
        (0.0, "taxol", 0.3, "P1", "B11"),
        (9.0, "taxol", 0.3, "P1", "C11"),
        (1.0, "taxol", 0.3, "P2", "B11"),
        (7.0, "taxol", 0.3, "P3", "B11"),
        (5.0, "taxol", 1.0, "P1", "D04"),
    ],
    batch=["Week1", "Week1", "Week1", "Week2", "Week3", "Week1"],
    moa="stabilisers",
)


def test_each_named_aggregation_by_hand():
    def of(name):
        return values(aggregate.aggregated(FIELDS, aggregate.AGGREGATIONS[name]))

    # Plates: mean(0, 0, 9) = 3, 1, 7; their median 3. No well level: the third field does not count double.
    assert of("ws_dino") == {"taxol@0.3": 3.0, "taxol@1": 5.0}
    # Wells: 0, 9, 1, 7.
    assert of("wells") == {"taxol@0.3": 4.25, "taxol@1": 5.0}
    assert of("wells_median") == {"taxol@0.3": 4.0, "taxol@1": 5.0}
    assert of("median") == {"taxol@0.3": 1.0, "taxol@1": 5.0}
    assert of("mean") == pytest.approx({"taxol@0.3": 3.4, "taxol@1": 5.0})


def test_metadata_that_differ_are_dropped_and_said_and_rows_are_counted():
    result = aggregate.aggregated(FIELDS, aggregate.AGGREGATIONS["wells"])
    assert list(result.obs["n_rows"]) == [5, 1]
    assert list(result.obs["moa"]) == ["stabilisers"] * 2
    assert set(result.uns["aggregation"]["dropped_columns"]) == {"plate", "well", "batch"}
    assert "batch" not in result.obs
    assert result.uns["aggregation"]["levels"] == "plate,well:mean > treatment:mean"


def test_rows_without_a_group_are_listed_not_lost():
    rows = [(1.0, "a", 1.0, "P1", "B02"), (2.0, "", 1.0, "P1", "B03"), (3.0, "a", 1.0, None, "B04")]
    result = aggregate.aggregated(table(rows), aggregate.AGGREGATIONS["ws_dino"])
    assert values(result) == {"a@1": 1.0}
    left_out = result.uns["aggregation"]["left_out"]
    assert left_out == [{"id": "i1", "reason": "no treatment"}, {"id": "i2", "reason": "no plate"}]
    with pytest.raises(ValueError, match=r"nothing is left"):
        aggregate.aggregated(table(rows[1:]), aggregate.AGGREGATIONS["ws_dino"])


def test_a_level_that_mixes_what_a_later_one_needs_is_refused():
    rows = [(1.0, "a", 1.0, "P1", "B02"), (2.0, "b", 1.0, "P1", "B02"), (3.0, "b", 1.0, "P1", "B03")]
    with pytest.raises(ValueError, match=r"'treatment' differs within one plate/well.*P1/B02\."):
        aggregate.aggregated(table(rows), aggregate.AGGREGATIONS["wells"])


def test_means_and_medians_equal_pandas_on_a_random_table():
    rng = np.random.default_rng(0)
    names = rng.choice(["a", "b", "c"], 200), rng.choice(["P1", "P2", "P3", "P4"], 200), rng.choice(["B2", "B3"], 200)
    obs = pd.DataFrame({"id": np.arange(200).astype(str), "treatment": names[0], "plate": names[1], "well": names[2]})
    x = rng.normal(size=(200, 5))
    frame = pd.DataFrame(x).assign(**obs[["treatment", "plate"]])
    for text, levels in {
        "plate,treatment:mean > treatment:median": (["treatment", "plate"], "mean", "median"),
        "plate,treatment:median > treatment:mean": (["treatment", "plate"], "median", "mean"),
    }.items():
        theirs = frame.groupby(levels[0]).agg(levels[1]).groupby("treatment").agg(levels[2])
        ours = aggregate.aggregated(FeatureTable(x, obs), aggregate.parse(text))
        assert list(ours.obs["id"]) == list(theirs.index)
        np.testing.assert_allclose(ours.x, theirs.to_numpy(), rtol=1e-13)


def test_the_lower_median_is_an_element():
    np.testing.assert_array_equal(aggregate.lower_median([[4.0], [1.0], [3.0], [2.0]]), [2.0])
    np.testing.assert_array_equal(aggregate.lower_median([[5, 1, 3]], axis=1), [3])
    with pytest.raises(ValueError, match=r"nothing"):
        aggregate.lower_median(np.zeros((0, 3)))


@pytest.mark.torch
@pytest.mark.parametrize("n", [1, 2, 4, 5])
def test_the_lower_median_is_torchs(n):
    torch = pytest.importorskip("torch", reason="PyTorch's median is the oracle here")
    x = np.random.default_rng(n).normal(size=(3, n, 7)).astype(np.float32)
    theirs = torch.median(torch.from_numpy(x), dim=1).values.numpy()
    np.testing.assert_array_equal(aggregate.lower_median(x, axis=1), theirs)
    assert aggregate.lower_median(x, axis=1).dtype == np.float32


def test_names_and_texts_are_read_and_mistakes_are_named():
    assert aggregate.parse("ws_dino") == aggregate.AGGREGATIONS["ws_dino"]
    for aggregation in aggregate.AGGREGATIONS.values():
        assert aggregate.parse(aggregate.shown(aggregation)) == aggregation
    with pytest.raises(ValueError, match=r"Did you mean 'ws_dino'"):
        aggregate.parse("wsdino")
    with pytest.raises(ValueError, match=r"'medain' is none of .*'median'.*names no column"):
        aggregate.parse("plate:medain > :mean")
    with pytest.raises(ValueError, match=r"no column 'plte'.*'plate'"):
        aggregate.aggregated(FIELDS, aggregate.parse("plte,treatment:mean > treatment:mean"))


def test_columns_may_be_called_otherwise():
    other = FeatureTable(FIELDS.x, FIELDS.obs.rename(columns={"plate": "barcode", "compound": "drug"}))
    columns = Columns(plate="barcode", compound="drug")
    result = aggregate.aggregated(other, aggregate.AGGREGATIONS["ws_dino"], columns=columns)
    assert values(result) == {"taxol@0.3": 3.0, "taxol@1": 5.0}
