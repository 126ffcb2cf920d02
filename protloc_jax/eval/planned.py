"""An encoder made to read images by a channel plan that is given as text."""

from __future__ import annotations

from collections.abc import Sequence

from protloc_jax.channel_plans import plan_of, plans_for
from protloc_jax.channels import ChannelPlan, ChannelSet
from protloc_jax.model.channel_reading import FILLING
from protloc_jax.model.config import VitConfig
from protloc_jax.model.encoder import Encoder


def planned(encoder: Encoder, channels: ChannelSet, text: str) -> Encoder:
    """The encoder reading images of `channels` by the plan of that text.

    Raises ValueError for a text that means nothing here, and for a plan that fills slots where the weights have tokens
    of every channel and no slots to fill.
    """
    if encoder.config.stem == "channels":
        if text == "natural":
            return encoder.for_channels(channels)
        if _fills(text):
            raise ValueError(
                f"channel plan '{text}' fills slots, and these weights have tokens of every channel and no slots to "
                "fill: use natural (all channels at once) or per-channel."
            )
    elif text == "natural" and set(encoder.channels.names) <= set(channels.names):
        return encoder
    return encoder.with_plan(plan_of(text, encoder.slots, channels), channels)


def plans_of(
    model: VitConfig, slots: ChannelSet, channels: ChannelSet, *, seeds: Sequence[int] = (0,)
) -> dict[str, ChannelPlan]:
    """The plans that apply to weights with these slots (or vocabulary) and images of `channels`, by text."""
    found = plans_for(slots, channels, seeds=seeds)
    return found if model.stem == "joint" else {text: plan for text, plan in found.items() if not _fills(text)}


def _fills(text: str) -> bool:
    return text.partition(":")[0].strip() in FILLING
