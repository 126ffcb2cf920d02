"""From the rows of a raw layout to records: fields by the folder packing, or single cells by the crops."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from protloc_jax import config as configs
from protloc_jax.data import info as info_file
from protloc_jax.data import records
from protloc_jax.data.durable import write_whole
from protloc_jax.data.local_path import local_folder
from protloc_jax.data.make_splits import make_splits
from protloc_jax.data.manifest import Manifest, capped
from protloc_jax.data.split_config import SplitConfig
from protloc_jax.datasets import crops, folder
from protloc_jax.datasets.crop_config import CropConfig
from protloc_jax.datasets.folder_config import FolderConfig
from protloc_jax.datasets.problems import DatasetError
from protloc_jax.datasets.raw_writer import CONFIG_FILE as SIMULATED_FILE
from protloc_jax.datasets.row_table import PREPARATION, ROWS_FILE, RowTable, few_groups, write_rows
from protloc_jax.datasets.watershed import SegmentConfig

CONFIG_FILE = "folder.json"


@dataclass(frozen=True)
class Packed:
    """What was packed, or (info is None) only checked.

    notes  what a user should know, in order: the reader's, the packing's, the split's
    """

    manifest: Manifest
    info: records.RecordsInfo | None
    notes: list[str]


@dataclass(frozen=True)
class Work:
    """How to work: threads, records a file, a progress bar, start anew, only check."""

    workers: int | None = None
    shard_size: int = 0
    progress: bool = False
    restart: bool = False
    check_only: bool = False


def pack_fields(
    rows: RowTable, raw: str | Path, out: str | Path, given: Mapping[str, Any] | None = None, work: Work | None = None
) -> Packed:
    """Check the rows' images and write records to `out`, beside `rows.csv`, `rows_left_out.csv` and `folder.json`.

    given  options of FolderConfig that go before the layout's own (of `row_table.SHARED`)
    The same call resumes after a kill. Raises DatasetError listing everything that is wrong, and ConfigError.
    """
    work = work or Work()
    with _table(rows, out, work) as place:
        config = rows.folder(raw, place.path, given or {})
        checked = folder.prepare(config, workers=work.workers, progress=work.progress)
        checked = replace(checked, source=_source(checked.source, raw, config))
        notes = _notes(rows, checked.notes, checked.manifest, config)
        if work.check_only:
            return Packed(checked.manifest, None, notes)
        info = folder.pack(
            config,
            out,
            workers=work.workers,
            shard_size=work.shard_size,
            progress=work.progress,
            restart=work.restart,
            prepared=checked,
        )
    write_whole(Path(out) / CONFIG_FILE, configs.to_json(config).encode())
    return Packed(checked.manifest, info, notes)


def pack_cells(
    rows: RowTable,
    raw: str | Path,
    out: str | Path,
    crop: CropConfig,
    given: Mapping[str, Any] | None = None,
    segment: SegmentConfig | None = None,
    work: Work | None = None,
) -> Packed:
    """Cut single cells out of the rows' fields by their label images and write them as records; as `pack_fields`."""
    work = work or Work()
    with _table(rows, out, work) as place:
        config = rows.folder(raw, place.path, given or {})
        found = crops.prepare(config, crop, segment, workers=work.workers, progress=work.progress)
        notes = _notes(rows, found.notes, found.manifest, config)
        if work.check_only:
            return Packed(found.manifest, None, notes)
        info = crops.pack(
            config,
            crop,
            out,
            segment,
            workers=work.workers,
            shard_size=work.shard_size,
            progress=work.progress,
            restart=work.restart,
            prepared=found,
        )
    write_whole(Path(out) / CONFIG_FILE, configs.to_json(config).encode())
    return Packed(found.manifest, info, notes)


def write_folds(
    manifest: Manifest, out: str | Path, folds: int, *, by: str, seed: int = 0, where: tuple[str, ...] = ()
) -> tuple[Path, list[str]]:
    """(file, notes): k folds by whole groups as a split file `folds.parquet`; the notes say which classes parts miss.

    where  conditions on the rows that are split; the others are in no part

    Raises ConfigError naming what cannot be.
    """
    found = make_splits(manifest, SplitConfig(kind="k_fold", by=(by,), folds=folds, seeds=(seed,), where=where))
    notes = few_groups(manifest, by, folds)
    for row in found.report():
        missing = {part: names for part, names in row["classes_missing"].items() if names}
        notes += [f"{row['split']}: {part} misses {capped(names, 20)}." for part, names in missing.items()]
    path = Path(out) / "folds.parquet"
    found.write(path)
    return path, notes


class _table:
    """The rows as a file: in `out`, or in a passing folder where nothing is to be written."""

    def __init__(self, rows: RowTable, out: str | Path, work: Work):
        self._passing = tempfile.TemporaryDirectory() if work.check_only else None
        where = Path(self._passing.name) if self._passing else local_folder(out)
        finished = (where / info_file.FILE).exists() and not work.restart
        before = (where / ROWS_FILE).read_bytes() if (where / ROWS_FILE).exists() else None
        if finished and before != rows.text():
            raise DatasetError(f"{where} holds other records; pack with restart to discard them, or into a new folder.")
        self.path = write_rows(rows, where)

    def __enter__(self) -> _table:
        return self

    def __exit__(self, *error: object) -> None:
        if self._passing:
            self._passing.cleanup()


def _notes(rows: RowTable, more: list[str], manifest: Manifest, config: FolderConfig) -> list[str]:
    parts = sum(share > 0 for share in config.split_fractions)
    return [*rows.notes, *more, *few_groups(manifest, config.split_by, parts)]


def _source(source: str, raw: str | Path, config: FolderConfig) -> str:
    """The text that marks the records' pixels.

    It keeps the simulation where the raw files are simulated, and the constants of what was done to values and sizes,
    so that `dataset.json` alone tells what a pixel means.
    """
    path, told = Path(raw) / SIMULATED_FILE, {}
    if path.is_file():
        told["simulated"] = json.loads(path.read_text())
    if config.white_point or config.resize_factor:
        values = configs.to_dict(config)
        told["prepared"] = {key: values[key] for key in (*PREPARATION, "resample") if not key.endswith("_folder")}
    return json.dumps({"folder": source, **told}, sort_keys=True) if told else source
