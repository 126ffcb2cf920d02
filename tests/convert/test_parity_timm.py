"""timm's models, all of their tensors random, converted from a file: the same features, and the same bytes back."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from protloc_jax.convert.convert import convert
from protloc_jax.convert.to_layout import to_layout
from protloc_jax.model.vit import Vit

pytestmark = pytest.mark.torch

# (timm name, what timm is asked for beside it, what the conversion is told, sides of a second image)
AT_224 = {"img_size": 224}
CASES = [
    pytest.param("vit_tiny_patch16_224", {}, {}, (96, 176), id="tiny, patch 16"),
    pytest.param("vit_small_patch16_224.dino", {}, {}, (176, 80), id="small, tag"),
    pytest.param("vit_small_patch8_224.dino", {}, {}, (72, 112), id="small, patch 8"),
    pytest.param("vit_small_patch32_224", {}, {}, (288, 160), id="small, patch 32"),
    pytest.param("vit_base_patch16_224", {}, {}, (112, 208), id="base", marks=pytest.mark.slow),
    pytest.param("deit3_small_patch16_224", {}, {}, (240, 128), id="LayerScale, class token without position"),
    pytest.param("vit_small_patch14_dinov2", AT_224, {"image_size": 224}, (98, 154), id="patch 14, LayerScale"),
    pytest.param("vit_small_patch14_reg4_dinov2", AT_224, {"image_size": 224}, (154, 98), id="class token, registers"),
    pytest.param("vit_small_patch14_reg4_dinov2", {}, {}, (154, 98), id="at 518 pixels", marks=pytest.mark.slow),
    pytest.param(
        "vit_giant_patch14_dinov2",
        {"depth": 2, "img_size": 224},
        {
            "model": "",
            "heads": 24,
            "norm_eps": 1e-6,
            "mlp": "swiglu",
            "position": "timm",
            "normalise": "imagenet",
        },
        (112, 182),
        id="SwiGLU, facts given one by one",
    ),
    pytest.param("vit_base_patch32_clip_224.openai", {}, {}, (288, 192), id="CLIP, exact GELU", marks=pytest.mark.slow),
    pytest.param("vit_base_patch32_clip_quickgelu_224.openai", {}, {}, (192, 256), id="CLIP, sigmoid GELU"),
    pytest.param("vit_xsmall_patch16_clip_224", {}, {}, (128, 224), id="CLIP, extra small"),
    pytest.param("vit_medium_patch16_gap_256", {}, {}, (160, 208), id="no class token, no qkv bias"),
    pytest.param("vit_wee_patch16_reg1_gap_256", {}, {}, (96, 256), id="one register, norm of the mean"),
    pytest.param("vit_base_patch16_reg4_gap_256", {}, {}, (160, 128), id="four registers", marks=pytest.mark.slow),
    pytest.param("flexivit_small", {}, {}, (144, 96), id="flexible patches"),
    pytest.param(
        "vit_large_patch16_224",
        {"depth": 2, "img_size": 64},
        {"model": "", "heads": 16, "norm_eps": 1e-6, "mlp": "gelu", "position": "timm", "normalise": "half"},
        (48, 112),
        id="large, two blocks, 64 pixels",
    ),
    pytest.param("vit_large_patch16_224", {}, {}, (160, 96), id="large", marks=pytest.mark.slow),
]


def random_state(model, seed=0):
    """Every tensor of a torch model, random and of a size that keeps every part of it at work."""
    rng = np.random.default_rng(seed)
    state = {}
    for name, tensor in model.state_dict().items():
        shape = tuple(tensor.shape)
        normal = rng.standard_normal(shape, np.float32)
        if name.endswith((".gamma", ".lambda1")):
            made = rng.uniform(0.1, 1.0, shape)
        elif "norm" in name and name.endswith("weight"):
            made = rng.uniform(0.5, 1.5, shape)
        elif len(shape) >= 2 and name.endswith("weight"):
            made = normal / np.sqrt(np.prod(shape[1:]))
        else:
            made = normal * (0.1 if len(shape) == 1 else 0.5)
        state[name] = np.ascontiguousarray(made, np.float32)
    return state


def off(ours, theirs):
    """The largest difference in units of the features' standard deviation."""
    return np.abs(np.asarray(ours) - theirs).max() / theirs.std()


def run(converted, images):
    tree = converted.trees["teacher"]["backbone"]
    return jax.jit(lambda p, x: Vit(converted.config).apply({"params": p}, x))(tree, images)


@pytest.mark.parametrize(("name", "asked", "told", "sides"), CASES)
def test_features_and_bytes(timm, tmp_path, name, asked, told, sides):
    import torch

    with torch.device("meta"):  # nothing is drawn only to be replaced
        model = timm.create_model(name, pretrained=False, dynamic_img_size=True, **asked).eval()
    state = random_state(model)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()}, assign=True)
    file = tmp_path / "model.safetensors"
    save_file(state, file)

    converted = convert(file, **{"model": name, **told})
    native = model.patch_embed.img_size
    worst = {}
    for height, width in filter(None, (native, sides)):
        x = np.random.default_rng(1).standard_normal((1, height, width, 3), np.float32)
        with torch.no_grad():
            tokens = model.forward_features(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
            vector = model.forward_head(tokens, pre_logits=True).numpy()
        tokens = tokens.numpy()
        output = run(converted, x)
        worst[f"{height} x {width} vector"] = off(output.cls, vector)
        worst[f"{height} x {width} patches"] = off(output.patches, tokens[:, model.num_prefix_tokens :])
        if output.registers is not None:
            start = int(model.has_class_token)
            worst[f"{height} x {width} registers"] = off(output.registers, tokens[:, start : model.num_prefix_tokens])
    print(name, {k: f"{v:.1e}" for k, v in worst.items()})
    assert max(worst.values()) < 1e-5, worst

    back = to_layout(
        converted.config, converted.trees["teacher"], "timm", extras=converted.extras, source=converted.source
    )
    kept = load_file(file)
    assert back.keys() == kept.keys()
    for key, tensor in kept.items():
        assert back[key].dtype == tensor.dtype and back[key].tobytes() == tensor.tobytes(), key
