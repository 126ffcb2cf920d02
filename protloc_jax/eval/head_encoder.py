"""The encoder that made the features of saved heads, built again for new images: same weights, plan and size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from protloc_jax.channels import ChannelPlan, ChannelSet
from protloc_jax.config import nearest
from protloc_jax.data.manifest import listed
from protloc_jax.eval.head_file import Heads
from protloc_jax.eval.load import Size, load, untrained
from protloc_jax.model.encoder import Encoder

_WIRING = ("channel_plan", "channel_passes")
_NEEDED = ("which", "image_size", "channel_plan", "pooling", "layer")


def encoder_for(heads: Heads, weights: str | Path, channels: ChannelSet) -> Encoder:
    """The encoder of `weights` reading images of `channels` as the heads' training images were read.

    Embed with `heads.features["pooling"]` and, where they are told, its windows and combine. Raises ValueError, before
    any image is read, for heads whose features `protloc embed` did not make; for weights that are not those of the
    heads, naming all that differs; and for channels that the images lack.
    """
    told = heads.features
    absent = [key for key in _NEEDED if key not in told]
    if absent or told["layer"] != "last":
        why = f"it does not say {', '.join(absent)}" if absent else f"they are of layer {told['layer']}"
        raise ValueError(
            f"the head's features cannot be made again by `protloc embed` ({why}): make them as they were made and "
            "give the table by --features."
        )
    encoder = _loaded(weights, told["which"], told["image_size"]).for_cells(
        attend=told.get("attend", "all"),
        min_share=float(told.get("attend_min_share", 0.0)),
        input=told.get("input", "whole"),
    )
    same = {
        key: told[key]
        for key in (*_WIRING, "pooling", "layer", "windows", "combine", "cell_vectors_sha256")
        if key in told
    }
    heads.check_provenance({**encoder.provenance, **same}, where=str(weights))
    if "weights_sha256" not in told and encoder.provenance["weights"] != told["weights"]:
        raise ValueError(
            f"the head's features are of weights '{told['weights']}'; {weights} gives "
            f"'{encoder.provenance['weights']}'."
        )
    if "channel_tokens" in told:
        names = str(told["channel_tokens"]).split(",")
        _check_channels(names, channels)
        return encoder.for_channels(channels.subset(names))
    if "channel_passes" in told:
        wanted = _passes(str(told["channel_passes"]))
        _check_channels([name for slots in wanted for name in slots if name], channels)
        return encoder.with_plan(ChannelPlan(wanted, told["channel_plan"]), channels)
    _check_channels(encoder.channels.names, channels)
    return encoder


def data_differences(mine: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """In what images differ from those trained on, in words; both are provenances of feature tables.

    Facts that either does not have (tables of earlier versions, or of other tools) are named as not known.
    """
    found = []
    for key, words in (("data_channels", "channels"), ("data_um_per_pixel", "pixel size in um")):
        a, b = mine.get(key), theirs.get(key)
        if a is None or b is None:
            found.append(f"{words}: not known of the {'training' if a is None else 'new'} images")
        elif a != b:
            found.append(f"{words}: {b}, in training {a}")
    return found


def _loaded(weights: str | Path, which: str, image_size: Any) -> Encoder:
    """The encoder at the size told; the weights' own preparation where that is its size already."""

    def at(size: Size) -> Encoder:
        return untrained(weights, size=size) if which == "initial" else load(weights, which=which, size=size)

    encoder = at(0)
    return encoder if encoder.provenance["image_size"] == image_size else at(image_size)


def _passes(text: str) -> tuple[tuple[str | None, ...], ...]:
    """'gfp,0;0,nucleus' as the passes of a plan."""
    return tuple(tuple(None if name == "0" else name for name in slots.split(",")) for slots in text.split(";"))


def _check_channels(names: Any, channels: ChannelSet) -> None:
    lacking = [f"'{n}'.{nearest(n, channels.names)}" for n in dict.fromkeys(names) if n not in channels.names]
    if lacking:
        raise ValueError(
            f"the head's features were made from channels that these images lack: {listed(lacking)} They have "
            f"{channels}; pack them with the names used in training."
        )
