"""A data set ready to be exported: its manifest, and a way to hand any rows' pixels to another process.

Exporters (`tfds_builder`) read records, a raw folder and the simulator through this one shape, so a large raw set can
be exported without packing records first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from protloc_jax.config import to_dict
from protloc_jax.data import records
from protloc_jax.data.encoding import Layout, layout_of, split_item
from protloc_jax.data.manifest import Manifest
from protloc_jax.data.read import ShardReader, read_mask, read_pixels
from protloc_jax.data.write import content_digest
from protloc_jax.datasets import folder, simulated
from protloc_jax.datasets.folder_config import FolderConfig
from protloc_jax.simulate import SimConfig

# Item i is the array [H, W, C], or the pair (array, mask [H, W] uint8).
Pixels = Callable[[int], np.ndarray | tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class ImageSet:
    """A checked data set.

    layout     what every image is: height, width, channels, dtype, has_mask
    take       row numbers -> a picklable function that gives item i of those rows and carries nothing of the others
    digest     changes when the manifest or the pixels do
    synthetic  "simulated opencell, difficulty hard, seed 0", empty for real images
    """

    name: str
    manifest: Manifest
    layout: Layout
    take: Callable[[np.ndarray], Pixels]
    digest: str
    synthetic: str = ""


@dataclass(frozen=True)
class _OfRecords:
    shards: ShardReader
    rows: np.ndarray
    has_mask: bool

    def __call__(self, i: int) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        row = int(self.rows[i])
        pixels = read_pixels(self.shards, row)
        return (pixels, read_mask(self.shards, row)) if self.has_mask else pixels


@dataclass(frozen=True)
class _OfFolder:
    images: folder.Images
    masks: folder.Masks | None
    rows: np.ndarray

    def __call__(self, i: int) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        row = int(self.rows[i])
        return self.images(row) if self.masks is None else (self.images(row), self.masks(row))


@dataclass(frozen=True)
class _OfSimulator:
    rendered: simulated.Rendered
    rows: np.ndarray

    def __call__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        return self.rendered(int(self.rows[i]))


def of_records(directory: str | Path) -> ImageSet:
    """The data set of a folder of records. Raises what `records.open` raises."""
    with records.open(directory) as opened:
        info, manifest, shards = opened.info, opened.manifest, opened.shards
    layout = Layout(info.height, info.width, len(info.channels), info.dtype, info.has_mask)
    made_from = simulated.config_of(info)
    return ImageSet(
        info.name,
        manifest,
        layout,
        lambda rows: _OfRecords(shards, rows, info.has_mask),
        info.digest,
        _synthetic(made_from) if made_from else "",
    )


def of_folder(config: FolderConfig, *, workers: int | None = None, progress: bool = False) -> ImageSet:
    """The data set of raw images, checked as a whole as `folder.prepare` does and not packed. Raises DatasetError."""
    found = folder.prepare(config, workers=workers, progress=progress)

    def take(rows: np.ndarray) -> Pixels:
        # Row numbers stay the data set's; only the paths of these rows travel.
        images = replace(found.images, paths=_only(found.images.paths, rows))
        masks = None if found.masks is None else replace(found.masks, paths=_only(found.masks.paths, rows))
        return _OfFolder(images, masks, rows)

    return _checked(config.name or Path(config.path).stem, found.manifest, take, found.source)


def of_simulated(config: SimConfig) -> ImageSet:
    """Simulated cells, rendered when read."""
    rendered = simulated.Rendered(config)
    return _checked(
        f"simulated-{config.preset}-{config.difficulty}",
        simulated.manifest_of(config),
        lambda rows: _OfSimulator(rendered, rows),
        json.dumps(to_dict(config), sort_keys=True),
        _synthetic(config),
    )


def _checked(
    name: str, manifest: Manifest, take: Callable[[np.ndarray], Pixels], source: str, synthetic: str = ""
) -> ImageSet:
    """The first image sets the layout, as it does when records are packed."""
    first = take(np.arange(1))(0)
    layout = layout_of(first, manifest.channels.names, masks=False)
    parts = (content_digest(manifest), source, hashlib.sha256(split_item(first)[0].tobytes()).hexdigest())
    return ImageSet(name, manifest, layout, take, hashlib.sha256("\n".join(parts).encode()).hexdigest(), synthetic)


def _only(paths: Sequence[Any], rows: np.ndarray) -> Any:
    """Paths that are found by the same row numbers, without those of other rows."""
    return {row: paths[row] for row in rows.tolist()}


def _synthetic(config: SimConfig) -> str:
    return f"simulated {config.preset}, difficulty {config.difficulty}, seed {config.seed}"
