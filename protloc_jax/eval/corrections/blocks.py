"""Blocks of columns that are corrected each by itself: one for every forward pass, so one for every channel."""

from __future__ import annotations

from typing import Literal

from protloc_jax.config import nearest
from protloc_jax.eval.features import FeatureTable


def block_count(table: FeatureTable, blocks: int | str | Literal["auto"]) -> int:
    """How many blocks a table's columns are cut into; "auto" reads it off the provenance.

    Our tables hold one block for every pass of their channel plan, and these again for every pooling. ValueError for
    blocks that are no number, or of unequal width.
    """
    number: int | str = blocks
    if blocks == "auto":
        passes = str(table.uns.get("channel_passes", ""))
        number = (passes.count(";") + 1) * (str(table.uns.get("pooling", "")).count("+") + 1)
    if isinstance(number, str):
        if not number.isdigit():
            raise ValueError(f"blocks={number}: a whole number, or auto.{nearest(number, ['auto'])}")
        number = int(number)
    if number < 1 or table.x.shape[1] % number:
        raise ValueError(f"blocks={number}: {table.x.shape[1]} features do not make so many blocks of equal width.")
    return number


def slices(width: int, blocks: int) -> list[slice]:
    """The columns of each block."""
    step = width // blocks
    return [slice(b * step, (b + 1) * step) for b in range(blocks)]
