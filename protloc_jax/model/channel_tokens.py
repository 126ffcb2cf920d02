"""Tokens of every channel for itself (stem "channels"): their embedding, which of them are seen, and their mean.

The idea is ChannelViT's (Bao et al. 2024, arXiv:2309.16108): one patch projection for all channels, and a learned
vector that says which channel a token shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from protloc_jax.model.config import VitConfig

ChannelIds = Sequence[int] | jax.Array


def row_ids(config: VitConfig, channels: int, given: ChannelIds | None) -> jax.Array:
    """Vocabulary rows [C] of an image's channels; None = the first ones, in order. ValueError where they do not fit."""
    known = len(config.channel_names)
    if not known:
        raise ValueError("model.channel_names is empty, and stem='channels' has a row for each of its names.")
    if given is None:
        if channels > known:
            raise ValueError(
                f"images have {channels} channels and the vocabulary {known} rows; say which rows they are."
            )
        return jnp.arange(channels)
    ids = jnp.asarray(given)
    if ids.shape != (channels,):
        raise ValueError(f"{ids.size} channel ids for images of {channels} channels.")
    if not isinstance(given, jax.Array):
        beyond = [i for i in given if not 0 <= i < known]
        if beyond:
            raise ValueError(f"channel ids {beyond} are no rows of a vocabulary of {known}.")
    return ids


def channel_planes(images: jax.Array) -> jax.Array:
    """Images [..., H, W, C] as C grey images [..., C, H, W, 1]."""
    return jnp.moveaxis(images, -1, -3)[..., None]


def visible_tokens(present: jax.Array, places: int, prefix: int) -> jax.Array:
    """Which tokens [..., prefix + C * places] are seen, given which channels [..., C] are present."""
    before = jnp.ones((*present.shape[:-1], prefix), bool)
    return jnp.concatenate([before, jnp.repeat(present, places, axis=-1)], axis=-1)


def mean_of_channels(patches: jax.Array, channels: int, present: jax.Array | None) -> jax.Array:
    """Patch tokens [..., C * N, D] of all channels as the mean of the present ones at each place, [..., N, D]."""
    by_channel = patches.reshape(*patches.shape[:-2], channels, -1, patches.shape[-1])
    if present is None:
        return by_channel.mean(-3)
    total = jnp.where(present[..., None, None], by_channel, 0).sum(-3)
    return total / present.sum(-1)[..., None, None].astype(total.dtype)
