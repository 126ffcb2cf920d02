"""`protloc moa` on tables of a small simulated screen: channels, other systems, measurements, doses, page."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pytest

from protloc_jax.cli.main import main
from protloc_jax.data import read as records_file
from protloc_jax.eval import corrections, features
from protloc_jax.eval.embed import data_facts, metadata
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.moa.evaluation import MoaConfig, evaluate, joined_tables

QUICK = ["--set", "resamples=100", "--set", "null_size=200"]
SCREEN = "--n-compounds 24 --doses 2 --replicates 2 --sites 1 --batches 2 --size 48 --quiet"


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    """Records of a simulated screen, and three tables of their rows: two channels with a signal, one of noise."""
    folder = tmp_path_factory.mktemp("screen")
    assert main(["data", "simulate", "bbbc021", *SCREEN.split(), "--out", str(folder / "records")]) == 0
    rng = np.random.default_rng(0)
    with records_file.open(folder / "records") as records:
        obs, facts = metadata(records, np.arange(records.n)), data_facts(records)
    moa = pd.factorize(obs["moa"].fillna("") + obs["compound"].eq("DMSO").astype(str))[0]
    for name, strength in {"dna": 3.0, "actin": 2.0, "noise": 0.0}.items():
        signal = rng.normal(size=(moa.max() + 1, 8)) * strength
        order = rng.permutation(len(obs)) if name == "actin" else np.arange(len(obs))
        x = (signal[moa] + rng.normal(size=(len(obs), 8)))[order]
        own = obs.iloc[order].reset_index(drop=True)
        FeatureTable(x.astype(np.float32), own, facts).write(folder / f"{name}.h5ad")
    return folder


def test_everything_at_once(screen, tmp_path, capsys):
    out, page, near = tmp_path / "moa.json", tmp_path / "moa.html", tmp_path / "near.csv"
    options = ["--compare", f"noise={screen / 'noise.h5ad'}", "--records", screen / "records", "--baseline", "--doses"]
    options += ["--wells", "--all-classes", "--neighbours", near, "--k", "3", "--out", out, "--page", page]
    tables = [f"dna={screen / 'dna.h5ad'}", f"actin={screen / 'actin.h5ad'}"]
    assert main(["moa", *tables, *QUICK, *map(str, options)]) == 0
    said = capsys.readouterr().out
    results = json.loads(out.read_text())
    assert "SYNTHETIC IMAGES" in said and results["synthetic"].startswith("simulated bbbc021")
    assert list(results["systems"]) == ["all", "dna alone", "actin alone", "noise", "intensity and cell count"]
    whole = results["systems"]["all"]
    assert (whole["features"], results["systems"]["intensity and cell count"]["features"]) == (16, 7)
    assert set(whole["metrics"]) == {"nsc", "nscb", "nscb_all", "wells_nsc", "wells_nscb", "wells_compound"}
    for metric in whole["metrics"].values():
        assert metric["correct"] == sum(q["correct"] for q in metric["queries"])
        assert metric["of"] == len(metric["queries"]) == np.sum(metric["confusion"]["counts"])
    assert f"{whole['metrics']['nsc']['correct']}/{whole['metrics']['nsc']['of']}" in said
    assert whole["metrics"]["nsc"]["accuracy"] > 0.8 > 0.5 > results["systems"]["noise"]["metrics"]["nsc"]["accuracy"]
    assert whole["metrics"]["nscb_all"]["of"] == whole["metrics"]["nsc"]["of"] == whole["treatments"]
    assert whole["map"]["mechanism"]["map"] > whole["map"]["mechanism"]["chance"]
    assert [d["second"] for d in results["differences"]] == ["noise", "intensity and cell count"]
    assert results["differences"][0]["nsc"]["estimate"] == pytest.approx(
        whole["metrics"]["nsc"]["accuracy"] - results["systems"]["noise"]["metrics"]["nsc"]["accuracy"]
    )
    with near.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * whole["treatments"] == len(results["neighbours"])
    assert all(row["query"].split("@")[0] != row["reference_compound"] for row in rows)
    assert {one["compound"] for one in results["doses"]["compounds"]} >= {row["reference_compound"] for row in rows}
    text = page.read_text()
    assert text.count("data:image/png") == 3 and "Synthetic." in text and "All images were simulated" in text


def test_unlabelled_treatments_and_a_convention(screen, tmp_path, capsys):
    table = features.read(screen / "dna.h5ad")
    first = sorted(set(table.obs["compound"]) - {"DMSO", "taxol"})[0]
    hidden = table.obs["moa"].where(table.obs["compound"] != first, "")
    obs = table.obs.assign(moa=hidden).rename(columns={"plate": "barcode"})
    FeatureTable(table.x, obs, table.uns).write(tmp_path / "own.parquet")
    near = tmp_path / "near.csv"
    words = ["--neighbours", str(near), "--ask", "unlabelled", "--columns", "plate=barcode", "--no-map"]
    assert main(["moa", str(tmp_path / "own.parquet"), *words, "--convention", "dose_series", *QUICK]) == 0
    assert "dose_series" in capsys.readouterr().out
    with near.open() as file:
        rows = list(csv.DictReader(file))
    assert {row["query"].split("@")[0] for row in rows} >= {first}
    assert first not in {row["reference_compound"] for row in rows}


def test_corrections_hold_out_the_controls_that_score(screen, tmp_path, capsys):
    out = tmp_path / "moa.json"
    words = ["--steps", "standardise+sphere:1", "--controls", "well_type=negative_control", "--out", str(out), *QUICK]
    tables = [str(screen / "dna.h5ad"), str(screen / "actin.h5ad")]
    assert main(["moa", *tables, *words]) == 0
    assert "NOT HELD OUT" in capsys.readouterr().out
    whole = json.loads(out.read_text())["systems"]["all"]
    assert whole["normalisation"].startswith("standardise") and "sphere" in whole["normalisation"]
    assert main(["moa", *tables, *words, "--share", "0.5"]) == 0
    assert "12 control wells held out of the fit are the negatives; 12 were fitted on" in capsys.readouterr().out
    # The same by hand: each channel corrected by itself before they are joined.
    parts = []
    for file in tables:
        table = features.read(file)
        controls = (table.obs["well_type"] == "negative_control").to_numpy()
        parts.append(corrections.fit("standardise+sphere:1", table, controls, share=0.5).apply(table))
    own = evaluate(joined_tables(dict(enumerate(parts))), MoaConfig(resamples=100, null_size=200))
    assert own == json.loads(out.read_text())["systems"]["all"]


def test_mistakes_are_named(screen, capsys):
    table = str(screen / "dna.h5ad")

    def refused(*words):
        assert main(["moa", table, *words]) == 2
        return capsys.readouterr().err

    assert "Did you mean 'ws_dino'" in refused("--aggregation", "wsdino")
    assert "'dose_series'" in refused("--convention", "doses")
    assert "write FIELD=COLUMN" in refused("--columns", "plat=barcode")
    assert "Did you mean 'plate'" in refused("--columns", "plate=plates")
    assert "--records" in refused("--baseline")
    assert "belong together" in refused("--steps", "whiten:0")


def test_tables_of_other_rows_are_refused_with_their_ids():
    obs = pd.DataFrame({"id": ["a", "b", "c"], "compound": ["x", "y", "z"]})
    x = np.eye(3)

    def table(rows, **columns):
        return FeatureTable(x[rows], obs.assign(**columns).iloc[rows].reset_index(drop=True))

    whole = joined_tables({"one": table([0, 1, 2]), "two": table([2, 0, 1])})
    np.testing.assert_array_equal(whole.x, np.concatenate([x, x], axis=1))
    with pytest.raises(ValueError, match=r"two lacks rows of one: c\. two has rows"):
        joined_tables({"one": table([0, 1, 2]), "two": FeatureTable(x, obs.assign(id=["a", "b", "d"]))})
    with pytest.raises(ValueError, match=r"two: ids that stand twice: a\."):
        joined_tables({"one": table([0, 1]), "two": table([0, 0])})
    with pytest.raises(ValueError, match="two and one differ in 'compound': b"):
        joined_tables({"one": table([0, 1, 2]), "two": table([0, 1, 2], compound=["x", "u", "z"])})
    fitted = joined_tables({"one": table([0, 1, 2], fitted_on=[True, False, False]), "two": table([0, 1, 2])})
    assert list(fitted.obs["fitted_on"]) == [True, False, False]
