"""The background study end to end on hand-made features with known answers; its settings and refusals."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from background_cells import one_hot, pack_cells, pack_patches

from protloc_jax.cli.main import main
from protloc_jax.config import ConfigError, from_json, load_file, to_json
from protloc_jax.data import info as record_info
from protloc_jax.data.manifest import read as read_manifest
from protloc_jax.eval.background.joined import made_features
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.features import read as read_features
from protloc_jax.studies.background.config import BackgroundStudy, Classify, Encoder, Inference, Native, Section
from protloc_jax.studies.background.controls import permuted
from protloc_jax.studies.background.inputs import parts_of
from protloc_jax.studies.image_sources import ImageSource

ROOT = Path(__file__).parents[2]
INFERENCE = {"cls": Inference(title="class token"), "centre": Inference(words=("--pooling", "centre"))}


def study(where, **more):
    """Two tables of made images: one that knows the cell, one that listens to the background twice as much."""
    own = {
        "name": "hand-made",
        "out": str(where / "out"),
        "data": {"cells": Section(
            title="squares", records=str(where / "cells"), category="labels", evaluated=("train", "val", "test"),
            patches="patches",
        )},
        "more": {"patches": ImageSource(records=str(where / "patches"))},
        "encoders": {
            "robust": Encoder(kind="table", table=str(where / "robust-{data}.parquet")),
            "confounded": Encoder(kind="table", table=str(where / "confounded-{data}.parquet")),
        },
        "inference": INFERENCE, "reference": "confounded", "plain": "cls", "order": ("confounded", "robust"),
        "images": 8, "grid": "4x3", "resamples": 100, "panel": 2,
    }  # fmt: skip
    return BackgroundStudy(**{**own, **more})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Cells, patches and features of the images that the study will make of them: draws are pure by seed."""
    where = tmp_path_factory.mktemp("background")
    cells, patches = pack_cells(where / "cells", simulated=True), pack_patches(where / "patches")
    make = ["background", "make", "--data", str(cells), "--patches", str(patches), "--out", str(where / "made")]
    assert main([*make, "--quiet", "--grid", "4x3", "--workers", "0", "images=8"]) == 0
    table = read_manifest(where / "made" / record_info.MANIFEST_FILE).table
    rng = np.random.default_rng(0)
    cell, background = (one_hot(table[c].fillna("").astype(str)) for c in ("centre_class", "donor_class"))
    # In untouched crops the neighbours are of the cell's own class.
    background = np.where(table[["condition"]] == "baseline", cell, background)
    seen = np.where(table[["condition"]] == "background_only", 0, cell)
    for name, x in (("robust", seen), ("confounded", seen + 2 * background)):
        x = (x + 0.01 * rng.standard_normal(x.shape)).astype(np.float32)
        FeatureTable(x, pd.DataFrame({"id": table["id"]})).write(where / f"{name}-cells.parquet")
    (where / "study.json").write_text(to_json(study(where)))
    return where


@pytest.fixture(scope="module")
def found(place):
    config = place / "study.json"
    assert main(["study", "background", "--config", str(config)]) == 0
    return json.loads((place / "out" / "background.json").read_text()), config


def rows_of(results):
    return {row["encoder"]: row for row in results["rows"]}


def test_what_listens_to_the_background_loses_everything_and_what_does_not_loses_nothing(found):
    results, _ = found
    rows = rows_of(results)
    assert list(rows) == ["confounded", "robust"] and results["data"]["cells"]["groups"] == 2
    for name, same, different in (("robust", 1.0, 1.0), ("confounded", 1.0, 0.0)):
        own = rows[name]["conditions"]["transfer"]
        assert own["baseline"]["estimate"] == 1.0 and own["same"]["estimate"] == same
        assert own["different"]["estimate"] == different, name
    assert rows["confounded"]["drops"]["transfer"]["drop"] == {"estimate": 1.0, "low": 1.0, "high": 1.0}
    # Every wrong answer names the background's class.
    assert rows["confounded"]["pulled"]["transfer"]["share"] == 1.0 and rows["robust"]["pulled"]["transfer"] is None
    # The cell's class is no linear function of such features, so a fresh linear classifier does not help either.
    retrained = {name: row["conditions"]["retrained"]["different"]["estimate"] for name, row in rows.items()}
    assert retrained["robust"] == 1.0 and retrained["confounded"] < 0.6
    removed = {c["encoder"]: c for c in results["comparisons"]
               if (c["protocol"], c["quantity"]) == ("transfer", "drop")}  # fmt: skip
    assert list(removed) == ["robust"] and removed["robust"]["removed"]["estimate"] == 1.0
    assert removed["robust"]["estimate"] == -1.0


def test_controls_classes_and_measures(found):
    results, _ = found
    controls = {c["control"].split(",")[0]: c for c in results["controls"]}
    assert controls["different - crossed"]["value"] == pytest.approx(
        controls["different - crossed"]["means"]["different"] - controls["different - crossed"]["means"]["crossed"]
    )
    assert controls["different - crossed"]["means"]["crossed"] == 0.0
    grid = np.array(results["classes"][0]["backgrounds"]["transfer"], float)
    assert np.isnan(np.diag(grid)).all() and np.nanmax(grid) == 0.0
    free = {name: row["label_free"] for name, row in rows_of(results).items()}
    assert free["robust"]["variance_cell"] > 0.9 > free["confounded"]["variance_cell"]
    assert results["synthetic"].startswith("simulated yeast") and len(results["published"]) == 30


def test_exchanged_classes_say_nothing_where_proteins_stand_in_several_folds(place, tmp_path):
    made = made_features(read_features(place / "robust-cells.parquet"), place / "made")

    class Shop:
        def compute(self, name, work, **_):
            work(tmp_path)
            return SimpleNamespace(path=tmp_path)

    for groups, together, says in (
        (made.groups, ("cell",), True),
        (1, ("cell", "protein"), True),
        (1, ("cell",), False),
    ):
        own = study(place, classify=Classify(folds=2, together=together))
        control = permuted(own, "cells", dataclasses.replace(made, groups=groups), None, Shop())
        assert (control["passed"] is not None) == says
        assert control["expected"].startswith("chance" if says else "anything: proteins stand in several folds")


def test_page_and_table_say_what_was_found_and_that_it_is_synthetic(found, place):
    results, _ = found
    page = (place / "out" / "report.html").read_text()
    for words in ("Synthetic data.", "PIFiA (published)", "robust", "share removed", "cell-free", "detector of seams"):
        assert words in page, words
    lines = (place / "out" / "background.csv").read_text().splitlines()
    expected = sum(len(own) for row in results["rows"] for own in row["conditions"].values())
    assert len(lines) == 1 + expected and all(line.endswith("synthetic") for line in lines[1:])


def test_the_same_command_goes_on_and_a_changed_key_redoes_what_depends_on_it(found, capsys):
    _, config = found
    assert main(["study", "background", "--config", str(config), "resamples=60"]) == 0
    steps = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    redone = [line for line in steps if "done before" not in line]
    assert redone and all("control-" in line for line in redone)


def test_settings_are_refused_all_at_once(place):
    good = study(place)
    bad = {
        "conditions": ("baseline", "same", "diferent"), "reference": "confonded", "plain": "clss",
        "controls": ("redable",), "images": 0,
        "data": {"cells": dataclasses.replace(good.data["cells"], patches="patchs", native=Native(other="patches"))},
    }  # fmt: skip
    with pytest.raises(ConfigError) as error:
        study(place, **bad)
    for words in ("'different'", "Did you mean 'confounded'", "Did you mean 'cls'", "Did you mean 'readable'",
                  "images=0", "Did you mean 'patches'", "give both"):  # fmt: skip
        assert words in str(error.value), words
    with pytest.raises(ConfigError, match="weights is empty"):
        Encoder(kind="frozen")
    with pytest.raises(ConfigError, match="options belongs to kind=trained"):
        Encoder(kind="table", table="x.parquet", options=("a=b",))
    trained = {"plain": Encoder(), "old": Encoder(kind="untrained")}
    with pytest.raises(ConfigError, match="config is empty"):
        study(place, encoders=trained, reference="plain", order=())


def test_encoders_that_take_no_part_leave_their_sections():
    path = Path(__file__).parents[2] / "configs" / "study_background_simulated.py"
    study = load_file(path, BackgroundStudy, ["only=plain,swap"])
    assert study.data["hpa"].encoders == ("plain", "swap") and study.data["yeast"].encoders == ()
    assert to_json(from_json(BackgroundStudy, to_json(study))) == to_json(study)
    with pytest.raises(ConfigError, match=r"data\.hpa: none of its encoders takes part \(only=plain,masked\)"):
        load_file(path, BackgroundStudy, ["only=plain,masked", "data.hpa.encoders=swap"])
    with pytest.raises(ConfigError, match=r"data\.hpa\.encoders: no 'swop'\. Did you mean 'swap'"):
        load_file(path, BackgroundStudy, ["data.hpa.encoders=swop"])


def test_a_protein_on_both_sides_and_a_thin_class_are_refused(tmp_path):
    cells = pack_cells(tmp_path / "cells", proteins=1)
    section = Section(records=str(cells), category="labels", evaluated=("test",))
    with pytest.raises(ValueError, match="fewer than 2 evaluated proteins"):
        parts_of(section, cells, None)
    with pytest.raises(ValueError, match="Did you mean 'Golgi'"):
        parts_of(dataclasses.replace(section, classes=("Golg",)), cells, None)
    every = pack_cells(tmp_path / "shared", proteins=2, crops=4)
    table = tmp_path / "split.parquet"
    words = ["data", "split", str(every), "--by", "id", "--shares", ".5,0,.5", "--out", str(table)]
    assert main(words) == 0
    split = dataclasses.replace(section, split=("--by", "id"))
    with pytest.raises(ValueError, match="values of 'protein' that train and are evaluated: ER-p0"):
        parts_of(split, every, table)
    _, train, rows = parts_of(dataclasses.replace(split, apart="id"), every, table)
    assert len(train) and len(rows) and not set(train) & set(rows)
    with pytest.raises(ValueError, match="no such column"):
        parts_of(dataclasses.replace(section, protein="proteins"), cells, None)


def test_short_options_are_keys_of_the_config(place, tmp_path, capsys):
    words = ["study", "background", "--config", str(ROOT / "configs" / "study_background.py"), f"out={tmp_path}"]
    assert main([*words, "--data", str(place / "cells"), "--weights", str(tmp_path / "none.pth")]) == 2
    said = capsys.readouterr().err
    assert "1 of the study's inputs do not exist" in said and "encoders.mine.weights" in said


def test_configs_of_the_project_resolve():
    for name, encoders in (("study_background", 1), ("study_background_simulated", 5), ("study_background_smoke", 3)):
        assert len(load_file(ROOT / "configs" / f"{name}.py", BackgroundStudy).encoders) == encoders


def test_classify_has_the_published_default_of_pairs():
    assert Classify().pairwise and Classify().pair_images == 0
