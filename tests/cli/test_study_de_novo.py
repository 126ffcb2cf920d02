"""`protloc study de-novo` from a miniature of RxRx1's raw layout and real-format knowledge to the page."""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from pathlib import Path

import pytest
from killed_command import killed_at

from protloc_jax.cli.main import main
from protloc_jax.config import load_file
from protloc_jax.studies.de_novo.config import DeNovoStudy
from protloc_jax.train.experiment import Experiment

ROOT = Path(__file__).parents[2]
CONFIG = "configs/study_de_novo_smoke.py"
# Of the smoke study one method, and every kind of step.
SMALL = ("only=wsl", "arms=none,graph,shuffled", "frozen=prototype", "resamples=50", "tunings.head.variants=cell")


def commands():
    """The commands in the smoke config's docstring, in order."""
    text = (ROOT / CONFIG).read_text().split('"""')[1].replace("\\\\\n", " ")
    return [shlex.split(line)[1:] for line in re.findall(r"^    (protloc .*)$", text, re.M)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the project's configs, the raw layout and the knowledge, by the docstring's own commands."""
    where = tmp_path_factory.mktemp("de_novo")
    (where / "configs").symlink_to(ROOT / "configs")
    simulate, knowledge, study = commands()
    assert study == ["study", "de-novo", "--config", CONFIG]
    before = Path.cwd()
    os.chdir(where)
    try:
        assert main([*simulate, "--quiet"]) == 0
        assert main(knowledge) == 0
    finally:
        os.chdir(before)
    return where


def words_of(where, *overrides):
    return ["study", "de-novo", "--config", CONFIG, f"out={where / 'out'}", *overrides]


def test_a_killed_study_goes_on_and_ends_with_table_and_page(place, tmp_path, monkeypatch, capsys):
    before = killed_at("[splits 2/2", words_of(tmp_path, *SMALL), where=place)
    assert any("records-mini" in line for line in before)
    monkeypatch.chdir(place)
    assert main(words_of(tmp_path, *SMALL)) == 0
    told = capsys.readouterr().out
    assert "records-mini: done before" in told and "SYNTHETIC IMAGES" in told
    found = json.loads((tmp_path / "out" / "de_novo.json").read_text())
    assert "simulated rxrx1" in found["synthetic"]
    rows = {(r["variant"], r["how"]): r for r in found["rows"]}
    assert set(rows) == {(v, "all") for v in ("none", "graph", "shuffled")} | {("none", "prototype")}
    draw = found["tasks"]["well"]["draws"][0]
    assert rows["graph", "all"]["images"] == [draw["test"]]
    assert rows["none", "prototype"]["replicates"]["map"] > 0
    assert {d["family"] for d in found["differences"]} == {"arms", "controls", "pairs"}
    # Variants that differ in fine-tuning only begin with one pretraining.
    names = [step["name"] for step in found["steps"]]
    assert [n for n in names if n.startswith("pretrain")] == ["pretrain-wsl-seed0"]
    tuned = [step["command"] for step in found["steps"] if step["name"].startswith("finetune")]
    assert sum("graph.file=" in command for command in tuned) == 2
    assert found["graphs"]["string"]["nodes"] == found["rows"][0]["classes"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("Synthetic") > 8 and "second-hand" in page and "STRING, shuffled (control)" in page
    table = (tmp_path / "out" / "de_novo.csv").read_text().splitlines()
    assert len(table) == 1 + len(found["rows"])
    # Once more with another weight of the graph: only what rests on it is done again.
    assert main(words_of(tmp_path, *SMALL, "variants.shuffled.options=graph.kind=laplacian")) == 0
    redone = [x for x in capsys.readouterr().out.splitlines() if x.startswith("[") and "done before" not in x]
    assert redone and all("-shuffled-" in line for line in redone)


@pytest.mark.slow  # minutes: every method and variant of the study; the test above runs every kind of step of it
def test_every_arm_runs_within_ten_minutes(place, tmp_path, monkeypatch):
    began = time.monotonic()
    monkeypatch.chdir(place)
    assert main(words_of(tmp_path)) == 0
    assert time.monotonic() - began < 600
    found = json.loads((tmp_path / "out" / "de_novo.json").read_text())
    study = load_file(ROOT / CONFIG, DeNovoStudy)
    assert {row["method"] for row in found["rows"]} == set(study.methods)
    assert {row["variant"] for row in found["rows"]} == set(study.variants)
    assert {row["how"] for row in found["rows"]} == {"all", "head", "prototype", "nearest"}
    assert {c["control"].split(",")[0] for c in found["controls"]} == {
        "perturbations exchanged between wells", "true graph − its shuffle"
    }  # fmt: skip


def test_what_cannot_be_is_refused_before_anything_is_done(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(place)
    for words, said in (
        (["only=wls"], "only: no 'wls'. Did you mean 'wsl'?"),
        (["screens.mini.raw=nowhere"], "screens.mini.raw=nowhere"),
        (["screens.mini.dataset=rxrx2"], "screens.mini.dataset=rxrx2: not one of rxrx1, rxrx19a. Did you mean"),
        (["variants.graph.graph=strng"], "variants.graph.graph: no 'strng'. Did you mean 'string'?"),
        (["groups=nowhere.csv"], "groups=nowhere.csv"),
        (["methods.wsl.config=configs/none.py"], "methods.wsl.config=configs/none.py"),
    ):
        assert main(words_of(tmp_path, *words)) == 2
        assert said in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("steps/*"))


def test_the_configs_name_only_what_is_there():
    for name in ("study_de_novo", "study_de_novo_simulated", "study_de_novo_smoke"):
        study = load_file(ROOT / f"configs/{name}.py", DeNovoStudy)
        for section in (*study.methods.values(), *study.tunings.values()):
            assert load_file(ROOT / section.config, Experiment, section.options)
        assert study.variants[study.reference].graph == ""
