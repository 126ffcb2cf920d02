"""ONNX Runtime gives what the encoder gives: every switch of the model, every way to prepare, every channel plan."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_encoders import CHANNELS, CONFIGS, DATASET, SELF, UNSCALED, apart, encoder, images, together

from protloc_jax.channels import explicit, natural, parse, per_channel, replicate
from protloc_jax.convert.about import About, facts_of
from protloc_jax.convert.export_onnx import write_onnx
from protloc_jax.convert.frozen import freeze
from protloc_jax.convert.refusal import ExportRefused
from protloc_jax.views.normalisation import Normalisation
from protloc_jax.views.prepare import PrepareConfig

onnx = pytest.importorskip("onnx", reason="needs the package onnx")
ort = pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")


def session_of(made, path: Path, *, size=(16, 16), pixels="uint8", facts=None):
    write_onnx(freeze(made, size=size, pixels=pixels), path / "encoder.onnx", facts=facts or {})
    return ort.InferenceSession(path / "encoder.onnx", providers=["CPUExecutionProvider"])


def worst(made, path, *, size=(16, 16), pixels="uint8", batches=(1, 3)) -> float:
    """Largest difference of ONNX Runtime from the encoder, over outputs and batch sizes."""
    session = session_of(made, path, size=size, pixels=pixels)
    pictures = images(made.channels.names, size, batch=max(batches), dtype=pixels)
    wanted = [np.asarray(output) for output in made.encode(together(pictures, made.channels))]
    found = []
    for batch in batches:
        asked = {entry.name: pictures[entry.name][:batch] for entry in session.get_inputs()}
        found += [apart(a, b[:batch]) for a, b in zip(session.run(["cls", "patches"], asked), wanted, strict=True)]
    return max(found)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_switch_of_the_model(name, tmp_path):
    assert worst(encoder(**CONFIGS[name]), tmp_path) < 1e-4


@pytest.mark.parametrize(
    "prepare",
    [
        SELF,
        DATASET,
        UNSCALED,
        PrepareConfig(Normalisation("self"), resize=20, crop=16, interpolation="bicubic"),
        PrepareConfig(Normalisation("none"), resize=16, interpolation="bicubic", antialias=False),
        PrepareConfig(Normalisation("self"), crop=16),
        PrepareConfig(DATASET.normalisation),
    ],
    ids=["self", "dataset", "none", "bicubic and crop", "bicubic, no antialias", "crop alone", "native size"],
)
def test_preprocessing_of_images_of_another_size(prepare, tmp_path):
    """33 x 42 pixels: resized, cropped at odd places, and where nothing fixes it, patch rows left over."""
    assert worst(encoder(prepare), tmp_path, size=(33, 42)) < 1e-4


@pytest.mark.parametrize("convention", ["dino", "dinov2_registers", "timm", "hf", "jax_zoom"])
def test_positions_of_another_grid(convention, tmp_path):
    assert worst(encoder(PrepareConfig(), position=convention, registers=1), tmp_path, size=(24, 28)) < 1e-4


@pytest.mark.parametrize("pixels", ["uint8", "uint16", "float32"])
def test_pixel_types_are_scaled_inside(pixels, tmp_path):
    assert worst(encoder(DATASET), tmp_path, size=(20, 16), pixels=pixels) < 1e-4


def plans():
    source = parse("actin,gfp:protein,nucleus")
    model = encoder().channels
    yield "per channel", per_channel(model, CHANNELS), CHANNELS
    yield "natural", natural(model, source), source
    yield "half empty", explicit(model, {"gfp": "gfp"}), source
    yield "replicate", replicate(2, source), source


@pytest.mark.parametrize(("plan", "source"), [p[1:] for p in plans()], ids=[p[0] for p in plans()])
def test_channel_plans(plan, source, tmp_path):
    """An empty slot is normalised too: with data set constants it does not hold zero."""
    assert worst(encoder(DATASET).with_plan(plan, source), tmp_path) < 1e-4


def test_an_empty_slot_that_is_normalised_by_itself(tmp_path):
    plan = explicit(CHANNELS, {"gfp": "gfp"})
    assert worst(encoder(SELF).with_plan(plan, CHANNELS), tmp_path) < 1e-4


def test_one_channel(tmp_path):
    assert worst(encoder(channels=parse("gfp")), tmp_path) < 1e-4


def test_inputs_are_the_channels_by_name(tmp_path):
    """Swapping two channels under their names changes nothing; swapping the pixels does."""
    session = session_of(encoder(), tmp_path, size=(17, 16), pixels="uint16")
    described = [(entry.name, entry.type, entry.shape) for entry in session.get_inputs()]
    assert described == [(name, "tensor(uint16)", ["batch", 17, 16]) for name in ("nucleus", "gfp")]
    a, b = images(["nucleus", "gfp"], (17, 16), dtype="uint16").values()
    right = session.run(["cls"], {"gfp": b, "nucleus": a})[0]
    np.testing.assert_array_equal(right, session.run(["cls"], {"nucleus": a, "gfp": b})[0])
    assert apart(session.run(["cls"], {"nucleus": b, "gfp": a})[0], right) > 0.1


def test_channels_that_no_pass_reads_are_no_inputs(tmp_path):
    source = parse("actin,gfp:protein,nucleus")
    session = session_of(encoder().with_plan(natural(CHANNELS, source), source), tmp_path)
    assert [entry.name for entry in session.get_inputs()] == ["gfp", "nucleus"]


def test_facts_stand_in_the_model(tmp_path):
    made = encoder(DATASET)
    facts = facts_of(freeze(made), About(name="test", licence="cc-by-4.0"))
    stored = session_of(made, tmp_path, facts=facts).get_modelmeta().custom_metadata_map
    assert [c["name"] for c in json.loads(stored["channels"])] == ["nucleus", "gfp"]
    assert [c["role"] for c in json.loads(stored["channels"])] == ["nucleus", "protein"]
    assert json.loads(stored["prepare"])["normalisation"]["mean"] == [0.2, 0.3]
    assert stored["licence"] == "cc-by-4.0"
    assert float(stored["um_per_pixel"]) == 0.108
    assert stored["backbone_sha256"] == facts["backbone_sha256"]


def test_large_weights_stand_in_a_file_beside(tmp_path):
    made = encoder()
    files = write_onnx(freeze(made), tmp_path / "encoder.onnx", facts={}, inside=1000)
    assert [f.name for f in files] == ["encoder.onnx", "encoder.onnx.data"]
    assert files[0].stat().st_size < files[1].stat().st_size
    pictures = images(CHANNELS.names, (16, 16))
    session = ort.InferenceSession(files[0])
    cls = session.run(["cls"], pictures)[0]
    assert apart(cls, made.encode(together(pictures, CHANNELS)).cls) < 1e-4


def test_half_precision_weights_are_exported_in_float32(tmp_path):
    half, full = encoder(dtype="bfloat16"), encoder()
    pictures = images(CHANNELS.names, (16, 16))
    cls = session_of(half, tmp_path).run(["cls"], pictures)[0]
    assert apart(cls, full.encode(together(pictures, CHANNELS)).cls) < 1e-4


def test_a_channel_named_as_an_output_is_refused(tmp_path):
    with pytest.raises(ExportRefused, match="channels cls"):
        session_of(encoder(channels=parse("cls,gfp")), tmp_path)
