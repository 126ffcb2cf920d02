"""`protloc verify`: stored activations, timm and Hugging Face live; what disagrees is seen and named."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from protloc_jax.cli.main import main


def random_like(shapes, seed=0):
    """Random tensors: gains around 1, maps of the size that keeps activations near 1, the rest small."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, shape in shapes.items():
        values = rng.normal(size=shape)
        if name.endswith("weight") and len(shape) >= 2:
            values = values / np.sqrt(np.prod(shape[1:]))
        elif name.endswith("weight"):
            values = rng.uniform(0.5, 1.5, shape)
        else:
            values = 0.2 * values
        made[name] = np.ascontiguousarray(values, np.float32)
    return made


def tiny_shapes(depth=2, dim=64):
    """Names and shapes of a two-block ViT of patch 16 for 64 pixels, in timm's naming."""
    shapes = {"cls_token": (1, 1, dim), "pos_embed": (1, 17, dim), "patch_embed.proj.weight": (dim, 3, 16, 16)}
    shapes |= {"patch_embed.proj.bias": (dim,), "norm.weight": (dim,), "norm.bias": (dim,)}
    maps = {"attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim), "mlp.fc1": (4 * dim, dim), "mlp.fc2": (dim, 4 * dim)}
    for i in range(depth):
        for name, shape in maps.items():
            shapes |= {f"blocks.{i}.{name}.weight": shape, f"blocks.{i}.{name}.bias": shape[:1]}
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{name}.weight": (dim,), f"blocks.{i}.{name}.bias": (dim,)}
    return shapes


FACTS = ["--heads", "2", "--norm-eps", "1e-6", "--mlp", "gelu", "--normalise", "imagenet"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """(weight file, converted checkpoint, stored activations of it)."""
    out = tmp_path_factory.mktemp("tiny")
    save_file(random_like(tiny_shapes()), out / "tiny.safetensors")
    words = ["convert", str(out / "tiny.safetensors"), "--out", str(out / "ours"), "--position", "timm"]
    assert main([*words, *FACTS]) == 0
    assert main(["verify", str(out / "ours"), "--write", str(out / "stored.npz"), "--size", "80,48"]) == 0
    return out


def test_a_model_agrees_with_its_own_activations(tiny, capsys):
    report = tiny / "report.json"
    words = ["verify", str(tiny / "ours"), "--against", str(tiny / "stored.npz"), "--out", str(report)]
    assert main(words) == 0
    assert "agrees" in capsys.readouterr().out
    written = json.loads(report.read_text())
    assert written["holds"]
    assert {row["name"] for row in written["tensors"]} == {"cls", "patches", "tokens", "layer_00", "layer_01"}
    assert all(row["max_abs"] == 0 for row in written["tensors"])
    assert written["layout"] == "timm"


def test_one_changed_tensor_is_seen_from_its_layer_on(tiny, tmp_path, capsys):
    tensors = load_file(tiny / "tiny.safetensors")
    tensors["blocks.1.mlp.fc2.bias"][3] += 0.5
    save_file(tensors, tmp_path / "changed.safetensors")
    words = ["convert", str(tmp_path / "changed.safetensors"), "--out", str(tmp_path / "ours"), "--position", "timm"]
    assert main([*words, *FACTS]) == 0
    report = tmp_path / "report.json"
    stored = str(tiny / "stored.npz")
    assert main(["verify", str(tmp_path / "ours"), "--against", stored, "--out", str(report)]) == 1
    off = {row["name"]: row["relative"] for row in json.loads(report.read_text())["tensors"]}
    assert off["layer_00"] == 0
    assert off["layer_01"] > 0.01
    assert "DOES NOT AGREE" in capsys.readouterr().out


def test_another_position_convention_does_not_agree(tiny, tmp_path):
    words = ["convert", str(tiny / "tiny.safetensors"), "--out", str(tmp_path / "dino"), "--position", "dino"]
    assert main([*words, *FACTS]) == 0
    assert main(["verify", str(tmp_path / "dino"), "--against", str(tiny / "stored.npz")]) == 1


def test_what_is_missing_is_asked_for(tiny, tmp_path, capsys):
    with np.load(tiny / "stored.npz", allow_pickle=False) as stored:
        np.savez(tmp_path / "blind.npz", cls=stored["cls"])
    against = ["verify", str(tiny / "ours"), "--against", str(tmp_path / "blind.npz")]
    assert main(against) == 2
    assert "has no 'input'; give the image" in capsys.readouterr().err
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / "a.png")
    assert main([*against, "--image", str(tmp_path / "a.png"), "--region", "0,0,64,64"]) == 2
    assert "does not lie inside" in capsys.readouterr().err
    assert main(["verify", str(tiny / "ours")]) == 2
    assert "--against" in capsys.readouterr().err


def test_a_grey_image_fills_every_channel_and_is_normalised(tiny, tmp_path):
    """The stored input is what the image becomes: /255, repeated, minus the mean, over the standard deviation."""
    pixels = np.random.default_rng(0).integers(0, 256, (96, 80), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    words = ["verify", str(tiny / "ours"), "--write", str(tmp_path / "a.npz"), "--image", str(tmp_path / "a.png")]
    assert main([*words, "--region", "8,4,64,48"]) == 0
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        got = stored["input"]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    want = (pixels[8:72, 4:52, None] / 255.0 - mean) / std
    np.testing.assert_allclose(got[0], want, atol=1e-5)


@pytest.mark.torch
def test_live_against_timm(timm, tmp_path, capsys):
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    state = random_like({name: tuple(value.shape) for name, value in model.state_dict().items()})
    save_file(state, tmp_path / "tiny.safetensors")
    words = ["convert", str(tmp_path / "tiny.safetensors"), "--model", "vit_tiny_patch16_224"]
    assert main([*words, "--out", str(tmp_path / "ours")]) == 0
    report = tmp_path / "report.json"
    live = ["verify", str(tmp_path / "ours"), "--against", "timm:vit_tiny_patch16_224", "--size", "96,160"]
    assert main([*live, "--out", str(report)]) == 0
    rows = json.loads(report.read_text())["tensors"]
    assert len(rows) == 3 + 12
    assert max(row["relative"] for row in rows) < 1e-5
    # The file under a wrong name is another model, and a changed file is not the one converted.
    assert main(["verify", str(tmp_path / "ours"), "--against", "timm:vit_small_patch16_224"]) == 2
    assert "is another model" in capsys.readouterr().err
    save_file(random_like({k: v.shape for k, v in state.items()}, seed=1), tmp_path / "tiny.safetensors")
    assert main(live) == 2
    assert "SHA-256 has changed" in capsys.readouterr().err


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["vit", "dinov2"])
def test_live_against_hugging_face(transformers, tmp_path, kind):
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64, "patch_size": 16}
    if kind == "vit":
        model = transformers.ViTModel(transformers.ViTConfig(**sizes, intermediate_size=128), add_pooling_layer=False)
    else:
        model = transformers.Dinov2Model(transformers.Dinov2Config(**sizes, mlp_ratio=2))
    model.save_pretrained(tmp_path / "hf")
    facts = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "size": {"height": 64, "width": 64}}
    (tmp_path / "hf" / "preprocessor_config.json").write_text(json.dumps({**facts, "resample": 3, "do_resize": True}))
    state = load_file(tmp_path / "hf" / "model.safetensors")
    changed = random_like({name: value.shape for name, value in state.items()})
    save_file(changed, tmp_path / "hf" / "model.safetensors", metadata={"format": "pt"})
    report = tmp_path / "report.json"
    words = ["verify", str(tmp_path / "hf"), "--against", "hf", "--size", "64,112", "--out", str(report)]
    assert main(words) == 0
    assert max(row["relative"] for row in json.loads(report.read_text())["tensors"]) < 1e-5
