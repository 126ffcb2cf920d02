"""Quality control of records: measures of every image, and flags for those that stand out of their plate.

Everything lands in columns named `qc_*` beside the id, so that images can be left out by them (`protloc data split
--join qc_images.parquet --where qc_pass=true`). Nothing is removed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from protloc_jax.channels import ChannelSet
from protloc_jax.config import ConfigError, nearest, opt
from protloc_jax.data.manifest import capped, listed
from protloc_jax.data.packing_progress import Progress
from protloc_jax.data.records import Records
from protloc_jax.datasets.ordered_map import ordered_map
from protloc_jax.datasets.plates import FORMATS, robust_z_within
from protloc_jax.datasets.quality_measures import TOP_LEVELS, channel_measures, correlations, count_nuclei, top_counts

FLAGS = {
    "constant": "a channel holds one single value",
    "empty": "no nucleus is found, or nothing rises above the noise in any reference channel",
    "out_of_focus": "fine detail far below the plate's usual in a reference channel",
    "saturated": "too many pixels at the camera's top level in a channel",
    "bright": "brightest pixels of a reference channel far above the plate's usual: debris, precipitate, dead cells",
    "few_cells": "far fewer nuclei than the plate's usual",
}
_AT_ONCE = 1024  # images in hand between two answers


@dataclass(frozen=True)
class QualityConfig:
    """Columns, channels and thresholds of quality control. Raises ConfigError naming every value that cannot be."""

    plate: str = opt("plate", "column of plates; images are compared with their plate's")
    well: str = opt("well", "column of wells (A01), for plate maps")
    plate_wells: int = opt(
        0, "wells of a plate: 6, 12, 24, 48, 96, 384 or 1536; 0 = 96, 384 or 1536, as the names need"
    )
    reference: tuple[str, ...] = opt(
        (),
        "channels that focus, content and debris are judged by; empty = all without the protein, if there are others",
    )
    out_of_focus: float = opt(3.5, "flag focus this many robust SDs below the plate's median")
    bright: float = opt(5.0, "flag the 99.9th percentile this many robust SDs above the plate's median")
    few_cells: float = opt(3.5, "flag counts of nuclei this many robust SDs below the plate's median")
    max_saturated: float = opt(0.01, "flag a larger share of pixels at the top level")
    min_foreground: float = opt(0.005, "an image is empty below this share of pixels above the background")
    min_signal: float = opt(0.0, "an image is empty below this log10 of content's power over noise's")
    least_images: int = opt(12, "plates with fewer images are compared with all images instead")
    least_nucleus_um: float = opt(
        4.0, "diameter of the smallest nucleus counted; 30 pixels of area if sizes are unknown"
    )
    correlations: bool = opt(False, "also measure the correlation of every pair of channels")
    control: str = opt("", "column that names control wells, for Z'")
    positive: tuple[str, ...] = opt((), "its values that are positive controls")
    negative: tuple[str, ...] = opt((), "its values that are negative controls")
    permutations: int = opt(2000, "permutations of the test for edge effects")
    seed: int = opt(0, "seed of the permutations")

    def __post_init__(self) -> None:
        positive = ("out_of_focus", "bright", "few_cells", "least_images", "least_nucleus_um", "permutations")
        problems = [f"{n}={getattr(self, n)}: must be positive." for n in positive if getattr(self, n) <= 0]
        for name in ("max_saturated", "min_foreground"):
            if not 0 <= getattr(self, name) <= 1:
                problems.append(f"{name}={getattr(self, name)}: a share lies between 0 and 1.")
        if self.plate_wells and self.plate_wells not in FORMATS:
            problems.append(f"plate_wells={self.plate_wells}: not one of 0, {', '.join(map(str, FORMATS))}.")
        if self.seed < 0:
            problems.append(f"seed={self.seed}: must be 0 or more.")
        if bool(self.control) != bool(self.positive) or bool(self.control) != bool(self.negative):
            problems.append("control, positive and negative: Z' needs the column and the values of both controls.")
        both = sorted(set(self.positive) & set(self.negative))
        if both:
            problems.append(f"both positive and negative controls: {', '.join(both)}.")
        if problems:
            raise ConfigError("\n  ".join(problems))


def reference_channels(channels: ChannelSet, config: QualityConfig) -> tuple[str, ...]:
    """The channels to judge by: those named, or all without the protein (whose sharpness depends on what it shows)."""
    if config.reference:
        return config.reference
    others = tuple(c.name for c in channels if c.role != "protein")
    return others or channels.names


def measure(records: Records, config: QualityConfig, *, workers: int = 0, progress: bool = False) -> pd.DataFrame:
    """Measure every image: one row a record, in their order, with id, split, plate, well, control and `qc_*` columns.

    `qc_<channel>_<measure>` as in `quality_measures.channel_measures`, with `saturated` (share at the level where the
    channel's camera clips: the smallest of 255, 1023, 4095, 16383, 65535 that no image exceeds) and `qc_cells` (labels
    of the mask where masks are label images, else connected nuclei of the nuclear channel; absent without either).
    Images are read once; memory does not grow with their number beyond the table. ConfigError names unknown columns
    and channels.
    """
    check(records, config)
    names = records.info.channel_set.names
    nuclear = next((i for i, c in enumerate(records.info.channel_set) if c.role == "nucleus"), None)
    um = records.info.um_per_pixel
    least = int(np.pi / 4 * (config.least_nucleus_um / um) ** 2) if um else 30

    def one(row: int) -> dict[str, float]:
        image = records.read(row)
        found: dict[str, float] = {}
        for i, name in enumerate(names):
            own = {**channel_measures(image[..., i]), **top_counts(image[..., i])}
            found |= {f"qc_{name}_{key}": value for key, value in own.items()}
        if nuclear is not None:
            found["nuclei"] = count_nuclei(image[..., nuclear], least_pixels=max(least, 1))
        if records.info.has_mask:
            found["labels"] = len(np.setdiff1d(records.mask(row), [0]))
        if config.correlations:
            found |= {f"qc_{key}": value for key, value in correlations(image, names).items()}
        return found

    rows = []
    with Progress(progress, f"quality {records.info.name}", 0, records.n) as bar:
        for found in ordered_map(one, range(records.n), workers, at_once=_AT_ONCE):
            rows.append(found)
            bar.advance(1)
    return _table(records, config, pd.DataFrame(rows))


def flag(table: pd.DataFrame, channels: ChannelSet, config: QualityConfig) -> pd.DataFrame:
    """The table of `measure` with z-scores, `qc_flags` (names of `FLAGS` joined by ';') and `qc_pass` added."""
    table = table.copy()
    plates = table[config.plate].astype(str).to_numpy() if config.plate in table else np.zeros(len(table), str)

    def z(values: Any) -> np.ndarray:
        return robust_z_within(np.asarray(values, np.float64), plates, least=config.least_images)

    reference = reference_channels(channels, config)
    raised: dict[str, np.ndarray] = {}
    empty = np.ones(len(table), bool)
    for name in channels.names:
        own = {key: table[f"qc_{name}_{key}"] for key in ("constant", "saturated", "foreground", "signal", "p999")}
        _raise(raised, "constant", own["constant"] > 0)
        _raise(raised, "saturated", own["saturated"] > config.max_saturated)
        if name in reference:
            focus, bright = z(table[f"qc_{name}_focus"]), z(np.log1p(own["p999"]))
            table[f"qc_{name}_focus_z"], table[f"qc_{name}_p999_z"] = focus, bright
            _raise(raised, "out_of_focus", focus < -config.out_of_focus)
            _raise(raised, "bright", bright > config.bright)
            empty &= (own["foreground"] < config.min_foreground) | (own["signal"] < config.min_signal)
    if "qc_cells" in table:
        # Counts spread like their square root.
        table["qc_cells_z"] = z(np.sqrt(table["qc_cells"]))
        _raise(raised, "few_cells", table["qc_cells_z"] < -config.few_cells)
        empty |= np.asarray(table["qc_cells"] == 0)
    _raise(raised, "empty", empty)
    # Nothing in it explains the rest.
    raised["out_of_focus"] = raised["out_of_focus"] & ~raised["empty"]
    ordered = [name for name in FLAGS if name in raised]
    table["qc_flags"] = [";".join(n for n in ordered if raised[n][i]) for i in range(len(table))]
    table["qc_pass"] = table["qc_flags"] == ""
    return table


def check(records: Records, config: QualityConfig) -> None:
    """Raise ConfigError for channels, a control column or control values that the records do not have."""
    names, manifest = records.info.channel_set.names, records.manifest
    problems = [
        f"reference: no channel '{n}'.{nearest(n, names)} Channels: {', '.join(names)}."
        for n in config.reference
        if n not in names
    ]
    if config.control:
        if config.control not in manifest.table.columns:
            have = manifest.group_columns
            problems.append(
                f"control: no column '{config.control}'.{nearest(config.control, have)} Columns: {capped(have, 30)}."
            )
        else:
            values = sorted({str(v) for v in manifest.table[config.control]})
            problems += [
                f"{key}: no '{value}' in column '{config.control}'.{nearest(value, values)}"
                for key in ("positive", "negative")
                for value in getattr(config, key)
                if value not in values
            ]
    if problems:
        raise ConfigError(listed(problems))


def _table(records: Records, config: QualityConfig, found: pd.DataFrame) -> pd.DataFrame:
    manifest = records.manifest.table
    kept = ["id", "split", *(c for c in (config.plate, config.well, config.control) if c and c in manifest.columns)]
    columns = {name: manifest[name] for name in dict.fromkeys(kept)}
    if "labels" in found and found["labels"].max() > 1:
        columns["qc_cells"] = found["labels"].astype(int)
    elif "nuclei" in found:
        columns["qc_cells"] = found["nuclei"].astype(int)
    for name in found.columns:
        stem, _, key = name.rpartition("_")
        if key == "mean":
            top = next(level for level in TOP_LEVELS if level >= found[f"{stem}_max"].max())
            columns[f"{stem}_saturated"] = found[f"{stem}_at_{top}"]
        if name.startswith("qc_") and not stem.endswith("_at"):
            columns[name] = found[name]
    return pd.DataFrame(columns)


def _raise(raised: dict[str, np.ndarray], name: str, rows: Any) -> None:
    raised[name] = raised.get(name, np.zeros(len(rows), bool)) | np.asarray(rows, bool)
