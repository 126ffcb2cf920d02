"""`protloc de-novo frozen` from a feature table and split files: wells apart, and image by image as published."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from protloc_jax.cli.main import main
from protloc_jax.data.split_config import SplitConfig
from protloc_jax.data.split_file import PARTS, SplitFile
from protloc_jax.eval.features import FeatureTable


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two wells of each of four perturbations, two sites a well; features tell perturbations apart."""
    out = tmp_path_factory.mktemp("de_novo")
    wells = np.repeat(np.arange(8), 2)
    obs = pd.DataFrame({"id": [f"i{i}" for i in range(16)], "well": [f"w{w}" for w in wells], "plate": "p1",
                        "perturbation": [f"s{w % 4}" for w in wells]})  # fmt: skip
    x = np.eye(4, dtype=np.float32)[wells % 4] + np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32) / 50
    FeatureTable(x, obs, {}).write(out / "f.parquet")
    site = np.arange(16) % 2
    for name, by, train in (("well", ("well",), wells < 4), ("image", (), (wells < 4) & (site == 0)),
                            ("torn", ("well",), (wells < 4) & (site == 0))):  # fmt: skip
        parts = np.where(train, PARTS.index("train"), PARTS.index("test")).astype(np.int8)[None]
        split = SplitFile(tuple(obs["id"]), {}, (name,), parts, SplitConfig(kind="de_novo", by=by), {})
        split.write(out / f"{name}.parquet")
    return out


def frozen(place, split, out):
    words = ["--features", str(place / "f.parquet"), "--split-file", str(place / f"{split}.parquet"), "--out", str(out)]
    return main(["de-novo", "frozen", *words])


def test_a_split_by_image_is_scored_with_its_sister_sites_and_says_so(place, tmp_path, capsys):
    assert frozen(place, "image", tmp_path / "image") == 0
    assert "4 of 12 images share their well with a training image." in capsys.readouterr().out
    scores = json.loads((tmp_path / "image" / "scores.json").read_text())
    assert (scores["prototype"]["images"], scores["prototype"]["top1"]["estimate"]) == (12, 1.0)
    assert frozen(place, "well", tmp_path / "well") == 0
    assert "share their well" not in capsys.readouterr().out
    scores = json.loads((tmp_path / "well" / "scores.json").read_text())
    assert (scores["nearest"]["images"], scores["nearest"]["top1"]["estimate"]) == (8, 1.0)


def test_wells_that_a_split_by_well_tears_are_refused(place, tmp_path, capsys):
    assert frozen(place, "torn", tmp_path / "torn") == 2
    assert "4 values of 'well' stand in support and queries both: w0, w1, w2, w3." in capsys.readouterr().err
