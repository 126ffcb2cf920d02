"""What timm states for each tag of its weights: preprocessing and licence, by patterns of `model.tag`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, TypeVar

from protloc_jax.convert.known import Pictures

T = TypeVar("T")

# The tag that timm takes where only the model is named, for models that patterns would judge wrongly without it.
FIRST_TAGS: dict[str, str] = {
    "vit_small_patch8_224": "dino",
    "vit_huge_patch14_gap_224": "in1k_ijepa",
    "vit_huge_patch16_gap_448": "in1k_ijepa",
    "vit_giant_patch16_gap_224": "in22k_ijepa",
    "vit_base_patch16_clip_224": "laion2b_ft_in12k_in1k",
    "vit_base_patch32_clip_224": "laion2b_ft_in12k_in1k",
    "vit_base_patch32_clip_quickgelu_224": "laion400m_e32",
    "vit_large_patch14_clip_224": "laion2b_ft_in12k_in1k",
    "vit_large_patch14_clip_336": "laion2b_ft_in12k_in1k",
    "vit_xsmall_patch16_clip_224": "tinyclip_yfcc15m",
    "vit_medium_patch16_clip_224": "tinyclip_yfcc15m",
    "vit_medium_patch32_clip_224": "tinyclip_laion400m",
    "vit_betwixt_patch32_clip_224": "tinyclip_laion400m",
}
# In all tables the first pattern that fits counts.
_COLOURS: tuple[tuple[str, Literal["imagenet", "half", "clip", "none"]], ...] = (
    (r".*_(miil|tipsv2)\..*", "none"),
    (r"vit_large_patch14_clip_\d+\.laion2b.*", "half"),
    (r".*_clip_.*|eva_.*|.*\.bamboo", "clip"),
    (r"deit.*|.*_dinov2\..*|.*\.(dino|mae|.*ijepa)", "imagenet"),
    (r".*", "half"),
)
_CROPS: tuple[tuple[str, float], ...] = (
    (r".*_224_miil\..*", 0.875),
    (r"vit_base_patch16_clip_224\.(laion2b|openai)_ft_in12k_in1k", 0.95),
    (r"vit_base_patch(16|32)_clip_384\.openai_ft_in12k_in1k", 0.95),
    (r"vit_base_patch16_clip(_quickgelu)?_224\.(openai(_ft_in1k|_ft_in12k)?|laion2b_ft_in12k)", 0.9),
    (r"vit_base_patch32_clip(_quickgelu)?_224\.(openai|laion).*|.*\.tinyclip.*", 0.9),
    (r".*_clip_.*|eva_.*|.*_(dinov2|tipsv2)\..*|.*\.bamboo", 1.0),
    (r"vit_so400m_patch14_siglip_gap_((384|448|896)\..*|378\.webli.*)", 1.0),
    (r".*_siglip_.*", 0.9),
    (r"vit_so150m2_.*", 1.0),
    (r"vit_(?!base).*_gap_(240|256)\..*|vit_medium_patch16_gap_384\..*|.*_plus_\d+\..*", 0.95),
    (r".*_(384|448)\..*|deit3_.*\.fb_in22k_ft_in1k", 1.0),
    (r".*", 0.9),
)
_SQUASHED = (
    (r"vit_base_patch16_clip_384\..*|vit_base_patch32_clip_384\.openai.*|vit_huge_patch14_clip_336\..*", True),
    (r"vit_gigantic_patch14_clip_378\..*|vit_huge_patch14_clip_378\.metaclip2.*", True),
    (r"vit_large_patch14_clip_336\.(laion2b|openai_ft).*|eva_large_patch14_336\..*", True),
    (r"vit_medium_patch16_gap_384\..*|vit_so150m2_patch16_reg1_gap_448\..*", True),
    (r"vit_so400m_patch14_siglip_gap_378\.webli_ft_in1k", True),
    (r".*", False),
)
_LICENCES = (
    (r".*\.(mae|.*ijepa|metaclip.*)", "cc-by-nc-4.0"),
    (r".*\.dfn.*", "apple-ascl"),
    (r".*\.apple_mclip2.*", "apple-amlr"),
    (r"eva_.*|.*\.(laion400m.*|tinyclip.*)", "mit"),
    (r".*\.bamboo", "unknown"),
    (r".*\..+", "apache-2.0"),
    (r".*", "unknown"),
)


def licence(model: str, tag: str) -> str:
    """The licence that timm states for the weights of a tag; unknown without a tag."""
    return _first(_LICENCES, f"{model}.{tag}" if tag else model)


def pictures(model: str, tag: str, image: int) -> Pictures:
    """The preprocessing that timm states for a model's weights."""
    name = f"{model}.{tag or FIRST_TAGS.get(model, '')}"
    return Pictures(
        _first(_COLOURS, name),
        image,
        _first(_CROPS, name),
        "bilinear" if "miil" in model else "bicubic",
        squash=_first(_SQUASHED, name),
    )


def _first(table: Sequence[tuple[str, T]], name: str) -> T:
    return next(value for pattern, value in table if re.fullmatch(pattern, name))
