"""`protloc data qc` from the command line: tables, page, and leaving out what was flagged."""

from __future__ import annotations

import argparse
import re

import numpy as np
import pandas as pd
import pytest

from protloc_jax.cli import data
from protloc_jax.config import ConfigError
from protloc_jax.data import split_file
from protloc_jax.datasets import simulated
from protloc_jax.datasets.quality import FLAGS
from protloc_jax.simulate import SimConfig
from protloc_jax.studies.quality_page import corrected, worst


def protloc(*words):
    """Parse and run `data ...` in this process."""
    parser = argparse.ArgumentParser()
    data.add_parser(parser.add_subparsers(dest="command"))
    return data.run(parser.parse_args(["data", *map(str, words)]))


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qc")
    config = SimConfig(preset="opencell", n_proteins=12, fovs_per_protein=2, size=64, seed=1)
    simulated.pack(config, folder / "records", workers=0)
    words = ["--control", "primary", "--positive", "nucleoplasm", "--negative", "er,golgi", "--permutations", 50]
    # A threshold that flags something in a small set.
    words += ["--out-of-focus", 1.5, "--workers", 1, "--quiet"]
    assert protloc("qc", folder / "records", "--out", folder / "qc", *words) == 0
    return folder


def test_tables_and_a_self_contained_page_that_says_synthetic(checked):
    out = checked / "qc"
    images = pd.read_parquet(out / "qc_images.parquet")
    assert len(images) == 24 and not images["qc_pass"].all()
    assert list(pd.read_csv(out / "qc_images.csv")["id"]) == list(images["id"])
    assert pd.read_csv(out / "qc_wells.csv")["images"].sum() == 24
    edges = pd.read_csv(out / "qc_edges.csv")
    assert (edges["p_holm"] >= edges["p_value"]).all()
    text = (out / "quality.html").read_text()
    assert not re.search(r"<script|https?://|@import|url\(", text)
    assert text.count("Synthetic") == 1 + text.count("<table") + text.count("<img ")
    assert f"{int(images['qc_pass'].sum())} (" in text and "Plate maps" in text
    first = images.iloc[worst(images, "out_of_focus", ["nucleus", "protein"])[0]]
    assert first["id"] in text
    assert first["qc_nucleus_focus_z"] == images["qc_nucleus_focus_z"].min()


def test_flagged_images_are_left_out_of_a_split(checked):
    out = checked / "s.parquet"
    words = ["--join", checked / "qc" / "qc_images.parquet", "--where", "qc_pass=true", "--by", "protein"]
    assert protloc("split", checked / "records", *words, "--out", out) == 0
    images = pd.read_parquet(checked / "qc" / "qc_images.parquet")
    np.testing.assert_array_equal(split_file.read(out).parts[0] > 0, images["qc_pass"])


def test_saved_options_and_bad_ones(checked, tmp_path):
    saved = checked / "qc" / "quality.json"
    with pytest.raises(ConfigError, match=r"reference: no channel 'nuclei'\. Did you mean 'nucleus'"):
        protloc("qc", checked / "records", "--out", tmp_path, "--config", saved, "--reference", "nuclei")
    with pytest.raises(FileNotFoundError, match=r"dataset\.json|does not exist"):
        protloc("qc", tmp_path / "none", "--out", tmp_path)
    assert not list(tmp_path.iterdir())


def test_worst_comes_first_for_every_flag():
    table = pd.DataFrame(
        {
            "qc_flags": [";".join(FLAGS)] * 3 + [""],
            "qc_a_constant": [0, 1, 0, 9],
            "qc_a_signal": [1, -3, 0, -9],
            "qc_a_focus_z": [-4, -9, -5, -99],
            "qc_a_saturated": [0.1, 0.9, 0.2, 1],
            "qc_a_p999_z": [6, 9, 7, 99],
            "qc_cells_z": [-4, -9, -5, -99],
        }
    )
    for flag in FLAGS:
        assert worst(table, flag, ["a"])[0] == 1
        assert 3 not in worst(table, flag, ["a"])
    assert worst(table, "bright", ["a"], most=2) == [1, 2]


def test_holm_over_what_could_be_tested():
    found = corrected([{"p_value": 0.01}, {"p_value": float("nan")}, {"p_value": 0.04}])
    assert found[0]["p_holm"] == pytest.approx(0.02) and found[2]["p_holm"] == pytest.approx(0.04)
    assert np.isnan(found[1]["p_holm"])
