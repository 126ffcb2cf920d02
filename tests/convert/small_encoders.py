"""Small encoders with random weights, and images for them."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from protloc_jax.channels import ChannelSet, parse
from protloc_jax.model.config import VitConfig
from protloc_jax.model.encoder import Encoder
from protloc_jax.model.flops import parameter_shapes
from protloc_jax.views.normalisation import Normalisation
from protloc_jax.views.prepare import PrepareConfig

CHANNELS = parse("nucleus,gfp:protein")
PLAIN = VitConfig(size="custom", dim=24, depth=2, heads=3, channels=2, patch=4, image_size=16)
SELF = PrepareConfig(Normalisation("self"), resize=16, crop=16)
DATASET = PrepareConfig(Normalisation("dataset", (0.2, 0.3), (0.15, 0.4)), resize=16, crop=16)
UNSCALED = PrepareConfig(Normalisation("none"), resize=16, crop=16)

# One of every switch that changes the arithmetic.
CONFIGS = {
    "plain": {},
    "registers and LayerScale": {"registers": 2, "layerscale": 0.1},
    "swiglu": {"mlp": "swiglu", "layerscale": 1e-5},
    "swiglu without LayerScale": {"mlp": "swiglu"},
    "clip": {"pre_norm": True, "mlp": "quick_gelu", "norm_eps": 1e-5, "stem_bias": False},
    "pooled norm": {"final_norm": "pooled", "mlp": "gelu_tanh"},
    "no class token": {"class_token": False, "qkv_bias": False},
    "no class token, registers": {"class_token": False, "registers": 2, "position_prefix": "none"},
    "no final norm": {"final_norm": "none", "position_prefix": "none"},
    "positions of all tokens": {"position_prefix": "all", "registers": 3},
    "no positions": {"position": "none", "stem_bias": False},
}


def encoder(
    prepare: PrepareConfig = SELF,
    *,
    channels: ChannelSet = CHANNELS,
    base: VitConfig = PLAIN,
    seed: int = 0,
    **switches,
) -> Encoder:
    """An encoder whose every parameter is random, so that each one matters."""
    config = dataclasses.replace(base, channels=len(channels), **switches)
    rng = np.random.default_rng(seed)
    shapes = parameter_shapes(config)
    params = jax.tree.map(lambda a: rng.normal(0.1, 0.3, a.shape).astype(np.float32), shapes)
    return Encoder(config, channels, params, prepare, um_per_pixel=0.108)


def images(names, size, *, batch: int = 2, dtype="uint8", seed: int = 1) -> dict[str, np.ndarray]:
    """{channel: pixels [batch, H, W]} over the whole range of the type."""
    rng = np.random.default_rng(seed)
    top = 1.0 if dtype == "float32" else np.iinfo(dtype).max
    return {name: (top * rng.random((batch, *size))).astype(dtype) for name in names}


def together(by_channel: dict[str, np.ndarray], channels: ChannelSet) -> np.ndarray:
    """[B, H, W, C] as the encoder takes them."""
    return np.stack([by_channel[name] for name in channels.names], axis=-1)


def apart(made, wanted) -> float:
    """Largest difference in standard deviations of what is wanted."""
    made, wanted = np.asarray(made, np.float64), np.asarray(wanted, np.float64)
    assert made.shape == wanted.shape
    return float(np.abs(made - wanted).max() / wanted.std())
