"""The transformer against timm's, with timm's own random weights moved over by name."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import pytest

from protloc_jax.model.config import VitConfig
from protloc_jax.model.vit import Vit

pytestmark = pytest.mark.torch

BASE = VitConfig(size="custom", dim=48, depth=3, heads=3, channels=4, patch=16, image_size=224, position="timm")
OPTIONS = {"embed_dim": 48, "depth": 3, "num_heads": 3, "in_chans": 4, "num_classes": 0, "dynamic_img_size": True}
CASES = {
    "plain": (BASE, {}),
    "layerscale and registers": (
        dataclasses.replace(BASE, layerscale=0.1, registers=4, position_prefix="none"),
        {"init_values": 0.1, "reg_tokens": 4, "no_embed_class": True},
    ),
    "patch 8, no qkv bias, another eps": (
        dataclasses.replace(BASE, patch=8, image_size=64, qkv_bias=False, norm_eps=1e-5),
        {"patch_size": 8, "img_size": 64, "qkv_bias": False, "norm_layer": "eps5"},
    ),
    "no class token, mean pooled, norm of the mean": (
        dataclasses.replace(BASE, class_token=False, registers=2, position_prefix="none", final_norm="pooled"),
        {"class_token": False, "no_embed_class": True, "reg_tokens": 2, "global_pool": "avg"},
    ),
    "mean pooled beside a class token, norm of tokens": (
        dataclasses.replace(BASE, class_token=False, position_prefix="none"),
        {"class_token": False, "global_pool": "avg", "fc_norm": False},
    ),
    "positions of registers, norm before the blocks, no stem bias, sigmoid GELU": (
        dataclasses.replace(
            BASE, registers=3, position_prefix="all", pre_norm=True, stem_bias=False, mlp="quick_gelu", norm_eps=1e-5
        ),
        {"reg_tokens": 3, "pre_norm": True, "norm_layer": "eps5", "act_layer": "quick_gelu"},
    ),
    "tanh GELU": (dataclasses.replace(BASE, mlp="gelu_tanh"), {"act_layer": "gelu_tanh"}),
    "gated MLP": (
        dataclasses.replace(BASE, mlp="swiglu", mlp_ratio=8 / 3),
        {"mlp_layer": "swiglu", "mlp_ratio": 16 / 3, "act_layer": "silu"},
    ),
}


def our_tree(state, depth):
    """timm's state dict (NumPy) as our parameter tree; every key must be used."""
    state = dict(state)

    def linear(name, stacked=True):
        names = [name.format(i) for i in range(depth)] if stacked else [name]
        kernel = np.stack([state.pop(n + ".weight").T for n in names])
        out = {"kernel": kernel if stacked else kernel[0]}
        if names[0] + ".bias" in state:
            bias = np.stack([state.pop(n + ".bias") for n in names])
            out["bias"] = bias if stacked else bias[0]
        return out

    def norm(name, stacked=True):
        out = linear(name, stacked)
        return {"scale": out["kernel"], "bias": out["bias"]}

    tree = {
        "stem": {
            "kernel": state.pop("patch_embed.proj.weight").transpose(2, 3, 1, 0),
            **({"bias": state.pop("patch_embed.proj.bias")} if "patch_embed.proj.bias" in state else {}),
        },
        "pos": state.pop("pos_embed"),
        "blocks": {
            "norm1": norm("blocks.{}.norm1"),
            "attn": {"qkv": linear("blocks.{}.attn.qkv"), "proj": linear("blocks.{}.attn.proj")},
            "norm2": norm("blocks.{}.norm2"),
            "mlp": {"fc1": linear("blocks.{}.mlp.fc1"), "fc2": linear("blocks.{}.mlp.fc2")},
        },
        "norm": norm("norm" if "norm.weight" in state else "fc_norm", stacked=False),
    }
    for ours, theirs in (("cls", "cls_token"), ("registers", "reg_token")):
        if theirs in state:
            tree[ours] = state.pop(theirs)
    if "norm_pre.weight" in state:
        tree["norm_pre"] = norm("norm_pre", stacked=False)
    if "blocks.0.ls1.gamma" in state:
        for i in (1, 2):
            tree["blocks"][f"ls{i}"] = np.stack([state.pop(f"blocks.{n}.ls{i}.gamma") for n in range(depth)])
    assert not state, f"unused keys: {sorted(state)}"
    return tree


def reference(timm, case, double):
    """(our config, timm's model in eval mode, its weights as our tree)."""
    import torch

    config, options = CASES[case]
    options = {**OPTIONS, **options}
    if options.get("norm_layer") == "eps5":
        options["norm_layer"] = functools.partial(torch.nn.LayerNorm, eps=1e-5)
    if options.get("mlp_layer"):
        options["mlp_layer"] = timm.layers.SwiGLUPacked
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", **options).eval()
    with torch.no_grad():
        for value in model.parameters():  # biases and gains start at 0 and 1, where a mistake would not show
            value.add_(0.05 * torch.randn_like(value))
    model = model.double() if double else model
    return config, model, our_tree({k: v.detach().numpy() for k, v in model.state_dict().items()}, config.shape.depth)


@pytest.fixture(autouse=True)
def position_in_double(timm, monkeypatch):
    """timm resizes the position table in float32 whatever the weights are; do as it does, in their own precision."""
    import torch

    def resample(table, new_size, num_prefix_tokens, **_):
        side = int((table.shape[1] - num_prefix_tokens) ** 0.5)
        if tuple(new_size) == (side, side):
            return table
        prefix, grid = table[:, :num_prefix_tokens], table[:, num_prefix_tokens:]
        grid = grid.reshape(1, side, side, -1).permute(0, 3, 1, 2)
        grid = torch.nn.functional.interpolate(grid, size=new_size, mode="bicubic", antialias=True)
        return torch.cat([prefix, grid.flatten(2).transpose(1, 2)], dim=1)

    monkeypatch.setattr(timm.models.vision_transformer, "resample_abs_pos_embed", resample)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("size", "dtype", "tolerance"),
    [
        ((224, 224), "float32", 1e-5),
        ((112, 144), "float32", 1e-5),
        ((224, 224), "float64", 1e-10),
        ((96, 96), "float64", 1e-10),
    ],
)
def test_tokens_equal_timms(timm, case, size, dtype, tolerance):
    import torch

    config, model, params = reference(timm, case, dtype == "float64")
    images = np.random.default_rng(0).normal(size=(2, *size, 4)).astype(dtype)
    with torch.no_grad():
        want = model.forward_features(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    with jax.enable_x64(dtype == "float64"):
        out = jax.jit(Vit(config).apply)({"params": params}, images)
        assert out.cls.dtype == dtype
        with torch.no_grad():
            vector = model.forward_head(torch.from_numpy(want), pre_logits=True).numpy()
        np.testing.assert_allclose(out.cls, vector, rtol=0, atol=tolerance)
        np.testing.assert_allclose(out.patches, want[:, config.prefix :], rtol=0, atol=tolerance)
        if config.registers:
            first = int(config.class_token)
            np.testing.assert_allclose(out.registers, want[:, first : config.prefix], rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_timms(timm, case):
    import torch

    config, model, params = reference(timm, case, double=True)
    images = np.random.default_rng(0).normal(size=(2, 96, 96, 4))
    tokens = model.forward_features(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    vectors = model.forward_head(tokens, pre_logits=True)
    ((vectors**3).sum() + (tokens[:, config.prefix :] ** 2).mean()).backward()
    named = {name: value.grad.numpy() for name, value in model.named_parameters()}

    def loss(p):
        out = Vit(config).apply({"params": p}, images)
        return (out.cls**3).sum() + (out.patches**2).mean()

    with jax.enable_x64(True):
        got = jax.jit(jax.grad(loss))(params)
    want = our_tree(named, config.shape.depth)
    for (path, a), b in zip(jax.tree.leaves_with_path(got), jax.tree.leaves(want), strict=True):
        scale = max(1.0, np.abs(b).max())
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10 * scale, err_msg=jax.tree_util.keystr(path))


def test_attention_and_intermediate_layers_equal_timms(timm):
    import torch

    config, model, params = reference(timm, "plain", double=True)
    images = np.random.default_rng(0).normal(size=(2, 112, 144, 4))
    tensor = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    seen = []
    last = model.blocks[-1].attn
    last.fused_attn = False
    last.attn_drop.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        layers = model.get_intermediate_layers(tensor, n=[0, 2], norm=True, return_prefix_tokens=True)
    with jax.enable_x64(True):
        apply = jax.jit(lambda p, x: Vit(config).apply({"params": p}, x, layers=(0, 2), attention=True))
        out = apply(params, images)
    np.testing.assert_allclose(out.attention, seen[-1].numpy(), atol=1e-12)
    for (cls, patches), (reshaped, prefix) in zip(out.layers, layers, strict=True):
        np.testing.assert_allclose(cls, prefix[:, 0].numpy(), atol=1e-10)
        np.testing.assert_allclose(patches, reshaped.numpy(), atol=1e-10)
