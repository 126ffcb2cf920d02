"""Which files make which image, before any file is opened; and what tables and folders have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from protloc_jax.data.manifest import CORE_COLUMNS
from protloc_jax.datasets.folder_config import FolderConfig
from protloc_jax.datasets.naming import fields_of
from protloc_jax.datasets.problems import DatasetError
from protloc_jax.datasets.row_images import Paths
from protloc_jax.datasets.table import cell_text


@dataclass
class Gathered:
    """Images by row: names of their files, where each row stands, and the columns of the future manifest.

    root    a folder, or the address of a remote one
    files   per row one path (all channels) or one a channel, relative to `root`; or addresses
    paths   the same as existing files of this machine; None where that failed (and a problem was added). Within a row
            None is a channel without a file
    masks   the mask file, or None
    lights  per row the files with the channels' illumination functions, as texts; [] = the table names none
    functions  the same as existing files of this machine, or None
    frame   the source columns, and `id`, `labels` (tuples) and `split` ready for the manifest
    """

    root: Path | str
    frame: pd.DataFrame
    files: list[tuple[str, ...]]
    rows: list[str]
    group_columns: list[str]
    notes: list[str] = field(default_factory=list)
    paths: list[Paths | None] = field(default_factory=list)
    masks: list[Path | None] = field(default_factory=list)
    lights: list[tuple[str, ...]] = field(default_factory=list)
    functions: list[tuple[Path, ...] | None] = field(default_factory=list)


def wanted_columns(config: FolderConfig) -> list[tuple[str, str]]:
    """(column, what for) of every column that the configuration names, apart from those with files."""
    wanted = [(c, "labels") for c in config.labels] + [(c, "groups") for c in config.groups]
    wanted += [(c, "split_stratify") for c in config.split_stratify]
    wanted += [(item.partition("=")[0], "where") for item in config.where]
    wanted += [(c, p) for c, p in ((config.split_column, "split_column"), (config.split_by, "split_by")) if c]
    wanted += [(c, "pixel_columns") for c in config.pixel_columns] + [(c, "numbers") for c in config.numbers]
    if config.id_column != "id":
        wanted.append((config.id_column, "id_column"))
    if config.masks:
        names = fields_of(config.masks) if "{" in config.masks else (config.masks,)
        wanted += [(name, "masks") for name in names if name != "id"]
    return wanted


def keep_where(
    config: FolderConfig, frame: pd.DataFrame, rows: list[str], notes: list[str]
) -> tuple[pd.DataFrame, list[str]]:
    """The rows that `config.where` asks for; DatasetError when none is left."""
    keep = pd.Series(True, index=frame.index)
    for item in config.where:
        column, _, values = item.partition("=")
        keep &= frame[column].map(cell_text).isin(values.split("|"))
    if not keep.any():
        raise DatasetError(f"{config.path}: no row is left by where={', '.join(config.where)}.")
    if not keep.all():
        notes.append(f"{int((~keep).sum())} of {len(frame)} rows are left out by where={', '.join(config.where)}.")
    kept_frame = pd.DataFrame(frame[keep]).reset_index(drop=True)
    return kept_frame, [row for row, kept in zip(rows, keep, strict=True) if kept]


def group_columns(config: FolderConfig, frame: pd.DataFrame, paths: set[str], notes: list[str]) -> list[str]:
    """The columns to keep as groups: those asked for, or all that hold neither paths nor the manifest's own columns."""
    if "source" in frame.columns:
        notes.append("the column 'source' is left out: the manifest keeps the file names under that name.")
    if config.groups:
        own = [config.split_by] if config.split_by else []
        return list(dict.fromkeys([*config.groups, *own, *config.split_stratify]))
    return [str(c) for c in frame.columns if c not in {*paths, *CORE_COLUMNS}]
