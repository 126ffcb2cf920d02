"""Hostile feature tables: nothing they hold is run, and the message says what was found and how to convert it."""

from __future__ import annotations

import os
import pickle

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from protloc_jax.cli.main import main
from protloc_jax.eval.features import FeatureTable, read


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, canary):
        self.canary = str(canary)

    def __reduce__(self):
        return os.mkdir, (self.canary,)


@pytest.fixture
def canary(tmp_path):
    return tmp_path / "canary"


def good(path):
    return FeatureTable(np.ones((3, 2), np.float32), pd.DataFrame({"id": ["a", "b", "c"]}), {"layer": "last"}).write(
        path
    )


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", ["t.h5ad", "t.parquet", "t.csv"])
def test_a_renamed_pickle_is_refused(tmp_path, canary, capsys, name, protocol):
    payload = pickle.dumps(Evil(canary), protocol)
    (tmp_path / name).write_bytes(payload)
    with pytest.raises(ValueError, match=rf"{name}.*is a Python pickle under the name.*container without network"):
        read(tmp_path / name)
    assert main(["evaluate", str(tmp_path / name)]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not canary.exists()
    pickle.loads(payload)
    assert canary.exists(), "the payload is a real one"


def _void(file, evil):
    file["uns"].create_dataset("model", data=np.void(pickle.dumps(evil)))


def _bytes(file, evil):
    file["uns"].create_dataset("model", data=np.frombuffer(pickle.dumps(evil), np.uint8))


def _column(file, evil):
    cells = file["obs"].create_dataset("model", (3,), h5py.special_dtype(vlen=np.uint8))
    cells[1] = np.frombuffer(pickle.dumps(evil), np.uint8)


def _attribute(file, evil):
    file["X"].attrs["FIELD_0"] = np.void(pickle.dumps(evil))


def _text_attribute(file, evil):
    file.attrs["TITLE"] = pickle.dumps(evil, 0).decode()


def _pytables(file, evil):
    node = file.create_dataset("objects", (1,), h5py.special_dtype(vlen=np.uint8))
    node[0] = np.frombuffer(b"anything", np.uint8)
    node.attrs["CLASS"], node.attrs["PSEUDOATOM"] = np.bytes_(b"VLARRAY"), np.bytes_(b"object")


def _external(file, evil):
    file["obsm"]["X_umap"] = h5py.ExternalLink("/etc/passwd", "/")


def _virtual(file, evil):
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (3,))
    file["obs"].create_virtual_dataset("v", layout)


def _claims(file, evil):
    del file["X"]
    file.create_dataset("X", (2**20, 2**20), "f4", chunks=(64, 64))


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (_void, "'/uns/model' holds opaque bytes"),
        (_bytes, "'/uns/model' holds a pickled object"),
        (_column, "'/obs/model' holds a pickled object"),
        (_attribute, r"'/X \(attribute FIELD_0\)' holds a pickled object"),
        (_text_attribute, r"'/ \(attribute TITLE\)' holds a pickled object"),
        (_pytables, "'/objects' was written by PyTables as Python objects"),
        (_external, r"'/obsm/X_umap' is a link into another file \(/etc/passwd\)"),
        (_virtual, "'/obs/v' takes its values from other files"),
        (_claims, r"'/X' claims 4,096 GiB in 0 bytes"),
    ],
)
def test_what_hides_in_an_h5ad_is_refused_by_name(tmp_path, canary, spoil, text):
    path = good(tmp_path / "t.h5ad")
    assert read(path).x.shape == (3, 2)
    with h5py.File(path, "a") as file:
        spoil(file, Evil(canary))
    with pytest.raises(ValueError, match=rf"t\.h5ad: .*{text}"):
        read(path)
    assert not canary.exists()


def test_what_is_no_hdf5_is_said(tmp_path):
    path = good(tmp_path / "t.h5ad")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"t\.h5ad: not a usable feature table"):
        read(path)
    path.write_bytes(b"not a table")
    with pytest.raises(ValueError, match="is not an HDF5 file"):
        read(path)


@pytest.mark.filterwarnings("ignore")
def test_honest_files_of_other_tools_are_read(tmp_path):
    """Sparse values, categories, missing text, nested notes and arrays of every plain kind."""
    obs = pd.DataFrame(
        {"line": pd.Categorical(["U2OS", "HeLa", "U2OS"]), "cells": [1, 2, 3], "note": ["(dark)", "c\n.", ""]},
        index=["x", "y", "z"],
    )
    uns = {"a": {"b": np.arange(3, dtype=np.uint8), "c": "text.", "d": True, "e": np.array(["p", "q"])}}
    data = anndata.AnnData(csr_matrix(np.eye(3, 4, dtype=np.float32)), obs=obs, uns=uns)
    data.obsm["X_umap"] = np.zeros((3, 2))
    data.write_h5ad(tmp_path / "t.h5ad")
    found = read(tmp_path / "t.h5ad")
    np.testing.assert_array_equal(found.x, np.eye(3, 4))
    assert found.obs["id"].tolist() == ["x", "y", "z"]
    assert found.obs["line"].tolist() == ["U2OS", "HeLa", "U2OS"]
