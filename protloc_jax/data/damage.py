"""Damaged records: how one is told, and how many a run bears.

A record is damaged when the bytes that a run needs of it (its channels, and its mask where masks are loaded) cannot be
read twice in a row, fail a checksum, or are not of the data set's shape. That is a property of the file alone, so every
host, thread, worker and restart judges alike, in whatever order records are met.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from protloc_jax.data.info import RecordsError
from protloc_jax.data.manifest import Manifest, listed
from protloc_jax.data.read import ShardReader

Role = Literal["image", "partner", "donor"]
NOTHING = -1


class Damage(NamedTuple):
    """A damaged record met in a batch: at which place, as the image, its partner or donor, and what was taken instead.

    `substitute` is NOTHING where none could be, or none was to be.
    """

    place: int
    role: Role
    record: int
    substitute: int
    reason: str


class Met(NamedTuple):
    """A `Damage` by its example number; NOTHING for a record that was found before any example needed it."""

    example: int
    role: Role
    record: int
    substitute: int
    reason: str


def named(shards: ShardReader, manifest: Manifest, bad: Mapping[int, str]) -> list[str]:
    """One text a damaged record: shard, row, id and reason, by row."""
    ids = manifest.table["id"]
    return [f"{shards.where(record)}, id '{ids.iloc[record]}': {bad[record]}" for record in sorted(bad)]


def allowed(max_bad: float, n: int) -> int:
    """How many of `n` records may be damaged; 0.1 of 50 is 5, whatever floats make of it."""
    return int(max_bad * n + 1e-9)


def refuse_too_many(
    shards: ShardReader, manifest: Manifest, bad: Mapping[int, str], *, max_bad: float, n: int, hint: str = ""
) -> None:
    """RecordsError naming the damaged records where they are more than `max_bad` of a split of `n` permits."""
    most = allowed(max_bad, n)
    if len(bad) > most:
        raise RecordsError(
            f"{len(bad)} of the {n} records of the split are damaged, data.max_bad={max_bad:g} permits {most}. "
            f"Pack them again, or raise the limit.{hint}\n  {listed(named(shards, manifest, bad))}"
        )
