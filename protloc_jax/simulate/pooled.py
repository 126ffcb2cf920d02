"""Which protein each cell of a field carries, where neighbours may carry others than the field's own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from protloc_jax.simulate.config import SimConfig
from protloc_jax.simulate.keys import generator
from protloc_jax.simulate.layout import cached_catalogue, proteins_by_name
from protloc_jax.simulate.proteins import Protein


@lru_cache(maxsize=8)
def members(config: SimConfig) -> dict[str, tuple[str, ...]]:
    """The proteins of each split, in order: pooling never brings a test protein into a training field."""
    table = cached_catalogue(config).drop_duplicates("protein")
    return {str(split): tuple(part["protein"]) for split, part in table.groupby("split")}


def cell_proteins(config: SimConfig, row: Mapping[str, Any], count: int) -> list[Protein]:
    """The proteins of the cells 1 … `count` of a field: the field's own, or, by chance `pooled`, any of its split.

    Every cell's draw has its own address, so it does not depend on how many cells there are.
    """
    known = proteins_by_name(config)
    own = known[row["protein"]]
    if config.pooled == 0:
        return [own] * count
    chosen = members(config)[row["split"]]
    result = []
    for label in range(1, count + 1):
        rng = generator(config.seed, config.preset, row["plate"], row["well"], int(row["site"]), "pooled", label)
        drawn = rng.random() < config.pooled
        result.append(known[chosen[int(rng.integers(len(chosen)))]] if drawn else own)
    return result
