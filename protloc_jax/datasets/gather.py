"""Rows of a folder data set: files, ids, labels, groups and splits, with everything that is wrong with single rows."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from protloc_jax.datasets import addresses
from protloc_jax.datasets import labels as label_cells
from protloc_jax.datasets.folder_config import FolderConfig
from protloc_jax.datasets.from_directory import from_directory
from protloc_jax.datasets.from_table import from_table
from protloc_jax.datasets.gathered import Gathered
from protloc_jax.datasets.inspection import DROPPABLE
from protloc_jax.datasets.naming import fill
from protloc_jax.datasets.paths import Confined, PathRefused
from protloc_jax.datasets.plate_map import read_plate_map
from protloc_jax.datasets.problems import DatasetError, Problems
from protloc_jax.datasets.staging import StagingError, Store, default_folder, stage, stage_one
from protloc_jax.datasets.table import TABLE_SUFFIXES, cell_text, is_table
from protloc_jax.datasets.zarr_plate import from_plates, plates_in

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "held-out", "held_out"), "test"),
}


def gather(config: FolderConfig, problems: Problems, *, progress: bool = False) -> Gathered:
    """Read the table or walk the folder of `config.path`, and fetch what is remote.

    What is wrong with single rows goes to `problems`. Raises DatasetError where the whole cannot be read (missing
    columns, no image found, broken table) and FileNotFoundError when the path does not exist.
    """
    store = _store(config)
    plate_map = None
    if config.plate_map:
        barcode = _local(config.barcode, store, progress) if config.barcode else None
        plate_map = read_plate_map(_local(config.plate_map, store, progress), barcode)
    tabular = False
    if addresses.scheme_of(config.path) and not is_table(config.path.split("?", 1)[0]):
        found = from_directory(config, addresses.check_address(config.path), plate_map, problems, store)
    else:
        path = _local(config.path, store, progress)
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such folder or table.")
        tabular = not path.is_dir()
        if tabular:
            found = from_table(config, path, _root(config, path), plate_map, problems)
        elif plates := plates_in(path):
            found = from_plates(config, path, plates, plate_map, problems)
        else:
            found = from_directory(config, path, plate_map, problems, store)
    _ids(config, found, problems)
    _numbers(config, found, problems)
    _labels(config, found, problems)
    _splits(config, found, problems)
    _resolve(config, found, problems, store, tabular=tabular, progress=progress)
    return found


def _store(config: FolderConfig) -> Store:
    folder = Path(config.stage) if config.stage else default_folder()
    return Store(folder, round(config.stage_limit_gb * 1e9), anonymous=config.anonymous)


def _local(text: str, store: Store, progress: bool) -> Path:
    """A path that the user gave, or the local copy of the table at an address that the user gave."""
    if not addresses.scheme_of(text):
        return Path(addresses.without_file_scheme(text))
    if not is_table(text.split("?", 1)[0]):
        raise DatasetError(f"{text}: not a table ({', '.join(TABLE_SUFFIXES)}); a remote folder of tables is not read.")
    return stage_one(addresses.check_address(text), store, progress=progress)


def _root(config: FolderConfig, table: Path) -> Path | str:
    """What a table's paths are relative to."""
    if config.root:
        remote = addresses.scheme_of(config.root)
        return addresses.check_address(config.root) if remote else Path(addresses.without_file_scheme(config.root))
    if addresses.scheme_of(config.path):
        return addresses.check_address(config.path).rsplit("/", 1)[0]
    return table.parent


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


def _numbers(config: FolderConfig, found: Gathered, problems: Problems) -> None:
    """Columns of texts that are meant as numbers: whole ones where all are, else with NaN for empty cells."""
    for name in config.numbers:
        texts = [cell_text(v) for v in found.frame[name]]
        if all(_WHOLE.fullmatch(text) for text in texts):
            found.frame[name] = pd.Series([int(text) for text in texts], dtype="int64")
            continue
        values = []
        for row, text in zip(found.rows, texts, strict=True):
            try:
                values.append(float(text or "nan"))
            except ValueError:
                problems.add("numbers", f"{row}: {name} is '{text}', not a number")
                values.append(float("nan"))
        found.frame[name] = pd.Series(values, dtype="float64")


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


def _resolve(
    config: FolderConfig, found: Gathered, problems: Problems, store: Store, *, tabular: bool, progress: bool
) -> None:
    """Texts to files of this machine: local ones are confined to the root, remote ones are copied."""
    confined = Confined(
        found.root,
        allow_outside=config.allow_outside,
        root_given=bool(config.root),
        replaced=config.path_prefix,
        fetch_from=[addresses.check_address(a) for a in config.fetch_from],
    )

    def one(number: int, text: str) -> Path | str | None:
        row = found.rows[number]
        try:
            return confined.locate(text)
        except PathRefused as error:
            problems.add("refused paths", f"{row}: {error}")
        except FileNotFoundError as error:
            problems.add("missing files", f"{row}: {error}", number)
        return None

    located: list[list[Path | str | None] | None] = []
    absent: Counter[str] = Counter()
    zeros = config.missing_channels == "zero"
    names = tuple(config.tokens)
    for number, files in enumerate(found.files):
        own = [one(number, text) if text or len(files) == 1 else None for text in files]
        failed = any(path is None and (text or len(files) == 1) for path, text in zip(own, files, strict=True))
        without = [name for name, text in zip(names, files, strict=False) if len(files) > 1 and not text]
        if without and not (zeros and any(files)):
            failed = True
            if tabular:  # of a folder of images it has been said
                problems.add("missing channels", f"{found.rows[number]}: no path for {', '.join(without)}", number)
        absent.update(without)
        located.append(None if failed else own)
    if zeros and absent:
        shown = ", ".join(f"{name} in {count}" for name, count in absent.items())
        found.notes.append(f"channels without a file are zero: {shown} of {len(found.files)} rows.")
    masks = _mask_texts(config, found)
    mask_files = [one(number, text) for number, text in enumerate(masks)] if masks else [None] * len(found.files)
    light_files = _light_files(found, confined, problems)
    places = [*(p for own in located if own for p in own), *mask_files, *light_files.values()]
    copies = _staged(places, store, problems, progress)

    def copied(number: int, place: Path | str | None) -> Path | None:
        result = copies[place] if isinstance(place, str) else place
        if isinstance(result, Path) or result is None:
            return result
        kind = "missing files" if isinstance(result, FileNotFoundError) else "files that cannot be fetched"
        problems.add(kind, f"{found.rows[number]}: {result}", number)
        return None

    for number, own in enumerate(located):
        paths = tuple(copied(number, place) for place in own) if own else ()
        whole = own is not None and all(p is not None or place is None for p, place in zip(paths, own, strict=True))
        found.paths.append(paths if whole else None)
    found.masks = [copied(number, place) for number, place in enumerate(mask_files)]
    functions = {text: copied(0, place) for text, place in light_files.items()}
    for texts in found.lights:
        own = tuple(p for p in (functions.get(text) for text in texts) if p is not None)
        found.functions.append(own if len(own) == len(texts) else None)


def _light_files(found: Gathered, confined: Confined, problems: Problems) -> dict[str, Path | str | None]:
    """Where the illumination functions are that the table names, each looked up once."""
    places: dict[str, Path | str | None] = {}
    for row, texts in zip(found.rows, found.lights, strict=False):
        for text in texts:
            if text not in places:
                try:
                    places[text] = confined.locate(text)
                except (PathRefused, FileNotFoundError) as error:
                    problems.add("illumination functions", f"{row}: {error}")
                    places[text] = None
    return places


def _mask_texts(config: FolderConfig, found: Gathered) -> list[str]:
    if "{" in config.masks:
        records: list[dict[str, Any]] = found.frame.to_dict("records")  # type: ignore[assignment]
        return [fill(config.masks, record) for record in records]
    return [cell_text(v) for v in found.frame[config.masks]] if config.masks else []


def _staged(
    places: Sequence[Path | str | None], store: Store, problems: Problems, progress: bool
) -> Mapping[str, Path | OSError | StagingError]:
    """Local copies of the remote files among `places`; none are fetched while the table has problems of its own."""
    wanted = [place for place in places if isinstance(place, str)]
    if wanted and set(problems.kinds) - set(DROPPABLE):
        problems.check("nothing is fetched before the table is right")
    return stage(wanted, store, progress=progress) if wanted else {}
