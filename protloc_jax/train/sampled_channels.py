"""Which channels the views of a step show to a network, addressed by (seed, example, network, view)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from protloc_jax.channels import ChannelSet
from protloc_jax.model.channel_sampling import sample_channels
from protloc_jax.model.config import VitConfig
from protloc_jax.train.method import CHANNELS

STUDENT, TEACHER = 0, 1


def kept_channel(config: VitConfig, channels: ChannelSet) -> int | None:
    """The channel that sampling never hides; ValueError where that is the protein's and not one channel is."""
    if config.channel_sampling != "hierarchical_protein":
        return None
    if channels.protein is None:
        found = ", ".join(channels.names[i] for i in channels.with_role("protein")) or "none"
        raise ValueError(
            f"model.channel_sampling='hierarchical_protein' needs one channel with the role protein, of {channels} it "
            f"is {found}; use 'hierarchical', or name the role in the data."
        )
    return channels.protein


def present_channels(
    config: VitConfig, channels: ChannelSet, keys: jax.Array, *, network: int, views: int
) -> jax.Array | None:
    """Channels present in views 0 .. `views` of examples with keys [B]: bool [B, V, C]; None where all are.

    Student and teacher (`network`) draw for themselves; a view's draw depends on neither the batch nor other views.
    """
    if config.channel_sampling == "none":
        return None
    keep = kept_channel(config, channels)

    def of_example(key: jax.Array) -> jax.Array:
        own = jax.random.fold_in(jax.random.fold_in(key, CHANNELS), network)
        return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(own, jnp.arange(views))

    return sample_channels(jax.vmap(of_example)(keys), len(channels), keep=keep)
