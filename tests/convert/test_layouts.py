"""Every layout against the project that it is of, or an oracle written out here: features, positions, bytes back."""

from __future__ import annotations

import json
import math

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file
from test_parity_timm import off, random_state, run
from tiny_vit import DEPTH, DIM, FACTS, HEADS, HIDDEN, IMAGE, PATCH, dino_head, tensors, write

from protloc_jax.convert.convert import convert
from protloc_jax.convert.to_layout import to_layout
from protloc_jax.convert.weight_file import WeightsRefused
from protloc_jax.model.heads import DinoHead

HF = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
HF_CASES = {
    "vit": ("ViTModel", "ViTConfig", {"intermediate_size": 96}),
    "vit classifier, tanh": ("ViTForImageClassification", "ViTConfig", {"hidden_act": "gelu_new"}),
    "vit without qkv bias": ("ViTModel", "ViTConfig", {"qkv_bias": False, "layer_norm_eps": 1e-5}),
    "dinov2": ("Dinov2Model", "Dinov2Config", {}),
    "dinov2 gated": ("Dinov2Model", "Dinov2Config", {"use_swiglu_ffn": True}),
    "with registers": ("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", {"num_register_tokens": 3}),
}


@pytest.mark.torch
@pytest.mark.parametrize("case", HF_CASES)
@pytest.mark.filterwarnings("ignore")
def test_hugging_face(timm, tmp_path, case):
    transformers = pytest.importorskip("transformers", reason="Hugging Face's models are the oracle here")
    import torch

    kind, config, more = HF_CASES[case]
    model = getattr(transformers, kind)(getattr(transformers, config)(**{**HF, **more})).eval()
    model.load_state_dict({k: torch.from_numpy(v) for k, v in random_state(model).items()})
    model.save_pretrained(tmp_path)
    converted = convert(tmp_path, normalise="half")
    assert converted.config.norm_eps == model.config.layer_norm_eps
    for height, width in ((32, 32), (40, 24)):
        x = np.random.default_rng(1).standard_normal((2, height, width, 3), np.float32)
        with torch.no_grad():
            pixels = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
            base = getattr(model, "vit", model)
            positions = {"interpolate_pos_encoding": True} if config == "ViTConfig" else {}
            tokens = base(pixels, **positions).last_hidden_state.numpy()
        output = run(converted, x)
        registers = converted.config.registers
        assert off(output.cls, tokens[:, 0]) < 1e-5
        assert off(output.patches, tokens[:, 1 + registers :]) < 1e-5
        if registers:
            assert off(output.registers, tokens[:, 1 : 1 + registers]) < 1e-5
    kept = load_file(tmp_path / "model.safetensors")
    layout = converted.source["layout"]
    back = to_layout(
        converted.config, converted.trees["teacher"], layout, extras=converted.extras, source=converted.source
    )
    assert back.keys() == kept.keys()
    assert all(back[k].tobytes() == v.tobytes() for k, v in kept.items())

    # A saved state dict has the names that the classes use now, which differ from those of their own files.
    (tmp_path / "state").mkdir()
    write(tmp_path / "state", {k: v.numpy() for k, v in model.state_dict().items()})
    (tmp_path / "state" / "config.json").write_text((tmp_path / "config.json").read_text())
    again = convert(tmp_path / "state", normalise="half")
    jax.tree.map(np.testing.assert_array_equal, again.trees["teacher"], converted.trees["teacher"])


def reference(named, x, convention, *, registers=0):
    """facebookresearch's forward pass in float64 NumPy, positions resized by torch as its code asks for it.

    Written from the description of the architecture; `convention` "dino": bicubic by a scale factor with 0.1 added to
    the grid; "dinov2_registers": by size, with antialias.
    """
    import torch

    named = {k: v.astype(np.float64) for k, v in named.items()}
    erf = np.vectorize(math.erf)

    def norm(t, name):
        centred = t - t.mean(-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return centred / scale * named[f"{name}.weight"] + named[f"{name}.bias"]

    def linear(t, name):
        return t @ named[f"{name}.weight"].T + named[f"{name}.bias"]

    kernel = named["patch_embed.proj.weight"]
    height, width = (side // PATCH for side in x.shape[:2])
    patches = [
        [
            np.einsum("hwc,dchw->d", x[r * PATCH : (r + 1) * PATCH, c * PATCH : (c + 1) * PATCH], kernel)
            for c in range(width)
        ]
        for r in range(height)
    ]
    table = named["pos_embed"][0]
    side = IMAGE // PATCH
    grid = torch.from_numpy(table[1:].reshape(1, side, side, DIM)).permute(0, 3, 1, 2)
    if (height, width) != (side, side):
        if convention == "dino":
            size: dict = {"scale_factor": ((height + 0.1) / side, (width + 0.1) / side)}
        else:
            size = {"size": (height, width), "antialias": True}
        grid = torch.nn.functional.interpolate(grid, mode="bicubic", **size)
    positions = grid.permute(0, 2, 3, 1).reshape(-1, DIM).numpy()
    tokens = np.array(patches).reshape(-1, DIM) + named["patch_embed.proj.bias"] + positions
    between = named["register_tokens"][0] if registers else np.zeros((0, DIM))
    t = np.concatenate([named["cls_token"][0] + table[:1], between, tokens])
    for n in range(DEPTH):
        block = f"blocks.{n}"
        qkv = linear(norm(t, f"{block}.norm1"), f"{block}.attn.qkv").reshape(len(t), 3, HEADS, DIM // HEADS)
        q, k, v = qkv.transpose(1, 2, 0, 3)
        logits = q @ k.transpose(0, 2, 1) * (DIM // HEADS) ** -0.5
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        mixed = (weights / weights.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(t), DIM)
        t = t + named.get(f"{block}.ls1.gamma", 1.0) * linear(mixed, f"{block}.attn.proj")
        inner = norm(t, f"{block}.norm2")
        if f"{block}.mlp.w12.weight" in named:
            gate, value = np.split(linear(inner, f"{block}.mlp.w12"), 2, axis=-1)
            made = linear(gate / (1 + np.exp(-gate)) * value, f"{block}.mlp.w3")
        else:
            wide = linear(inner, f"{block}.mlp.fc1")
            made = linear(wide * 0.5 * (1 + erf(wide / math.sqrt(2))), f"{block}.mlp.fc2")
        t = t + named.get(f"{block}.ls2.gamma", 1.0) * made
    return norm(t, "norm")


def scaled(named):
    """Kernels by the square root of their inputs, so that features stay of order one."""
    return {
        k: (v / np.sqrt(np.prod(v.shape[1:]))).astype(np.float32) if k.endswith("weight") and v.ndim > 1 else v
        for k, v in named.items()
    }


def dinov2_names(named, rng, *, registers, gated):
    """The same transformer under facebookresearch/dinov2's names, in chunks of four blocks."""
    out = {}
    for name, tensor in named.items():
        if name.startswith("blocks."):
            number, rest = int(name.split(".")[1]), name.split(".", 2)[2]
            if gated and rest.startswith("mlp."):
                continue
            out[f"blocks.{number // 4}.{number}.{rest}"] = tensor
        else:
            out[name] = tensor
    out["mask_token"] = rng.standard_normal((1, DIM), np.float32)
    if registers:
        out["register_tokens"] = rng.standard_normal((1, registers, DIM), np.float32)
    for n in range(DEPTH if gated else 0):
        lead = f"blocks.{n // 4}.{n}.mlp"
        out[f"{lead}.w12.weight"] = rng.standard_normal((2 * HIDDEN, DIM), np.float32) / DIM**0.5
        out[f"{lead}.w12.bias"] = rng.standard_normal(2 * HIDDEN).astype(np.float32)
        out[f"{lead}.w3.weight"] = rng.standard_normal((DIM, HIDDEN), np.float32) / HIDDEN**0.5
        out[f"{lead}.w3.bias"] = rng.standard_normal(DIM).astype(np.float32)
    return out


def unchunked(named):
    parts = {k: k.split(".") for k in named}
    return {".".join([p[0], *p[2:]]) if k.startswith("blocks.") else k: named[k] for k, p in parts.items()}


def agrees(converted, expected, x, registers=0):
    output = run(converted, x[None].astype(np.float32))
    assert off(output.cls[0], expected[0]) < 1e-5
    assert off(output.patches[0], expected[1 + registers :]) < 1e-5
    if registers:
        assert off(output.registers[0], expected[1 : 1 + registers]) < 1e-5


@pytest.mark.torch
@pytest.mark.parametrize("sides", [(16, 16), (24, 12)])
@pytest.mark.parametrize(("registers", "gated"), [(0, False), (0, True), (3, False)])
def test_dinov2(tmp_path, sides, registers, gated):
    pytest.importorskip("torch", reason="its bicubic resize is the oracle here")
    named = dinov2_names(scaled(tensors(layerscale=True)), np.random.default_rng(2), registers=registers, gated=gated)
    converted = convert(write(tmp_path, named), heads=HEADS)
    assert converted.source["layout"] == "dinov2"
    assert list(converted.extras) == ["mask_token"]
    convention = "dinov2_registers" if registers else "dino"
    assert (converted.config.position, converted.config.position_prefix) == (convention, "cls")
    x = np.random.default_rng(1).standard_normal((*sides, 3))
    agrees(converted, reference(unchunked(named), x, convention, registers=registers), x, registers)
    back = to_layout(
        converted.config, converted.trees["teacher"], "dinov2", extras=converted.extras, source=converted.source
    )
    assert back.keys() == named.keys()
    assert all(back[k].tobytes() == v.tobytes() for k, v in named.items())


def full_checkpoint(*, spelling="old"):
    """A DINO training checkpoint, nested as the readers flatten it."""
    rng = np.random.default_rng(3)
    out = {}
    for seed, (group, lead) in enumerate({"teacher": "", "student": "module."}.items()):
        named = {f"backbone.{k}": v for k, v in scaled(tensors(seed=seed, channels=4)).items()} | dino_head(rng)
        if spelling == "new":
            named["head.last_layer.parametrizations.weight.original0"] = named.pop("head.last_layer.weight_g")
            named["head.last_layer.parametrizations.weight.original1"] = named.pop("head.last_layer.weight_v")
        out |= {f"{group}/{lead}{k}": v for k, v in named.items()}
    out["dino_loss/center"] = rng.standard_normal((1, 50), np.float32)
    out["optimizer/state/0/exp_avg"] = np.zeros(3, np.float32)
    return out


@pytest.mark.torch
@pytest.mark.parametrize("sides", [(16, 16), (12, 28)])
def test_dino_checkpoint(tmp_path, sides):
    pytest.importorskip("torch", reason="its bicubic resize is the oracle here")
    named = full_checkpoint()
    converted = convert(write(tmp_path, named), heads=HEADS, channels="a,b,c,d", normalise="self")
    assert converted.config.position == "dino" and converted.config.channels == 4
    lead = "teacher/backbone."
    x = np.random.default_rng(1).standard_normal((*sides, 4))
    agrees(converted, reference({k[len(lead) :]: v for k, v in named.items() if k.startswith(lead)}, x, "dino"), x)


@pytest.mark.parametrize("spelling", ["old", "new"])
def test_sets_heads_and_centre_of_a_dino_checkpoint(tmp_path, spelling):
    named = full_checkpoint(spelling=spelling)
    told = {"heads": HEADS, "channels": "a,b,c,d", "normalise": "self"}
    file = write(tmp_path, named)
    converted = convert(file, **told)
    assert set(converted.trees) == {"teacher", "params", "buffers"}
    for group, item in (("teacher/", "teacher"), ("student/module.", "params")):
        tree = converted.trees[item]
        assert np.array_equal(tree["backbone"]["cls"], named[f"{group}backbone.cls_token"])
        assert np.array_equal(tree["head"]["mlp_1"]["kernel"], named[f"{group}head.mlp.2.weight"].T)
        spelt = "weight_v" if spelling == "old" else "parametrizations.weight.original1"
        assert np.array_equal(tree["head"]["last"]["v"], named[f"{group}head.last_layer.{spelt}"].T)
    assert np.array_equal(converted.trees["buffers"]["centre"], named["dino_loss/center"][0])
    assert converted.source["head"]["out_dim"] == 50 and converted.source["head"]["layers"] == 3
    assert any("optimizer/" in note for note in converted.notes)
    student = convert(file, which="student", **told)
    assert set(student.trees) == {"params"}
    back = to_layout(converted.config, converted.trees["teacher"], "dino", source=converted.source)
    kept = {k.removeprefix("teacher/"): v for k, v in named.items() if k.startswith("teacher/")}
    assert back.keys() == kept.keys()
    assert all(back[k].tobytes() == v.tobytes() and back[k].shape == v.shape for k, v in kept.items())


def test_the_converted_head_gives_the_logits_of_the_formula(tmp_path):
    named = full_checkpoint()
    converted = convert(write(tmp_path, named), heads=HEADS, channels="a,b,c,d", normalise="self")
    w = {
        k.removeprefix("teacher/head."): v.astype(np.float64) for k, v in named.items() if k.startswith("teacher/head.")
    }
    x = np.random.default_rng(4).standard_normal((5, DIM))
    y = x
    for i in (0, 2, 4):
        y = y @ w[f"mlp.{i}.weight"].T + w[f"mlp.{i}.bias"]
        y = y if i == 4 else y * 0.5 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
    y /= np.linalg.norm(y, axis=-1, keepdims=True)
    v = w["last_layer.weight_v"]
    expected = y @ (w["last_layer.weight_g"] * v / np.linalg.norm(v, axis=1, keepdims=True)).T
    head = converted.source["head"]
    module = DinoHead(head["out_dim"], head["hidden"], head["bottleneck"], head["layers"])
    ours = module.apply({"params": converted.trees["teacher"]["head"]}, x.astype(np.float32))
    assert off(ours, expected) < 1e-5


def test_a_batch_norm_head_is_refused_by_key(tmp_path):
    named = full_checkpoint()
    named["teacher/head.mlp.1.running_mean"] = np.zeros(32, np.float32)
    with pytest.raises(WeightsRefused, match=r"unknown: head\.mlp\.1\.running_mean \(a DINO head with batch norm"):
        convert(write(tmp_path, named), heads=HEADS, channels="a,b,c,d", normalise="self")


def flax_names(named, *, stacked=False, new=False, prefix="", position="cls"):
    """timm-named tensors as google-research/vision_transformer (or, `new`, big_vision) stores them."""
    d = DIM // HEADS
    attention, mlp, second = ("MultiHeadDotProductAttention_1", "MlpBlock_3", "LayerNorm_2")
    if new:
        attention, mlp, second = ("MultiHeadDotProductAttention_0", "MlpBlock_0", "LayerNorm_1")
    out = {
        "cls": named["cls_token"],
        "embedding/kernel": named["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": named["patch_embed.proj.bias"],
        "Transformer/encoder_norm/scale": named["norm.weight"],
        "Transformer/encoder_norm/bias": named["norm.bias"],
        "head/kernel": np.ones((DIM, 7), np.float32),
        "head/bias": np.ones(7, np.float32),
    }
    table = named["pos_embed"] if position == "cls" else named["pos_embed"][:, 1:]
    out["pos_embedding" if new else "Transformer/posembed_input/pos_embedding"] = table
    blocks = []
    for n in range(DEPTH):
        t = {k.removeprefix(f"blocks.{n}."): v for k, v in named.items() if k.startswith(f"blocks.{n}.")}
        block = {
            "LayerNorm_0/scale": t["norm1.weight"],
            "LayerNorm_0/bias": t["norm1.bias"],
            f"{second}/scale": t["norm2.weight"],
            f"{second}/bias": t["norm2.bias"],
            f"{attention}/out/kernel": t["attn.proj.weight"].T.reshape(HEADS, d, DIM),
            f"{attention}/out/bias": t["attn.proj.bias"],
            f"{mlp}/Dense_0/kernel": t["mlp.fc1.weight"].T,
            f"{mlp}/Dense_0/bias": t["mlp.fc1.bias"],
            f"{mlp}/Dense_1/kernel": t["mlp.fc2.weight"].T,
            f"{mlp}/Dense_1/bias": t["mlp.fc2.bias"],
        }
        for i, part in enumerate(("query", "key", "value")):
            rows = slice(i * DIM, (i + 1) * DIM)
            block[f"{attention}/{part}/kernel"] = t["attn.qkv.weight"][rows].T.reshape(DIM, HEADS, d)
            block[f"{attention}/{part}/bias"] = t["attn.qkv.bias"][rows].reshape(HEADS, d)
        blocks.append(block)
    for key in blocks[0]:
        if stacked:
            out[f"Transformer/encoderblock/{key}"] = np.stack([b[key] for b in blocks])
        else:
            out |= {f"Transformer/encoderblock_{n}/{key}": b[key] for n, b in enumerate(blocks)}
    return {prefix + k: np.ascontiguousarray(v) for k, v in out.items()}


@pytest.mark.parametrize("prefix", ["", "params/", "opt/target/"])
@pytest.mark.parametrize(
    ("stacked", "new", "position"), [(False, False, "cls"), (False, True, "none"), (True, True, "none")]
)
def test_flax_trees(tmp_path, prefix, stacked, new, position):
    named = scaled(tensors())
    stored = flax_names(named, stacked=stacked, new=new, prefix=prefix, position=position)
    file = tmp_path / "B_16.npz"
    np.savez(file, **stored)
    converted = convert(file)
    config = converted.config
    assert (config.mlp, config.position, config.position_prefix) == ("gelu_tanh", "jax_zoom", position)
    assert config.shape.heads == HEADS and converted.source["origins"]["heads"] == "weights"
    told = {**FACTS, "mlp": "gelu_tanh", "position": "jax_zoom"}
    same = convert(write(tmp_path, named), **told).trees["teacher"]["backbone"]
    ours = converted.trees["teacher"]["backbone"]
    jax.tree.map(np.testing.assert_array_equal, {**ours, "pos": 0}, {**same, "pos": 0})
    assert set(converted.extras) == {f"{prefix}head/kernel", f"{prefix}head/bias"}
    back = to_layout(config, converted.trees["teacher"], "flax_vit", extras=converted.extras, source=converted.source)
    assert back.keys() == stored.keys()
    assert all(back[k].tobytes() == v.tobytes() and back[k].shape == v.shape for k, v in stored.items())


def test_flax_in_bfloat16(tmp_path):
    stored = {k: v.astype(ml_dtypes.bfloat16) for k, v in flax_names(scaled(tensors())).items()}
    file = tmp_path / "S_16.npz"
    np.savez(file, **stored)
    converted = convert(file)
    cls = converted.trees["teacher"]["backbone"]["cls"]
    assert np.array_equal(cls, stored["cls"].astype(np.float32))
    back = to_layout(
        converted.config, converted.trees["teacher"], "flax_vit", extras=converted.extras, source=converted.source
    )
    assert all(back[k].tobytes() == v.tobytes() for k, v in stored.items())


@pytest.mark.torch
def test_flax_against_timms_own_loader(timm, tmp_path):
    """timm reads the same file by its own code, which our features must agree with at the table's size."""
    import torch

    file = tmp_path / "B_16.npz"
    np.savez(file, **flax_names(scaled(tensors())))
    model = timm.models.VisionTransformer(
        img_size=IMAGE,
        patch_size=PATCH,
        embed_dim=DIM,
        depth=DEPTH,
        num_heads=HEADS,
        mlp_ratio=HIDDEN / DIM,
        num_classes=7,
        act_layer="gelu_tanh",
    ).eval()
    with torch.no_grad():
        model.load_pretrained(str(file))
        x = np.random.default_rng(1).standard_normal((2, IMAGE, IMAGE, 3), np.float32)
        tokens = model.forward_features(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    output = run(convert(file), x)
    assert off(output.cls, tokens[:, 0]) < 1e-5
    assert off(output.patches, tokens[:, 1:]) < 1e-5


def test_names_of_no_layout_are_refused(tmp_path):
    file = write(tmp_path, {f"layer{n}.conv.weight": np.zeros(3, np.float32) for n in range(20)})
    with pytest.raises(WeightsRefused, match=r"of no layout that can be read.*Found 20: layer0\.conv\.weight"):
        convert(file)


def test_an_unknown_layout_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(WeightsRefused, match="Did you mean 'dinov2'"):
        convert(write(tmp_path, tensors()), layout="dinov3")


def test_a_hugging_face_config_that_contradicts_the_weights(tmp_path):
    write(tmp_path, tensors())
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "vit", "hidden_size": 48, "num_attention_heads": 5})
    )
    with pytest.raises(WeightsRefused) as refused:
        convert(tmp_path, normalise="half")
    assert "dim: the weights show 24, the config.json says 48" in str(refused.value)
    assert "heads=5 does not divide the token width 24" in str(refused.value)
