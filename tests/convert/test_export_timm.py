"""timm builds the exported model from the folder alone, takes every tensor, and gives the encoder's features."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from safetensors import safe_open
from small_encoders import CHANNELS, CONFIGS, DATASET, SELF, apart, encoder, images, together

from protloc_jax.channels import per_channel
from protloc_jax.convert.about import About
from protloc_jax.convert.export import export
from protloc_jax.convert.export_timm import architecture, timm_config, timm_tensors
from protloc_jax.convert.frozen import freeze
from protloc_jax.convert.refusal import ExportRefused
from protloc_jax.convert.snippets import pieces
from protloc_jax.convert.weight_file import WeightsRefused
from protloc_jax.eval.load import load
from protloc_jax.model.config import VitConfig
from protloc_jax.views.prepare import PrepareConfig

RECTANGLE = PrepareConfig(DATASET.normalisation, resize=18, crop=16, interpolation="bicubic")


def built(timm, made, **options):
    """timm's model from configuration and tensors, all names required."""
    import torch

    frozen = freeze(made, **options)
    tensors = timm_tensors(frozen)
    config = timm_config(frozen, tensors, facts={"licence": "unknown"})
    model = timm.create_model(config["architecture"], **json.loads(json.dumps(config["model_args"])))
    model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in tensors.items()}, strict=True)
    return model.eval()


def features(model, prepared: np.ndarray):
    import torch

    with torch.inference_mode():
        return model(torch.from_numpy(np.moveaxis(prepared, -1, 1).copy())).numpy()


@pytest.mark.torch
@pytest.mark.parametrize("name", CONFIGS)
def test_timm_gives_the_features_of_the_encoder(name, timm):
    made = encoder(PrepareConfig(DATASET.normalisation), **{"position": "timm", **CONFIGS[name]})
    raw = images(CHANNELS.names, (16, 16), dtype="float32")
    x = (together(raw, CHANNELS) - (0.2, 0.3)) / (0.15, 0.4)
    model = built(timm, made, size=(16, 16), pixels="float32")
    assert apart(features(model, x.astype(np.float32)), made.encode(together(raw, CHANNELS)).cls) < 1e-4


@pytest.mark.torch
@pytest.mark.parametrize(
    ("convention", "registers"),
    [("dino", 0), ("dino", 1), ("dinov2_registers", 1), ("timm", 0), ("hf", 0), ("jax_zoom", 1)],
)
def test_positions_of_another_grid_than_the_table(convention, registers, timm):
    """24 pixels, table for 16: resized by timm where it does so in the same way, stored resized elsewhere."""
    made = encoder(PrepareConfig(DATASET.normalisation), position=convention, registers=registers)
    raw = images(CHANNELS.names, (24, 24), dtype="float32")
    x = (together(raw, CHANNELS) - (0.2, 0.3)) / (0.15, 0.4)
    model = built(timm, made, size=(24, 24), pixels="float32")
    assert apart(features(model, x.astype(np.float32)), made.encode(together(raw, CHANNELS)).cls) < 1e-4


@pytest.mark.torch
@pytest.mark.parametrize("switches", [{}, {"norm_eps": 1e-12}], ids=["registered epsilon", "own epsilon"])
def test_timm_loads_the_folder_as_the_card_says(switches, timm, tmp_path, monkeypatch):
    made = encoder(SELF, registers=1, **switches).with_plan(per_channel(CHANNELS, CHANNELS), CHANNELS)
    written = export(made, tmp_path / "out", formats=["safetensors"], about=About(licence="mit"), size=(20, 17))
    code = pieces(freeze(made), ["safetensors"])["safetensors"]
    assert code in (tmp_path / "out" / "README.md").read_text()
    monkeypatch.chdir(tmp_path / "out")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm's own
        exec(compile(code, "snippet", "exec"), {})
    assert written.checked[0].difference < 1e-5


def test_header_and_config_say_what_the_images_must_be(tmp_path):
    made = encoder(PrepareConfig(DATASET.normalisation, resize=20, crop=16, interpolation="bicubic"))
    export(made, tmp_path / "out", formats=["safetensors"], about=About(licence="cc-by-4.0"))
    with safe_open(tmp_path / "out" / "model.safetensors", framework="numpy") as file:
        header = file.metadata()
    assert header["format"] == "pt"
    assert [(c["name"], c["role"]) for c in json.loads(header["channels"])] == list(CHANNELS)
    assert json.loads(header["um_per_pixel"]) == 0.108
    assert header["licence"] == "cc-by-4.0"
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    wanted = {"input_size": [2, 16, 16], "mean": [0.2, 0.3], "std": [0.15, 0.4], "interpolation": "bicubic"}
    assert {key: config["pretrained_cfg"][key] for key in wanted} == wanted
    assert config["pretrained_cfg"]["crop_pct"] == 0.8
    assert config["num_classes"] == 0
    assert config["protloc_jax"]["backbone_sha256"] == header["backbone_sha256"]


@pytest.mark.parametrize(
    ("name", "prepare"),
    [
        ("clip", RECTANGLE),
        ("registers and LayerScale", SELF),
        ("no positions", SELF),
    ],
)
def test_the_folder_comes_back_as_the_same_encoder(name, prepare, tmp_path):
    made = encoder(prepare, **CONFIGS[name])
    written = export(made, tmp_path / "out", formats=["safetensors"], size=(19, 21))
    back = load(written.directory)
    assert back.channels == made.channels
    assert back.prepare == made.prepare
    raw = together(images(CHANNELS.names, (19, 21)), CHANNELS)
    assert apart(back.encode(raw).cls, made.encode(raw).cls) < 1e-5


def test_a_folder_with_a_channel_plan_asks_for_the_channels(tmp_path):
    made = encoder().with_plan(per_channel(CHANNELS, CHANNELS), CHANNELS)
    export(made, tmp_path / "out", formats=["safetensors"])
    with pytest.raises(WeightsRefused, match="channels"):
        load(tmp_path / "out")


def test_a_damaged_section_is_refused(tmp_path):
    export(encoder(), tmp_path / "out", formats=["safetensors"])
    place = tmp_path / "out" / "config.json"
    config = json.loads(place.read_text())
    del config["protloc_jax"]["model"]["patch"], config["protloc_jax"]["prepare"]
    place.write_text(json.dumps(config))
    with pytest.raises(WeightsRefused, match="section 'protloc_jax'"):
        load(tmp_path / "out")


def test_known_architectures_have_their_own_names():
    assert architecture(VitConfig(size="S")) == "vit_small_patch16_224"
    assert architecture(VitConfig(size="B", patch=8)) == "vit_base_patch8_224"
    assert architecture(VitConfig(size="S", mlp_ratio=3.0)) == "vit_base_patch16_224"


@pytest.mark.torch
@pytest.mark.parametrize(("size", "patch"), [("Ti", 16), ("S", 8), ("S", 16), ("S", 32), ("B", 8), ("L", 14)])
def test_names_are_registered(size, patch, timm):
    assert timm.is_model(architecture(VitConfig(size=size, patch=patch)))


def test_what_timm_cannot_build_is_refused():
    with pytest.raises(ExportRefused, match="bias and pre_norm"):
        timm_tensors(freeze(encoder(pre_norm=True)))
    with pytest.raises(ExportRefused, match="square"):
        timm_tensors(freeze(encoder(PrepareConfig(), position="dino"), size=(16, 24)))
