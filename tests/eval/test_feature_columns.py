"""Which columns are features, and what a foreign table's rows are called: hand-made tables with known answers."""

from __future__ import annotations

import pandas as pd
import pytest

from protloc_jax.eval.feature_columns import metadata_of_foreign
from protloc_jax.eval.features import FeatureTable, feature_columns


def test_ours_are_found_and_columns_added_by_hand_are_not(tmp_path):
    obs = pd.DataFrame({"id": ["a", "b"], "dose": [0.5, 1.0], "emb_note": [1.0, 2.0]})
    x = pd.DataFrame([[1, 2, 3], [4, 5, 6]]).to_numpy("float32")
    table = pd.read_parquet(FeatureTable(x, obs).write(tmp_path / "f.parquet"))
    assert feature_columns(table) == ["emb_0000", "emb_0001", "emb_0002"]
    assert feature_columns(table.assign(UMAP1=0.5)) == ["emb_0000", "emb_0001", "emb_0002"]


def test_of_cellprofiler_every_compartment_also_whole_numbers():
    table = pd.DataFrame(
        {
            "Metadata_Plate": [1, 2],
            "Metadata_dose": [0.5, 1.0],
            "ImageNumber": [1, 2],
            "Image_Count_Cells": [5.0, 6.0],
            "Cells_Neighbors_NumberOfNeighbors_Adjacent": [3, 4],
            "Nuclei_AreaShape_Area": [10.5, 11.5],
            "Nuclei_Is_Edge": [True, False],
            "Cytoplasm_Name": ["a", "b"],
        }
    )
    assert feature_columns(table) == ["Cells_Neighbors_NumberOfNeighbors_Adjacent", "Nuclei_AreaShape_Area"]
    whole = table.astype({"Cells_Neighbors_NumberOfNeighbors_Adjacent": "Int64"})
    assert feature_columns(whole)[0] == "Cells_Neighbors_NumberOfNeighbors_Adjacent"


def test_whole_numbers_of_unknown_tables_may_be_classes():
    table = pd.DataFrame({"class": [0, 1], "feat0000": [0.5, 1.0], "Metadata_x": [1.0, 2.0], "name": ["a", "b"]})
    assert feature_columns(table) == ["feat0000"]
    with pytest.raises(ValueError, match=r"no feature columns: none is named emb_0000.*Columns: class, name"):
        feature_columns(table[["class", "name"]])


def test_foreign_rows_get_the_names_that_evaluations_look_for():
    obs = pd.DataFrame(
        {
            "Metadata_Plate": [11, 11, 12, 12],
            "Metadata_Well": ["A01", "A01", "A01", "A02"],
            "Metadata_Site": [1, 2, 1, 1],
            "Metadata_Gene": list("wxyz"),
        }
    )
    found = metadata_of_foreign(obs)
    assert list(found) == ["id", "Plate", "Well", "Site", "Gene", "gene", "plate", "site", "well", "field"]
    assert found["id"].tolist() == ["11/A01/1", "11/A01/2", "12/A01/1", "12/A02/1"]
    assert found["well"].tolist() == ["11/A01", "11/A01", "12/A01", "12/A02"], "A01 of two plates is not one well"
    assert found["field"].tolist() == found["id"].tolist()
    assert found["gene"].tolist() == list("wxyz")
    cells = metadata_of_foreign(obs.assign(Metadata_ObjectNumber=1, Metadata_Site=1))
    assert cells["id"].tolist() == ["row0", "row1", "row2", "row3"], "two rows of one well cannot be told apart"
    known = metadata_of_foreign(pd.DataFrame({"Metadata_id": ["a"], "Metadata_well": ["B2"], "Metadata_plate": ["p"]}))
    assert known.to_dict("list") == {"id": ["a"], "well": ["B2"], "plate": ["p"]}
    with pytest.raises(ValueError, match="columns that are one without 'Metadata_': Plate"):
        metadata_of_foreign(obs.assign(Plate=1))
