"""Which images of a screen train: all treated ones, or those of compounds that a fold does not hold out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from protloc_jax.data import info as record_info
from protloc_jax.data.manifest import Manifest
from protloc_jax.data.manifest import read as read_manifest
from protloc_jax.data.split_config import SplitConfig
from protloc_jax.data.split_file import PARTS, SplitFile, basis_columns
from protloc_jax.data.splits import k_fold
from protloc_jax.studies.steps import Made, Workshop
from protloc_jax.studies.ws_dino.config import Screen, WsDinoStudy

ALL, FILE = "all", "split.parquet"


def fold_names(study: WsDinoStudy) -> list[str]:
    """The folds' names, as they stand in the split file."""
    return [f"fold{i}" for i in range(study.folds)]


def split_of(study: WsDinoStudy, name: str, records: Made, shop: Workshop) -> Made:
    """The split file of a screen: `all` trains on every treated image; each fold tests its own compounds.

    Compounds are spread over folds by mechanism, images of one compound stay together. The negative control is in no
    part. Raises ValueError where no image is left to train on.
    """
    screen = study.screens[name]

    def work(folder: Path) -> None:
        manifest = read_manifest(records.path / record_info.MANIFEST_FILE)
        split_file_of(manifest, screen, study, name).write(folder / FILE)

    settings = {
        "columns": [screen.compound, screen.moa, list(screen.negative)],
        "train_on": study.train_on,
        "folds": study.folds if "inductive" in study.training else 0,
        "seed": study.fold_seed,
    }
    return shop.compute(f"split-{name}", work, settings=settings, uses=[records], file=FILE)


def split_file_of(manifest: Manifest, screen: Screen, study: WsDinoStudy, name: str) -> SplitFile:
    """The splits of a manifest (see `split_of`)."""
    table = manifest.table
    compound, moa = text_of(table, screen.compound), text_of(table, screen.moa)
    annotated = ~np.isin(compound, screen.negative) & (compound != "") & (moa != "") & ~np.isin(moa, screen.negative)
    others = ~np.isin(compound, screen.negative) & (compound != "")
    treated = {"annotated": annotated, "treated": others, "all": np.ones(len(table), bool)}[study.train_on]
    if not annotated.any():
        raise ValueError(
            f"screens.{name}: no image has a compound other than {', '.join(screen.negative)} and a '{screen.moa}'."
        )
    names, parts = [ALL], [np.where(treated, PARTS.index("train"), 0)]
    config = SplitConfig(kind="k_fold", by=(screen.compound,), label=screen.moa, folds=max(study.folds, 3),
                         seeds=(study.fold_seed,))  # fmt: skip
    if "inductive" in study.training:
        dose = text_of(table, screen.concentration)[annotated] if screen.concentration in table else compound[annotated]
        fold = compound_folds(compound[annotated], dose, moa[annotated], folds=study.folds, seed=study.fold_seed)
        for i, own in enumerate(fold_names(study)):
            part = np.where(treated, PARTS.index("train"), 0)
            part[np.flatnonzero(annotated)[fold == i]] = PARTS.index("test")
            names.append(own)
            parts.append(part)
    columns = basis_columns(table, tuple(dict.fromkeys((screen.moa, screen.compound))))
    return SplitFile(manifest.ids, columns, tuple(names), np.stack(parts).astype(np.int8), config, {"screen": name})


def compound_folds(
    compound: np.ndarray, dose: np.ndarray, moa: np.ndarray, *, folds: int, seed: int
) -> np.ndarray:  # fmt: skip
    """The fold [N] of every image: compounds whole, mechanisms spread over the folds.

    Treatments are counted and not images: a positive control on every plate would fill a fold by itself.
    """
    treatments = sorted(set(zip(compound, dose, moa, strict=True)))
    names, classes = [c for c, _, _ in treatments], [m for _, _, m in treatments]
    hot = np.asarray(classes, object)[:, None] == np.asarray(sorted(set(classes)), object)[None]
    made = k_fold(hot, np.asarray(names), folds=folds, seed=seed)
    of = {names[row]: number for number, name in enumerate(made.names) for row in made.rows(name)}
    return np.array([of[name] for name in compound])


def text_of(table: pd.DataFrame, column: str) -> np.ndarray:
    """A column as text [N] object; labels (several) joined by ';', missing values as ''."""

    def plain(value: object) -> str:
        if isinstance(value, list | tuple | np.ndarray):
            return ";".join(map(str, value))
        return "" if value is None or value != value else str(value).strip()

    if column not in table:
        raise ValueError(f"the records have no column '{column}'; they have {', '.join(map(str, table.columns))}.")
    return np.array([plain(value) for value in table[column]], object)
