"""Feature tables: what is written is what is read, in both formats, and foreign tables are taken or refused clearly."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from protloc_jax.eval.features import FeatureTable, read


def table(n=5, d=3):
    obs = pd.DataFrame(
        {
            "id": [f"i{k}" for k in range(n)],
            "split": ["train"] * (n - 1) + ["test"],
            "labels": ["a", "a;b", "", "b", "a"][:n],
            "protein": [f"P{k % 2}" for k in range(n)],
            "dose": [0.5 * k for k in range(n)],
        }
    )
    x = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    return FeatureTable(x, obs, {"weights_sha256": "abc", "label_names": ["b", "a"], "pooling": "cls"})


@pytest.mark.parametrize("ending", [".h5ad", ".parquet"])
def test_round_trip(tmp_path, ending):
    before = table()
    after = read(before.write(tmp_path / f"deep/features{ending}"))
    np.testing.assert_array_equal(after.x, before.x)
    assert after.x.dtype == np.float32
    assert list(after.obs.columns) == list(before.obs.columns)
    for column in before.obs:
        assert after.obs[column].tolist() == before.obs[column].tolist(), column
    assert after.uns == before.uns
    assert [p.name for p in (tmp_path / "deep").iterdir()] == [f"features{ending}"]


def test_labels_follow_the_class_list():
    hot, names = table().label_matrix()
    assert names == ("b", "a")
    np.testing.assert_array_equal(hot, [[0, 1], [1, 1], [0, 0], [1, 0], [0, 1]])


def test_a_foreign_parquet_table_is_read(tmp_path):
    path = tmp_path / "other.parquet"
    pd.DataFrame(
        {"Metadata_id": ["a", "b"], "Metadata_Plate": [1.5, 2.0], "f1": [0.1, 0.2], "f2": [1.0, 2.0]}
    ).to_parquet(path)
    found = read(path)
    assert found.x.shape == (2, 2)
    assert found.obs["Plate"].tolist() == [1.5, 2.0]


def test_what_cannot_be_used_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.h5ad, \.parquet or \.csv"):
        read(tmp_path / "x.npy")
    with pytest.raises(FileNotFoundError, match=r"none\.h5ad"):
        read(tmp_path / "none.h5ad")
    broken = tmp_path / "broken.h5ad"
    broken.write_bytes(b"not a table")
    with pytest.raises(ValueError, match=r"broken\.h5ad"):
        read(broken)
    bad = table().x.copy()
    bad[2, 0] = np.nan
    with pytest.raises(ValueError, match="ids i2"):
        FeatureTable(bad, table().obs)
    with pytest.raises(ValueError, match="do not go with"):
        FeatureTable(bad[:2], table().obs)
    with pytest.raises(ValueError, match="not in the class list: c"):
        FeatureTable(table().x, table().obs.assign(labels="c"), {"label_names": ["a"]}).label_matrix()
