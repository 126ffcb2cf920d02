"""Where the structures of a simulated image lie: the exact map of every stain and of what it is made of, no optics.

Names are those of the image's channels, so that they can be asked for by what one sees:

    nuclei, cells       their outlines, 1 inside and 0 outside
    dna                 all that a channel's stain shows (of the protein channel: all places of the protein)
    actin:actin_clumps  one part of it (`CHANNEL:PART`; of the protein channel a localization class)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from protloc_jax.simulate import crops, examples
from protloc_jax.simulate.config import SimConfig
from protloc_jax.simulate.field import Field
from protloc_jax.simulate.keys import generator
from protloc_jax.simulate.layout import cached_catalogue
from protloc_jax.simulate.presets_screens import Screen
from protloc_jax.simulate.shot import field_cells
from protloc_jax.simulate.specimens import SPECIMENS
from protloc_jax.simulate.stains import PARTS
from protloc_jax.simulate.structures import Scene

OUTLINES = ("nuclei", "cells")

Row = int | str | Mapping[str, Any] | pd.Series


def structure_names(config: SimConfig) -> tuple[str, ...]:
    """Every structure that images of a configuration can have; of the protein's classes an image has its own only."""
    preset = config.domain
    names = list(OUTLINES)
    for channel, role in zip(preset.channels, preset.roles, strict=True):
        parts = PARTS[role] if isinstance(preset, Screen) else preset.classes if role == "protein" else ()
        names += [channel, *(f"{channel}:{part}" for part in parts)]
    return tuple(names)


def densities(config: SimConfig, row: Row, *, rendered: Field | None = None) -> dict[str, np.ndarray]:
    """The maps [H, W] float32 of the structures of one image, by name; a pure function of the configuration and row.

    row       as for `render`: catalogue row, position, or (single cells) key
    rendered  what `render` gave for that row, where it is at hand
    Stains and proteins are in photons or in units of their own before optics: maps compare places within an image, not
    strengths between channels. Raises ValueError as `render` does.
    """
    field = examples.render(config, row) if rendered is None else rendered
    preset = config.domain
    maps = {
        "nuclei": (field.nucleus_labels > 0).astype(np.float32),
        "cells": (field.cell_labels > 0).astype(np.float32),
    }
    stains = {} if isinstance(preset, Screen) else _reference_stains(config, _row(config, row))
    for channel, role in zip(preset.channels, preset.roles, strict=True):
        if isinstance(preset, Screen):
            parts = {part: field.density[part] for part in PARTS[role]}
        elif role == "protein":
            parts = field.density
        else:
            maps[channel] = stains[channel]
            if config.neighbours == "none":
                maps[channel] = maps[channel] * maps["cells"]
            continue
        maps[channel] = np.stack(list(parts.values())).sum(axis=0, dtype=np.float32)
        maps |= {f"{channel}:{part}": map_ for part, map_ in parts.items()}
    return maps


def _row(config: SimConfig, row: Row) -> Mapping[str, Any]:
    if isinstance(row, str):
        return crops.cell_row(config, row)
    if isinstance(row, (int, np.integer)):
        table = crops.cached_cells(config) if config.of_cells else cached_catalogue(config)
        return table.iloc[int(row)].to_dict()
    return dict(row)


def _reference_stains(config: SimConfig, row: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The structures that the reference channels of a protein image show, made again from their own addresses."""
    preset, box = config.domain, (slice(None), slice(None))
    if config.of_cells:
        row, box = crops.field_and_box(config, row)
    plate, well, site = str(row["plate"]), str(row["well"]), int(row["site"])

    def stream(purpose: str) -> np.random.Generator:
        return generator(config.seed, config.preset, plate, well, site, purpose)

    scene = Scene(field_cells(config, row), stream, recipes=SPECIMENS[preset.specimen].shared)
    return {
        channel: scene.get("chromatin" if role == "nucleus" else role)[box].astype(np.float32)
        for channel, role in zip(preset.channels, preset.roles, strict=True)
        if role != "protein"
    }
