"""What stands beside weights about their model: a Hugging Face or timm config, the arguments of a DINO run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from protloc_jax.convert.known import Known, Pictures
from protloc_jax.convert.known_models import known
from protloc_jax.convert.known_timm import WIDTHS, known_timm
from protloc_jax.convert.own_export import SECTION, known_export
from protloc_jax.convert.weight_file import WeightsRefused

_HF_MODELS = {"vit": "hf_vit", "dinov2": "hf_dinov2", "dinov2_with_registers": "hf_dinov2_with_registers"}
_HF_FIELDS = {
    "hidden_size": "dim",
    "num_hidden_layers": "depth",
    "num_attention_heads": "heads",
    "layer_norm_eps": "norm_eps",
    "patch_size": "patch",
    "num_channels": "channels",
    "qkv_bias": "qkv_bias",
    "num_register_tokens": "registers",
}
_HF_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
}
# Arguments that timm's model constructor takes: those that are facts, and those that change no feature.
_TIMM_ARGUMENTS = {
    "img_size": "image_size",
    "patch_size": "patch",
    "in_chans": "channels",
    "embed_dim": "dim",
    "depth": "depth",
    "num_heads": "heads",
    "reg_tokens": "registers",
    "qkv_bias": "qkv_bias",
    "class_token": "class_token",
}
_TIMM_HARMLESS = {"num_classes", "drop_rate", "drop_path_rate", "dynamic_img_size", "global_pool", "weight_init"}
_DINO_ARCHITECTURES = {f"{family}_{size}": size for family in ("vit", "deit") for size in ("tiny", "small", "base")}
_RESAMPLE = {2: "bilinear", 3: "bicubic"}  # PIL's numbers


def beside(facts: Mapping[str, Any], channels: int) -> tuple[dict[str, Known], str]:
    """(claims by origin, layout or ""): what the file's facts say. Raises WeightsRefused for models we do not have."""
    found: dict[str, Known] = {}
    layout = ""
    config, args = facts.get("config"), facts.get("args")
    if isinstance(config, Mapping) and config:
        if "model_type" in config:
            layout = _HF_MODELS.get(str(config["model_type"]), "")
            found["config.json"] = _hugging_face(config, facts.get("preprocessor_config"))
        elif isinstance(config.get(SECTION), Mapping):
            layout = "timm"
            found["config.json"] = known_export(config[SECTION])
        elif "architecture" in config:
            layout = "timm"
            found["config.json"] = _timm(config)
    if isinstance(args, Mapping) and "arch" in args:
        found["args"] = _dino(args, channels)
        layout = layout or "dino"
    return found, layout


def _hugging_face(config: Mapping[str, Any], preprocessor: Any) -> Known:
    kind = config["model_type"]
    if kind not in _HF_MODELS:
        raise WeightsRefused(f"config.json: model_type '{kind}' cannot be read; {', '.join(_HF_MODELS)} can.")
    facts = {ours: config[theirs] for theirs, ours in _HF_FIELDS.items() if theirs in config}
    patch, image = facts.get("patch"), config.get("image_size")
    if isinstance(image, int) and isinstance(patch, int):
        facts["image_size"] = image // patch * patch
    if kind == "vit" and "intermediate_size" in config:
        facts["hidden"] = config["intermediate_size"]
    if config.get("use_swiglu_ffn"):
        facts["mlp"] = "swiglu"
    elif "hidden_act" in config:
        facts["mlp"] = _HF_ACTIVATIONS.get(config["hidden_act"], config["hidden_act"])
    facts |= {"final_norm": "tokens", "class_token": True}
    return Known(str(config.get("_name_or_path") or kind), facts, _processor(preprocessor))


def _processor(config: Any) -> Pictures | None:
    """Hugging Face's preprocessor_config.json, where it is there and says all of it."""
    if not isinstance(config, Mapping) or not {"image_mean", "image_std", "size"} <= set(config):
        return None
    size = config["size"]
    interpolation = _RESAMPLE.get(config.get("resample", 3), "bicubic")
    mean, std = tuple(config["image_mean"]), tuple(config["image_std"])
    square = isinstance(size, Mapping) and "height" in size
    short = size if isinstance(size, int) else size["height"] if square else size.get("shortest_edge", 0)
    crop = config.get("crop_size") if config.get("do_center_crop") else None
    side = crop.get("height") if isinstance(crop, Mapping) else crop
    share = side / short if side and short else 1.0
    return Pictures("stated", side or short, share, interpolation, squash=square and not side, mean=mean, std=std)  # type: ignore[arg-type]


def _timm(config: Mapping[str, Any]) -> Known:
    stated = config.get("pretrained_cfg") or {}
    tag = stated.get("tag") or ""
    name = str(config["architecture"]) + (f".{tag}" if tag else "")
    base = known_timm(name)
    if base is None:
        raise WeightsRefused(f"config.json: architecture '{name}' is not one of timm's transformers that can be read.")
    arguments = config.get("model_args") or {}
    bad = [a for a in arguments if a not in _TIMM_ARGUMENTS and a not in _TIMM_HARMLESS]
    if bad:
        raise WeightsRefused(f"config.json: model_args {', '.join(bad)}: their meaning for the weights is not known.")
    facts = {**base.facts, **{_TIMM_ARGUMENTS[a]: v for a, v in arguments.items() if a in _TIMM_ARGUMENTS}}
    if "img_size" in arguments or "patch_size" in arguments:
        facts["image_size"] = facts["image_size"] // facts["patch"] * facts["patch"]
    pictures = base.pictures
    if {"mean", "std", "input_size"} <= set(stated):
        pictures = Pictures(
            "stated",
            stated["input_size"][-1],
            stated.get("crop_pct") or 1.0,
            "bilinear" if stated.get("interpolation") == "bilinear" else "bicubic",
            squash=stated.get("crop_mode") == "squash",
            mean=tuple(stated["mean"]),
            std=tuple(stated["std"]),
        )
    return Known(name, facts, pictures, licence=stated.get("license") or base.licence, url=base.url)


def _dino(args: Mapping[str, Any], channels: int) -> Known:
    arch = str(args["arch"])
    if arch not in _DINO_ARCHITECTURES:
        raise WeightsRefused(f"args: arch '{arch}' cannot be read; {', '.join(_DINO_ARCHITECTURES)} can.")
    size = _DINO_ARCHITECTURES[arch]
    facts = {**known("dino_vits16").facts, **dict(zip(("dim", "depth", "heads", "hidden"), WIDTHS[size], strict=True))}
    del facts["patch"], facts["image_size"], facts["channels"]
    if isinstance(args.get("patch_size"), int):
        facts["patch"] = args["patch_size"]
    return Known(f"{arch} of the arguments", facts, Pictures("imagenet", 224, 0.875) if channels == 3 else None)
