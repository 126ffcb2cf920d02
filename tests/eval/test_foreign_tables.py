"""Tables made elsewhere go through `protloc evaluate` unchanged, or are refused with the columns named."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pandas as pd
import pytest

from protloc_jax.cli.main import main
from protloc_jax.eval.features import FeatureTable, read
from protloc_jax.studies.overview import synthetic_source

COUNT, AREA = "Cells_Neighbors_NumberOfNeighbors_Adjacent", "Nuclei_AreaShape_Area"


def cellprofiler(n=120):
    """Profiles as pycytominer aggregates them: the class shows in a whole number and in a small feature; the feature
    in large units is noise, so that features of unequal units must be brought to one scale."""
    rng = np.random.default_rng(0)
    gene = np.arange(n) % 12
    kind = gene % 3
    return pd.DataFrame(
        {
            "Metadata_Plate": np.where(np.arange(n) < n // 2, "0011", "0012"),
            "Metadata_Well": [f"{'ABCDEFGH'[i % 60 % 8]}{i % 60 // 8 + 1:02d}" for i in range(n)],
            "Metadata_Gene": [f"NA{g}" if g else "NA" for g in gene],
            "Metadata_mechanism": np.array(["none", "actin", "golgi"])[kind],
            "Image_Count_Cells": rng.normal(100, 20, n),
            COUNT: 4 + 3 * kind + rng.integers(0, 2, n),
            AREA: rng.normal(50_000, 20_000, n),
            "Cytoplasm_Texture_Contrast_ER": kind * 1e-3 + rng.normal(0, 1e-4, n),
        }
    )


def test_profiles_of_other_tools_are_scored_as_they_are(tmp_path, capsys):
    table = cellprofiler()
    table.to_parquet(tmp_path / "profiles.parquet")
    table.to_csv(tmp_path / "profiles.csv.gz", index=False)
    scores = tmp_path / "scores.json"
    words = [
        "--label",
        "mechanism",
        "--split",
        "k-fold",
        "--folds",
        "3",
        "--set",
        "resamples=50",
        "--set",
        "k=5",
        "--set",
        "evaluators=knn",
    ]
    files = [f"a={tmp_path / 'profiles.parquet'}", f"b={tmp_path / 'profiles.csv.gz'}"]
    assert main(["evaluate", *files, *words, "--out", str(scores)]) == 0
    found = json.loads(scores.read_text())
    assert found["task"]["unit"] == "gene"
    assert found["systems"]["a"]["features"] == 3
    # Two of three features tell the class; the third is noise. Without one scale, it would be all that counts (0.19).
    assert found["systems"]["a"]["knn"]["macro_f1"]["estimate"] > 0.85
    assert found["systems"]["a"]["scale"] == "standardise"
    assert found["systems"]["a"] == found["systems"]["b"], "CSV and Parquet say the same"
    assert main(["evaluate", files[0], "--label", "mechanism"]) == 2
    assert "no column 'split'" in capsys.readouterr().err


def test_text_keeps_zeros_and_genes_called_na(tmp_path):
    table = cellprofiler()
    for name, options in (("a.csv", {}), ("a.tsv", {"sep": "\t"}), ("a.csv.gz", {}), ("plain.csv.gz", {})):
        path = tmp_path / name
        if name == "plain.csv.gz":
            path.write_text(table.to_csv(index=False))
        else:
            table.to_csv(path, index=False, **options)
        found = read(path)
        assert found.obs["Plate"].unique().tolist() == ["0011", "0012"]
        assert found.obs["gene"][0] == "NA"
        assert found.obs["Image_Count_Cells"].tolist() == table["Image_Count_Cells"].tolist()
        np.testing.assert_array_equal(found.x, table[[COUNT, AREA, "Cytoplasm_Texture_Contrast_ER"]].astype("float32"))
    assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes())


def test_missing_values_name_the_features(tmp_path):
    table = cellprofiler()
    table.loc[3, AREA] = np.nan
    table["Cells_Location_Center_X"] = np.inf
    for name in ("a.parquet", "a.csv"):
        (table.to_parquet if name.endswith("t") else table.to_csv)(tmp_path / name, index=False)
        with pytest.raises(ValueError, match=f"2 of 4 features have missing or infinite values: {AREA}, Cells_Loc"):
            read(tmp_path / name)
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(table.to_csv().encode())[:200])
    with pytest.raises(ValueError, match=r"cut\.csv\.gz: not a usable feature table"):
        read(cut)


def test_synthetic_images_stay_synthetic_when_another_tool_drops_the_provenance(tmp_path):
    obs = pd.DataFrame({"id": ["a", "b"], "split": ["train", "test"]})
    ours = FeatureTable(
        np.eye(2, dtype=np.float32), obs, {"data_source": "simulated opencell, difficulty hard, seed 0"}
    )
    same = read(ours.write(tmp_path / "ours.parquet"))
    assert (list(same.obs), same.uns) == (["id", "split"], ours.uns)
    frame = pd.read_parquet(tmp_path / "ours.parquet")
    for name in ("other.parquet", "other.csv"):
        (frame.to_parquet if name.endswith("t") else frame.to_csv)(tmp_path / name, index=False)
        other = read(tmp_path / name)
        assert (list(other.obs), other.uns) == (["id", "split"], {"data_source": ours.uns["data_source"]})
        assert synthetic_source({"a": other}).startswith("simulated opencell")
    FeatureTable(ours.x, obs, {"data_source": ""}).write(tmp_path / "real.parquet")
    assert list(pd.read_parquet(tmp_path / "real.parquet"))[:2] == ["Metadata_id", "Metadata_split"]
    assert pd.read_parquet(tmp_path / "real.parquet").shape[1] == 4
