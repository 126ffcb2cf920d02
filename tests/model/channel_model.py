"""A small transformer with tokens of every channel, random weights for it, and its forward pass in float64 NumPy."""

from __future__ import annotations

import jax
import numpy as np
from scipy.special import erf

from protloc_jax.model.config import VitConfig
from protloc_jax.model.flops import parameter_shapes

WORDS = ("nucleus", "gfp", "er", "actin:actin", "other")
CONFIG = VitConfig(
    size="custom",
    dim=12,
    depth=2,
    heads=2,
    mlp_ratio=2,
    channels=3,
    patch=4,
    image_size=12,
    registers=1,
    stem="channels",
    channel_names=WORDS,
)


def weights(config: VitConfig = CONFIG, dtype="float32", seed: int = 0):
    """Every leaf random, so that a missing one shows."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: 0.3 * rng.normal(size=a.shape).astype(dtype), parameter_shapes(config))


def pictures(channels: int, dtype="float32", *, batch: int = 2, side=(12, 12), seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, *side, channels)).astype(dtype)


def _norm(x, p, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * p["scale"] + p["bias"]


def first_tokens(params, image, rows, config: VitConfig = CONFIG) -> np.ndarray:
    """Tokens [T, D] that enter the first block for one image [H, W, C] of the table's own size, a patch at a time."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    side = config.patch
    across = image.shape[1] // side
    tokens = [p["cls"][0, 0] + p["pos"][0, 0], *p["registers"][0]]
    for channel, row in enumerate(rows):
        for place in range(image.shape[0] // side * across):
            top, left = side * (place // across), side * (place % across)
            token = p["stem"]["bias"] + p["channels"][row] + p["pos"][0, 1 + place]
            for y in range(side):
                for x in range(side):
                    token = token + float(image[top + y, left + x, channel]) * p["stem"]["kernel"][y, x, 0]
            tokens.append(token)
    return np.stack(tokens)


def forward(params, image, rows, config: VitConfig = CONFIG, seen=None):
    """(normed tokens [T, D], last attention [heads, T, T]) of one image; none attends where `seen` [T] is False."""
    x, weight = first_tokens(params, image, rows, config), []
    for i in range(config.shape.depth):
        b = jax.tree.map(lambda a: np.asarray(a[i], np.float64), params["blocks"])  # noqa: B023
        dim, _, heads, _ = config.shape
        query, key, value = np.split(
            _norm(x, b["norm1"], 1e-6) @ b["attn"]["qkv"]["kernel"] + b["attn"]["qkv"]["bias"], 3, -1
        )
        mixed, weight = [], []
        for h in np.split(np.arange(dim), heads):
            score = np.exp(query[:, h] @ key[:, h].T / np.sqrt(len(h))) * (1 if seen is None else seen)
            weight.append(score / score.sum(-1, keepdims=True))
            mixed.append(weight[-1] @ value[:, h])
        x = x + np.concatenate(mixed, -1) @ b["attn"]["proj"]["kernel"] + b["attn"]["proj"]["bias"]
        y = _norm(x, b["norm2"], 1e-6) @ b["mlp"]["fc1"]["kernel"] + b["mlp"]["fc1"]["bias"]
        x = x + 0.5 * y * (1 + erf(y / np.sqrt(2))) @ b["mlp"]["fc2"]["kernel"] + b["mlp"]["fc2"]["bias"]
    return _norm(x, jax.tree.map(lambda a: np.asarray(a, np.float64), params["norm"]), 1e-6), np.stack(weight)
