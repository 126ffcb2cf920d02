"""Which columns of a table are features and which say what a row is, for tables made here and by other tools."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from protloc_jax.data.manifest import capped

PREFIX, FEATURE = "Metadata_", "emb_"
# The compartments whose columns pycytominer takes for CellProfiler's measurements.
COMPARTMENTS = ("Cells_", "Cytoplasm_", "Nuclei_")
# Columns that evaluations look for by these names; a table of another tool may spell them in other case.
KNOWN = ("id", "split", "labels", "protein", "antibody", "compound", "gene", "plate", "well", "site", "field", "batch")
# What makes a row of a foreign table one of a kind, from the coarsest to the finest.
_PLACE = ("plate", "well", "site", "imagenumber", "objectnumber")
_OURS = re.compile(rf"{FEATURE}\d+")


def feature_columns(table: pd.DataFrame) -> list[str]:
    """The names of a table's feature columns, in order: what pycytominer's `features=` wants.

        table = pd.read_parquet("features.parquet")                      # written by `protloc embed`
        features = feature_columns(table)
        normalized = pycytominer.normalize(table, features=features, method="spherize")

    Three kinds of tables are known, the first that fits: ours (`emb_0000`, ...); CellProfiler's and pycytominer's
    (numbers named Cells_, Cytoplasm_ or Nuclei_, whole numbers too); any other (floating-point columns that do not
    begin with `Metadata_`; whole numbers may be classes or plates, and are never taken). ValueError where there are
    none.
    """
    return features_among({str(name): np.dtype(_kind(table[name])) for name in table.columns})


def features_among(kinds: Mapping[str, np.dtype]) -> list[str]:
    """`feature_columns` of column names and their NumPy types (object for what is no number)."""
    numbers = [name for name, dtype in kinds.items() if dtype.kind in "iuf" and not name.startswith(PREFIX)]
    for found in (
        [name for name in numbers if _OURS.fullmatch(name)],
        [name for name in numbers if name.startswith(COMPARTMENTS)],
        [name for name in numbers if kinds[name].kind == "f"],
    ):
        if found:
            return found
    raise ValueError(
        f"no feature columns: none is named {FEATURE}0000 or {', '.join(COMPARTMENTS)}..., and no other column of "
        f"floating-point numbers is without '{PREFIX}'. Columns: {capped(list(kinds)) or '(none)'}."
    )


def is_cellprofiler(names: list[str]) -> bool:
    """Whether features are CellProfiler's, whose units differ from one to the next."""
    return bool(names) and all(name.startswith(COMPARTMENTS) for name in names)


def metadata_of_foreign(obs: pd.DataFrame) -> pd.DataFrame:
    """The metadata of another tool's table under the names that evaluations look for, besides its own.

    `Metadata_` is taken off. `Plate`, `Gene`, ... are found again as `plate`, `gene`. `well` and `field` are made
    unique over plates ("P1/A01", "P1/A01/3"), because rows that share one are taken for near copies. `id` joins plate,
    well, site, image and object where that is unique, and is the row number otherwise. Columns that already have a
    known name stay as they are.
    """
    obs = obs.rename(columns=lambda name: str(name).removeprefix(PREFIX)).reset_index(drop=True)
    twice = sorted(set(obs.columns[obs.columns.duplicated()]))
    if twice:
        raise ValueError(f"columns that are one without '{PREFIX}': {capped(twice)}.")
    spelled: dict[str, str] = {}
    for name in obs.columns:
        spelled.setdefault(name.lower(), name)
    made = {
        name: obs[spelled[name]]
        for name in KNOWN
        if name in spelled and name not in obs and name not in ("well", "field")
    }
    text = {name: pd.Series(obs[spelled[name]]).astype(str) for name in _PLACE if name in spelled}
    if "well" not in obs and "well" in text:
        made["well"] = _joined(text, "plate", "well")
    if "field" not in obs and ("field" in spelled or "site" in text):
        text["field"] = pd.Series(obs[spelled["field" if "field" in spelled else "site"]]).astype(str)
        made["field"] = _joined(text, "plate", "well", "field")
    if "id" not in obs and "id" not in made:
        ids = _joined(text, *_PLACE)
        made["id"] = ids if len(text) and ids.is_unique else pd.Series([f"row{i}" for i in range(len(obs))])
    added = pd.DataFrame(made, index=obs.index)
    if "id" not in added:
        return pd.concat([obs, added], axis=1)
    return pd.concat([added[["id"]], obs, added.drop(columns="id")], axis=1)


def _joined(text: Mapping[str, pd.Series], *names: str) -> pd.Series:
    parts = [text[name] for name in names if name in text]
    joined = parts[0] if parts else pd.Series([], dtype=object)
    for part in parts[1:]:
        joined = joined + "/" + part
    return joined


def _kind(column: Any) -> np.dtype | type:
    dtype = column.dtype
    if isinstance(dtype, np.dtype):
        return dtype
    # pandas' own numbers (Int64, Float64) stand for NumPy's.
    found = getattr(dtype, "numpy_dtype", None)
    return found if isinstance(found, np.dtype) else object
