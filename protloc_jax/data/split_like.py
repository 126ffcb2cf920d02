"""The splits of one data set carried over to another: same proteins, same parts.

Single cells cut out of fields must lie where their fields lie, or a backbone trained on the training fields has seen
the proteins that the cells are tested on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from protloc_jax.config import ConfigError, nearest
from protloc_jax.data.manifest import SPLITS, Manifest, capped, listed
from protloc_jax.data.split_file import PARTS, SplitFile, basis_columns


class Carried(NamedTuple):
    """The splits of the other data set, and those of its groups that the first one does not know: they are unused."""

    file: SplitFile
    unknown: tuple[str, ...]


def split_like(
    first: SplitFile, manifest: Manifest, by: str, *, label: str = "labels", about: Mapping[str, Any] | None = None
) -> Carried:
    """Every split of `first` for the images of `manifest`: an image lies where its group (`by`) lies there.

    Groups that a split of `first` does not use, or does not know, are unused in it, and so are images without a group.
    Raises ConfigError for columns that are missing, for values of `by` that lie in several parts of one split of
    `first` (all are named), and where a part stays without any image.
    """
    have = [str(c) for c in manifest.table.columns]
    problems = [
        f"the data have no column '{c}'.{nearest(c, have)}" for c in dict.fromkeys((by, label)) if c not in have
    ]
    if by not in first.columns:
        problems.append(f"the split file does not know '{by}', only {', '.join(first.columns) or 'ids'}.")
    if problems:
        raise ConfigError(f"like: {listed(problems)}")
    mine = basis_columns(manifest.table, (by,))[by]
    parts = np.zeros((len(first.names), len(mine)), np.int8)
    for row, name, codes in zip(parts, first.names, first.parts, strict=True):
        place = _places(first.columns[by], codes, name)
        row[:] = [place.get(group, 0) for group in mine]
        lost = [PARTS[code] for code in range(1, len(PARTS)) if code in codes and code not in row]
        if lost:
            raise ConfigError(f"like: split '{name}' leaves no image for {', '.join(lost)}.")
    config = dataclasses.replace(first.config, by=(by,), label=label, stratify=(), inner_by="", where=())
    columns = basis_columns(manifest.table, dict.fromkeys((label, by)))  # type: ignore[arg-type]
    made = SplitFile(manifest.ids, columns, first.names, parts, config, {**dict(about or {}), "like": first.digest})
    return Carried(made, tuple(sorted(set(mine) - set(first.columns[by]) - {""})))


def _places(groups: tuple[str, ...], codes: np.ndarray, split: str) -> dict[str, int]:
    """The part of every group that a split uses."""
    found: dict[str, set[int]] = {}
    for group, code in zip(groups, codes.tolist(), strict=True):
        if group and code:
            found.setdefault(group, set()).add(code)
    torn = [group for group, own in found.items() if len(own) > 1]
    if torn:
        raise ConfigError(
            f"like: {len(torn)} groups lie in several of {', '.join(SPLITS)} in split '{split}': {capped(torn)}."
        )
    return {group: own.pop() for group, own in found.items()}
