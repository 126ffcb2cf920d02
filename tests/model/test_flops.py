"""The FLOP model against published-style anchors, and parameter counts against known models."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from protloc_jax.model import flops
from protloc_jax.model.config import VitConfig
from protloc_jax.model.heads import DinoHead
from protloc_jax.model.vit import Vit


# DINO step with 2 x 224 and 8 x 96 pixel crops, 65,536 prototypes. Patch 14 divides neither; it uses 98 pixel locals.
@pytest.mark.parametrize(
    ("size", "patch", "local", "giga"),
    [
        ("S", 16, 96, 114),
        ("S", 14, 98, 152),
        ("S", 8, 96, 518),
        ("B", 16, 96, 436),
        ("B", 8, 96, 1863),
        ("L", 16, 96, 1527),
        ("L", 14, 98, 2030),
    ],
)
def test_dino_step(size, patch, local, giga):
    config = VitConfig(size=size, patch=patch)
    got = flops.dino_step_flops(config, global_crops=flops.Crops(2, 224), local_crops=flops.Crops(8, local))
    assert round(got / 1e9) == giga


@pytest.mark.parametrize(("size", "giga"), [("S", 27.6), ("B", 105.4)])
def test_supervised_step(size, giga):
    assert round(flops.supervised_step_flops(VitConfig(size=size)) / 1e9, 1) == giga


def test_a_dropped_patch_remainder_costs_nothing():
    config = VitConfig(size="S", patch=14)
    assert flops.vit_flops(config, 96) == flops.vit_flops(config, 84)


# timm 1.0 `vit_{tiny,small,base,large}_patch16_224` without classifier.
@pytest.mark.parametrize(
    ("size", "parameters"), [("Ti", 5_524_416), ("S", 21_665_664), ("B", 85_798_656), ("L", 303_301_632)]
)
def test_parameter_counts(size, parameters):
    assert flops.count_parameters(flops.parameter_shapes(VitConfig(size=size))) == parameters


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("vit_huge_patch14_224", {"size": "H", "patch": 14}),
        (
            "vit_giant_patch14_dinov2",
            {"size": "g", "patch": 14, "mlp": "swiglu", "image_size": 518, "layerscale": 1e-5},
        ),
    ],
)
@pytest.mark.torch
def test_parameter_counts_of_the_largest_sizes_are_those_of_timm(timm, name, config):
    import torch

    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
    shapes = flops.parameter_shapes(VitConfig(**config))
    assert flops.count_parameters(shapes) == sum(p.numel() for p in model.parameters())


def test_parameter_counts_of_the_largest_sizes():
    """ViT-H/14: the published 632 M with a classifier of 1000 classes. ViT-g/14: timm's 1.136 B, by hand."""
    huge = flops.count_parameters(flops.parameter_shapes(VitConfig(size="H", patch=14)))
    assert huge + 1000 * 1280 + 1000 == 632_045_800
    giant = VitConfig(size="g", patch=14, mlp="swiglu", image_size=518, layerscale=1e-5)
    block = 4 * 1536**2 + 4 * 1536 + 3 * 1536 * 4096 + 2 * 4096 + 1536 + 6 * 1536
    around = (14 * 14 * 3 + 1) * 1536 + (1 + 1 + 37**2) * 1536 + 2 * 1536
    assert flops.count_parameters(flops.parameter_shapes(giant)) == 40 * block + around == 1_136_479_232


def test_a_gated_block_costs_what_its_products_do():
    """The compiler counts three maps of 4096 numbers in a block of ViT-g, not two of 6144 or of 8192."""
    config = VitConfig(size="custom", dim=192, depth=1, heads=2, mlp="swiglu", scan=False)
    shapes = {"params": flops.parameter_shapes(config)}
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    lowered = jax.jit(lambda p, x: Vit(config).apply(p, x).cls).lower(shapes, images)
    assert 1.0 < (lowered.cost_analysis() or {})["flops"] / flops.vit_flops(config, 224) < 1.15


def test_head_parameter_count():
    shapes = flops.head_parameter_shapes(DinoHead(65536), 384)
    widths = [384 * 2048 + 2048, 2048 * 2048 + 2048, 2048 * 256 + 256, 256 * 65536 + 65536]
    assert flops.count_parameters(shapes) == sum(widths)


def test_compiler_counts_the_same_operations():
    config = VitConfig(size="custom", dim=64, depth=2, heads=4, channels=4, scan=False)
    shapes = {"params": flops.parameter_shapes(config)}
    images = jax.ShapeDtypeStruct((1, 224, 224, 4), jnp.float32)
    lowered = jax.jit(lambda p, x: Vit(config).apply(p, x).cls).lower(shapes, images)
    counted = (lowered.cost_analysis() or {})["flops"]
    # The compiler also counts norms, softmax and GELU; at this small width they are a good part.
    assert 1.0 < counted / flops.vit_flops(config, 224) < 1.35


def test_activation_estimate_is_within_a_factor_of_two():
    used = []
    for remat in ("block", "selective", "none"):
        config = VitConfig(size="custom", dim=64, depth=6, heads=2, channels=2, remat=remat)
        shapes = {"params": flops.parameter_shapes(config)}
        images = jax.ShapeDtypeStruct((4, 224, 224, 2), jnp.float32)
        apply = Vit(config).apply
        gradient = jax.grad(lambda p, x, apply=apply: apply(p, x).cls.sum())
        memory = jax.jit(gradient).lower(shapes, images).compile().memory_analysis()
        if memory is None:
            pytest.skip("this backend does not report memory")
        used.append(memory.temp_size_in_bytes)
        estimate = flops.activation_bytes(config, flops.Crops(1, 224), 4)
        assert 0.5 < used[-1] / estimate < 2.0, (remat, used[-1], estimate)
    assert used[0] < used[1] < 0.5 * used[2], used


def test_half_precision_halves_the_estimate():
    config = VitConfig(size="S")
    half = dataclasses.replace(config, dtype="bfloat16")
    crops = flops.Crops(2, 224)
    assert flops.activation_bytes(half, crops, 8) * 2 == flops.activation_bytes(config, crops, 8)
