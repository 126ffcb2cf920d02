"""A frozen encoder's weights in timm's names, with the `config.json` from which timm builds the model.

`timm.create_model("local-dir:DIR", pretrained=True)` then gives the model, or "hf-hub:ORG/NAME" once uploaded. timm
holds the transformer only: images must be prepared as the model card says. What timm's classes lack is folded into
exact equivalents (a zero bias, unit LayerScale); what cannot be is refused.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from protloc_jax.config import to_dict
from protloc_jax.convert.about import as_text
from protloc_jax.convert.frozen import Frozen
from protloc_jax.convert.own_export import SECTION
from protloc_jax.convert.refusal import ExportRefused
from protloc_jax.convert.to_layout import to_layout
from protloc_jax.model.config import SIZES, VitConfig
from protloc_jax.model.posembed import resize_table

WEIGHTS, CONFIG = "model.safetensors", "config.json"
_NAMES = {"Ti": "tiny", "S": "small", "B": "base", "L": "large"}
# Names of registered timm models by size and patch, whose own arguments the explicit ones below repeat or replace.
_REGISTERED = {
    ("Ti", 16),
    ("S", 16),
    ("S", 8),
    ("S", 32),
    ("B", 16),
    ("B", 8),
    ("B", 32),
    ("L", 14),
    ("L", 16),
    ("L", 32),
}
# What timm's class does where an argument is not given; left out of the config, which then says what is special.
_USUAL: dict[str, Any] = {
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "class_token": True,
    "reg_tokens": 0,
    "pos_embed": "learn",
    "no_embed_class": False,
    "pre_norm": False,
    "final_norm": True,
}
# Arguments that a registered architecture sets itself, and that must therefore be given always.
_OWN = {"vit_giant_patch14_dinov2": ("mlp_ratio",), "vit_base_patch16_clip_224": ("pre_norm",)}
# Conventions whose resizing of positions timm repeats when images have another size than the table was made for.
_RESIZED_ALIKE = ("timm", "dinov2_registers")


def write_timm(frozen: Frozen, directory: Path, *, facts: Mapping[str, Any]) -> list[Path]:
    """Write `model.safetensors` and `config.json`; `facts` become the header's metadata and a section of the config.

    Raises ExportRefused for an architecture that timm cannot build.
    """
    tensors = timm_tensors(frozen)
    header = {"format": "pt", **as_text(facts)}
    files = [directory / WEIGHTS, directory / CONFIG]
    save_file(tensors, files[0], metadata=header)
    files[1].write_text(json.dumps(timm_config(frozen, tensors, facts=facts), indent=1, default=str) + "\n")
    files[0].chmod(files[1].stat().st_mode)  # safetensors makes its file readable for its owner alone
    return files


def timm_tensors(frozen: Frozen) -> dict[str, np.ndarray]:
    """The state dict of timm's VisionTransformer, float32, under timm's own names wherever the weights came from."""
    frozen.needs_slots("timm")
    config = frozen.encoder.config
    problems = []
    if config.stem_bias and config.pre_norm:
        problems.append("a patch projection with bias and pre_norm together")
    if frozen.encoder.config.mlp == "swiglu" and config.norm_eps != 1e-6:
        problems.append(f"SwiGLU with norm_eps={config.norm_eps}")
    if problems:
        raise ExportRefused(f"timm's VisionTransformer has no {' and no '.join(problems)}; export onnx or stablehlo.")
    config, params = _held(frozen)
    tensors = dict(to_layout(config, params, "timm"))
    dim, depth = config.shape.dim, config.shape.depth
    if config.final_norm == "pooled":
        tensors = {f"fc_{name}" if name.startswith("norm.") else name: value for name, value in tensors.items()}
    if not config.stem_bias and not config.pre_norm:
        tensors["patch_embed.proj.bias"] = np.zeros(dim, np.float32)
    if config.mlp == "swiglu" and not config.layerscale:  # timm's only model with this MLP has LayerScale
        tensors |= {f"blocks.{i}.ls{j}.gamma": np.ones(dim, np.float32) for i in range(depth) for j in (1, 2)}
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}


def timm_config(frozen: Frozen, tensors: Mapping[str, np.ndarray], *, facts: Mapping[str, Any]) -> dict[str, Any]:
    """timm's hub form: a registered architecture, the arguments that make it ours, and the preprocessing."""
    config, how = _held(frozen)[0], frozen.encoder.prepare
    height, width = (side * config.patch for side in frozen.grid)
    mean, std = how.normalisation.mean, how.normalisation.std
    if how.normalisation.kind != "dataset":
        mean, std = (0.0,) * config.channels, (1.0,) * config.channels
    return {
        "architecture": architecture(config),
        "num_classes": 0,
        "num_features": config.shape.dim,
        "model_args": _arguments(config, tensors),
        "pretrained_cfg": {
            "tag": "protloc_jax",
            "custom_load": False,
            "input_size": [config.channels, height, width],
            "fixed_input_size": False,
            "interpolation": how.interpolation,
            "crop_pct": round(how.crop / how.resize, 6) if how.crop and how.resize else 1.0,
            "crop_mode": "center",
            "mean": list(mean),
            "std": list(std),
            "num_classes": 0,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
            "license": facts["licence"],
        },
        SECTION: {**facts, "model": to_dict(_stored_as(config))},
    }


def architecture(config: VitConfig) -> str:
    """A registered timm name: the model's own where it has one, else one whose fixed parts (norm, MLP) fit."""
    if config.mlp == "swiglu":
        return "vit_giant_patch14_dinov2"
    if config.norm_eps == 1e-5:
        return "vit_base_patch16_clip_224"
    own = [key for key, shape in SIZES.items() if shape == config.shape and (key, config.patch) in _REGISTERED]
    return f"vit_{_NAMES[own[0]]}_patch{config.patch}_224" if own else "vit_base_patch16_224"


def _stored_as(config: VitConfig) -> VitConfig:
    """The configuration of the stored tensors, with what `timm_tensors` adds to them."""
    return dataclasses.replace(
        config,
        stem_bias=not config.pre_norm,
        layerscale=config.layerscale or (1.0 if config.mlp == "swiglu" else 0.0),
    )


def needs_epsilon(config: VitConfig) -> bool:
    """Whether the epsilon of the layer norms must be set by hand, because no registered timm model has it."""
    return config.norm_eps not in (1e-6, 1e-5)


def _arguments(config: VitConfig, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    dim, depth, heads, hidden = config.shape
    made = hidden * (2 if config.mlp == "swiglu" else 1)
    rows = tensors["pos_embed"].shape[1] if "pos_embed" in tensors else 0
    arguments = {
        "img_size": config.table_grid * config.patch,
        "patch_size": config.patch,
        "in_chans": config.channels,
        "embed_dim": dim,
        "depth": depth,
        "num_heads": heads,
        "mlp_ratio": _ratio(made, dim),
        "qkv_bias": config.qkv_bias,
        "class_token": config.class_token,
        "reg_tokens": config.registers,
        "pos_embed": "learn" if rows else "none",
        "no_embed_class": rows == config.table_grid**2 and config.prefix > 0,
        "pre_norm": config.pre_norm,
        "final_norm": config.final_norm != "none",
    }
    own = _OWN.get(architecture(config), ())
    arguments = {k: v for k, v in arguments.items() if k in own or k not in _USUAL or v != _USUAL[k]}
    if config.mean_pooled and config.final_norm == "tokens":
        arguments["fc_norm"] = False  # timm's mean pooling norms the mean unless told otherwise
    if any(name.endswith("ls1.gamma") for name in tensors):
        arguments["init_values"] = config.layerscale or 1.0
    if config.mlp in ("gelu_tanh", "quick_gelu"):
        arguments["act_layer"] = config.mlp
    pooling = "avg" if config.mean_pooled else "token"
    return {**arguments, "global_pool": pooling, "dynamic_img_size": True, "num_classes": 0}


def _ratio(made: int, dim: int) -> float:
    """The ratio from which timm's int(dim * ratio) finds the hidden width."""
    ratio = made / dim
    while int(dim * ratio) < made:
        ratio = float(np.nextafter(ratio, np.inf))
    return ratio


def _held(frozen: Frozen) -> tuple[VitConfig, Any]:
    """Configuration and parameters with positions as timm's class can hold and resize them; the features are the same.

    A table that timm would resize in another way is stored at the grid of the input. A class token's position beside
    registers without one is added to the token.
    """
    config, params, grid = frozen.encoder.config, frozen.encoder.params, frozen.grid
    if config.position == "none":
        return config, params
    table = params["pos"]
    if config.position not in _RESIZED_ALIKE and grid != (config.table_grid,) * 2:
        if grid[0] != grid[1]:
            raise ExportRefused(
                f"positions of convention '{config.position}' on {grid[0]} x {grid[1]} patches have no place in timm's "
                "square table; give a square --input-size, or export onnx or stablehlo."
            )
        size = frozen.preparation.size
        table = resize_table(table, config.position, config.patch, *size, prefix=config.positioned)
        config = dataclasses.replace(config, image_size=grid[0] * config.patch)
    params = {**params, "pos": table}
    if 0 < config.positioned < config.prefix:
        params |= {"cls": params["cls"] + table[:, :1], "pos": table[:, 1:]}
        config = dataclasses.replace(config, position_prefix="none")
    return config, params
