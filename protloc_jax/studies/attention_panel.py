"""Attention of several encoders side by side: the same images, an encoder a row."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from protloc_jax.channels import ChannelSet
from protloc_jax.config import nearest
from protloc_jax.eval.attention_fields import FieldAttention, field_attention
from protloc_jax.eval.attention_maps import Enlarge, coloured, enlarged, levels, overlay, stretched
from protloc_jax.eval.attention_mask import kept_by_mass
from protloc_jax.model.encoder import Encoder
from protloc_jax.report import plots

Show = Literal["overlay", "map", "mask"]
HIGH = 98.0  # percentile of a map that is shown brightest, so that a few patches do not leave the others dark
DIM = 0.25  # how much of an image is seen outside what a mask keeps, or what an encoder sees
TINT = 0.3  # share of yellow over the patches that a mask keeps
_WRAP = 18


def panel(
    arms: Mapping[str, Encoder],
    images: np.ndarray,
    names: Sequence[str],
    *,
    channels: ChannelSet,
    channel: str,
    kind: str = "mean",
    show: Show = "overlay",
    share: float = 0.6,
    enlarge: Enlarge = "nearest",
    note: str = "",
) -> bytes:
    """A figure (PNG) of where several encoders look: images in columns; the channel itself, then an arm a row.

    arms      encoders by the name that stands before their row (DINO, compound, ...), in order
    images    raw [B, H, W, C] with the channels `channels`, of which every encoder takes its own; names: one an image
    channel   the channel that is shown; of each arm the first pass that reads it alone, or else reads it, is drawn
    kind      "mean" over heads, "head 1", "head 2", ..., or "rollout"
    show      "overlay" over the channel, the "map" alone, or the "mask" of the patches that hold `share` of it
    note      a remark in the figure itself, such as "synthetic"
    Raises ValueError for unknown words, and listing every arm that does not read the channel or lacks that kind of map.
    """
    if not arms:
        raise ValueError("attention panel: no arms to draw.")
    if len(names) != len(images):
        raise ValueError(f"attention panel: {len(images)} images and {len(names)} names.")
    grey = [stretched(image[..., channels.select([channel])[0]]) for image in images]
    rows, problems = [], []
    for arm, encoder in arms.items():
        own = images[..., list(channels.select(encoder.channels.names))]
        found = field_attention(encoder, own, names, rollout=kind == "rollout")
        number = reading_pass(found, channel)
        if number is None:
            problems.append(f"'{arm}' does not read {channel} (it reads {', '.join(found.passes)}).")
        elif kind not in found.named():
            problems.append(f"'{arm}' has no map '{kind}'.{nearest(kind, found.named())}")
        else:
            maps = found.named()[kind][:, number]
            rows.append(
                [picture(g, a, found, show=show, share=share, enlarge=enlarge) for g, a in zip(grey, maps, strict=True)]
            )
    if problems:
        raise ValueError(f"attention panel: {' '.join(problems)}")
    titles = [textwrap.fill(name, _WRAP, break_long_words=False) for name in names]
    return plots.image_grid(
        [grey, *rows], row_names=[channel, *arms], column_names=titles, cell=cell_for(images.shape[1:3]), note=note
    )


def picture(
    grey: np.ndarray,
    attention: np.ndarray,
    found: FieldAttention,
    *,
    show: Show = "overlay",
    share: float = 0.6,
    enlarge: Enlarge = "nearest",
) -> np.ndarray:
    """A map [h, w] of `found` on a whole grey image [H, W] in [0, 1], as `panel` says: [H, W, 3].

    What the encoder does not see (a cut edge, or around a centre crop) stays dim.
    """
    if show not in get_args(Show):
        raise ValueError(f"show='{show}': not one of {', '.join(get_args(Show))}.{nearest(str(show), get_args(Show))}")
    whole = np.repeat(DIM * grey[..., None], 3, axis=2)
    inside = grey[found.part]
    if show == "overlay":
        whole[found.part] = overlay(inside, clipped(attention), enlarge=enlarge)
    elif show == "map":
        whole[found.part] = coloured(levels(enlarged(clipped(attention), inside.shape, enlarge)))
    else:
        kept = enlarged(kept_by_mass(attention, share), inside.shape)
        # Tinted, or what is kept could not be told where the image is dark.
        tinted = (1 - TINT) * inside[..., None] + TINT * np.array([1.0, 0.72, 0.1])
        whole[found.part] = np.where(kept[..., None], tinted, whole[found.part])
    return whole


def clipped(attention: np.ndarray) -> np.ndarray:
    """A map with its brightest two per cent brought down to that percentile, for display only."""
    return np.minimum(attention, np.percentile(attention, HIGH))


def reading_pass(found: FieldAttention, channel: str) -> int | None:
    """The first pass that reads a channel and nothing else; failing that, the first that reads it; or None."""
    alone = [k for k, names in enumerate(found.reads) if names == (channel,)]
    among = [k for k, names in enumerate(found.reads) if channel in names]
    return next(iter([*alone, *among]), None)


def cell_for(shape: Sequence[int], columns: int = 4) -> float:
    """Side of a picture in inches so that wide images and few columns stay readable."""
    return 2.1 if columns <= 5 and max(shape) >= 128 else 1.5
