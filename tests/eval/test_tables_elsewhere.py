"""Our feature tables open in scanpy, pycytominer and copairs without edits, and come back; numbers by NumPy beside.

The packages come with the extra `profiling`; where one is missing, its tests are skipped.
"""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from protloc_jax.eval.features import FeatureTable, feature_columns, read

pytestmark = pytest.mark.filterwarnings("default")  # other packages' warnings are not ours
MISSING = "the extra 'profiling' is not installed"


def table(n=48, d=6):
    """8 compounds, 6 images each on two plates; a compound's images lie together. Also text that is missing."""
    rng = np.random.default_rng(3)
    compound = np.arange(n) // 6
    obs = pd.DataFrame(
        {
            "id": [f"i{k}" for k in range(n)],
            "split": ["train", "test"] * (n // 2),
            "labels": [f"moa{c % 3}" for c in compound],
            "compound": [f"c{c}" for c in compound],
            "plate": [f"p{k % 2}" for k in range(n)],
            "dose": rng.random(n),
            "note": [None if k % 3 else "x" for k in range(n)],
        }
    )
    x = rng.normal(size=(8, d))[compound] + 0.8 * rng.normal(size=(n, d))
    return FeatureTable(x.astype(np.float32), obs, {"weights_sha256": "abc", "layer": "last"})


@pytest.fixture
def parquet(tmp_path):
    return table().write(tmp_path / "features.parquet")


def test_pandas_and_anndata_see_the_same(tmp_path, parquet):
    ours, frame = table(), pd.read_parquet(parquet)
    features = feature_columns(frame)
    assert list(frame.columns[: len(ours.obs.columns)]) == [f"Metadata_{name}" for name in ours.obs]
    assert features == [f"emb_{i:04d}" for i in range(6)]
    np.testing.assert_array_equal(frame[features].to_numpy(), ours.x)
    data = anndata.read_h5ad(ours.write(tmp_path / "features.h5ad"))
    np.testing.assert_array_equal(data.X, ours.x)
    assert data.obs_names.tolist() == data.obs["id"].tolist() == ours.obs["id"].tolist()
    assert data.var_names.tolist() == features


def test_pycytominer_normalizes_and_its_files_come_back(tmp_path, parquet):
    pycytominer = pytest.importorskip("pycytominer", reason=MISSING)
    frame = pd.read_parquet(parquet)
    features = feature_columns(frame)
    done = pycytominer.normalize(frame, features=features, method="standardize")
    x = table().x.astype(np.float64)
    expected = (x - x.mean(0)) / x.std(0)
    np.testing.assert_allclose(done[features].to_numpy(), expected, atol=1e-6)
    for name, kind in (("n.parquet", "parquet"), ("n.csv.gz", "csv"), ("n.h5ad", "anndata_h5ad")):
        out = str(tmp_path / name)
        pycytominer.normalize(parquet, features=features, method="standardize", output_file=out, output_type=kind)
        back = read(out)
        np.testing.assert_allclose(back.x, expected, atol=1e-5)
        assert back.obs["id"].tolist() == table().obs["id"].tolist()
        assert set(back.obs) == set(table().obs), name
        np.testing.assert_allclose(back.obs["dose"].astype(float), table().obs["dose"], rtol=1e-6)
        assert feature_columns(pd.DataFrame(back.x, columns=features)) == features


def test_pycytominer_spherizes_with_controls(parquet):
    """Whitened on the controls: their covariance becomes the identity, in every method."""
    pycytominer = pytest.importorskip("pycytominer", reason=MISSING)
    frame = pd.read_parquet(parquet)
    features = feature_columns(frame)
    controls = "Metadata_plate == 'p0'"
    for method in ("ZCA-cor", "PCA"):
        done = pycytominer.normalize(
            frame, features=features, samples=controls, method="spherize", spherize_method=method, spherize_epsilon=1e-9
        )
        whitened = done.query(controls)[feature_columns(done)].to_numpy(np.float64)
        np.testing.assert_allclose(np.cov(whitened, rowvar=False), np.eye(6), atol=1e-4)
        assert done["Metadata_id"].tolist() == frame["Metadata_id"].tolist()


def test_copairs_scores_the_table(parquet):
    """Mean average precision of finding a compound's other images, against a plain loop."""
    copairs = pytest.importorskip("copairs.map", reason=MISSING)
    frame = pd.read_parquet(parquet)
    meta, x = frame.filter(regex="^Metadata_"), frame[feature_columns(frame)].to_numpy()
    found = copairs.average_precision(meta, x, ["Metadata_compound"], [], [], ["Metadata_compound"], progress_bar=False)
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    compound = meta["Metadata_compound"].to_numpy()
    expected = []
    for i in range(len(x)):
        others = np.delete(np.arange(len(x)), i)
        hits = (compound[others] == compound[i])[np.argsort(-(unit[others] @ unit[i]))]
        expected.append(np.mean(np.cumsum(hits)[hits] / (np.flatnonzero(hits) + 1)))
    np.testing.assert_allclose(found["average_precision"], expected, rtol=1e-5)
    assert found["Metadata_id"].tolist() == meta["Metadata_id"].tolist()
    scored = copairs.mean_average_precision(found, ["Metadata_compound"], null_size=200, threshold=0.05, seed=0)
    by_compound = pd.Series(expected).groupby(compound).mean()
    np.testing.assert_allclose(scored.set_index("Metadata_compound")["mean_average_precision"], by_compound, rtol=1e-5)


def test_scanpy_makes_neighbours_of_the_table(tmp_path):
    scanpy = pytest.importorskip("scanpy", reason=MISSING)
    data = scanpy.read_h5ad(table().write(tmp_path / "features.h5ad"))
    scanpy.pp.neighbors(data, use_rep="X", n_neighbors=4, method="gauss")
    distance = np.linalg.norm(table().x[:, None] - table().x[None], axis=-1)
    for i in range(data.n_obs):
        nearest = set(np.argsort(distance[i])[1:4].tolist())
        assert set(data.obsp["distances"][i].indices.tolist()) - {i} == nearest
    data.obs["compound"] = data.obs["compound"].astype("category")
    data.obsm["X_pca"] = scanpy.pp.pca(data.X, n_comps=2)
    data.write_h5ad(tmp_path / "analysed.h5ad")
    back = read(tmp_path / "analysed.h5ad")
    np.testing.assert_array_equal(back.x, table().x)
    assert back.uns == table().uns
