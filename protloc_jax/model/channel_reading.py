"""How an encoder with tokens of every channel reads images: which channels, by which rows, normalised how."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from protloc_jax.channels import ChannelPlan, ChannelSet
from protloc_jax.model.config import VitConfig
from protloc_jax.model.vocabulary import covered, entries, rows_of
from protloc_jax.views.normalisation import Normalisation

WITHOUT_TOKENS = ", empty slots without tokens"
# Plans that fill slots for the sake of filling them; a model without slots has tokens for what is there.
FILLING = ("natural+copy", "replicate", "colour+copy")


class Reading(NamedTuple):
    """One forward pass: names of the source channels in order, and each one's row of the vocabulary."""

    names: tuple[str, ...]
    rows: tuple[int, ...]


def readings(config: VitConfig, channels: ChannelSet, plan: ChannelPlan | None) -> tuple[Reading, ...]:
    """The passes over images of `channels`; a plan's slots are the rows, and its empty ones give no tokens.

    Raises ValueError naming channels that have no row, or where the plan does not fill the vocabulary.
    """
    known = entries(config.channel_names)
    if plan is None:
        return (Reading(channels.names, rows_of(config.channel_names, channels)),)
    if plan.slots != len(known):
        raise ValueError(
            f"the model has a vocabulary of {len(known)} channels ({', '.join(known.names)}), but the plan fills "
            f"{plan.slots} slots."
        )
    made = []
    for slots in plan.passes:
        filled = [(name, row) for row, name in enumerate(slots) if name is not None]
        made.append(Reading(tuple(name for name, _ in filled), tuple(row for _, row in filled)))
    return tuple(made)


def normalisation_for(config: VitConfig, trained_on: ChannelSet, how: Normalisation, reading: Reading) -> Normalisation:
    """The normalisation of the channels of a pass; a data set's constants go with the rows that they were made for.

    Raises ValueError naming every channel that has none.
    """
    if how.kind != "dataset":
        return how
    how.check(len(trained_on))
    rows = rows_of(config.channel_names, trained_on)
    of: list[int] = []
    without: list[str] = []
    for name, row in zip(reading.names, reading.rows, strict=True):
        alike = [i for i, r in enumerate(rows) if r == row]
        named = [i for i in alike if trained_on.names[i] == name]
        found = named or (alike if len(alike) == 1 else [])
        of += found
        without += [] if found else [name]
    if without:
        raise ValueError(
            f"no normalisation constants for {', '.join(without)}: the weights were trained on {trained_on} with a "
            "data set's mean and std. Weights trained with views.normalise=self read any channel."
        )
    return dataclasses.replace(how, mean=tuple(how.mean[i] for i in of), std=tuple(how.std[i] for i in of))


def natural_reading(config: VitConfig, trained_on: ChannelSet, channels: ChannelSet) -> tuple[ChannelSet, str]:
    """The channels of some images that have a row, and what to say of it.

    Raises ValueError where none has.
    """
    known = entries(config.channel_names)
    read = covered(config.channel_names, channels)
    if not read:
        raise ValueError(f"no channel of the images ({channels}) is in the model's vocabulary ({known}).")
    rows = rows_of(config.channel_names, read)
    words = ", ".join(f"{known.names[row]}={name}" for name, row in zip(read.names, rows, strict=True))
    left = [name for name in channels.names if name not in read.names]
    more = f"; not used: {', '.join(left)}" if left else ""
    return read, f"natural, tokens of every channel: {words}{more}{untrained_words(config, trained_on, rows)}"


def untrained_words(config: VitConfig, trained_on: ChannelSet, rows: Sequence[int]) -> str:
    """ "; rows that this run did not train: ..." where some of `rows` are such; else empty."""
    known, trained = entries(config.channel_names), set(rows_of(config.channel_names, trained_on))
    fresh = [known.names[row] for row in dict.fromkeys(rows) if row not in trained]
    return f"; rows that this run did not train: {', '.join(fresh)}" if fresh else ""
