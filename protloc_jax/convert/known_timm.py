"""timm's plain vision transformers by name: `vit_{size}_patch{p}...`, `deit...`, and the tags of their weights.

Everything here is compared, for every such name that timm has, with the model that timm makes and the settings that
timm carries (tests/convert/test_known_models.py).
"""

from __future__ import annotations

import re
from typing import Any

from protloc_jax.convert.known import Known, Pictures
from protloc_jax.convert.known_timm_tags import licence, pictures
from protloc_jax.convert.weight_file import WeightsRefused

# Token width, blocks, heads, numbers between the MLP's maps.
WIDTHS: dict[str, tuple[int, int, int, int]] = {
    "tiny": (192, 12, 3, 768),
    "wee": (256, 14, 4, 1280),
    "xsmall": (256, 10, 4, 1024),
    "little": (320, 14, 5, 1792),
    "small": (384, 12, 6, 1536),
    "medium": (512, 12, 8, 2048),
    "mediumd": (512, 20, 8, 2048),
    "betwixt": (640, 12, 10, 2560),
    "base": (768, 12, 12, 3072),
    "so150m": (896, 18, 14, 2304),
    "so150m2": (832, 21, 13, 2176),
    "large": (1024, 24, 16, 4096),
    "so400m": (1152, 27, 16, 4304),
    "huge": (1280, 32, 16, 5120),
    "giant": (1408, 40, 16, 6144),
    "giantopt": (1536, 40, 16, 6144),
    "gigantic": (1664, 48, 16, 8192),
}
_GIANT_OF_DINOV2 = (1536, 40, 24, 4096)
_PLUS = (896, 12, 14, 3584)
# Words of names whose models do more, or otherwise, than this project's transformer.
REFUSED = {
    "map": "attention pooling",
    "xp": "parallel blocks with normed queries and keys",
    "rpn": "post-norm blocks with relative positions",
    "18x2": "parallel blocks",
    "radio": "several class tokens and another way of resizing positions",
    "relpos": "relative positions",
    "rope": "rotary positions",
    "ropei": "rotary positions",
    "distilled": "a distillation token",
    "intern300m": "no final norm beside a class token",
    "dwee": "differential attention",
    "dlittle": "differential attention",
    "pwee": "parallel blocks",
    "dpwee": "parallel blocks with differential attention",
    "siglip": "attention pooling (its `siglip_gap` form can be read)",
}
# Variants of SigLIP that timm runs with the tanh form of GELU.
_TANH = re.compile(
    r"vit_(base_patch32|giantopt_patch16|so400m_patch16)_siglip_gap_\d+|vit_large_patch16_siglip_gap_512"
)


def known_timm(name: str) -> Known | None:
    """What a timm name says, tag included or not; None for other names. Refuses names that cannot be represented."""
    model, _, tag = name.removeprefix("timm/").partition(".")
    words = model.split("_")
    family, words = words[0], words[1:]
    if family == "flexivit" and len(words) == 1 and words[0] in ("small", "base", "large"):
        facts = {**_facts(WIDTHS[words[0]], 16, 240), "position_prefix": "none"}
        return Known(name, facts, Pictures("half", 240, 0.95), "", "apache-2.0", _url(name), "timm")
    if family not in ("vit", "deit", "deit3", "eva") or len(words) < 2:
        return None
    bad = [w for w in words if w in REFUSED and not (w == "siglip" and "gap" in words)]
    if bad:
        why = ", ".join(f"'{w}': {REFUSED[w]}" for w in bad)
        raise WeightsRefused(f"model '{name}' cannot be represented ({why}).")
    size, patch, rest = words[0], re.fullmatch(r"patch(\d+)", words[1]), words[2:]
    registers = next((int(w[3:]) for w in rest if re.fullmatch(r"reg\d+", w)), 0)
    images = [int(w) for w in rest if w.isdecimal()]
    others = {w for w in rest if not w.isdecimal() and not re.fullmatch(r"reg\d+", w)}
    vocabulary = {"gap", "plus", "clip", "quickgelu", "siglip", "dinov2", "tipsv2", "miil", "36x1"}
    if size not in WIDTHS or patch is None or len(images) > 1 or others - vocabulary:
        return None
    image = images[0] if images else 518 if "dinov2" in others else 448 if "tipsv2" in others else 0
    if not image:
        return None

    widths = WIDTHS[size]
    giant = size == "giant" and others & {"dinov2", "tipsv2"}
    if "plus" in others:
        widths = _PLUS
    elif giant:
        widths = _GIANT_OF_DINOV2
    elif model == "vit_base_patch16_gap_224":
        widths = (768, 12, 16, 3072)
    elif "36x1" in others:
        widths = (widths[0], 36, *widths[2:])
    facts = _facts(widths, int(patch[1]), image)
    gap, clip = "gap" in others, "clip" in others
    sbb = gap and size in ("wee", "little", "medium", "mediumd", "betwixt")
    facts |= {
        "registers": registers,
        "class_token": not gap,
        "mlp": "swiglu" if giant else "quick_gelu" if "quickgelu" in others else "gelu",
        "pre_norm": clip,
        "stem_bias": not clip,
        "norm_eps": 1e-5 if clip else 1e-6,
        "qkv_bias": not (
            "miil" in others or size == "so150m2" or (sbb and size in ("medium", "betwixt") and not registers)
        ),
        "layerscale": bool(
            family == "deit3"
            or others & {"dinov2", "tipsv2", "36x1"}
            or ("plus" in others and not clip)
            or size == "so150m2"
            or sbb
        ),
        "final_norm": "pooled" if family == "eva" or (gap and registers and size != "so150m") else "tokens",
        "position_prefix": "cls",
    }
    if gap and registers and size in ("so150m", "so150m2"):
        facts["position_prefix"] = "all"
    elif gap or registers or family == "deit3":
        facts["position_prefix"] = "none"
    if _TANH.fullmatch(model):
        facts["mlp"] = "gelu_tanh"
    return Known(name, facts, pictures(model, tag, image), licence=licence(model, tag), url=_url(name))


def _facts(widths: tuple[int, int, int, int], patch: int, image: int) -> dict[str, Any]:
    dim, depth, heads, hidden = widths
    return {
        "dim": dim,
        "depth": depth,
        "heads": heads,
        "hidden": hidden,
        "patch": patch,
        "image_size": image // patch * patch,
        "channels": 3,
        "registers": 0,
        "class_token": True,
        "position_prefix": "cls",
        "mlp": "gelu",
        "pre_norm": False,
        "stem_bias": True,
        "norm_eps": 1e-6,
        "qkv_bias": True,
        "layerscale": False,
        "final_norm": "tokens",
        "position": "timm",
    }


def _url(name: str) -> str:
    return f"https://huggingface.co/timm/{name.removeprefix('timm/')}"
