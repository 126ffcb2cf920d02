"""The vocabulary of a model with tokens of every channel: which learned row a channel of some images has.

A channel is looked up by its name, then by its role (the entry that is called like the role, else the only one that
plays it), and is "other" where the vocabulary has that word.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from protloc_jax.channels import Channel, ChannelSet, parse, role_of
from protloc_jax.config import nearest
from protloc_jax.model.config import VitConfig

OTHER = "other"


def entries(names: Sequence[str]) -> ChannelSet:
    """The vocabulary as channels: bare names have their usual role, 'name:role' the one that is said."""
    return parse(list(names))


def names_of(channels: ChannelSet) -> tuple[str, ...]:
    """The vocabulary that a data set's own channels make; roles are written where the name does not tell them."""
    return tuple(c.name if role_of(c.name) == c.role else f"{c.name}:{c.role}" for c in channels)


def rows_of(names: Sequence[str], channels: ChannelSet) -> tuple[int, ...]:
    """The row of each channel. Raises ValueError naming every channel that has none, with the nearest entry."""
    known = entries(names)
    found = [_row(known, c) for c in channels]
    missing = [
        f"'{c.name}' ({c.role}){nearest(c.name, known.names)}"
        for c, row in zip(channels, found, strict=True)
        if row is None
    ]
    if missing:
        raise ValueError(
            f"model.channel_names ({', '.join(names)}) has no row for {', '.join(missing)} Add the names, or '{OTHER}'."
        )
    return tuple(row for row in found if row is not None)


def covered(names: Sequence[str], channels: ChannelSet) -> ChannelSet:
    """Those of the channels that have a row, in their order."""
    known = entries(names)
    return ChannelSet(c for c in channels if _row(known, c) is not None)


def channel_rows(config: VitConfig, channels: ChannelSet) -> tuple[int, ...]:
    """`rows_of` the channels for a model with tokens of every channel; () for one that has slots."""
    return rows_of(config.channel_names, channels) if config.stem == "channels" else ()


def with_vocabulary(config: VitConfig, channels: ChannelSet) -> VitConfig:
    """The model with an empty vocabulary made that of `channels`; a given one must have a row for each of them."""
    if config.stem == "joint":
        return config
    if not config.channel_names:
        return dataclasses.replace(config, channel_names=names_of(channels))
    rows_of(config.channel_names, channels)
    return config


def extended(names: Sequence[str], channels: ChannelSet) -> tuple[str, ...]:
    """A vocabulary with the channels that have no row in it added at its end."""
    known = covered(names, channels)
    return (*names, *names_of(ChannelSet(c for c in channels if c not in known)))


def moved_rows(table: np.ndarray, old: Sequence[str], new: Sequence[str]) -> np.ndarray:
    """The learned rows [old, D] for another vocabulary, [new, D]: each entry has the row of its name.

    An entry of a new name begins as what the old vocabulary took it for: by its role, or as "other", else as the mean
    of all rows.
    """
    known = entries(old)
    found = [_row(known, c) for c in entries(new)]
    mean = table.mean(axis=0, dtype=np.float64).astype(table.dtype)
    return np.stack([mean if row is None else table[row] for row in found])


def _row(known: ChannelSet, channel: Channel) -> int | None:
    if channel.name in known.names:
        return known.names.index(channel.name)
    if channel.role != OTHER:
        if channel.role in known.names:
            return known.names.index(channel.role)
        playing = known.with_role(channel.role)
        if len(playing) == 1:
            return playing[0]
    return known.names.index(OTHER) if OTHER in known.names else None
