"""Models known by name: facebookresearch/dino and dinov2, DINO4Cells, Hugging Face, AugReg and big_vision, timm.

Patterns of names, each with what it says. What a name says is compared with the tensors and refused where they differ.
"""

from __future__ import annotations

import re
from typing import Any

from protloc_jax.config import nearest
from protloc_jax.convert.known import Known, Pictures
from protloc_jax.convert.known_timm import WIDTHS, known_timm
from protloc_jax.convert.weight_file import WeightsRefused

_LETTERS = {"ti": "tiny", "t": "tiny", "s": "small", "b": "base", "l": "large", "h": "huge", "g": "giant"}
_PLAIN: dict[str, Any] = {
    "registers": 0,
    "class_token": True,
    "position_prefix": "cls",
    "mlp": "gelu",
    "norm_eps": 1e-6,
    "pre_norm": False,
    "stem_bias": True,
    "qkv_bias": True,
    "layerscale": False,
    "final_norm": "tokens",
    "channels": 3,
}
_DINO_EVAL = Pictures("imagenet", 224, 0.875)
_HPA = "microtubules,protein,nucleus,er"
_PAINTING = "dna:nucleus,rna:rna,er:er,agp:actin,mito:mitochondria"
# DINO4Cells' checkpoints by what they were trained on: size, patch, side of the table, channels, Zenodo record.
_DINO4CELLS = {
    "dino4cells_hpa_fov": ("base", 8, 224, _HPA, 8061392),
    "dino4cells_hpa_sc": ("base", 16, 224, _HPA, 8061426),
    "dino4cells_cell_painting": ("base", 16, 128, _PAINTING, 8061428),
    "dino4cells_cell_painting_small": ("small", 16, 128, _PAINTING, 8061428),
}
# Names to suggest where one is not known or something about a file is not.
EXAMPLES = (
    *(f"vit_{s}_patch{p}_{i}" for s in ("tiny", "small", "base", "large") for p in (8, 14, 16, 32) for i in (224, 384)),
    *(f"vit_{s}_patch16_224.dino" for s in ("small", "base")),
    *(f"vit_{s}_patch8_224.dino" for s in ("small", "base")),
    *(f"vit_{s}_patch14_{r}dinov2" for s in ("small", "base", "large", "giant") for r in ("", "reg4_")),
    *(f"vit_base_patch{p}_clip_{q}224" for p in (16, 32) for q in ("", "quickgelu_")),
    *(f"vit_large_patch14_clip_{q}224" for q in ("", "quickgelu_")),
    *(f"deit_{s}_patch16_224" for s in ("tiny", "small", "base")),
    *(f"deit3_{s}_patch16_224" for s in ("small", "medium", "base", "large")),
    *(f"dino_vit{s}{p}" for s in "sb" for p in (16, 8)),
    *(f"dinov2_vit{s}14{r}" for s in "sblg" for r in ("", "_reg")),
    *_DINO4CELLS,
    "google/vit-base-patch16-224",
    "google/vit-base-patch16-224-in21k",
    "google/vit-large-patch16-224",
    "facebook/dino-vits16",
    "facebook/dino-vitb16",
    *(f"facebook/dinov2-{s}" for s in ("small", "base", "large", "giant")),
    *(f"facebook/dinov2-with-registers-{s}" for s in ("small", "base", "large", "giant")),
    *(f"{s}_{p}-i21k" for s in ("Ti", "S", "B", "L") for p in (16, 32)),
)


def known(name: str) -> Known:
    """What the name of a model says. Raises WeightsRefused for a name that is not known, with the nearest one."""
    for reader in (_facebook, _dino4cells, _hugging_face, known_timm, _flax):
        if (found := reader(name)) is not None:
            return found
    raise WeightsRefused(
        f"model '{name}' is not known.{nearest(name, EXAMPLES)} Known are timm's vit, deit and deit3 names, "
        "dino_vit{s,b}{8,16}, dinov2_vit{s,b,l,g}14[_reg], dino4cells_*, google/vit-*, facebook/dino*, and AugReg's "
        "file names (B_16-i21k-...). Without a name, give heads, norm_eps, mlp, position and the normalisation."
    )


def _widths(size: str, *, swiglu: bool = False) -> dict[str, Any]:
    dim, depth, heads, hidden = (1536, 40, 24, 4096) if swiglu else WIDTHS[size]
    return {"dim": dim, "depth": depth, "heads": heads, "hidden": hidden}


def _dinov2(size: str, registers: bool) -> dict[str, Any]:
    giant = size == "giant"
    return {
        **_PLAIN,
        **_widths(size, swiglu=giant),
        "patch": 14,
        "image_size": 518,
        "registers": 4 if registers else 0,
        "mlp": "swiglu" if giant else "gelu",
        "layerscale": True,
    }


def _facebook(name: str) -> Known | None:
    """Names of torch.hub and of the released files."""
    stem = r"dino_(?:vit|deit)(s|b|small|base)(8|16)(?:_pretrain(?:_full_checkpoint)?)?"
    if found := re.fullmatch(stem, name):
        facts = {**_PLAIN, **_widths({"s": "small", "b": "base"}[found[1][0]]), "patch": int(found[2])}
        facts |= {"image_size": 224, "position": "dino"}
        return Known(name, facts, _DINO_EVAL, "", "apache-2.0", "https://github.com/facebookresearch/dino", "dino")
    if found := re.fullmatch(r"dinov2_vit([sblg])14(_reg)?(?:4)?(?:_pretrain)?", name):
        facts = _dinov2(_LETTERS[found[1]], bool(found[2]))
        facts["position"] = "dinov2_registers" if found[2] else "dino"
        return Known(name, facts, _DINO_EVAL, "", "apache-2.0", "https://github.com/facebookresearch/dinov2", "dinov2")
    return None


def _dino4cells(name: str) -> Known | None:
    if name not in _DINO4CELLS:
        return None
    size, patch, image, channels, record = _DINO4CELLS[name]
    facts = {**_PLAIN, **_widths(size), "patch": patch, "image_size": image, "position": "dino"}
    facts["channels"] = channels.count(",") + 1
    return Known(name, facts, Pictures("self"), channels, "unknown", f"https://zenodo.org/records/{record}", "dino")


def _hugging_face(name: str) -> Known | None:
    url = f"https://huggingface.co/{name}"
    if found := re.fullmatch(r"google/vit-(base|large|huge)-patch(\d+)-(\d+)(-in21k)?", name):
        image, patch = int(found[3]), int(found[2])
        facts = {
            **_PLAIN,
            **_widths(found[1]),
            "patch": patch,
            "image_size": image,
            "norm_eps": 1e-12,
            "position": "hf",
        }
        pictures = Pictures("half", image, 1.0, "bilinear", squash=True)
        return Known(name, facts, pictures, "", "apache-2.0", url, "hf_vit")
    if found := re.fullmatch(r"facebook/dino-vit([sb])(8|16)", name):
        facts = {**_PLAIN, **_widths(_LETTERS[found[1]]), "patch": int(found[2])}
        facts |= {"image_size": 224, "norm_eps": 1e-12, "position": "hf"}
        pictures = Pictures("imagenet", 224, 1.0, "bilinear", squash=True)
        return Known(name, facts, pictures, "", "apache-2.0", url, "hf_vit")
    if found := re.fullmatch(r"facebook/dinov2-(with-registers-)?(small|base|large|giant)", name):
        facts = _dinov2(found[2], bool(found[1]))
        facts["position"] = "dinov2_registers" if found[1] else "hf"
        layout = "hf_dinov2_with_registers" if found[1] else "hf_dinov2"
        return Known(name, facts, _DINO_EVAL, "", "apache-2.0", url, layout)
    return None


def _flax(name: str) -> Known | None:
    """File stems of google-research/vision_transformer: B_16-i21k-300ep-...-res_224, imagenet21k_ViT-B_16."""
    found = re.fullmatch(r"(imagenet21k(?:\+imagenet2012)?_)?(?:ViT-)?(Ti|S|B|L|H)_(\d+)(?:[-_.].*)?", name)
    if found is None:
        return None
    patch, fine_tuned = int(found[3]), re.search(r"res_(\d+)", name)
    facts = {
        **_PLAIN,
        **_widths(_LETTERS[found[2].lower()]),
        "patch": patch,
        "mlp": "gelu_tanh",
        "position": "jax_zoom",
    }
    image = int(fine_tuned[1]) if fine_tuned else 384 if "+" in (found[1] or "") else 224
    pictures = None
    if found[1] or "ViT-" not in name:  # a bare ViT-B_16 does not say which of its two resolutions it is
        facts["image_size"] = image // patch * patch
        pictures = Pictures("half", image, 1.0, "bilinear", squash=True)
    url = "https://github.com/google-research/vision_transformer"
    return Known(name, facts, pictures, "", "apache-2.0", url, "flax_vit")
