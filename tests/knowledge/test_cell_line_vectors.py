"""Vectors of cell lines: from every kind of file to one, controls, and bases that held-out lines do not shape."""

from __future__ import annotations

import csv
import os
import pickle

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA

from protloc_jax.knowledge.cell_line_controls import control
from protloc_jax.knowledge.cell_line_sources import read_vectors
from protloc_jax.knowledge.cell_lines import LineVectors, standardised
from protloc_jax.knowledge.expression import principal_vectors, read_expression
from protloc_jax.knowledge.text_files import KnowledgeError

LINES = ("HUVEC", "RPE", "HEPG2", "U2OS")
RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(4, 6)).astype(np.float32) * np.float32([1, 1e-7, 1e6, 1, 1, 1])


def test_the_file_gives_back_the_same_numbers(tmp_path):
    path = LineVectors(LINES, VECTORS).write(tmp_path / "deep" / "lines.csv")
    rows = list(csv.reader(path.read_text().splitlines()))
    assert rows[0] == ["cell_line", "v1", "v2", "v3", "v4", "v5", "v6"] and [r[0] for r in rows[1:]] == list(LINES)
    np.testing.assert_array_equal(np.array([r[1:] for r in rows[1:]], np.float32), VECTORS)
    again = read_vectors(path)
    assert again.names == LINES
    np.testing.assert_array_equal(again.vectors, VECTORS)
    with pytest.raises(KnowledgeError, match=r"ends in \.csv"):
        again.write(tmp_path / "lines.npz")


def test_names_are_found_by_any_spelling_and_clashes_refused():
    lines = LineVectors(("Hep G2", "Vero", "U-2 OS"), VECTORS[:3])
    chosen = lines.of(["VERO", "HEPG2"])
    assert chosen.names == ("VERO", "HEPG2")
    np.testing.assert_array_equal(chosen.vectors, VECTORS[[1, 0]])
    with pytest.raises(KnowledgeError, match=r"no vector of 'HUVEC', 'Veros' Did you mean 'Vero'"):
        lines.of(["HUVEC", "Veros", "U2OS"])
    with pytest.raises(KnowledgeError, match="names of one cell line: Vero and VERO"):
        LineVectors(("Vero", "VERO"), VECTORS[:2])
    with pytest.raises(KnowledgeError, match="NaN or infinite values in the vectors of b"):
        LineVectors(("a", "b"), np.array([[1, 2], [np.nan, 1]]))


def test_npz_of_either_form_and_never_a_pickle(tmp_path):
    np.savez(tmp_path / "a.npz", **dict(zip(LINES, VECTORS, strict=True)))
    np.savez(tmp_path / "b.npz", names=np.array(LINES), vectors=VECTORS)
    for name in ("a.npz", "b.npz"):
        found = read_vectors(tmp_path / name)
        assert found.names == LINES
        np.testing.assert_array_equal(found.vectors, VECTORS)

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "canary"),)

    np.savez(tmp_path / "c.npz", vectors=np.array(Evil(), object))
    (tmp_path / "d.npz").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "e.h5ad").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "f.csv").write_bytes(pickle.dumps(Evil()))
    for name in ("c.npz", "d.npz", "e.h5ad", "f.csv"):
        with pytest.raises(KnowledgeError, match=name):
            read_vectors(tmp_path / name)
    assert not (tmp_path / "canary").exists()
    np.savez(tmp_path / "g.npz", HUVEC=np.zeros(3), RPE=np.zeros(4))
    with pytest.raises(KnowledgeError, match=r"one vector of the same length.*HUVEC \(3,\), RPE \(4,\)"):
        read_vectors(tmp_path / "g.npz")


@pytest.mark.parametrize("sparse", [False, True])
def test_cells_of_a_single_cell_model_are_averaged_by_line(tmp_path, sparse, monkeypatch):
    monkeypatch.setattr("protloc_jax.knowledge.cell_line_sources._CELLS", 16)
    lines = RNG.choice([*LINES, ""], 50)
    x, latent = RNG.poisson(2, (50, 7)).astype(np.float32), RNG.normal(size=(50, 3)).astype(np.float32)
    obs = pd.DataFrame({"line": pd.Categorical(lines)}, index=[f"c{i}" for i in range(50)])
    data = anndata.AnnData(X=csr_matrix(x) if sparse else x, obs=obs)
    data.obsm["X_scVI"] = latent
    data.write_h5ad(tmp_path / "cells.h5ad")
    for key, values in (("X", x), ("X_scVI", latent)):
        found = read_vectors(tmp_path / "cells.h5ad", line_column="line", embedding=key)
        assert found.names == tuple(sorted(LINES)) and found.about["cells_without_a_line"] == (lines == "").sum()
        wanted = [values[lines == name].astype(np.float64).mean(axis=0) for name in found.names]
        np.testing.assert_allclose(found.vectors, wanted, rtol=1e-6)
    with pytest.raises(KnowledgeError, match=r"no embedding 'X_scvi'. Did you mean 'X_scVI'"):
        read_vectors(tmp_path / "cells.h5ad", line_column="line", embedding="X_scvi")
    with pytest.raises(KnowledgeError, match=r"obs has no column 'cell_line'. Did you mean 'line'"):
        read_vectors(tmp_path / "cells.h5ad")


@pytest.fixture
def counts(tmp_path):
    """Counts of 40 genes in nine samples of six lines; a gene is named twice."""
    genes = [f"g{i}" for i in range(39)] + ["g0"]
    samples = [f"s{i}" for i in range(9)]
    of = [*LINES, "HRCE", "VERO", "HUVEC", "RPE", "HUVEC"]
    table = pd.DataFrame(RNG.poisson(RNG.gamma(1, 50, (40, 9))), index=pd.Index(genes, name="gene"), columns=samples)
    table.to_csv(tmp_path / "counts.tsv", sep="\t")
    table.T.to_csv(tmp_path / "lines.csv")
    pd.DataFrame({"sample": samples, "cell_line": of}).to_csv(tmp_path / "samples.csv", index=False)
    merged = table.groupby(level=0, sort=False).sum()
    logs = np.log1p(merged / merged.sum() * 1e6).T
    return tmp_path, logs.groupby(of).mean()


def test_expression_becomes_principal_coordinates_fitted_without_the_held_out_line(counts):
    folder, wanted = counts
    logs, about = read_expression(folder / "counts.tsv", samples=folder / "samples.csv")
    assert about["genes_named_twice"] == 1 and about["samples_of"]["HUVEC"] == ["s0", "s6", "s8"]
    pd.testing.assert_frame_equal(logs.sort_index()[wanted.columns], wanted, check_names=False)
    found = principal_vectors(logs, genes=20, held_out=["u2os"])
    fitted = [name for name in logs.index if name != "U2OS"]
    variance = logs.loc[fitted].var(axis=0, ddof=0).sort_values(ascending=False)
    chosen = logs[variance.index[:20]]
    oracle = PCA(4).fit(chosen.loc[fitted])
    own = oracle.transform(chosen)
    assert found.vectors.shape == (6, 4) and found.about["projected_lines"] == ["U2OS"]
    signs = np.sign((own * found.vectors).sum(axis=0))
    np.testing.assert_allclose(found.vectors, own * signs, rtol=1e-4, atol=1e-4)
    # The held-out line's own expression moves its own vector only.
    moved = logs.copy()
    moved.loc["U2OS"] = moved.loc["U2OS"].to_numpy()[::-1] * 3
    again = principal_vectors(moved, genes=20, held_out=["U2OS"])
    at = [found.names.index(name) for name in fitted]
    np.testing.assert_array_equal(again.vectors[at], found.vectors[at])
    assert not np.allclose(again.vectors, found.vectors)
    by_lines, _ = read_expression(folder / "lines.csv", layout="lines-in-rows")
    by_genes, _ = read_expression(folder / "counts.tsv")
    assert by_lines.shape == (9, 40) and by_genes.shape == (9, 39), "pandas tells columns of one name apart"


def test_what_expression_refuses(counts):
    folder, _ = counts
    logs, _ = read_expression(folder / "counts.tsv", samples=folder / "samples.csv")
    with pytest.raises(KnowledgeError, match="5 lines span 4 axes"):
        principal_vectors(logs, dimensions=5, held_out=["U2OS"])
    with pytest.raises(KnowledgeError, match="RPE is both fitted on and held out"):
        principal_vectors(logs, fit_lines=["RPE", "HEPG2"], held_out=["rpe"])
    with pytest.raises(KnowledgeError, match="no expression of MCF7"):
        principal_vectors(logs, held_out=["MCF7"])
    (folder / "samples.csv").write_text("sample,cell_line\ns0,HUVEC\nother,RPE\n")
    with pytest.raises(KnowledgeError, match=r"lacks: other; samples of .* without a cell line .*: s1, s2"):
        read_expression(folder / "counts.tsv", samples=folder / "samples.csv")
    (folder / "n.csv").write_text("gene,length,a,b\ng,long,1,2\nh,x,0,3\n")
    with pytest.raises(KnowledgeError, match="no numbers: length"):
        read_expression(folder / "n.csv")
    assert read_expression(folder / "n.csv", ignore=["length"])[0].shape == (2, 2)
    (folder / "n.csv").write_text("gene,a,b\ng,-1,2\n")
    with pytest.raises(KnowledgeError, match="negative"):
        read_expression(folder / "n.csv")


def test_controls_say_less_than_the_vectors():
    lines = LineVectors(LINES, VECTORS)
    seen = set()
    for seed in range(60):
        made = control(lines, "permuted", seed=seed)
        order = tuple(LINES.index(made.about["vector_of"][name]) for name in LINES)
        assert all(k != i for i, k in enumerate(order))
        np.testing.assert_array_equal(made.vectors, VECTORS[list(order)])
        seen.add(order)
    assert len(seen) == 9, "all derangements of four"
    noise = control(lines, "random", seed=1).vectors
    mean = np.linalg.norm(VECTORS.astype(float), axis=1).mean()
    assert np.linalg.norm(noise.astype(float), axis=1).mean() == pytest.approx(mean, rel=1e-6)
    assert (noise == control(lines, "random", seed=1).vectors).all()
    assert (noise != control(lines, "random", seed=2).vectors).all()
    np.testing.assert_array_equal(control(lines, "one-hot").vectors, np.eye(4))
    near = LineVectors(LINES, np.array([[1, 0], [0, 1], [-1, 0], [0.1, 3]]))
    made = control(near, "nearest", held_out=["u2os"])
    assert made.about["vector_of"] == {"U2OS": "RPE"}
    np.testing.assert_array_equal(made.vectors, near.vectors[[0, 1, 2, 1]])
    with pytest.raises(KnowledgeError, match="no vector of 'MCF7'"):
        control(lines, "nearest", held_out=["MCF7"])
    with pytest.raises(KnowledgeError, match="needs the held-out lines"):
        control(lines, "nearest")
    with pytest.raises(KnowledgeError, match="control 'nothing'"):
        control(lines, "nothing")  # type: ignore[arg-type]


def test_standardising_sees_the_lines_it_is_fitted_on():
    values = np.array([[1, 5, 2], [3, 5, 4], [5, 5, 9], [100, 7, -50]])
    made = standardised(LineVectors(LINES, values), LINES[:3])
    fitted = values[:3]
    wanted = (values - fitted.mean(axis=0)) / np.array([fitted[:, 0].std(), 1, fitted[:, 2].std()])
    np.testing.assert_allclose(made.vectors, wanted, rtol=1e-6)
    assert made.about["coordinates_only_centred"] == 1
