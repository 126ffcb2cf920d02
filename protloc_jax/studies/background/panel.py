"""Crops that a person can check by eye: cells in rows, conditions in columns, the cell's outline drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from protloc_jax.data import read as read_records
from protloc_jax.eval.attention_maps import stretched
from protloc_jax.studies.background.table import TITLES


class Panel(NamedTuple):
    """Pictures [H, W, 3] in [0, 1] of rows and columns, with their names and a caption."""

    images: list[list[np.ndarray]]
    rows: list[str]
    columns: list[str]
    caption: str


def made_panel(records: Path, *, title: str, cells: int) -> list[Panel]:
    """One cell of each of the first classes under every condition, one panel a channel (at most two).

    Image 0 of a class shows the same cell in every condition; of conditions that name a background the first other
    class is shown.
    """
    with read_records.open(records) as source:
        table = source.manifest.table
        condition, label = (table[c].astype(str).to_numpy() for c in ("condition", "centre_class"))
        number = table["number"].astype(int).to_numpy()
        names = [str(c) for c in dict.fromkeys(condition.tolist()) if c != "grid"]
        classes = [str(c) for c in dict.fromkeys(label.tolist())][:cells]
        rows: list[list[int]] = []
        for name in classes:
            at = [np.flatnonzero((condition == c) & (label == name) & (number == 0)) for c in names]
            rows.append([int(found[0]) for found in at if len(found)])
        channels = source.info.channel_set
        chosen = [channels.protein or 0, *(i for i in range(len(channels)) if i != (channels.protein or 0))][:2]
        return [
            Panel(
                [[outlined(source[r][..., channel], source.mask(r)) for r in row] for row in rows],
                list(classes),
                [TITLES.get(c, c) for c in names],
                f"{title}: channel {channels.names[channel]}, every crop stretched to its own range.",
            )
            for channel in chosen
        ]


def native_panel(records: dict[str, Path], *, title: str, category: str, cells: int) -> list[Panel]:
    """The same cells among native neighbours of every kind, the first channel of the protein."""
    with_kinds: dict[str, dict[str, np.ndarray]] = {}
    labels: dict[str, str] = {}
    shared: Sequence[str] | None = None
    for folder in records.values():
        with read_records.open(folder) as source:
            ids = list(source.manifest.ids)
            shared = ids if shared is None else [i for i in shared if i in set(ids)]
            labels |= dict(zip(ids, source.manifest.table[category].astype(str), strict=True))
    chosen: dict[str, str] = {}
    for name in shared or []:
        if labels[name] not in chosen and len(chosen) < cells:
            chosen[labels[name]] = name
    for kind, folder in records.items():
        with read_records.open(folder) as source:
            at = {name: i for i, name in enumerate(source.manifest.ids)}
            channel = source.info.channel_set.protein or 0
            with_kinds[kind] = {
                label: outlined(source[at[name]][..., channel], source.mask(at[name])) for label, name in chosen.items()
            }
    if not chosen:
        return []
    kinds = list(with_kinds)
    images = [[with_kinds[kind][label] for kind in kinds] for label in chosen]
    caption = f"{title}: the same cells among neighbours rendered with them, the protein's channel."
    return [Panel(images, list(chosen), [TITLES[f"native_{kind}"] for kind in kinds], caption)]


def outlined(channel: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A channel [H, W] in grey levels with the outline of the cell (mask 1), [H, W, 3] in [0, 1]."""
    grey = stretched(np.asarray(channel))
    cell = np.asarray(mask) == 1
    edge = np.asarray(ndimage.binary_dilation(cell), bool) & ~cell
    picture = np.repeat(grey[..., None], 3, axis=-1)
    picture[edge] = (1.0, 0.85, 0.2)
    return picture
