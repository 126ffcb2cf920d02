"""`protloc study transfer` from miniature raw layouts to the page: killed on the way, resumed, changed, refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from protloc_jax.cli.main import main

ROOT = Path(__file__).parents[2]
RAW = {
    "opencell": "--n-proteins 68 --fovs-per-protein 2 --size 128 --difficulty easy",
    "hpa_fov": "--n-proteins 28 --fovs-per-protein 2 --size 64",
    "hpa_sc": "--n-proteins 34 --fovs-per-protein 2 --size 200",
}
# Of the smoke study one level, two backbones and one fraction, but every kind of step.
SMALL = ("only=hpa_fov,untrained", "at=fov", "fractions=1", "controls=permuted", "source_control=hpa_fov",
         "backbones.hpa_fov.plans=natural,replicate", "umap_epochs=10", "attention=1")  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the raw layouts and the project's configs, as the README's commands make it."""
    where = tmp_path_factory.mktemp("study")
    (where / "configs").symlink_to(ROOT / "configs")
    for preset, words in RAW.items():
        out = str(where / "raw" / preset)
        assert main(["data", "simulate", preset, "--layout", "raw", *words.split(), "--out", out, "--quiet"]) == 0
    return where


def words_of(where, *overrides):
    return ["study", "transfer", "--config", "configs/study_transfer_smoke.py", f"out={where / 'out'}", *overrides]


def killed_at(place, where, line, *overrides):
    """Run the study in a process of its own, kill it when a line appears, return the lines so far."""
    command = [sys.executable, "-u", "-m", "protloc_jax.cli.main", *words_of(where, *overrides)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    lines = []
    with subprocess.Popen(command, cwd=place, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for text in process.stdout or ():
            lines.append(text)
            if line in text:
                process.send_signal(signal.SIGKILL)
                break
        process.stdout.close()  # type: ignore[union-attr]
        assert process.wait() == -signal.SIGKILL, "".join(lines[-20:])
    return lines


def check_results(results, levels, backbones):
    assert list(results["levels"]) == levels and set(results["backbones"]) == set(backbones)
    assert "simulated opencell" in results["synthetic"]
    for level in levels:
        modes = {(row["mode"], row["evaluator"]) for row in results["rows"] if row["level"] == level}
        assert modes >= {("frozen", "head"), ("frozen", "knn"), ("finetuned", "head"), ("finetuned, own head", "head")}
    for row in results["rows"]:
        assert 0 <= row["macro_f1"]["estimate"] <= 1 and row["settings"]
    assert all(curve["points"][-1]["difference"] is not None for curve in results["curves"])


def test_a_killed_study_goes_on_and_ends_with_table_and_page(place, tmp_path, monkeypatch, capsys):
    before = killed_at(place, tmp_path, "step 10/20", *SMALL)
    assert any("pretrain-hpa_fov-seed0" in line for line in before)
    monkeypatch.chdir(place)
    assert main(words_of(tmp_path, *SMALL)) == 0
    told = capsys.readouterr().out
    assert "records-opencell: done before" in told and "pretrain-hpa_fov-seed0\n" in told
    results = json.loads((tmp_path / "out" / "transfer.json").read_text())
    check_results(results, ["fov"], ["hpa_fov", "untrained"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("Synthetic") > 5 and "0.822" in page and "labels permuted" in page
    table = (tmp_path / "out" / "transfer.csv").read_text().splitlines()
    assert len(table) == 1 + len(results["rows"])
    # Once more, with one setting of the last step changed: nothing else is done again.
    assert main(words_of(tmp_path, *SMALL, "resamples=100")) == 0
    redone = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("[") and "done before" not in line
    ]
    assert redone and all("scores-" in line or "control-" in line for line in redone)
    again = json.loads((tmp_path / "out" / "transfer.json").read_text())
    assert [r["macro_f1"]["estimate"] for r in again["rows"]] == [r["macro_f1"]["estimate"] for r in results["rows"]]


@pytest.mark.slow  # minutes: every cell of the study; the test above runs every kind of step of it
def test_every_cell_runs_within_ten_minutes(place, tmp_path, monkeypatch):
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    began = time.monotonic()
    killed_at(place, tmp_path, "[fine-tuning 5/")
    monkeypatch.chdir(place)
    assert main(words_of(tmp_path)) == 0
    assert time.monotonic() - began < 600
    results = json.loads((tmp_path / "out" / "transfer.json").read_text())
    names = ["imagenet", "hpa_fov", "hpa_sc", "opencell", "opencell_all", "untrained"]
    check_results(results, ["fov", "cell"], names)
    assert {c["name"] for c in results["controls"]} == {"labels permuted", "hand-made features", "source data"}


def test_what_cannot_be_is_refused_before_anything_is_done(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(place)
    wrong = ["only=hpa_fow", "levels.fov.evaluators=heads", "size=big"]
    for words, said in (
        (wrong[:1], "only: no 'hpa_fow'. Did you mean 'hpa_fov'?"),
        (wrong[1:2], "evaluators=heads: one or more of head, knn"),
        (wrong[2:], "size=big: 0, a number of pixels, or native"),
        (["images.opencell.raw=nowhere", "at=fov", "only=opencell"], "images.opencell.raw=nowhere"),
        (["backbones.hpa_fov.weights=x"], "say one of weights, config, untrained_of"),
    ):
        assert main(words_of(tmp_path, *words)) == 2
        assert said in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("steps/*"))
