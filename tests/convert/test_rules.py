"""The table engine: where tensors go, what is refused, and the way back; checked with NumPy indexing alone."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from tiny_vit import DEPTH, DIM, FACTS, HEADS, HIDDEN, tensors, write

from protloc_jax.convert.check import leaf_shapes
from protloc_jax.convert.convert import convert
from protloc_jax.convert.layouts import LAYOUTS, Reading
from protloc_jax.convert.rules import TRANSFORMS, Rule, kept_shape, put, stored_shapes, taken_apart
from protloc_jax.convert.to_layout import to_layout
from protloc_jax.convert.weight_file import WeightsRefused
from protloc_jax.model.config import VitConfig


@pytest.mark.parametrize("how", TRANSFORMS)
def test_every_transform_is_undone(how):
    rng = np.random.default_rng(0)
    shape = {1: (6,), 2: (6, 4), 3: (6, 2, 4), 4: (6, 3, 2, 2)}[TRANSFORMS[how].rank]
    heads = {"to_heads": 2, "bias_of_heads": 6, "from_heads": 6}.get(how, 0)
    if how == "column":
        shape = (6, 1)
    stored = rng.standard_normal(shape)
    kept = TRANSFORMS[how].forward(stored, heads)
    assert np.array_equal(TRANSFORMS[how].inverse(kept, heads), stored)


def test_separate_queries_keys_and_values_are_joined_in_that_order():
    rule = Rule("backbone/blocks/attn/qkv/kernel", ("{n}.q", "{n}.k", "{n}.v"), "to_heads")
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((6, 2, 3)) for _ in range(3)]
    leaf = np.zeros((6, 18))
    for i, part in enumerate(parts):
        put(rule, i, part, leaf)
    for i, part in enumerate(parts):
        for head in range(2):
            start = 6 * i + 3 * head
            assert np.array_equal(leaf[:, start : start + 3], part[:, head])
    assert all(np.array_equal(a, b) for a, b in zip(taken_apart(rule, leaf, 2), parts, strict=True))
    assert kept_shape(rule, (6, 2, 3)) == (6, 6)
    assert stored_shapes(rule, (5, 6, 18), 2) == [(6, 2, 3)] * 3


def test_values_land_where_they_belong(tmp_path):
    named = tensors()
    tree = convert(write(tmp_path, named), **FACTS).trees["teacher"]["backbone"]
    for n in range(DEPTH):  # blocks 0 and 10 among them
        assert np.array_equal(tree["blocks"]["attn"]["qkv"]["kernel"][n], named[f"blocks.{n}.attn.qkv.weight"].T)
        assert np.array_equal(tree["blocks"]["mlp"]["fc2"]["kernel"][n], named[f"blocks.{n}.mlp.fc2.weight"].T)
        assert np.array_equal(tree["blocks"]["norm2"]["bias"][n], named[f"blocks.{n}.norm2.bias"])
    kernel = named["patch_embed.proj.weight"]
    for c in range(3):
        assert np.array_equal(tree["stem"]["kernel"][:, :, c], np.moveaxis(kernel[:, c], 0, -1))
    assert np.array_equal(tree["pos"], named["pos_embed"])
    assert np.array_equal(tree["norm"]["scale"], named["norm.weight"])


def test_everything_that_is_wrong_is_listed_at_once(tmp_path):
    named = tensors()
    named["blocks.3.attn.qkv.wieght"] = named.pop("blocks.3.attn.qkv.weight")
    del named["blocks.10.norm1.bias"]
    named["blocks.5.mlp.fc1.bias"] = named["blocks.5.mlp.fc1.bias"][:-1]
    named["colour_token"] = np.zeros(3, np.float32)
    with pytest.raises(WeightsRefused) as refused:
        convert(write(tmp_path, named), **FACTS)
    text = str(refused.value)
    assert "missing: blocks.3.attn.qkv.weight (nearest: blocks.3.attn.qkv.wieght)" in text
    assert "unknown: blocks.3.attn.qkv.wieght (nearest: blocks.3.attn.qkv.weight)" in text
    assert "missing: blocks.10.norm1.bias" in text
    assert f"blocks.5.mlp.fc1.bias: [{HIDDEN - 1}] in the file, [{HIDDEN}] in this architecture" in text
    assert "unknown: colour_token" in text


def test_a_block_that_is_not_there_is_noticed(tmp_path):
    named = {k: v for k, v in tensors().items() if not k.startswith("blocks.4.")}
    with pytest.raises(WeightsRefused, match=r"missing: blocks\.4\.norm1\.weight"):
        convert(write(tmp_path, named), **FACTS)


def test_a_block_number_with_a_leading_zero_is_no_second_spelling():
    assert LAYOUTS["timm"].place("blocks.01.norm1.weight") is None
    assert Reading(LAYOUTS["timm"], ["blocks.10.norm1.weight"]).places["blocks.10.norm1.weight"].block == 10


@pytest.mark.parametrize(
    "prefix", ["module.", "backbone.", "module.backbone.", "_orig_mod.module.", "encoder.", "_fsdp_wrapped_module."]
)
def test_prefixes_of_every_name_are_removed(tmp_path, prefix):
    named = tensors()
    converted = convert(write(tmp_path, {prefix + k: v for k, v in named.items()}), **FACTS)
    plain = convert(write(tmp_path, named, "plain.safetensors"), **FACTS)
    ours, theirs = (c.trees["teacher"]["backbone"]["blocks"]["mlp"]["fc1"]["kernel"] for c in (converted, plain))
    assert np.array_equal(ours, theirs)
    back = to_layout(converted.config, converted.trees["teacher"], "timm", source=converted.source)
    assert back.keys() == {prefix + k for k in named}


def test_wrappers_inside_names_are_removed_as_whole_words(tmp_path):
    named = {k.replace("blocks.10.", "blocks.10._checkpoint_wrapped_module."): v for k, v in tensors().items()}
    converted = convert(write(tmp_path, named), **FACTS)
    qkv = named["blocks.10._checkpoint_wrapped_module.attn.qkv.weight"]
    assert np.array_equal(converted.trees["teacher"]["backbone"]["blocks"]["attn"]["qkv"]["kernel"][10], qkv.T)
    both = {**named, "blocks.10.attn.qkv.weight": qkv}
    with pytest.raises(WeightsRefused, match="are one name"):
        convert(write(tmp_path, both, "both.safetensors"), **FACTS)


def test_a_prefix_of_some_names_only_stays(tmp_path):
    named = {("module." + k if k == "norm.bias" else k): v for k, v in tensors().items()}
    with pytest.raises(WeightsRefused, match=r"unknown: module\.norm\.bias"):
        convert(write(tmp_path, named), **FACTS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_counted_by_tensor(tmp_path, value):
    named = tensors()
    named["blocks.2.norm1.weight"][3] = value
    named["pos_embed"][0, 1:3, 0] = value
    with pytest.raises(WeightsRefused) as refused:
        convert(write(tmp_path, named), **FACTS)
    assert f"blocks.2.norm1.weight: 1 of {DIM} values" in str(refused.value)
    assert f"pos_embed: 2 of {17 * DIM} values" in str(refused.value)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_widened_and_written_back(tmp_path, dtype):
    named = tensors(dtype=dtype)
    converted = convert(write(tmp_path, named), **FACTS)
    tree = converted.trees["teacher"]["backbone"]
    assert tree["cls"].dtype == np.float32
    assert np.array_equal(tree["cls"], named["cls_token"].astype(np.float32))
    assert any(np.dtype(dtype).name in note for note in converted.notes)
    back = to_layout(converted.config, tree, "timm", source=converted.source)
    assert all(back[k].dtype == v.dtype and back[k].tobytes() == v.tobytes() for k, v in named.items())


def test_float64_is_rounded_and_said(tmp_path):
    named = tensors(dtype=np.float64)
    converted = convert(write(tmp_path, named), **FACTS)
    assert any("rounded to float32" in note for note in converted.notes)
    exact = {k: v.astype(np.float32).astype(np.float64) for k, v in named.items()}
    converted = convert(write(tmp_path, exact, "exact.safetensors"), **FACTS)
    assert not any("rounded" in note for note in converted.notes)
    exact["cls_token"][0, 0, 0] = 1e300
    with pytest.raises(WeightsRefused, match="cls_token: 1 of"):
        convert(write(tmp_path, exact, "large.safetensors"), **FACTS)


def test_integers_are_refused(tmp_path):
    named = tensors()
    named["norm.bias"] = named["norm.bias"].astype(np.int32)
    with pytest.raises(WeightsRefused, match=r"no floating-point numbers: norm\.bias: int32"):
        convert(write(tmp_path, named), **FACTS)


GATED = ("timm", "dinov2", "hf_dinov2", "hf_dinov2_with_registers")


@pytest.mark.parametrize(("layout", "mlp"), [*((x, "gelu") for x in LAYOUTS), *((x, "swiglu") for x in GATED)])
def test_every_layout_is_its_own_inverse(tmp_path, layout, mlp):
    scales = "dinov2" in layout or layout == "timm"
    registers = 2 if layout in ("timm", "dinov2", "hf_dinov2_with_registers") else 0
    config = VitConfig(
        size="custom",
        dim=DIM,
        depth=3,
        heads=HEADS,
        mlp_ratio=HIDDEN / DIM,
        patch=4,
        image_size=16,
        layerscale=1e-5 if scales else 0.0,
        registers=registers,
        mlp=mlp,
    )
    rng = np.random.default_rng(0)
    leaves = {path: rng.standard_normal(shape, np.float32) for path, shape in leaf_shapes(config).items()}
    tree: dict = {}
    for path, leaf in leaves.items():
        *parents, last = path.removeprefix("backbone/").split("/")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = leaf
    facts = {**FACTS, "mlp": mlp, "layout": layout}
    again = convert(write(tmp_path, to_layout(config, tree, layout)), **facts)
    assert again.config.shape == config.shape and again.config.mlp == mlp
    for path, shape in leaf_shapes(again.config).items():
        node = again.trees["teacher"]
        for part in path.split("/"):
            node = node[part]
        assert node.shape == shape and np.array_equal(node, leaves[path]), path


def test_a_tree_that_a_layout_cannot_hold_is_refused():
    config = VitConfig(size="custom", dim=DIM, depth=1, heads=3, patch=4, image_size=16, registers=2, layerscale=0.1)
    tree = {}
    for path, shape in leaf_shapes(config).items():
        *parents, last = path.removeprefix("backbone/").split("/")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = np.zeros(shape, np.float32)
    with pytest.raises(WeightsRefused) as refused:
        to_layout(config, tree, "hf_vit")
    for leaf in ("registers", "blocks/ls1", "blocks/ls2"):
        assert f"backbone/{leaf}: layout 'hf_vit' has no tensor for it" in str(refused.value)
