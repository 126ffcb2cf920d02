"""The folder of an export: whole or absent, checked, and described by a card whose snippets run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys

import numpy as np
import pytest
import yaml
from small_encoders import CHANNELS, DATASET, SELF, apart, encoder, together

from protloc_jax.channels import per_channel
from protloc_jax.convert import export as exporting
from protloc_jax.convert import export_onnx, verify_export
from protloc_jax.convert.about import About
from protloc_jax.convert.export import export
from protloc_jax.convert.refusal import ExportRefused
from protloc_jax.views.prepare import PrepareConfig

SCORES = {
    "task": {
        "kind": "single",
        "label_names": ["nucleus", "cytosol", "golgi"],
        "test_rows": 120,
        "test_units": 17,
        "unit": "protein",
        "split": {"kind": "given", "column": "split"},
    },
    "chance": {"prior": {"macro_f1": {"estimate": 0.33, "low": 0.3, "high": 0.36, "level": 0.95}, "accuracy": 0.34}},
    "systems": {
        "teacher": {
            "about": {"layer": "last", "pooling": "cls", "channel_plan": "each channel in its own slot"},
            "knn": {
                "macro_f1": {"estimate": 0.712, "low": 0.65, "high": 0.77, "level": 0.95},
                "accuracy": 0.74,
                "k": [5, 20, 5],
                "chosen_by": "validation rows",
            },
            "probe": {
                "macro_f1": {"estimate": 0.8, "low": None, "high": None, "level": 0.95},
                "accuracy": 0.8,
                "l2": [0.01],
            },
        }
    },
    "synthetic": "simulated opencell, difficulty hard, seed 0",
}


@pytest.fixture(scope="module")
def stablehlo(tmp_path_factory):
    """One export that needs nothing but jax."""
    data = {"name": "simulated-opencell-hard", "examples": 3000, "digest": "d" * 64}
    about = About(name="cells", licence="CC-BY-NC-4.0", data=data, metrics=SCORES)
    made = encoder(DATASET).with_plan(per_channel(CHANNELS, CHANNELS), CHANNELS)
    out = tmp_path_factory.mktemp("export") / "cells"
    return made, export(made, out, formats=["stablehlo"], about=about, size=(20, 18))


def front_matter(text: str) -> dict:
    _, head, _ = text.split("---\n", 2)
    return yaml.safe_load(head)


def snippet(text: str, name: str) -> str:
    return text.split(f"### {name}\n")[1].split("```python\n")[1].split("```")[0]


def run_in(folder, code: str) -> None:
    before = os.getcwd()
    os.chdir(folder)
    try:
        exec(compile(code, "snippet", "exec"), {})
    finally:
        os.chdir(before)


def test_the_folder_holds_what_the_record_says(stablehlo):
    _, made = stablehlo
    names = sorted(path.name for path in made.directory.iterdir())
    assert names == [
        "README.md",
        "encoder.jaxexport",
        "encoder.json",
        "encoder.mlir",
        "test_input.npz",
        "test_output.npz",
    ]
    record = json.loads((made.directory / "encoder.json").read_text())
    assert set(record["files"]) == set(names) - {"README.md", "encoder.json"}
    for name, digest in record["files"].items():
        assert hashlib.sha256((made.directory / name).read_bytes()).hexdigest() == digest
    assert record["checked"]["encoder.jaxexport"]["difference"] < 1e-5
    assert not list(made.directory.parent.glob("*.tmp"))


def test_the_test_tensors_are_what_the_encoder_makes(stablehlo):
    made, written = stablehlo
    pictures = dict(np.load(written.directory / "test_input.npz", allow_pickle=False))
    wanted = dict(np.load(written.directory / "test_output.npz", allow_pickle=False))
    assert {k: (v.shape, v.dtype) for k, v in pictures.items()} == dict.fromkeys(
        ("nucleus", "gfp"), ((2, 20, 18), np.dtype("uint8"))
    )
    found = made.encode(together(pictures, CHANNELS))
    assert apart(found.cls, wanted["cls"]) < 1e-5
    assert apart(found.patches, wanted["patches"]) < 1e-5
    assert wanted["prepared"].shape == (2, 2, 2, 16, 16)


def test_the_card_says_what_is_known_and_what_is_not(stablehlo):
    text = (stablehlo[1].directory / "README.md").read_text()
    head = front_matter(text)
    assert head["license"] == "cc-by-nc-4.0"
    assert "synthetic-data" in head["tags"]
    for needed in (
        "| 0 | `nucleus` | nucleus | yes |",
        "| 1 | `gfp` | protein | yes |",
        "2 passes",
        "| 1 | 0.3 | 0.4 |",  # mean and standard deviation of the second slot
        "0.108 µm per pixel",
        "Commercial use: **not allowed**",
        "**Trained on synthetic images** (simulated-opencell-hard)",
        "examples: 3000",
        "| teacher | k-NN | 0.712 | 95 %: 0.650 to 0.770 | 0.740 | k = 5, 20 (validation rows) | last | cls |",
        "| teacher | linear probe | 0.800 | none (fewer than two groups) | 0.800 | L2 = 0.01 |",
        "| chance (prior) |",
        "split: kind given, column split",
        "these numbers say nothing about real ones",
        "six months",
    ):
        assert needed in text, needed


def test_nothing_is_invented(tmp_path):
    made = dataclasses.replace(encoder(), um_per_pixel=None)
    text = (export(made, tmp_path / "x", formats=["safetensors"]).directory / "README.md").read_text()
    assert front_matter(text)["license"] == "unknown"
    for needed in ("Pixel size: unknown", "- name: unknown", "Licence of the weights: unknown", "None given."):
        assert needed in text
    assert "Commercial use: unknown" in text
    assert "ynthetic" not in text


def test_the_snippets_of_the_card_run(stablehlo):
    folder = stablehlo[1].directory
    code = snippet((folder / "README.md").read_text(), "stablehlo")
    assert "assert" in code
    run_in(folder, code)


def test_the_onnx_snippet_runs_and_notices_other_weights(tmp_path):
    pytest.importorskip("onnx", reason="needs the package onnx")
    pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")
    first = export(encoder(), tmp_path / "a", formats=["onnx"])
    code = snippet((tmp_path / "a" / "README.md").read_text(), "onnx")
    run_in(tmp_path / "a", code)
    export(encoder(seed=1), tmp_path / "b", formats=["onnx"])
    first.files[0].write_bytes((tmp_path / "b" / "encoder.onnx").read_bytes())
    with pytest.raises(AssertionError):
        run_in(tmp_path / "a", code)


def test_the_same_export_twice_is_the_same_bytes_without_folders_of_this_machine(stablehlo, tmp_path):
    made, written = stablehlo
    assert b"protloc_jax/" not in (written.directory / "encoder.jaxexport").read_bytes()
    again = export(made, tmp_path / "again", formats=["stablehlo"], size=(20, 18))
    for name in ("test_input.npz", "test_output.npz", "encoder.jaxexport"):
        assert again.facts["files"][name] == written.facts["files"][name], name


def test_a_folder_with_something_in_it_is_refused_unless_told(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(ExportRefused, match="not empty"):
        export(encoder(), out, formats=["safetensors"])
    assert (out / "mine.txt").read_text() == "keep"
    export(encoder(), out, formats=["safetensors"], overwrite=True)
    assert not (out / "mine.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("writer", "form", "stands"), [("write_stablehlo", "stablehlo", False), ("write_timm", "safetensors", True)]
)
def test_a_wrong_artefact_is_not_kept(writer, form, stands, tmp_path, monkeypatch):
    """One token that differs by a hundredth after writing: found by the check, and what stood before stands."""
    out = tmp_path / "out"
    if stands:
        out.mkdir()
        (out / "mine.txt").write_text("keep")

    def wrong(frozen, path, **options):
        other = {**frozen.encoder.params, "cls": frozen.encoder.params["cls"] * 1.01}
        changed = dataclasses.replace(frozen, encoder=dataclasses.replace(frozen.encoder, params=other))
        return original(changed, path, **options)

    original = getattr(exporting, writer)
    monkeypatch.setattr(exporting, writer, wrong)
    with pytest.raises(ExportRefused, match=r"encoder\.jaxexport|model\.safetensors"):
        export(encoder(), out, formats=[form], overwrite=True)
    assert [path.name for path in tmp_path.rglob("*")] == (["out", "mine.txt"] if stands else [])


def test_without_onnxruntime_it_says_that_nothing_was_run(tmp_path, monkeypatch):
    pytest.importorskip("onnx", reason="needs the package onnx")
    monkeypatch.setattr(verify_export.importlib.util, "find_spec", lambda name: None)
    (checked,) = export(encoder(), tmp_path / "out", formats=["onnx"]).checked
    assert checked.difference is None
    assert "protloc-jax[onnx]" in checked.said


def test_without_onnx_the_message_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ExportRefused, match=r"pip install 'protloc-jax\[onnx\]'"):
        export(encoder(), tmp_path / "out", formats=["stablehlo", "onnx"])
    assert not list(tmp_path.iterdir())


def test_refusals_name_what_to_change(tmp_path):
    with pytest.raises(ExportRefused, match="Did you mean 'onnx'"):
        export(encoder(), tmp_path / "x", formats=["onx"])
    with pytest.raises(ExportRefused, match="--input-size"):
        export(encoder(PrepareConfig()), tmp_path / "x", formats=["stablehlo"])
    with pytest.raises(ExportRefused, match="does not fit"):
        export(encoder(PrepareConfig(crop=16)), tmp_path / "x", formats=["stablehlo"], size=(12, 20))
    with pytest.raises(ExportRefused, match="excludes commercial use"):
        About(licence="CC-BY-NC-4.0", commercial="yes")
    for wrong in ({"macro_f1": 0.9}, {**SCORES, "systems": {"a": {"knn": {"macro_f1": 0.7}}}}, [1]):
        with pytest.raises(ExportRefused, match="protloc evaluate"):
            About(metrics=wrong)
    assert not list(tmp_path.iterdir())


def test_units_agree_with_the_views():
    from protloc_jax.views.image_ops import unit

    for name, value in export_onnx.UNITS.items():
        assert unit(np.dtype(name)) == pytest.approx(1 / value, rel=1e-12)


@pytest.mark.parametrize(
    ("licence", "commercial"),
    [("cc-by-nc-4.0", "no"), ("FAIR Non-Commercial Research", "no"), ("apache-2.0", "unknown"), ("once", "unknown")],
)
def test_only_a_licence_that_says_so_is_read_as_non_commercial(licence, commercial):
    assert About(licence=licence).commercial == commercial
    assert About(source={"licence": licence}).commercial == commercial


def test_self_normalised_export_of_float_images(tmp_path):
    export(encoder(SELF), tmp_path / "x", formats=["safetensors"], pixels="float32")
    pixels = np.load(tmp_path / "x" / "test_input.npz", allow_pickle=False)["gfp"]
    assert pixels.dtype == np.float32
    assert 0.8 < pixels.max() <= 1
