"""What is read, what must be said, and that a wrong or missing word is refused with everything that is wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_vit import DEPTH, DIM, FACTS, HIDDEN, tensors, write

from protloc_jax.convert.convert import convert
from protloc_jax.convert.known_models import EXAMPLES, known
from protloc_jax.convert.weight_file import Stored, WeightFile, WeightsRefused, open_weights


def empty(tmp_path, shapes):
    """A file that only has shapes: refusals never read a value."""

    def read():
        raise AssertionError("a value was read")

    stored = {name: Stored(tuple(shape), np.dtype(np.float32), read) for name, shape in shapes.items()}
    return WeightFile(tmp_path / "model.safetensors", "safetensors", stored, {})


def shapes_of(dim=768, depth=12, hidden=3072, patch=16, rows=197, registers=0, channels=3):
    plain = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, rows, dim),
        "patch_embed.proj.weight": (dim, channels, patch, patch),
        "patch_embed.proj.bias": (dim,),
        "norm.weight": (dim,),
        "norm.bias": (dim,),
    }
    if registers:
        plain["reg_token"] = (1, registers, dim)
    sizes = {"norm1": None, "attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim), "norm2": None}
    sizes |= {"mlp.fc1": (hidden, dim), "mlp.fc2": (dim, hidden)}
    for n in range(depth):
        for name, weight in sizes.items():
            plain[f"blocks.{n}.{name}.weight"] = weight or (dim,)
            plain[f"blocks.{n}.{name}.bias"] = (weight or (dim,))[:1]
    return plain


def refusal(tmp_path, shapes, **told):
    with pytest.raises(WeightsRefused) as refused:
        convert(empty(tmp_path, shapes), **told)
    return str(refused.value)


def test_shapes_are_read(tmp_path):
    config = convert(write(tmp_path, tensors(layerscale=True)), **FACTS).config
    assert config.shape == (DIM, DEPTH, 3, HIDDEN)
    assert (config.patch, config.image_size, config.channels, config.registers) == (4, 16, 3, 0)
    assert config.layerscale and config.qkv_bias and config.stem_bias and not config.pre_norm


@pytest.mark.parametrize("missing", ["heads", "norm_eps", "mlp", "position", "normalise"])
def test_every_fact_that_no_tensor_shows_must_be_said(tmp_path, missing):
    told = {k: v for k, v in FACTS.items() if k != missing}
    shown = "normalisation" if missing == "normalise" else missing
    with pytest.raises(WeightsRefused, match=rf"not known, and no tensor shows it: {shown}\."):
        convert(write(tmp_path, tensors()), **told)


def test_what_is_unknown_comes_with_the_models_that_fit(tmp_path):
    text = refusal(tmp_path, shapes_of())
    assert "heads, mlp, norm_eps, position, normalisation" in text
    for name in ("vit_base_patch16_224", "dino_vitb16", "facebook/dino-vitb16", "deit_base_patch16_224"):
        assert name in text
    assert "vit_small" not in text and "patch32" not in text and "dinov2" not in text


def test_a_base_name_on_small_weights(tmp_path):
    text = refusal(tmp_path, shapes_of(dim=384, hidden=1536), model="vit_base_patch16_224.dino")
    assert "dim: the weights show 384, the name vit_base_patch16_224.dino says 768" in text
    assert "hidden: the weights show 1536" in text


@pytest.mark.parametrize(
    ("model", "shapes", "said"),
    [
        ("vit_base_patch16_224", {"patch": 14, "rows": 257}, "patch: the weights show 14, the name"),
        ("vit_base_patch16_384", {}, "image_size: the weights show 224, the name vit_base_patch16_384 says 384"),
        ("vit_base_patch14_reg4_dinov2", {"patch": 14, "rows": 1369, "registers": 8}, "registers: the weights show 8"),
        ("vit_large_patch16_224", {"dim": 1024, "hidden": 4096}, "depth: the weights show 12"),
        ("vit_base_patch16_clip_224", {}, "pre_norm: the weights show False"),
        ("vit_base_patch16_224_miil", {}, "qkv_bias: the weights show True"),
        ("deit3_base_patch16_224", {}, "layerscale: the weights show False"),
        ("vit_base_patch16_224", {"channels": 4}, "channels: the weights show 4"),
    ],
)
def test_contradictions_are_named(tmp_path, model, shapes, said):
    assert said in refusal(tmp_path, shapes_of(**shapes), model=model)


def test_two_sources_that_disagree(tmp_path):
    file = write(tmp_path, tensors())
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "vit", "num_attention_heads": 3, "layer_norm_eps": 1e-12, "hidden_act": "gelu"})
    )
    # The layout of the names is timm's, and the file beside them is Hugging Face's: nothing is picked by itself.
    assert convert(file, position="timm", normalise="half").config.norm_eps == 1e-12
    with pytest.raises(WeightsRefused, match="heads=5 does not divide the token width 24"):
        convert(file, position="timm", normalise="half", heads=5)


@pytest.mark.parametrize(("rows", "registers"), [(196, 4), (198, 0), (200, 0)])
def test_rows_that_leave_no_square_are_refused_and_never_guessed(tmp_path, rows, registers):
    shapes = shapes_of(rows=rows, registers=registers)
    if rows == 196:
        del shapes["cls_token"]
        shapes["pos_embed"] = (1, 197, 768)
    assert "is a square: a token is missing, or the grid is not square" in refusal(tmp_path, shapes, model=EXAMPLES[0])


def test_a_class_token_that_was_lost_is_noticed(tmp_path):
    shapes = shapes_of()
    del shapes["cls_token"]
    text = refusal(tmp_path, shapes, model="vit_base_patch16_224")
    assert "class_token: the weights show False" in text and "none of 197 - 0 is a square" in text


def test_rows_that_allow_two_readings_must_be_said(tmp_path):
    # 25 rows beside 8 registers and a class token: 25 patches, or 16 patches and nine rows before them.
    named = tensors()
    named["pos_embed"] = np.zeros((1, 25, DIM), np.float32)
    named["reg_token"] = np.ones((1, 8, DIM), np.float32)
    file = write(tmp_path, named)
    with pytest.raises(WeightsRefused, match=r"no tensor shows it: position_prefix, image_size"):
        convert(file, **FACTS)
    assert convert(file, position_prefix="all", **FACTS).config.image_size == 16
    assert convert(file, position_prefix="none", **FACTS).config.image_size == 20


def test_a_missing_final_norm_or_position_table_is_no_architecture_of_its_own(tmp_path):
    shapes = shapes_of()
    del shapes["norm.weight"], shapes["norm.bias"]
    assert "final_norm: the weights show none" in refusal(tmp_path, shapes, model="vit_base_patch16_224")
    named = tensors()
    del named["norm.weight"], named["norm.bias"]
    file = write(tmp_path, named)
    with pytest.raises(WeightsRefused, match="the final norm is missing"):
        convert(file, **FACTS)
    assert convert(file, final_norm="none", **FACTS).config.final_norm == "none"
    named = tensors()
    del named["pos_embed"]
    with pytest.raises(WeightsRefused, match="the position table is missing"):
        convert(write(tmp_path, named, "b.safetensors"), **FACTS)
    told = {**FACTS, "position": "none", "image_size": 16}
    assert convert(write(tmp_path, named, "b.safetensors"), **told).config.position == "none"


def test_a_gate_must_be_named(tmp_path):
    named = tensors()
    for n in range(DEPTH):
        named[f"blocks.{n}.mlp.fc1.weight"] = np.ones((2 * HIDDEN, DIM), np.float32)
        named[f"blocks.{n}.mlp.fc1.bias"] = np.ones(2 * HIDDEN, np.float32)
    file = write(tmp_path, named)
    with pytest.raises(WeightsRefused, match="mlp: the weights show swiglu, the option says gelu"):
        convert(file, **FACTS)
    with pytest.raises(WeightsRefused, match="no tensor shows it: mlp"):
        convert(file, **{**FACTS, "mlp": ""})
    assert convert(file, **{**FACTS, "mlp": "swiglu"}).config.mlp == "swiglu"


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ("attn_pool.latent", "attention pooling"),
        ("blocks.0.attn.q_norm.weight", "normed queries and keys"),
        ("dist_token", "a distillation token"),
        ("blocks.0.attn.lambda_q1", "differential attention"),
    ],
)
def test_what_the_transformer_does_not_have_is_refused_with_the_reason(tmp_path, extra, reason):
    text = refusal(tmp_path, {**shapes_of(), extra: (768,)}, model="vit_base_patch16_224")
    assert f"unknown: {extra} ({reason}, which this transformer does not have)" in text


def test_arguments_of_a_dino_run(tmp_path):
    opened = open_weights(write(tmp_path, tensors()))
    with_args = WeightFile(opened.path, opened.kind, opened.tensors, {"args": {"arch": "vit_tiny", "patch_size": 16}})
    with pytest.raises(WeightsRefused) as refused:
        convert(with_args)
    assert "patch: the weights show 4, the args says 16" in str(refused.value)
    assert "dim: the weights show 24, the args says 192" in str(refused.value)
    with_args = WeightFile(opened.path, opened.kind, opened.tensors, {"args": {"arch": "resnet50"}})
    with pytest.raises(WeightsRefused, match="arch 'resnet50' cannot be read"):
        convert(with_args)


def test_known_names_say_all_that_tensors_do_not_show():
    for name in EXAMPLES:
        facts = known(name).facts
        assert {"heads", "norm_eps", "mlp", "position", "dim", "depth", "patch"} <= set(facts), name
        assert facts["dim"] % facts["heads"] == 0


def test_a_timm_config_beside_the_weights(tmp_path):
    """The file that timm pushes to the hub: architecture, arguments of the constructor, and preprocessing."""
    file = write(tmp_path, tensors())
    config = {
        "architecture": "vit_tiny_patch16_224",
        "model_args": {
            "img_size": 16,
            "patch_size": 4,
            "embed_dim": DIM,
            "depth": DEPTH,
            "num_heads": 3,
            "num_classes": 0,
        },
        "pretrained_cfg": {
            "tag": "augreg_in21k",
            "mean": [0.1, 0.2, 0.3],
            "std": [0.4, 0.5, 0.6],
            "input_size": [3, 16, 16],
            "crop_pct": 0.8,
            "interpolation": "bilinear",
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    # The MLP's width is the architecture's, and no argument says otherwise.
    with pytest.raises(WeightsRefused, match=r"hidden: the weights show 40, the config\.json says 768"):
        convert(file)
    named = tensors()
    for n in range(DEPTH):
        named[f"blocks.{n}.mlp.fc1.weight"] = np.ones((768, DIM), np.float32)
        named[f"blocks.{n}.mlp.fc1.bias"] = np.ones(768, np.float32)
        named[f"blocks.{n}.mlp.fc2.weight"] = np.ones((DIM, 768), np.float32)
    write(tmp_path, named)
    converted = convert(tmp_path)
    assert converted.config.heads == 3 and converted.config.position == "timm"
    assert converted.prepare.normalisation.mean == (0.1, 0.2, 0.3)
    assert (converted.prepare.resize, converted.prepare.crop, converted.prepare.interpolation) == (20, 16, "bilinear")
    config["model_args"]["qk_norm"] = True
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsRefused, match="model_args qk_norm: their meaning for the weights is not known"):
        convert(tmp_path)


@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        ("dino4cells_hpa_fov", {"patch": 8, "rows": 785, "channels": 4}),
        ("dino4cells_hpa_sc", {"channels": 4}),
        ("dino4cells_cell_painting", {"rows": 65, "channels": 5}),
        ("dino4cells_cell_painting_small", {"dim": 384, "hidden": 1536, "rows": 65, "channels": 5}),
        ("dino_vits8", {"dim": 384, "hidden": 1536, "patch": 8, "rows": 785}),
        ("facebook/dino-vitb16", {}),
    ],
)
def test_names_accept_the_shapes_that_they_stand_for(tmp_path, model, shapes):
    # All is accepted when the first value is asked for.
    with pytest.raises(AssertionError, match="a value was read"):
        convert(empty(tmp_path, shapes_of(**shapes)), model=model)
