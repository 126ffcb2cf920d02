"""From records of single cells to one folder of records with the images of every condition, written shard by shard."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from protloc_jax.config import to_dict
from protloc_jax.data import info as info_file
from protloc_jax.data import manifest as manifests
from protloc_jax.data import records as records_room
from protloc_jax.data.durable import write_whole
from protloc_jax.data.info import RecordsInfo
from protloc_jax.data.manifest import Manifest
from protloc_jax.data.read import Records
from protloc_jax.eval.background.cells import CellsConfig, Taken, read_cells, read_patches
from protloc_jax.eval.background.conditions import Ready, as_pixels, compose, prepare, protein_of
from protloc_jax.eval.background.donors import groups_that_fit
from protloc_jax.eval.background.mix_sets import MixPlan, plan_mixes
from protloc_jax.eval.background.sets import Part, Planned, plan_sets, table_of
from protloc_jax.eval.background.spec import BackgroundError, SetConfig

ABOUT_FILE = "background.json"
# Transfer compares images with the baseline's, so all are standardised by protein, and brought to the crops' units.
COMPARABLE = SetConfig(standardise="all", units="pooled", groups=0)
_BLOCK, _KEPT_BYTES = 256, 2**28


@dataclass(frozen=True)
class Prepared:
    """Everything is drawn and checked; nothing is written.

    taken         the cells, and rows left out
    patches_left  patches left out, by reason
    planned       the sets, and conditions left out
    config        as asked for, with the number of groups chosen
    about         where the images come from: digests of the records, options, seed; plain values
    """

    taken: Taken
    patches_left: dict[str, int]
    planned: Planned
    config: SetConfig
    ready: Ready
    manifest: Manifest
    about: dict[str, Any]
    simulated: dict[str, Any] | None


class Clipped(NamedTuple):
    """Pixel values below 0 and above the integer type's largest, which were clipped, and of how many."""

    below: int
    above: int
    of: int


def prepare_made(
    records: Records,
    config: SetConfig = COMPARABLE,
    cells: CellsConfig | None = None,
    *,
    patches: Records | None = None,
    rows: np.ndarray | None = None,
    rows_are: str = "all",
    conditions: Sequence[str] = (),
    grid: tuple[int, int] = (64, 8),
    spill: float = 1.0,
    mixes: MixPlan | None = None,
) -> Prepared:
    """Read cells and patches, choose the number of groups, and draw every image of every set.

    rows, rows_are   which records, and that in words. groups=0 in `config` becomes the number that fits.
    spill            units=pooled: raise all images of a channel by one constant, where needed, until no more than this
                     share of the crops' pixel values falls below 0; 1 raises nothing
    mixes            baseline images and mixes of known shares (see `mix_sets`), in place of conditions and grid
    Raises BackgroundError for what cannot be read or made (see `read_cells`, `plan_sets`).
    """
    cells = cells or CellsConfig()
    if config.units == "standardised" and config.standardise != "none":
        raise BackgroundError("units=standardised: such pixels do not fit integers; units=pooled, or standardise=none.")
    taken = read_cells(records, cells, rows)
    free, patches_left = (None, {}) if patches is None else read_patches(patches, cells, taken.cells)
    if not 0 <= spill <= 1 or (spill < 1 and config.units != "pooled"):
        raise BackgroundError(f"spill={spill}: a share from 0 to 1, and for units=pooled only.")
    ready, raised = _raised(prepare(taken.cells, free), spill)
    if config.groups == 0:
        number = 1 if config.proteins == "per_set" else groups_that_fit(ready.crop_pool, ready.patch_pool, config)
        config = replace(config, groups=number)
    if mixes is None:
        planned = plan_sets(ready, taken.classes, config, conditions=conditions, grid=grid)
    elif conditions:
        raise BackgroundError(f"conditions {', '.join(conditions)}: mixes come with conditions of their own.")
    else:
        planned = plan_mixes(ready, taken.classes, config, mixes)
    table = table_of(ready, planned.parts, config)
    info = records.info
    table["source"] = [f"{info.name}: {name}" for name in table["centre_id"]]
    manifest = manifests.make(
        table,
        info.channel_set,
        label_names=taken.classes,
        label_kind="single",
        um_per_pixel=info.um_per_pixel,
    )
    about = {
        "records": info.name,
        "records_sha256": info.digest,
        "patches": patches.info.name if patches is not None else "",
        "patches_sha256": patches.info.digest if patches is not None else "",
        "rows": rows_are,
        "crops": len(taken.cells.ids),
        "crops_sha256": hashlib.sha256("\n".join(taken.cells.ids.tolist()).encode()).hexdigest(),
        "cells": to_dict(cells),
        "sets": to_dict(config),
        "raised_by": raised,
        "classes": list(taken.classes),
        "conditions": list(planned.conditions),
        "conditions_left_out": planned.left_out,
        "rows_left_out": taken.left_out,
        "patches_left_out": patches_left,
        "classes_of_one_protein": taken.lonely,
        **({"mixes": mixes.about()} if mixes is not None else {}),
    }
    simulated = info.simulated or (patches.info.simulated if patches is not None else None)
    return Prepared(taken, patches_left, planned, config, ready, manifest, about, simulated)


def write_made(
    prepared: Prepared,
    out: str | Path,
    *,
    workers: int | None = None,
    shard_size: int = 0,
    progress: bool = False,
    restart: bool = False,
) -> tuple[RecordsInfo, Clipped]:
    """Write the images with their masks as records in the source's integer type, and OUT/background.json.

    Blocks of images are made as the shards need them, so memory does not grow with their number; the same call goes on
    after a kill. Returns what was written and how many pixel values were clipped.
    """
    dtype = prepared.ready.cells.images.dtype
    images = _Blocks(prepared.ready, prepared.planned.parts, prepared.config, dtype)
    source: dict[str, Any] = {"background": prepared.about}
    if prepared.simulated is not None:
        source["simulated"] = prepared.simulated  # what is synthetic must go on saying so
    info = records_room.write(
        out,
        prepared.manifest,
        images,
        workers=workers,
        shard_size=shard_size,
        progress=progress,
        source=json.dumps(source, sort_keys=True),
        restart=restart,
    )
    about = _written(Path(out), info)
    if about is None:
        clipped = images.clipped()
        about = {**prepared.about, "records_made_sha256": info.digest, "clipped": clipped._asdict()}
        write_whole(Path(out) / ABOUT_FILE, (json.dumps(about, indent=1) + "\n").encode())
    return info, Clipped(**about["clipped"])


def about_of(info: RecordsInfo) -> dict[str, Any]:
    """Where a folder of `make` comes from (`Prepared.about`); ValueError for other records."""
    found = info.made_from.get("background")
    if isinstance(found, dict):
        return found
    raise ValueError(f"'{info.name}': no records of `protloc background make`.")


def _raised(ready: Ready, spill: float) -> tuple[Ready, list[float]]:
    """The mean that images are brought to, raised in each channel, and by how much (measured on 2,000 crops)."""
    images, stats = ready.cells.images, ready.statistics
    if spill == 1:
        return ready, [0.0] * images.shape[-1]
    rows = np.unique(np.linspace(0, len(images) - 1, min(len(images), 2000)).astype(int))
    protein, lifts = protein_of(ready.crop_pool)[rows], []
    for c in range(images.shape[-1]):
        mean, sd = (part[protein, c, None, None] for part in (stats.mean, stats.sd))
        values = (images[rows, ..., c] - mean) / np.where(sd > 0, sd, 1.0) * stats.pooled_sd[c] + stats.pooled_mean[c]
        lifts.append(max(0.0, -float(np.quantile(values, spill))))
    return replace(ready, statistics=stats._replace(pooled_mean=stats.pooled_mean + np.array(lifts))), lifts


def _written(out: Path, info: RecordsInfo) -> dict[str, Any] | None:
    """background.json of the same images, where an earlier call wrote it."""
    try:
        about = json.loads((out / ABOUT_FILE).read_text())
        Clipped(**about["clipped"])
        return about if about["records_made_sha256"] == info.digest else None
    except (OSError, json.JSONDecodeError, KeyError, TypeError):
        return None


class _Blocks:
    """Image and mask of each row, made a block at a time; safe to call from several threads."""

    def __init__(self, ready: Ready, parts: Sequence[Part], config: SetConfig, dtype: np.dtype):
        self.ready, self.parts, self.config, self.dtype = ready, parts, config, dtype
        self.ends = np.cumsum([len(part.numbers) for part in parts])
        self.lock = threading.Lock()
        self.kept: OrderedDict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = OrderedDict()
        self.outside: dict[tuple[int, int], tuple[int, int, int]] = {}

    def __call__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        part = int(np.searchsorted(self.ends, row, side="right"))
        place = row - int(self.ends[part] - len(self.parts[part].numbers))
        with self.lock:
            images, masks = self._block(part, place // _BLOCK)
        return images[place % _BLOCK], masks[place % _BLOCK]

    def clipped(self) -> Clipped:
        """Counts over all blocks; those that an earlier, interrupted call wrote are made once more."""
        for number, part in enumerate(self.parts):
            for block in range(-(-len(part.numbers) // _BLOCK)):
                if (number, block) not in self.outside:
                    self._block(number, block)
        return Clipped(*(int(sum(counts)) for counts in zip(*self.outside.values(), strict=True)))

    def _block(self, number: int, block: int) -> tuple[np.ndarray, np.ndarray]:
        key = (number, block)
        if key not in self.kept:
            part, at = self.parts[number], slice(block * _BLOCK, (block + 1) * _BLOCK)
            drawn = part.drawn._replace(
                centre=part.drawn.centre[at], donor=part.drawn.donor[at], filler=part.drawn.filler[at]
            )
            made = compose(self.ready, part.condition, self.config, drawn, part.numbers[at], names=part.names)
            below, above = made.images < -0.5, made.images > np.iinfo(self.dtype).max + 0.5
            self.outside[key] = (int(below.sum()), int(above.sum()), below.size)
            self.kept[key] = (as_pixels(made.images, self.dtype), made.masks)
            while len(self.kept) > max(3, min(16, _KEPT_BYTES // self.kept[key][0].nbytes)):
                self.kept.popitem(last=False)
        self.kept.move_to_end(key)
        return self.kept[key]


def read_made(directory: str | Path) -> tuple[pd.DataFrame, RecordsInfo, dict[str, Any]]:
    """The manifest's table, the facts, and where it comes from, of a folder of `make`; no image is read."""
    info = info_file.load(directory)
    manifest = manifests.read(Path(directory) / info_file.MANIFEST_FILE)
    return manifest.table, info, about_of(info)
