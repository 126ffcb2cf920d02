"""Images of a table: one path column, one column a channel, columns of other programs, or paths made from columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from protloc_jax.data.manifest import capped
from protloc_jax.datasets import addresses
from protloc_jax.datasets.folder_config import FolderConfig
from protloc_jax.datasets.gathered import Gathered, group_columns, keep_where, wanted_columns
from protloc_jax.datasets.naming import fields_of, fill
from protloc_jax.datasets.plate_map import PlateMap
from protloc_jax.datasets.problems import DatasetError, Problems
from protloc_jax.datasets.table import cell_text, need_columns, read_table
from protloc_jax.datasets.table_layouts import Recognised, recognise


def from_table(
    config: FolderConfig, path: Path, root: Path | str, plate_map: PlateMap | None, problems: Problems
) -> Gathered:
    """Rows of a table. Raises DatasetError naming every missing column at once.

    root  what the table's paths are relative to: a folder, or the address of one
    """
    table = _recognised(config, path)
    frame, rows, notes = table.frame, table.rows, list(table.notes)
    if plate_map is not None:
        frame = plate_map.join(frame, rows, plate=config.plate_column, well=config.well_column)
    parts, wanted = _parts(config, table)
    if missing := need_columns(frame, [*wanted, *wanted_columns(config)]):
        found = Problems()
        found.extend("missing columns", missing)
        found.check(str(path))
    used = {column for own in parts.values() for column in own}
    spare = [str(c) for c in frame.columns if str(c).startswith("path_") and c not in used]
    if parts and "" not in parts and spare:
        notes.append(f"columns with files of channels that are not named: {capped(spare)}.")
    frame, rows = keep_where(config, frame, rows, notes)
    if plate_map is not None:
        frame = plate_map.settle(frame, rows, problems, notes, plate=config.plate_column, well=config.well_column)
    if config.pattern:
        tokens = list(config.tokens.values()) if "channel" in fields_of(config.pattern) else [""]
        records: list[dict[str, Any]] = frame.to_dict("records")  # type: ignore[assignment]
        files = [tuple(fill(config.pattern, {**r, "channel": t}) for t in tokens) for r in records]
    else:
        files = list(zip(*(_paths(frame, own) for own in parts.values()), strict=True))
    hidden = {*used, *spare, *table.hidden, *([config.masks] if config.masks else [])}
    groups = group_columns(config, frame, hidden, notes)
    return Gathered(root, frame, files, rows, groups, notes, lights=_lights(config, table, frame, path))


def _recognised(config: FolderConfig, path: Path) -> Recognised:
    frame, rows = read_table(path)
    given = [item.split("=", 1)[1] for item in config.files]
    layout = "plain" if config.pattern else config.layout
    explicit = any(token in frame.columns for token in given)
    try:
        return recognise(frame, rows, config.tokens, layout, explicit=explicit)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from error


def _parts(config: FolderConfig, table: Recognised) -> tuple[dict[str, tuple[str, ...]], list[tuple[str, str]]]:
    """The columns that make each channel's path ('' = of all channels), and those that the table must have."""
    if config.pattern:
        return {}, [(name, "pattern") for name in fields_of(config.pattern) if name != "channel"]
    if table.parts:
        return table.parts, []
    if config.files or any(f"path_{c}" in table.frame.columns for c in config.tokens):
        given = {item.split("=", 1)[0] for item in config.files}
        parts = {c: (token if c in given else f"path_{c}",) for c, token in config.tokens.items()}
        return parts, [(column, f"files of channel '{c}'") for c, (column,) in parts.items()]
    return {"": (config.path_column,)}, [(config.path_column, "path_column, or one column path_<channel> a channel")]


def _lights(config: FolderConfig, table: Recognised, frame: pd.DataFrame, path: Path) -> list[tuple[str, ...]]:
    """The files with illumination functions, where the configuration takes them from the table."""
    if config.illumination != "table":
        return []
    absent = [name for name in config.tokens if name not in table.lights]
    if absent:
        raise DatasetError(
            f"{path}: illumination=table: no FileName_Illum or URL_Illum columns for {', '.join(absent)}; has it: "
            f"{', '.join(table.lights) or 'none of the channels'}."
        )
    return list(zip(*(_paths(frame, table.lights[name]) for name in config.tokens), strict=True))


def _paths(frame: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """The paths in one column, or folder and file name of two columns joined; '' where the file name is empty."""
    texts = [[cell_text(v) for v in frame[column]] for column in columns]
    if len(texts) == 1:
        return texts[0]
    joined = zip(*texts, strict=True)
    return [addresses.join(folder, name) if name and folder else name for folder, name in joined]
