"""A small transformer's tensors under timm's names, made with NumPy alone, and files of them."""

from __future__ import annotations

import numpy as np
from safetensors.numpy import save_file

DIM, DEPTH, HEADS, HIDDEN, PATCH, IMAGE = 24, 11, 3, 40, 4, 16
# What no tensor shows, said one by one.
FACTS = {"heads": HEADS, "norm_eps": 1e-6, "mlp": "gelu", "position": "timm", "normalise": "half"}


def tensors(*, channels=3, depth=DEPTH, layerscale=False, seed=0, dtype=np.float32):
    """{name: array} of a plain ViT with a class token."""
    rng = np.random.default_rng(seed)
    shapes = {
        "cls_token": (1, 1, DIM),
        "pos_embed": (1, 1 + (IMAGE // PATCH) ** 2, DIM),
        "patch_embed.proj.weight": (DIM, channels, PATCH, PATCH),
        "patch_embed.proj.bias": (DIM,),
        "norm.weight": (DIM,),
        "norm.bias": (DIM,),
    }
    for n in range(depth):
        block = {
            "norm1.weight": (DIM,),
            "norm1.bias": (DIM,),
            "attn.qkv.weight": (3 * DIM, DIM),
            "attn.qkv.bias": (3 * DIM,),
            "attn.proj.weight": (DIM, DIM),
            "attn.proj.bias": (DIM,),
            "norm2.weight": (DIM,),
            "norm2.bias": (DIM,),
            "mlp.fc1.weight": (HIDDEN, DIM),
            "mlp.fc1.bias": (HIDDEN,),
            "mlp.fc2.weight": (DIM, HIDDEN),
            "mlp.fc2.bias": (DIM,),
        }
        if layerscale:
            block |= {"ls1.gamma": (DIM,), "ls2.gamma": (DIM,)}
        shapes |= {f"blocks.{n}.{name}": shape for name, shape in block.items()}
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def dino_head(rng, *, hidden=32, bottleneck=16, out=50):
    """{name: array} of a DINO head as facebookresearch/dino names it."""
    shapes = {
        "head.mlp.0.weight": (hidden, DIM),
        "head.mlp.0.bias": (hidden,),
        "head.mlp.2.weight": (hidden, hidden),
        "head.mlp.2.bias": (hidden,),
        "head.mlp.4.weight": (bottleneck, hidden),
        "head.mlp.4.bias": (bottleneck,),
        "head.last_layer.weight_g": (out, 1),
        "head.last_layer.weight_v": (out, bottleneck),
    }
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def write(folder, named, name="model.safetensors"):
    """A safetensors file of named arrays; returns its path."""
    file = folder / name
    save_file({key: np.ascontiguousarray(array) for key, array in named.items()}, file)
    return file
