"""Tables of predictions by hand: by image, by group, what is refused, and both formats."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from protloc_jax.eval.predictions import Predictions, beside, known_format, wells_over_plates, write_table

OBS = pd.DataFrame(
    {
        "id": ["a", "b", "c"],
        "labels": ["er", "", "golgi"],
        "plate": ["1", "2", "1"],
        "well": ["A01", "A01", None],
    }
)
MADE = Predictions(
    obs=OBS,
    label_names=("er", "golgi"),
    probabilities=np.array([[0.3, 0.1], [0.1, 0.3], [0.2, 0.4]]),
    own=np.array([[0.9, 0.2], [0.5, 0.6], [0.1, 0.55]]),
    thresholds=np.array([0.5, 0.55]),
    kind="multi",
    ood_score=np.array([0.5, 2.0, 1.0]),
    facts={"data_source": "simulated", "calibration": "platt"},
)


def test_by_image_labels_are_those_of_the_probabilities_before_calibration():
    table = MADE.frame()
    assert list(table) == [
        *("id", "Metadata_labels", "Metadata_plate", "Metadata_well", "Metadata_protloc_source"),
        *("p_er", "p_golgi", "labels", "ood_score", "ood"),
    ]
    assert table["labels"].tolist() == ["er", "golgi", ""], "0.5 and 0.55 do not exceed their cuts"
    assert table["p_er"].tolist() == [0.3, 0.1, 0.2]
    assert table["ood"].tolist() == [False, True, False]
    assert MADE.summary() == {
        "images": 3,
        "classes": {"er": 1, "golgi": 1},
        "without_label": 1,
        "ood_images": 1,
        "ood_share": pytest.approx(1 / 3),
    }


def test_by_group_means_then_the_cut():
    """Well A01: own means 0.7 and 0.4, so er; image c has no well and is a group of its own, first in order."""
    table = MADE.by(["well"])
    assert table["Metadata_well"].tolist() == ["", "A01"] and table["images"].tolist() == [1, 2]
    np.testing.assert_allclose(table[["p_er", "p_golgi"]], [[0.2, 0.4], [0.2, 0.2]])
    assert table["labels"].tolist() == ["", "er"]
    assert table["ood_score"].tolist() == [1.0, 1.25] and table["ood_share"].tolist() == [0, 0.5]
    assert wells_over_plates(OBS, ["well"]) == 1 and wells_over_plates(OBS, ["plate", "well"]) == 0
    both = MADE.by(["plate", "well"])
    assert both[["Metadata_plate", "Metadata_well"]].to_numpy().tolist() == [["1", ""], ["1", "A01"], ["2", "A01"]]
    assert both["labels"].tolist() == ["", "er", "golgi"]
    with pytest.raises(
        ValueError, match=r"no column 'wel'\. Did you mean 'well'\? 'x'\. Columns: id, labels, plate, well"
    ):
        MADE.by(["wel", "x"])


def test_one_class_an_image_and_nothing_known_of_distances():
    one = Predictions(
        obs=OBS,
        label_names=("er", "golgi"),
        probabilities=MADE.probabilities,
        own=MADE.own,
        thresholds=MADE.thresholds,
        kind="single",
    )
    table = one.frame()
    assert table["labels"].tolist() == ["er", "golgi", "golgi"] and "ood" not in table
    assert one.summary()["ood_share"] is None and "ood_share" not in one.by(["plate"])


def test_both_formats_hold_the_same(tmp_path):
    table = MADE.frame()
    MADE.write(tmp_path / "p.csv")
    MADE.write(tmp_path / "p.parquet")
    back = pd.read_csv(tmp_path / "p.csv", keep_default_na=False, dtype={"Metadata_plate": str})
    np.testing.assert_array_equal(back["p_er"], table["p_er"])
    assert back["labels"].tolist() == ["er", "golgi", ""]
    stored = pq.read_table(tmp_path / "p.parquet")
    assert json.loads(stored.schema.metadata[b"prediction"])["calibration"] == "platt"
    assert stored.column("ood").to_pylist() == [False, True, False]
    assert beside(tmp_path / "p.csv", ["plate", "well"]).name == "p.by-plate-well.csv"
    assert pq.read_table(write_table(MADE.by(["well"]), tmp_path / "g.parquet", {})).num_rows == 2
    with pytest.raises(ValueError, match=r"predictions end in \.parquet or \.csv"):
        known_format("p.xlsx")
