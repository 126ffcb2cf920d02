"""Sizes by name, and refusals that name every bad value."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from protloc_jax.config import ConfigError, from_json, to_json, with_overrides
from protloc_jax.model.config import VitConfig
from protloc_jax.model.vit import Vit


def test_sizes():
    assert VitConfig(size="Ti").shape == (192, 12, 3, 768)
    assert VitConfig(size="S").shape == (384, 12, 6, 1536)
    assert VitConfig(size="B").shape == (768, 12, 12, 3072)
    assert VitConfig(size="L").shape == (1024, 24, 16, 4096)
    assert VitConfig(size="H").shape == (1280, 32, 16, 5120)
    assert VitConfig(size="g").shape == (1536, 40, 24, 6144)
    assert VitConfig(size="custom", dim=64, depth=2, heads=4, mlp_ratio=2).shape == (64, 2, 4, 128)


def test_a_gated_mlp_is_two_thirds_as_wide_in_eights():
    """4096 is DINOv2's giant; 170 2/3 numbers become 176. A ratio that is given is taken as it is."""
    assert VitConfig(size="g", mlp="swiglu").shape.hidden == 4096
    assert VitConfig(size="custom", dim=64, depth=1, heads=1, mlp="swiglu").shape.hidden == 176
    assert VitConfig(size="custom", dim=64, depth=1, heads=1, mlp="swiglu", mlp_ratio=2).shape.hidden == 128


def test_a_width_given_overrides_the_size_and_survives_a_round_trip():
    config = VitConfig(size="S", depth=6, mlp_ratio=2.5)
    assert config.shape == (384, 6, 6, 960)
    assert from_json(VitConfig, to_json(config)) == config
    assert with_overrides(config, ["size=B"]).shape == (768, 6, 12, 1920)


def test_grids():
    config = VitConfig(patch=14, registers=4)
    assert config.table_grid == 16
    assert config.grid(96, 100) == (6, 7)
    assert config.prefix == 5


def test_bad_values_are_named_together():
    with pytest.raises(ValueError, match=r"patch=0.*\n.*channels=-1.*\n.*drop_path=1.0.*\n.*norm_eps=0"):
        VitConfig(patch=0, channels=-1, drop_path=1.0, norm_eps=0)
    with pytest.raises(ValueError, match="size='custom' needs dim, heads"):
        VitConfig(size="custom", depth=2)
    with pytest.raises(ValueError, match="dim=100 is not divisible by heads=6"):
        VitConfig(dim=100)
    with pytest.raises(ValueError, match="patch=16 is larger than image_size=8"):
        VitConfig(image_size=8)
    with pytest.raises(ConfigError, match="position=dinov3: not one of"):
        VitConfig(position="dinov3")


def test_fan_in_initialisation_scales_with_the_width():
    """Kernels start at 1/sqrt(inputs) with init="fan_in" and at 0.02 otherwise; the parameter tree is the same."""
    image = jnp.zeros((1, 16, 16, 2))
    for init, width in (("fan_in", 64**-0.5), ("trunc_normal", 0.02)):
        config = VitConfig(size="custom", dim=64, depth=2, heads=2, patch=8, channels=2, image_size=16, init=init)
        kernel = Vit(config).init(jax.random.key(0), image)["params"]["blocks"]["mlp"]["fc1"]["kernel"]
        assert float(kernel.std()) == pytest.approx(width, rel=0.05)
