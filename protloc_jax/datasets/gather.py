"""Rows of a folder data set: files, ids, labels, groups and splits, with everything that is wrong with single rows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from protloc_jax.datasets import labels as label_cells
from protloc_jax.datasets.folder_config import FolderConfig
from protloc_jax.datasets.from_directory import from_directory
from protloc_jax.datasets.from_table import from_table
from protloc_jax.datasets.gathered import Gathered, cell_text
from protloc_jax.datasets.naming import fill
from protloc_jax.datasets.paths import Confined, PathRefused
from protloc_jax.datasets.problems import Problems
from protloc_jax.datasets.zarr_plate import from_plates, plates_in

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "held-out", "held_out"), "test"),
}


def gather(config: FolderConfig, problems: Problems) -> Gathered:
    """Read the table or walk the folder of `config.path`.

    What is wrong with single rows goes to `problems`. Raises DatasetError where the whole cannot be read (missing
    columns, no image found, broken table) and FileNotFoundError when the path does not exist.
    """
    path = Path(config.path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such folder or table.")
    if path.is_dir():
        plates = plates_in(path)
        found = from_plates(config, path, plates) if plates else from_directory(config, path, problems)
    else:
        found = from_table(config, path)
    _ids(config, found, problems)
    _labels(config, found, problems)
    _splits(config, found, problems)
    _resolve(config, found, problems)
    return found


def _ids(config: FolderConfig, found: Gathered, problems: Problems) -> None:
    if config.id_column in found.frame.columns:
        ids = [cell_text(v) for v in found.frame[config.id_column]]
        first: dict[str, str] = {}
        for name, row in zip(ids, found.rows, strict=True):
            if not name:
                problems.add("empty ids", row)
            elif name in first:
                problems.add("duplicate ids", f"{row}: id '{name}' was used in {first[name]}")
            first.setdefault(name, row)
    else:
        ids = [_common_name(files) for files in found.files]
        if len(set(ids)) < len(ids) or not all(ids):
            ids = [f"{number:07d}" for number in range(len(ids))]
            found.notes.append("no id column, and the file names are not unique: ids are row numbers.")
    found.frame["id"] = pd.Series(ids, dtype=object)


def _common_name(files: tuple[str, ...]) -> str:
    """The path without suffix, or what the paths of the channels have in common at their start."""
    stems = [os.path.splitext(name)[0] for name in files]
    if len(stems) == 1:
        return stems[0]
    shared = 0
    for letters in zip(*stems, strict=False):
        if len(set(letters)) > 1:
            break
        shared += 1
    return stems[0][:shared].rstrip("_-. ")


def _labels(config: FolderConfig, found: Gathered, problems: Problems) -> None:
    columns = list(config.labels)
    if not columns and config.labels_from == "column":
        columns = [c for c in ("labels", "label") if c in found.frame.columns][:1]
    cells: list[tuple[Any, ...]]
    if config.labels_from == "none":
        cells = [()] * len(found.files)
    elif config.labels_from == "parent":
        cells = [(os.path.basename(os.path.dirname(files[0])),) for files in found.files]
        for row, cell in zip(found.rows, cells, strict=True):
            if not cell[0]:
                problems.add("labels that do not parse", f"{row}: the file lies in no folder below {found.root}")
    else:
        cells = list(zip(*(found.frame[c] for c in columns), strict=True)) if columns else [()] * len(found.files)
    parsed: list[tuple[str, ...]] = []
    for row, values in zip(found.rows, cells, strict=True):
        labels: dict[str, None] = {}
        for value in values:
            try:
                labels.update(dict.fromkeys(label_cells.parse(value, config.label_separator, config.label_names)))
            except label_cells.LabelError as error:
                problems.add("labels that do not parse", f"{row}: {error}")
        parsed.append(tuple(labels))
    found.frame["labels"] = pd.Series(parsed, dtype=object)
    found.notes += label_cells.suspicions(parsed, config.label_separator)


def _splits(config: FolderConfig, found: Gathered, problems: Problems) -> None:
    """Splits as a column says; `split_by` is done later, when it is known which images are good."""
    column = config.split_column or ("split" if "split" in found.frame.columns else "")
    if config.split_by:
        for row, value in zip(found.rows, found.frame[config.split_by], strict=True):
            if not cell_text(value):
                problems.add("no value to split by", f"{row}: empty '{config.split_by}'")
        return
    if not column:
        found.frame["split"] = "train"
        return
    splits = [cell_text(v) for v in found.frame[column]]
    for row, value in zip(found.rows, splits, strict=True):
        if value.lower() not in SPLIT_NAMES:
            problems.add("unknown splits", f"{row}: {column} is '{value}', not train, val or test")
    found.frame["split"] = pd.Series([SPLIT_NAMES.get(v.lower(), v) for v in splits], dtype=object)


def _resolve(config: FolderConfig, found: Gathered, problems: Problems) -> None:
    confined = Confined(found.root, allow_outside=config.allow_outside)

    def one(number: int, text: str) -> Path | None:
        row = found.rows[number]
        try:
            return confined.resolve(text)
        except PathRefused as error:
            problems.add("refused paths", f"{row}: {error}")
        except FileNotFoundError as error:
            problems.add("missing files", f"{row}: {error}", number)
        return None

    for number, files in enumerate(found.files):
        paths = tuple(one(number, text) for text in files if text or len(files) == 1)
        found.paths.append(None if None in paths or len(paths) < len(files) else paths)  # type: ignore[arg-type]
        if len(paths) < len(files) and Path(config.path).is_file():
            absent = [name for name, text in zip(config.tokens, files, strict=True) if not text]
            problems.add("missing channels", f"{found.rows[number]}: no path for {', '.join(absent)}", number)
    if not config.masks:
        found.masks = [None] * len(found.files)
        return
    if "{" in config.masks:
        records: list[dict[str, Any]] = found.frame.to_dict("records")  # type: ignore[assignment]
        texts = [fill(config.masks, record) for record in records]
    else:
        texts = [cell_text(v) for v in found.frame[config.masks]]
    found.masks = [one(number, text) for number, text in enumerate(texts)]
