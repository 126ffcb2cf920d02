"""The folder data set: any directory or table of images, checked as a whole, becomes records."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from protloc_jax import images
from protloc_jax.data import manifest as manifests
from protloc_jax.data import records
from protloc_jax.data.local_path import local_folder
from protloc_jax.data.manifest import Manifest, capped
from protloc_jax.datasets import illumination
from protloc_jax.datasets.corrections import Corrections, corrections
from protloc_jax.datasets.folder_config import FolderConfig
from protloc_jax.datasets.gather import gather
from protloc_jax.datasets.gathered import Gathered
from protloc_jax.datasets.inspection import DROPPABLE, default_workers, inspect
from protloc_jax.datasets.problems import DatasetError, Problems
from protloc_jax.datasets.row_images import Paths, Seen, load_image, load_mask
from protloc_jax.datasets.sizes import common_size, pixel_size, side_text
from protloc_jax.datasets.splitting import split_groups
from protloc_jax.datasets.table import cell_text

SKIPPED_FILE = "skipped.csv"
ILLUMINATION_FOLDER = "illumination"
BEFORE = "um_per_pixel_before"  # the group column with the pixel sizes of images that were resampled to one


@dataclass(frozen=True)
class Images:
    """The pixels of row i of a manifest: [H, W, C], all of one size. Picklable."""

    config: FolderConfig
    paths: tuple[Paths, ...]
    size: tuple[int, int]
    corrections: Corrections

    def __call__(self, row: int) -> np.ndarray:
        return images.fit(self.whole(row), self.size, self.config.sizes)

    def whole(self, row: int) -> np.ndarray:
        """The pixels of row i, corrected, in their own size."""
        return self.corrections.image(row, load_image(self.paths[row], self.config).pixels, None)[0]


@dataclass(frozen=True)
class Masks:
    """The mask of row i: [H, W] uint8. Picklable."""

    config: FolderConfig
    paths: tuple[Path, ...]
    size: tuple[int, int]
    corrections: Corrections

    def __call__(self, row: int) -> np.ndarray:
        mask = self.corrections.mask(row, load_mask(self.paths[row]), None)
        return images.fit(mask, self.size, self.config.sizes)


@dataclass(frozen=True)
class Folder:
    """A checked data set, ready to be packed.

    notes    what a user should know although it is no error (left-out files, rare classes, constant channels)
    skipped  (row, why) of the images that `bad_images=drop` dropped
    source   text that changes when the pixels would: how images are read, and a digest of all
    shapes   (height, width, channels) of every image before it is brought to the common size
    """

    manifest: Manifest
    images: Images
    masks: Masks | None
    notes: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    source: str = ""
    shapes: tuple[tuple[int, int, int], ...] = ()


def prepare(config: FolderConfig, *, workers: int | None = None, progress: bool = False) -> Folder:
    """Read the table or directory and look into every file, without writing anything.

    Raises DatasetError naming everything that is wrong, by kind, with files and rows; FileNotFoundError when the path
    does not exist.
    """
    problems = Problems()
    workers = default_workers() if workers is None else workers
    found = gather(config, problems, progress=progress)
    more = _illumination_images(config, problems) if config.illumination_images else None
    every = corrections(config, found, problems, workers=workers, progress=progress, more=more)
    seen = inspect(every, found, problems, workers=workers, progress=progress)
    skipped: dict[int, list[str]] = {}
    if config.bad_images == "drop":
        skipped = problems.forgive(DROPPABLE)
        if len(skipped) > config.max_dropped * len(seen):
            texts = [text for own in skipped.values() for text in own]
            raise DatasetError(
                f"{config.path}: {len(skipped)} of {len(seen)} images are bad, more than max_dropped="
                f"{config.max_dropped:g} allows: {capped(texts, 6)}"
            )
    problems.check(config.path)
    keep = [i for i in range(len(seen)) if i not in skipped]
    if not keep:
        raise DatasetError(f"{config.path}: the data set is empty.")
    size = common_size(config, found, [None if i in skipped else one for i, one in enumerate(seen)], problems)
    problems.check(config.path)
    notes = list(found.notes)
    if skipped:
        notes.append(f"{len(skipped)} of {len(seen)} images are dropped, see {SKIPPED_FILE}.")
    good = [seen[i] for i in keep]
    sides = [every.side(i, one.um_per_pixel) if one is not None else None for i, one in zip(keep, good, strict=True)]
    own = every.subset(keep, sides)
    if config.target_um_per_pixel and len(set(sides)) > 1:
        found.frame.loc[keep, BEFORE] = [side_text(side) for side in sides]
        found.group_columns.append(BEFORE)
    manifest = _manifest(config, found, keep, pixel_size(config, sides, good, size, notes))
    notes += manifest.warnings() + _looks(config, manifest, good)
    if manifest.label_kind == "none" and config.labels_from == "column":
        notes.append("no label column is given or found: the records have no labels.")
    paths = [found.paths[i] for i in keep]
    masks = [found.masks[i] for i in keep]
    whole_masks = tuple(m for m in masks if m is not None)
    return Folder(
        manifest,
        Images(config, tuple(p for p in paths if p is not None), size, own),
        Masks(config, whole_masks, size, own) if whole_masks else None,
        notes,
        [(found.rows[i], " / ".join(texts)) for i, texts in skipped.items()],
        _source(config, size, good, every),
        tuple(s.shape for s in good if s is not None),
    )


def pack(
    config: FolderConfig,
    out: str | Path,
    *,
    workers: int | None = None,
    shard_size: int = 0,
    progress: bool = False,
    restart: bool = False,
    prepared: Folder | None = None,
) -> records.RecordsInfo:
    """Check everything (`prepare`, unless given), then write records to `out`; the same call resumes after a kill."""
    out = local_folder(out)
    folder = prepared or prepare(config, workers=workers, progress=progress)
    info = records.write(
        out,
        folder.manifest,
        folder.images,
        masks=folder.masks,
        name=config.name,
        shard_size=shard_size,
        workers=workers,
        progress=progress,
        source=folder.source,
        restart=restart,
    )
    light = folder.images.corrections.illumination
    if light is not None and config.illumination == "estimate":
        illumination.save(light, Path(out) / ILLUMINATION_FOLDER, config.channel_set.names)
    if folder.skipped:
        with (Path(out) / SKIPPED_FILE).open("w", newline="") as file:
            csv.writer(file).writerows([("row", "reason"), *folder.skipped])
    return info


def _manifest(config: FolderConfig, found: Gathered, keep: list[int], um_per_pixel: float | None) -> Manifest:
    frame = found.frame.iloc[keep].reset_index(drop=True)
    table = {
        "id": frame["id"],
        "labels": frame["labels"],
        "source": pd.Series([";".join(found.files[i]) for i in keep], dtype=object),
    }
    for name in found.group_columns:
        column = frame[name]
        table[name] = column if column.dtype != object else pd.Series([_group(v) for v in column], dtype=object)
    if config.split_by:
        hot = [manifests.make(pd.DataFrame(table), config.channel_set).multi_hot()]
        for name in config.split_stratify:
            texts = np.asarray([cell_text(v) for v in frame[name]], dtype=str)
            hot.append((texts[:, None] == np.unique(texts)[None]).astype(np.float32))
        try:
            groups = [cell_text(v) for v in frame[config.split_by]]
            split = split_groups(groups, np.concatenate(hot, 1), config.split_fractions, seed=config.split_seed)
        except ValueError as error:
            raise DatasetError(f"{config.path}: split_by={config.split_by}: {error}") from error
        table["split"] = pd.Series(split, dtype=object)
    else:
        table["split"] = frame["split"]
    return manifests.make(
        pd.DataFrame(table),
        config.channel_set,
        label_names=config.label_names or None,
        um_per_pixel=um_per_pixel,
    )


def _illumination_images(config: FolderConfig, problems: Problems) -> Gathered:
    """The images that illumination is estimated from, where a table of their own names them."""
    root = config.root or str(Path(config.path).parent)
    apart = replace(
        config,
        path=config.illumination_images,
        root=root,
        where=(),
        groups=(config.illumination_by,),
        numbers=(),
        masks="",
        pixel_columns=(),
        labels=(),
        labels_from="none",
        split_by="",
        split_column="",
        split_stratify=(),
    )
    own = Problems()
    found = gather(apart, own)
    for kind, texts in own.kinds.items():
        problems.extend(f"{kind} of illumination_images", texts)
    return found


def _group(value: object) -> str | None:
    return cell_text(value) or None


def _looks(config: FolderConfig, manifest: Manifest, seen: list[Seen | None]) -> list[str]:
    """Notes on images that are no error but may not be meant: constant channels, empty masks, tiny pictures."""
    notes = []
    for channel, name in enumerate(config.channel_set.names):
        flat = [manifest.ids[i] for i, s in enumerate(seen) if s is not None and channel in s.constant]
        if flat:
            notes.append(f"channel '{name}' has one value everywhere in {len(flat)} image(s): {capped(flat, 5)}.")
    empty = [manifest.ids[i] for i, s in enumerate(seen) if s is not None and s.empty_mask]
    saturated = sum(s.saturated for s in seen if s is not None)
    if config.illumination != "none" and config.check == "pixels":
        total = sum(s.shape[0] * s.shape[1] * s.shape[2] for s in seen if s is not None)
        notes.append(f"illumination correction saturated {saturated:,} of {total:,} values.")
    if config.white_point and config.check == "pixels":
        above = sum(s.above_white for s in seen if s is not None)
        total = sum(s.shape[0] * s.shape[1] * s.shape[2] for s in seen if s is not None)
        notes.append(
            f"white_point={config.white_point}: {above:,} of {total:,} values ({above / total:.2%}) lie above."
        )
    if empty:
        notes.append(f"{len(empty)} mask(s) mark no pixel at all: {capped(empty, 5)}.")
    return notes


def _source(config: FolderConfig, size: tuple[int, int], seen: list[Seen | None], every: Corrections) -> str:
    how: tuple[object, ...] = (config.sizes, size, config.colour, config.projection, config.float_range)
    how += (bool(config.masks),)
    chosen = (config.series, config.time, config.level, config.missing_chunks)
    if chosen != (-1, -1, 0, "error"):
        how += chosen
    if config.unnamed_axes:
        how += ("axes", config.unnamed_axes)
    if config.target_um_per_pixel:
        how += ("resampled", config.target_um_per_pixel, config.resample, every.sides)
    if config.resize_factor:
        how += ("resized", config.resize_factor, config.resample)
    if config.white_point:
        how += ("white point", config.white_point)
    if every.illumination is not None:
        how += ("illumination", every.illumination.digest, every.plates)
    digest = hashlib.blake2b(repr(how).encode(), digest_size=16)
    for one in seen:
        if one is not None:
            digest.update(one.digest + repr((one.shape, one.dtype)).encode())
    return f"folder {digest.hexdigest()}"
