"""The grid of models that a chip is measured by: size x patch x channels x precision, as named rows."""

from __future__ import annotations

import fnmatch
import itertools
from typing import NamedTuple

from protloc_jax.channels import ChannelSet, parse
from protloc_jax.config import ConfigError, nearest

SIZES = ("S", "B", "L")
# Patch side -> side of local crops; 96 does not divide by 14.
PATCHES = {16: 96, 14: 98, 8: 96}
CHANNELS = (1, 4)
PRECISIONS = {"bf16": "bfloat16", "f32": "float32"}
STAND_INS = ("protein", "nucleus", "microtubules", "er", "cytosol", "membrane", "actin", "mitochondria", "rna", "golgi")


class Shape(NamedTuple):
    """One row of the grid: its name, what it overrides in the config, and how many channels its images have."""

    name: str
    overrides: tuple[str, ...]
    channels: int


def grid(pattern: str = "") -> list[Shape]:
    """All rows, or those whose name fits one of the comma-separated patterns ("S/16*", "*bf16").

    Raises ConfigError where a pattern fits no row.
    """
    rows = [
        Shape(
            f"{size}/{patch} {channels}ch {short}",
            (
                f"model.size={size}",
                f"model.patch={patch}",
                f"model.dtype={precision}",
                "views.global_size=224",
                f"views.local_size={local}",
                "model.image_size=224",
            ),
            channels,
        )
        for size, (patch, local), channels, (short, precision) in itertools.product(
            SIZES, PATCHES.items(), CHANNELS, PRECISIONS.items()
        )
    ]
    patterns = [p.strip() for p in pattern.split(",") if p.strip()]
    names = [row.name for row in rows]
    unknown = [p for p in patterns if not fnmatch.filter(names, p)]
    if unknown:
        raise ConfigError(
            f"--grid {', '.join(unknown)}: no such row.{nearest(unknown[0], names)} Rows are called like '{names[0]}'."
        )
    return [row for row in rows if not patterns or any(fnmatch.fnmatchcase(row.name, p) for p in patterns)]


def stand_in_channels(count: int) -> ChannelSet:
    """So many channels of different roles, the protein first, for images that nobody has taken."""
    more = [f"channel{number}:other" for number in range(len(STAND_INS) + 1, count + 1)]
    return parse([*STAND_INS[:count], *more])
