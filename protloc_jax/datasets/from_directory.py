"""Images below a directory: every image file one image, or joined by a name pattern."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pandas as pd

from protloc_jax.data.manifest import capped
from protloc_jax.datasets.folder_config import FolderConfig
from protloc_jax.datasets.gathered import Gathered, group_columns, keep_where, wanted_columns
from protloc_jax.datasets.naming import IMAGE_SUFFIXES, NamePattern, stem
from protloc_jax.datasets.plate_map import PlateMap
from protloc_jax.datasets.problems import DatasetError, Problems
from protloc_jax.datasets.staging import Store, list_names
from protloc_jax.datasets.table import need_columns


def from_directory(
    config: FolderConfig, root: Path | str, plate_map: PlateMap | None, problems: Problems, store: Store
) -> Gathered:
    """Files below `root` (a folder, or the address of one), sorted by path.

    Raises DatasetError when there is none or none fits the pattern.
    """
    names, notes = _walk(root) if isinstance(root, Path) else _listed(root, store)
    tokens = config.tokens
    by_channel = False
    if config.pattern:
        pattern = NamePattern(config.pattern, list(tokens.values()))
        by_channel = "channel" in pattern.fields
        matched = [(name, found) for name in names if (found := pattern.match(name)) is not None]
        left = sorted(set(names) - {name for name, _ in matched})
        if not matched:
            words = f" with {{channel}} one of {', '.join(tokens.values())}" if by_channel else ""
            raise DatasetError(f"{root}: no file fits '{config.pattern}'{words}; files there: {capped(left, 4)}.")
        if left:
            notes.append(f"{len(left)} image files do not fit the pattern and are left out: {capped(left, 4)}.")
    else:
        pattern, matched = None, [(name, {}) for name in names]
    images: dict[tuple[str, ...], dict[str, str]] = {}
    columns: list[dict[str, str]] = []
    for name, fields in matched:
        channel = fields.get("channel", "")
        own = {k: v for k, v in fields.items() if k != "channel"}
        key = (name.rsplit("/", 1)[0] if "/" in name else "", *own.values()) if pattern else (name,)
        if key not in images:
            images[key] = {}
            columns.append({**own, "id": pattern.identity(name, fields) if pattern else stem(name)})
        elif channel in images[key]:
            problems.add("two files for one channel", f"{images[key][channel]} and {name}")
        images[key][channel] = name
    order = list(tokens.values()) if by_channel else [""]
    frame = pd.DataFrame(columns)
    for name in pattern.numbers if pattern else ():
        frame[name] = [int(own[name]) for own in columns]
    folders = [key[0] if pattern else os.path.dirname(key[0]) for key in images]
    if any(folders) and "folder" not in frame.columns:
        frame["folder"] = pd.Series(folders, dtype=object)
    rows = [str(own["id"]) for own in columns]
    if plate_map is not None:
        frame = plate_map.join(frame, rows, plate=config.plate_column, well=config.well_column)
    wanted = need_columns(frame, [(c, p) for c, p in wanted_columns(config) if c != "id"])
    if wanted:
        raise DatasetError("\n  ".join([f"{root}: without a table, columns are the fields of the pattern.", *wanted]))
    files = [tuple(parts.get(token, "") for token in order) for parts in images.values()]
    frame["#files"] = files
    frame, rows = keep_where(config, frame, rows, notes)
    files = list(frame.pop("#files"))
    if plate_map is not None:
        frame = plate_map.settle(frame, rows, problems, notes, plate=config.plate_column, well=config.well_column)
    for number, (row, parts) in enumerate(zip(rows, files, strict=True)):
        absent = [name for name, part in zip(tokens, parts, strict=False) if by_channel and not part]
        if absent and not (config.missing_channels == "zero" and any(parts)):
            have = ", ".join(part for part in parts if part)
            problems.add("missing channels", f"{row}: no file for {', '.join(absent)} (found {have})", number)
    groups = group_columns(config, frame, set(), notes)
    return Gathered(root, frame, files, rows, groups, notes)


def _listed(root: str, store: Store) -> tuple[list[str], list[str]]:
    """Image files below a remote folder, and a note on what else lies there."""
    names, other = list_names(root, store, IMAGE_SUFFIXES)
    if not names:
        raise DatasetError(f"{root}: the data set is empty: no {', '.join(IMAGE_SUFFIXES)} file below it.")
    return names, [f"{other} files are no images by their suffix and are left out."] if other else []


def _walk(root: Path) -> tuple[list[str], list[str]]:
    """Image files (and Zarr folders) below a folder, sorted, as paths with '/'; and notes on what else lies there."""
    names, other, links = [], Counter(), []
    for folder, folders, files in os.walk(root):
        links += [os.path.join(folder, f) for f in folders if os.path.islink(os.path.join(folder, f))]
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        stores = [f for f in folders if f.lower().endswith(".zarr") and not os.path.islink(os.path.join(folder, f))]
        folders[:] = [f for f in folders if f not in stores]
        names += [os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/") for name in stores]
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if suffix in IMAGE_SUFFIXES and not name.startswith("."):
                names.append(os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/"))
            else:
                other["hidden" if name.startswith(".") else suffix or "without suffix"] += 1
    notes = []
    if other:
        kinds = ", ".join(f"{n} {kind}" for kind, n in other.most_common(6))
        notes.append(f"{sum(other.values())} files are no images by their suffix and are left out ({kinds}).")
    if links:
        notes.append(f"{len(links)} links to folders are not followed: {capped(sorted(links), 4)}.")
    if not names:
        raise DatasetError(
            f"{root}: the data set is empty: no {', '.join(IMAGE_SUFFIXES)} file below it."
            + "".join(f" {n}" for n in notes)
        )
    return sorted(names), notes
