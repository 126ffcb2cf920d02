"""Where the class token looks: maps of the last block's attention, brought to image size."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import zoom

from protloc_jax.model.encoder import Encoder


class AttentionMaps(NamedTuple):
    """maps [B, heads, h, w] attention of CLS to each patch; mean [B, h, w] over heads; both as the model gave them."""

    maps: np.ndarray
    mean: np.ndarray


def attention_maps(encoder: Encoder, images: np.ndarray, *, pass_number: int = 0) -> AttentionMaps:
    """Attention of images [B, H, W, C] in one pass of the encoder's channel plan."""
    maps = encoder.attention(images)[:, pass_number].astype(np.float32)
    return AttentionMaps(maps, maps.mean(axis=1))


def overlay(image: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """A map [h, w] brought to the size of a grey image [H, W] in [0, 1] and blended over it in viridis: [H, W, 3].

    The map is scaled to its own range, so overlays compare places within an image and not strengths between images.
    """
    import matplotlib

    scale = [side / small for side, small in zip(image.shape, attention.shape, strict=True)]
    large = np.asarray(zoom(attention, scale, order=1, mode="nearest", grid_mode=True))
    span = float(large.max() - large.min())
    level = (large - large.min()) / span if span > 0 else np.zeros_like(large)
    colour = matplotlib.colormaps["viridis"](level)[..., :3]
    return np.clip(0.45 * image[..., None] + 0.55 * colour, 0, 1)


def stretched(channel: np.ndarray, low: float = 1.0, high: float = 99.7) -> np.ndarray:
    """A channel [H, W] of any depth as grey levels in [0, 1] between two percentiles, for display only."""
    bottom, top = np.percentile(channel, (low, high))
    return np.clip((channel.astype(np.float32) - bottom) / max(float(top - bottom), 1e-6), 0, 1)
