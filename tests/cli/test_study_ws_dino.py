"""`protloc study ws-dino` from a miniature of BBBC021's raw layout to the page: killed, resumed, changed, refused."""

from __future__ import annotations

import json
import re
import shlex
import time
from pathlib import Path

import pytest
from killed_command import killed_at

from protloc_jax.cli.main import main
from protloc_jax.config import ConfigError, load_file
from protloc_jax.studies.ws_dino.config import WsDinoStudy

ROOT = Path(__file__).parents[2]
CONFIG = "configs/study_ws_dino_smoke.py"
# Of the smoke study one channel model, plain DINO transductive and compounds in folds, and every kind of step.
SMALL = (
    "only=untrained,dino,compound", "arms.untrained.models=joint", "arms.dino.models=joint",
    "arms.compound.models=joint", "arms.dino.training=transductive", "arms.compound.training=inductive",
    "models.joint.options=optim.steps=4,run.checkpoint_every=2,run.log_every=1,optim.warmup_epochs=0",
    "curve=1", "permutations=20", "resamples=100", "maps=0", "attention=1", "models.each.init=", "baselines=count",
)  # fmt: skip


def commands():
    """The commands in the smoke config's docstring, in order."""
    text = (ROOT / CONFIG).read_text().split('"""')[1].replace("\\\\\n", " ")
    return [shlex.split(line)[1:] for line in re.findall(r"^    (protloc .*)$", text, re.M)]


def simulated(where, *options):
    """A folder with the project's configs and, by the docstring's first command with other options, the raw layout."""
    (where / "configs").symlink_to(ROOT / "configs")
    simulate = commands()[0]
    assert simulate[:3] == ["data", "simulate", "bbbc021"]
    assert main([*simulate[:-1], str(where / simulate[-1]), *options, "--quiet"]) == 0
    return where


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The same with one dose a compound and small fields."""
    return simulated(tmp_path_factory.mktemp("ws_dino"), "--doses", "1", "--size", "64")


def words_of(where, *overrides):
    return ["study", "ws-dino", "--config", CONFIG, f"out={where / 'out'}", *overrides]


def rows_of(results, **wanted):
    return [row for row in results["rows"] if all(row[key] == value for key, value in wanted.items())]


def test_a_killed_study_goes_on_and_ends_with_table_and_page(place, tmp_path, monkeypatch, capsys):
    before = killed_at("[pretraining 1/4", words_of(tmp_path, *SMALL), where=place)
    assert any("records-mini" in line for line in before)
    monkeypatch.chdir(place)
    assert main(words_of(tmp_path, *SMALL)) == 0
    told = capsys.readouterr().out
    assert "records-mini: done before" in told and "pretrain-mini-compound-joint-fold2-seed0\n" in told
    results = json.loads((tmp_path / "out" / "ws_dino.json").read_text())
    assert "simulated bbbc021" in results["synthetic"]
    for metric, of in (("NSC", 25), ("NSCB", 17)):
        arms = {(r["arm"], r["training"]) for r in rows_of(results, metric=metric, of=of)}
        assert arms == {("untrained", "transductive"), ("dino", "transductive"), ("compound", "inductive"),
                        ("count", "transductive")}  # fmt: skip
    assert len(rows_of(results, arm="dino", metric="NSC")) == 4  # corrections
    assert [len(curve["epochs"]) for curve in results["curves"]] == [2, 2]
    # No fold trained on what it asks about: the commands say which split, and the split file which compounds.
    folds = {fold["fold"]: set(fold["held_out"]) for fold in results["screens"]["mini"]["folds"]}
    assert len(set().union(*folds.values())) == sum(map(len, folds.values())) == 25
    for step in results["steps"]:
        if step["name"].startswith("pretrain-mini-compound"):
            assert f"data.split_name={step['name'].split('-')[4]}" in step["command"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("Synthetic") > 10 and "compounds never trained on" in page and "0.957" in page
    table = (tmp_path / "out" / "ws_dino.csv").read_text().splitlines()
    assert len(table) == 1 + len(results["rows"])
    # Once more, with another correction in the place of one: only what rests on it is done again.
    assert main(words_of(tmp_path, *SMALL, "corrections.plate.steps=robust:plate")) == 0
    redone = [x for x in capsys.readouterr().out.splitlines() if x.startswith("[") and "done before" not in x]
    assert redone and all("-plate" in line or "mixing-" in line for line in redone)
    again = json.loads((tmp_path / "out" / "ws_dino.json").read_text())
    for one, two in zip(results["rows"], again["rows"], strict=True):
        assert one["correction"] == "plate" or one["correct"] == two["correct"]


@pytest.mark.slow  # minutes: every arm of the study; the test above runs every kind of step of it
def test_every_arm_runs_within_ten_minutes(tmp_path, monkeypatch):
    began = time.monotonic()
    place = simulated(tmp_path)
    monkeypatch.chdir(place)
    for words in commands()[1:3]:
        assert main(words) == 0
    assert commands()[3] == ["study", "ws-dino", "--config", CONFIG]
    killed_at("[pretraining 9/", words_of(tmp_path), where=place)
    assert main(words_of(tmp_path)) == 0
    assert time.monotonic() - began < 600
    results = json.loads((tmp_path / "out" / "ws_dino.json").read_text())
    study = load_file(ROOT / CONFIG, WsDinoStudy)
    assert {row["arm"] for row in results["rows"]} == {*study.arms, "count", "texture"}
    assert {row["channel"] for row in results["rows"]} == {"", "dna", "tubulin", "actin"}
    assert {c["name"] for c in results["controls"]} == {"mechanisms exchanged", "upper bound"}
    assert rows_of(results, arm="compound", training="inductive", metric="NSCB")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "MoA (truth: upper bound)" in page and "Where the class tokens look" in page


def test_what_cannot_be_is_refused_before_anything_is_done(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(place)
    for words, said in (
        (["only=compund"], "only: no 'compund'. Did you mean 'compound'?"),
        (["correction=ws_dyno"], "correction: no 'ws_dyno'. Did you mean 'ws_dino'?"),
        (["training=transductiv"], "training: 'transductiv' is not one of transductive, inductive. Did you mean"),
        (["folds=2"], "folds=2: 3 or more."),
        (["arms.moa.kind=frozen"], "kind=frozen: options, truth and weak_label belong to kind=trained."),
        (["models.each.init=", "only=imagenet"], "none of its models has weights to begin with (models.NAME.init)"),
        (["screens.mini.raw=nowhere"], "screens.mini.raw=nowhere"),
        (["screens.mini.dataset=bbbc22"], "screens.mini.dataset=bbbc22: not one of bbbc021. Did you mean 'bbbc021'?"),
        (["arms.dino.models=joined"], "arms.dino.models: no 'joined'."),
    ):
        assert main(words_of(tmp_path, *words)) == 2
        assert said in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("steps/*"))


def test_a_real_config_names_only_what_is_there():
    study = load_file(ROOT / "configs/study_ws_dino.py", WsDinoStudy)
    assert study.corrections["ws_dino"].steps == "whiten:0" and next(iter(study.corrections)) == "ws_dino"
    assert [arm for arm, own in study.arms.items() if own.truth] == ["moa"]
    assert {own.published for own in study.arms.values()} == {"", "none", "treatment", "compound", "moa"}
    for model in study.models.values():
        assert (ROOT / model.config).is_file()
    with pytest.raises(ConfigError, match="reference: no 'dyno'"):
        load_file(ROOT / "configs/study_ws_dino.py", WsDinoStudy, ["reference=dyno"])


def test_a_model_whose_config_begins_with_weights_of_its_own_is_refused(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(place)
    words = ["models.joint.config=configs/ws_dino_bbbc021.py", "models.each.init=configs", "embed="]
    assert main(words_of(tmp_path, *words)) == 2
    assert "models.joint.init: configs/ws_dino_bbbc021.py begins with runs/imagenet-s8" in capsys.readouterr().err
