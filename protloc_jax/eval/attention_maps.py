"""Where the class token looks: maps of the last block's attention, brought to image size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from scipy.ndimage import zoom

from protloc_jax.config import nearest
from protloc_jax.model.encoder import Encoder

Enlarge = Literal["nearest", "bilinear"]


class AttentionMaps(NamedTuple):
    """maps [B, heads, h, w] attention of CLS to each patch; mean [B, h, w] over heads; both as the model gave them."""

    maps: np.ndarray
    mean: np.ndarray


def attention_maps(
    encoder: Encoder, images: np.ndarray, *, pass_number: int = 0, cell_lines: np.ndarray | None = None
) -> AttentionMaps:
    """Attention of images [B, H, W, C] in one pass of the encoder's channel plan; `cell_lines` as for `Encoder`."""
    maps = encoder.attention(images, cell_lines=cell_lines)[:, pass_number].astype(np.float32)
    return AttentionMaps(maps, maps.mean(axis=1))


def enlarged(attention: np.ndarray, shape: Sequence[int], enlarge: Enlarge = "nearest") -> np.ndarray:
    """A map [h, w] at the size [H, W]: a patch as a block of pixels ("nearest"), or smoothed between patch centres.

    Raises ValueError for another word, or a size that is smaller than the map.
    """
    if enlarge not in get_args(Enlarge):
        words = get_args(Enlarge)
        raise ValueError(f"enlarge='{enlarge}': not one of {', '.join(words)}.{nearest(str(enlarge), words)}")
    if any(side < small for side, small in zip(shape, attention.shape, strict=True)):
        raise ValueError(f"a map of {attention.shape} patches cannot be enlarged to {tuple(shape)} pixels.")
    if enlarge == "nearest":
        places = [np.arange(side) * small // side for side, small in zip(shape, attention.shape, strict=True)]
        return attention[np.ix_(*places)]
    scale = [side / small for side, small in zip(shape, attention.shape, strict=True)]
    return np.asarray(zoom(attention, scale, order=1, mode="nearest", grid_mode=True))


def levels(attention: np.ndarray, high: float = 100.0) -> np.ndarray:
    """A map between its least value (0) and its percentile `high` (1), for display; a constant map is 0."""
    bottom, top = float(attention.min()), float(np.percentile(attention, high))
    if not top > bottom:
        return np.zeros_like(attention)
    return np.clip((attention - bottom) / (top - bottom), 0, 1)


def coloured(level: np.ndarray) -> np.ndarray:
    """Levels [H, W] in [0, 1] in viridis, [H, W, 3]."""
    import matplotlib

    return matplotlib.colormaps["viridis"](level)[..., :3]


def overlay(image: np.ndarray, attention: np.ndarray, *, enlarge: Enlarge = "bilinear") -> np.ndarray:
    """A map [h, w] brought to the size of a grey image [H, W] in [0, 1] and blended over it in viridis: [H, W, 3].

    The map is scaled to its own range, so overlays compare places within an image and not strengths between images.
    """
    return np.clip(0.45 * image[..., None] + 0.55 * coloured(levels(enlarged(attention, image.shape, enlarge))), 0, 1)


def stretched(channel: np.ndarray, low: float = 1.0, high: float = 99.7) -> np.ndarray:
    """A channel [H, W] of any depth as grey levels in [0, 1] between two percentiles, for display only."""
    bottom, top = np.percentile(channel, (low, high))
    return np.clip((channel.astype(np.float32) - bottom) / max(float(top - bottom), 1e-6), 0, 1)


def seen(shape: Sequence[int], encoder: Encoder) -> tuple[slice, slice]:
    """Rows and columns of an image [H, W] that reach an encoder's patches, after its resize and centre crop."""
    how, patch = encoder.prepare, encoder.config.patch
    scale = how.resize / min(shape) if how.resize else 1.0
    parts = []
    for side in shape:
        inside = round(side * scale)
        kept = how.crop or inside
        start = (inside - kept + 1) // 2
        stop = start + kept // patch * patch
        parts.append(slice(round(start / scale), min(side, round(stop / scale))))
    return parts[0], parts[1]
