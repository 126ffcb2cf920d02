"""`protloc study transfer` from miniature raw layouts to the page: killed on the way, resumed, changed, refused."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from killed_command import killed_at
from safetensors.numpy import save_file

from protloc_jax.cli.main import main
from protloc_jax.config import load_file, to_json
from protloc_jax.studies.transfer.config import TransferStudy

ROOT = Path(__file__).parents[2]
# Of the smoke study one level, two backbones and one fraction, but every kind of step.
SMALL = ("only=hpa_fov,untrained", "at=fov", "fractions=1", "controls=permuted", "source_control=hpa_fov",
         "backbones.hpa_fov.plans=natural,replicate", "umap_epochs=10", "attention=1")  # fmt: skip


def readme_commands():
    """The commands of README's "Reproduce the transfer study", in order."""
    section = (ROOT / "README.md").read_text().split("## Reproduce the transfer study")[1]
    block = re.search(r"```bash\n(.*?)```", section, re.S)
    assert block is not None
    lines = block[1].replace("\\\n", " ").splitlines()
    return [words[1:] for words in (shlex.split(line, comments=True) for line in lines) if words]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the project's configs and, by the README's commands, the raw layouts."""
    where = tmp_path_factory.mktemp("study")
    (where / "configs").symlink_to(ROOT / "configs")
    simulating = [words for words in readme_commands() if words[:2] == ["data", "simulate"]]
    assert [words[2] for words in simulating] == ["opencell", "hpa_fov", "hpa_sc"]
    for words in simulating:
        assert main([*words[:-1], str(where / words[-1]), "--quiet"]) == 0
    return where


def words_of(where, *overrides):
    return ["study", "transfer", "--config", "configs/study_transfer_smoke.py", f"out={where / 'out'}", *overrides]


def check_results(results, levels, backbones):
    assert list(results["levels"]) == levels and set(results["backbones"]) == set(backbones)
    assert "simulated opencell" in results["synthetic"]
    for level in levels:
        modes = {(row["mode"], row["evaluator"]) for row in results["rows"] if row["level"] == level}
        assert modes >= {("frozen", "head"), ("frozen", "knn"), ("finetuned", "head"), ("finetuned, own head", "head")}
    for row in results["rows"]:
        assert 0 <= row["macro_f1"]["estimate"] <= 1 and row["settings"]
    assert all(curve["points"][-1]["difference"] is not None for curve in results["curves"])


def test_the_studies_of_the_readme_are_those_that_are_tested_here():
    studies = [words for words in readme_commands() if words[0] == "study"]
    assert [words[3].partition("study_")[2] for words in studies] == ["transfer_smoke.py", "transfer.py", "transfer.py"]
    for words in studies:
        load_file(ROOT / words[3], TransferStudy, words[4:])


def test_a_killed_study_goes_on_and_ends_with_table_and_page(place, tmp_path, monkeypatch, capsys):
    before = killed_at("step 10/20", words_of(tmp_path, *SMALL), where=place)
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
    lines = capsys.readouterr().out.splitlines()
    redone = [line for line in lines if line.startswith("[") and "done before" not in line]
    assert redone and all("scores-" in line or "control-" in line for line in redone)
    again = json.loads((tmp_path / "out" / "transfer.json").read_text())
    assert [r["macro_f1"]["estimate"] for r in again["rows"]] == [r["macro_f1"]["estimate"] for r in results["rows"]]


@pytest.mark.slow  # minutes: every cell of the study; the test above runs every kind of step of it
def test_every_cell_runs_within_ten_minutes(place, tmp_path, monkeypatch):
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    began = time.monotonic()
    killed_at("[fine-tuning 5/", words_of(tmp_path), where=place)
    monkeypatch.chdir(place)
    assert main(words_of(tmp_path)) == 0
    assert time.monotonic() - began < 600
    results = json.loads((tmp_path / "out" / "transfer.json").read_text())
    names = ["imagenet", "hpa_fov", "hpa_sc", "opencell", "opencell_all", "untrained", "adaptive"]
    check_results(results, ["fov", "cell"], names)
    assert {c["name"] for c in results["controls"]} == {"labels permuted", "hand-made features", "source data"}


def random_vit(path, channels, dim=24, depth=2, patch=16, side=64):
    """A file of random weights of a small ViT, under the names of facebookresearch/dino."""
    rng, grid = np.random.default_rng(0), side // patch
    shapes = {"cls_token": (1, 1, dim), "pos_embed": (1, 1 + grid**2, dim), "norm.weight": (dim,), "norm.bias": (dim,)}
    shapes |= {"patch_embed.proj.weight": (dim, channels, patch, patch), "patch_embed.proj.bias": (dim,)}
    maps = {"attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim), "mlp.fc1": (4 * dim, dim), "mlp.fc2": (dim, 4 * dim)}
    maps |= {"norm1": (dim,), "norm2": (dim,)}
    for i in range(depth):
        for name, shape in maps.items():
            shapes |= {f"blocks.{i}.{name}.weight": shape, f"blocks.{i}.{name}.bias": shape[:1]}
    save_file({name: 0.1 * rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}, path)
    return str(path)


def test_the_config_for_real_data_runs_on_miniatures_with_converted_weights(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    study = load_file("configs/study_transfer.py", TransferStudy)
    told = ("--heads", "3", "--norm-eps", "1e-6", "--mlp", "gelu", "--position", "dino", "--layout", "dino")
    channels = {"imagenet": ("--normalise", "imagenet"), "hpa_fov": ("--normalise", "self")}
    channels["hpa_fov"] += ("--channels", "microtubules,protein,nucleus,er")
    backbones = {
        name: dataclasses.replace(
            study.backbones[name],
            weights=random_vit(tmp_path / f"{name}.safetensors", 3 if name == "imagenet" else 4),
            convert=told + more,
            plans=("replicate", *study.backbones[name].finetune_plans),
        )
        for name, more in channels.items()
    }
    tuned = load_file("configs/study_transfer_smoke.py", TransferStudy).levels["fov"].finetune_options
    fov = dataclasses.replace(study.levels["fov"], finetune_options=tuned, split=("--shares", ".5,.25,.25"))
    images = {"opencell": dataclasses.replace(study.images["opencell"], options=("--grades", "3"))}
    small = dataclasses.replace(
        study, backbones=backbones, levels={"fov": fov}, images=images, fractions=(1.0,), controls=(), resamples=100,
        head=dataclasses.replace(study.head, epochs=2, seeds=(0,)), umap=0, attention=0,
    )  # fmt: skip
    (tmp_path / "study.json").write_text(to_json(small))
    assert main(["study", "transfer", "--config", str(tmp_path / "study.json"), f"out={tmp_path / 'out'}"]) == 0
    results = json.loads((tmp_path / "out" / "transfer.json").read_text())
    tuned_rows = {row["backbone"]: row for row in results["rows"] if row["mode"] == "finetuned"}
    assert tuned_rows["imagenet"]["plan"] == "colour" and tuned_rows["hpa_fov"]["plan"] == "natural"
    assert tuned_rows["hpa_fov"]["passes"] == "(0,protein,nucleus,0)"
    assert results["backbones"]["imagenet"]["pretraining"] == "weights from elsewhere"


def test_what_cannot_be_is_refused_before_anything_is_done(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(place)
    wrong = ["only=hpa_fow", "levels.fov.evaluators=heads", "size=big"]
    for words, said in (
        (wrong[:1], "only: no 'hpa_fow'. Did you mean 'hpa_fov'?"),
        (wrong[1:2], "evaluators=heads: one or more of head, knn"),
        (wrong[2:], "size=big: 0, a number of pixels, or native"),
        (["images.opencell.raw=nowhere", "at=fov", "only=opencell", "source_control="], "images.opencell.raw=nowhere"),
        (["only=opencell"], "source_control=hpa_sc: no backbone that takes part is pretrained on these images"),
        (["backbones.hpa_fov.weights=x"], "say one of weights, config, untrained_of"),
    ):
        assert main(words_of(tmp_path, *words)) == 2
        assert said in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("steps/*"))
