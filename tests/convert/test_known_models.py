"""Names against the models that timm makes (without memory) and the settings that timm carries, over all its names."""

from __future__ import annotations

import pytest

from protloc_jax.convert.known import COLOUR, Known
from protloc_jax.convert.known_models import EXAMPLES, known
from protloc_jax.convert.known_timm import known_timm
from protloc_jax.convert.weight_file import WeightsRefused

ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu", "SiLU": "swiglu"}
# Architectures of timm's two files that are of another family, and are not known by name.
OTHERS = ("aimv2_", "beit3_", "test_vit")


def architectures(timm):
    return [name for module in ("vision_transformer", "deit") for name in timm.list_models(module=module)]


def reading(name) -> Known | None:
    try:
        return known_timm(name)
    except WeightsRefused:
        return None


def facts_of(model):
    """What a timm model is, in the words of this project's configuration."""
    keys = set(model.state_dict())
    block = model.blocks[0]
    registers = model.num_prefix_tokens - int(model.has_class_token)
    rows = "none" if model.no_embed_class or not model.num_prefix_tokens else "all" if registers else "cls"
    norm = "pooled" if "fc_norm.weight" in keys else "tokens" if "norm.weight" in keys else "none"
    patch = model.patch_embed.patch_size[0]
    return {
        "dim": model.embed_dim,
        "depth": len(model.blocks),
        "heads": block.attn.num_heads,
        "hidden": block.mlp.fc2.in_features,
        "patch": patch,
        "channels": model.in_chans,
        "image_size": model.patch_embed.img_size[0] // patch * patch,
        "registers": registers,
        "class_token": model.has_class_token,
        "position_prefix": rows,
        "mlp": ACTIVATIONS[type(block.mlp.act).__name__],
        "pre_norm": "norm_pre.weight" in keys,
        "stem_bias": "patch_embed.proj.bias" in keys,
        "norm_eps": block.norm1.eps,
        "qkv_bias": "blocks.0.attn.qkv.bias" in keys,
        "layerscale": "blocks.0.ls1.gamma" in keys,
        "final_norm": norm,
        "position": "timm",
    }


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_every_known_name_is_the_model_that_timm_makes(timm):
    import torch

    wrong, seen = {}, 0
    for name in architectures(timm):
        found = reading(name)
        if found is None:
            continue
        with torch.device("meta"):
            facts = facts_of(timm.create_model(name, pretrained=False, weight_init="skip"))
        seen += 1
        differing = {k: (found.facts.get(k), v) for k, v in facts.items() if found.facts.get(k) != v}
        if differing or set(found.facts) != set(facts):
            wrong[name] = differing
    assert not wrong
    assert seen >= 110


@pytest.mark.torch
def test_every_known_tag_has_timms_preprocessing_and_licence(timm):
    wrong, seen = {}, 0
    known_names = {name for name in architectures(timm) if reading(name) is not None}
    names = [n for n in timm.list_models(pretrained=True) if n.split(".")[0] in known_names] + sorted(known_names)
    for name in names:
        cfg, found = timm.get_pretrained_cfg(name), reading(name)
        if cfg is None:
            continue
        assert found is not None and found.pictures is not None
        how = found.pictures
        ours = (COLOUR[how.colour], how.size, how.crop, how.interpolation, how.squash)
        theirs = (
            (tuple(cfg.mean), tuple(cfg.std)),
            cfg.input_size[-1],
            cfg.crop_pct,
            cfg.interpolation,
            cfg.crop_mode == "squash",
        )
        if ours != theirs or ("." in name and found.licence != (cfg.license or "unknown")):
            wrong[name] = (ours, theirs, found.licence, cfg.license)
        seen += 1
    assert not wrong
    assert seen >= 300


@pytest.mark.torch
def test_every_name_is_known_or_refused_for_a_reason(timm):
    refused = 0
    for name in architectures(timm):
        if name.startswith(OTHERS):
            assert known_timm(name) is None
            continue
        if reading(name) is None:
            with pytest.raises(WeightsRefused, match=r"cannot be represented \('"):
                known_timm(name)
            refused += 1
    assert refused >= 30


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_base_patch16_siglip_224.webli", "attention pooling"),
        ("vit_base_patch16_xp_224", "parallel blocks"),
        ("vit_small_patch16_18x2_224", "parallel blocks"),
        ("vit_base_patch16_rpn_224", "relative positions"),
        ("vit_base_patch16_rope_224", "rotary positions"),
        ("deit_base_distilled_patch16_224", "distillation"),
        ("vit_huge_patch16_radio_v3", "class tokens"),
        ("vit_dpwee_patch16_reg1_gap_256", "differential attention"),
    ],
)
def test_names_that_cannot_be_represented(name, reason):
    with pytest.raises(WeightsRefused, match=reason):
        known(name)


@pytest.mark.parametrize("name", ["vit_bse_patch16_224", "resnet50", "dinov3_vits16", "facebook/dinov2-tiny"])
def test_unknown_names_are_refused(name):
    with pytest.raises(WeightsRefused, match=f"model '{name}' is not known"):
        known(name)
    if name == "vit_bse_patch16_224":
        with pytest.raises(WeightsRefused, match="Did you mean 'vit_base_patch16_224'"):
            known(name)


def test_published_facts_of_models_outside_timm():
    dino = known("dino_vitb8")
    assert (dino.facts["heads"], dino.facts["patch"], dino.facts["position"]) == (12, 8, "dino")
    assert known("dino_deitsmall16_pretrain").facts["dim"] == 384
    giant = known("dinov2_vitg14_reg").facts
    assert (giant["hidden"], giant["heads"], giant["mlp"], giant["registers"]) == (4096, 24, "swiglu", 4)
    assert giant["position"] == "dinov2_registers" and giant["position_prefix"] == "cls"
    fov = known("dino4cells_hpa_fov")
    assert fov.channels == "microtubules,protein,nucleus,er" and fov.facts["patch"] == 8
    assert fov.pictures is not None and fov.pictures.colour == "self" and fov.pictures.size == 0
    assert (fov.licence, fov.commercial) == ("unknown", "unknown")
    assert known("google/vit-base-patch16-224").facts["norm_eps"] == 1e-12
    augreg = known("B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.01-res_384")
    assert (augreg.facts["image_size"], augreg.facts["mlp"]) == (384, "gelu_tanh")
    assert known("vit_base_patch16_224.mae").commercial == "no"


def test_examples_are_known():
    assert len({known(name).name for name in EXAMPLES}) == len(EXAMPLES)
