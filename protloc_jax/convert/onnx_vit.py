"""The vision transformer of `model.vit` as ONNX operators, in float32; one function a part of the model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from protloc_jax.convert.onnx_graph import Graph
from protloc_jax.model.config import VitConfig
from protloc_jax.model.posembed import resize_table


def encoded(g: Graph, config: VitConfig, params: Mapping[str, Any], images: str, size: tuple[int, int]):
    """Names of (cls [B, D], patches [B, N, D]) for prepared images [B, C, h, w] of `size` (h, w)."""
    x = _tokens(g, config, params, images, size)
    if config.pre_norm:
        x = norm(g, config, params["norm_pre"], x, "norm_pre")
    length = config.prefix + math.prod(config.grid(*size))
    for i in range(config.shape.depth):
        x = block(g, config, _of_block(params["blocks"], i), x, length, f"blocks.{i}")
    if config.final_norm == "tokens":
        x = norm(g, config, params["norm"], x, "norm")
    patches = _rows(g, x, config.prefix, length)
    if not config.mean_pooled:
        return g.op("Squeeze", _rows(g, x, 0, 1), g.whole(1)), patches
    mean = g.op("ReduceMean", patches, axes=[1], keepdims=0)
    if config.final_norm == "pooled":
        mean = norm(g, config, params["norm"], mean, "norm")
    return mean, patches


def block(g: Graph, config: VitConfig, p: Mapping[str, Any], x: str, length: int, name: str) -> str:
    """One pre-norm block on tokens [B, length, D]."""
    y = attention(g, config, p["attn"], norm(g, config, p["norm1"], x, f"{name}/norm1"), length, f"{name}/attn")
    x = g.op("Add", x, _scaled(g, p, "ls1", y, name))
    y = mlp(g, config, p["mlp"], norm(g, config, p["norm2"], x, f"{name}/norm2"), f"{name}/mlp")
    return g.op("Add", x, _scaled(g, p, "ls2", y, name))


def attention(g: Graph, config: VitConfig, p: Mapping[str, Any], x: str, length: int, name: str) -> str:
    """Softmax attention of tokens [B, length, D]; queries are scaled before the product, as in the model."""
    dim, _, heads, _ = config.shape
    width = dim // heads
    fused = linear(g, p["qkv"], x, f"{name}/qkv")
    fused = g.op("Reshape", fused, g.whole(0, length, 3, heads, width))
    fused = g.op("Transpose", fused, perm=[2, 0, 3, 1, 4])
    parts = g.op("Split", fused, g.whole(1, 1, 1), outputs=3, axis=0)
    query, key, value = (g.op("Squeeze", part, g.whole(0)) for part in parts)
    query = g.op("Mul", query, g.number(width**-0.5))
    logits = g.op("MatMul", query, g.op("Transpose", key, perm=[0, 1, 3, 2]))
    mixed = g.op("MatMul", g.op("Softmax", logits, axis=-1), value)
    mixed = g.op("Reshape", g.op("Transpose", mixed, perm=[0, 2, 1, 3]), g.whole(0, length, dim))
    return linear(g, p["proj"], mixed, f"{name}/proj")


def mlp(g: Graph, config: VitConfig, p: Mapping[str, Any], x: str, name: str) -> str:
    """Linear map, non-linearity or gate, linear map."""
    wide = linear(g, p["fc1"], x, f"{name}/fc1")
    return linear(g, p["fc2"], _ACTIVATIONS[config.mlp](g, wide, config.shape.hidden), f"{name}/fc2")


def linear(g: Graph, p: Mapping[str, Any], x: str, name: str) -> str:
    """x [..., in] @ kernel + bias."""
    y = g.op("MatMul", x, g.constant(f"{name}/kernel", p["kernel"]))
    return g.op("Add", y, g.constant(f"{name}/bias", p["bias"])) if "bias" in p else y


def norm(g: Graph, config: VitConfig, p: Mapping[str, Any], x: str, name: str) -> str:
    """Layer norm over the last axis."""
    scale, bias = (g.constant(f"{name}/{key}", p[key]) for key in ("scale", "bias"))
    return g.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=config.norm_eps)


def _tokens(g: Graph, config: VitConfig, params: Mapping[str, Any], images: str, size: tuple[int, int]) -> str:
    """Prefix tokens and patch tokens with their positions, [B, T, D]; positions are resized here, once."""
    dim, patch, rows = config.shape.dim, config.patch, config.positioned
    count = math.prod(config.grid(*size))
    stem = params["stem"]
    weights = [g.constant("stem/kernel", np.transpose(np.asarray(stem["kernel"]), (3, 2, 0, 1)))]
    if config.stem_bias:
        weights.append(g.constant("stem/bias", stem["bias"]))
    x = g.op("Conv", images, *weights, strides=[patch, patch])
    x = g.op("Transpose", g.op("Reshape", x, g.whole(0, dim, count)), perm=[0, 2, 1])

    parts = [np.asarray(params["cls"])[0]] if config.class_token else []
    if config.registers:
        parts.append(np.asarray(params["registers"])[0])
    prefix = np.concatenate(parts) if parts else np.zeros((0, dim), np.float32)
    if config.position != "none":
        table = np.asarray(resize_table(params["pos"], config.position, patch, *size, prefix=rows))[0]
        x = g.op("Add", x, g.constant("pos/patches", table[rows:]))
        prefix = np.concatenate([prefix[:rows] + table[:rows], prefix[rows:]])
    if not len(prefix):
        return x
    batch = g.op("Slice", g.op("Shape", x), g.whole(0), g.whole(1))
    shape = g.op("Concat", batch, g.whole(*prefix.shape), axis=0)
    return g.op("Concat", g.op("Expand", g.constant("prefix", prefix[None]), shape), x, axis=1)


def _rows(g: Graph, x: str, start: int, stop: int) -> str:
    return g.op("Slice", x, g.whole(start), g.whole(stop), g.whole(1))


def _of_block(stacked: Any, i: int) -> Any:
    """The parameters of block `i` of a stacked tree."""
    return {k: _of_block(v, i) if isinstance(v, Mapping) else np.asarray(v[i]) for k, v in stacked.items()}


def _scaled(g: Graph, p: Mapping[str, Any], key: str, branch: str, name: str) -> str:
    return g.op("Mul", branch, g.constant(f"{name}/{key}", p[key])) if key in p else branch


def _gelu(g: Graph, x: str, hidden: int) -> str:
    erf = g.op("Erf", g.op("Div", x, g.number(math.sqrt(2.0))))
    return g.op("Mul", g.op("Mul", x, g.op("Add", erf, g.number(1.0))), g.number(0.5))


def _gelu_tanh(g: Graph, x: str, hidden: int) -> str:
    cube = g.op("Mul", g.op("Mul", g.op("Mul", x, x), x), g.number(0.044715))
    tanh = g.op("Tanh", g.op("Mul", g.op("Add", x, cube), g.number(math.sqrt(2.0 / math.pi))))
    return g.op("Mul", g.op("Mul", x, g.op("Add", tanh, g.number(1.0))), g.number(0.5))


def _quick_gelu(g: Graph, x: str, hidden: int) -> str:
    return g.op("Mul", x, g.op("Sigmoid", g.op("Mul", x, g.number(1.702))))


def _swiglu(g: Graph, x: str, hidden: int) -> str:
    gate, value = g.op("Split", x, g.whole(hidden, hidden), outputs=2, axis=-1)
    return g.op("Mul", g.op("Mul", gate, g.op("Sigmoid", gate)), value)


_ACTIVATIONS = {"gelu": _gelu, "gelu_tanh": _gelu_tanh, "quick_gelu": _quick_gelu, "swiglu": _swiglu}
