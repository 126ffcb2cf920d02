"""Feature tables: one row an image, with its metadata and where the numbers come from.

Written as AnnData (`.h5ad`: X, obs, uns) or Parquet (`Metadata_*` columns first, then `emb_0000`, ...). Every
evaluation reads this table, so features of another tool can be scored here and ours elsewhere.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from protloc_jax.config import nearest

FORMATS = (".h5ad", ".parquet")
PREFIX, FEATURE = "Metadata_", "emb_"
PROVENANCE = "provenance"
LABEL_SEPARATOR = ";"


@dataclass(frozen=True)
class FeatureTable:
    """Features and metadata of images.

    x    [N, D] float32
    obs  one row an image: `id`, `split`, `labels` (names joined by ';') and any group columns
    uns  provenance: what made the features (weights digest, channel plan, layer, pooling, data digest, label names)
    """

    x: np.ndarray
    obs: pd.DataFrame
    uns: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or len(self.x) != len(self.obs):
            raise ValueError(f"features {self.x.shape} do not go with {len(self.obs)} rows of metadata.")
        if "id" not in self.obs:
            raise ValueError("the metadata has no column 'id'.")
        bad = np.flatnonzero(~np.isfinite(self.x).all(axis=1))
        if len(bad):
            ids = ", ".join(str(i) for i in self.obs["id"].iloc[bad[:10]])
            raise ValueError(
                f"{len(bad)} rows have NaN or infinite features, ids {ids}{' ...' if len(bad) > 10 else ''}."
            )

    def write(self, path: str | Path) -> Path:
        """Write to `.h5ad` or `.parquet`, whole or not at all. ValueError for another ending."""
        path = known_format(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.stem}.writing{path.suffix}")
        try:
            (_write_h5ad if path.suffix == ".h5ad" else _write_parquet)(self, temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def label_matrix(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """Multi-hot labels [N, L] bool and their names, in the order of `uns["label_names"]` where that is known.

        Raises ValueError where no row is labelled, or a label is not among the names.
        """
        if "labels" not in self.obs:
            raise ValueError(f"the metadata has no column 'labels'.{nearest('labels', list(self.obs))}")
        each = [[n for n in str(text).split(LABEL_SEPARATOR) if n] for text in self.obs["labels"].fillna("")]
        found = {name for row in each for name in row}
        if not found:
            raise ValueError("no row of the table has a label; nothing can be scored.")
        names = tuple(self.uns.get("label_names") or sorted(found))
        unknown = sorted(found - set(names))
        if unknown:
            raise ValueError(f"labels that are not in the class list: {', '.join(unknown[:10])}.")
        column = {name: i for i, name in enumerate(names)}
        hot = np.zeros((len(each), len(names)), bool)
        for row, labels in enumerate(each):
            hot[row, [column[name] for name in labels]] = True
        return hot, names


def read(path: str | Path) -> FeatureTable:
    """Read a table written here, or another tool's: `.h5ad` with `obs`, `.parquet` with numeric feature columns.

    In a foreign Parquet file, float columns that do not begin with `Metadata_` are the features. Nothing is
    unpickled. Raises FileNotFoundError or ValueError naming the file.
    """
    path = known_format(path)
    if not path.is_file():
        raise FileNotFoundError(f"feature table {path} does not exist.")
    try:
        return (_read_h5ad if path.suffix == ".h5ad" else _read_parquet)(path)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a usable feature table: {error}") from error


def known_format(path: str | Path) -> Path:
    """`path` as a Path; ValueError unless it ends like a feature table."""
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: a feature table ends in {' or '.join(FORMATS)}.")
    return path


def _write_h5ad(table: FeatureTable, path: Path) -> None:
    import anndata

    obs = table.obs.copy()
    obs.index = pd.Index([str(i) for i in obs["id"]], name=None)
    for column in obs:
        if obs[column].dtype == object or str(obs[column].dtype).startswith("str"):
            obs[column] = obs[column].fillna("").astype(str).astype(object)
    var = pd.DataFrame(index=pd.Index(_feature_names(table.x.shape[1])))
    uns = {PROVENANCE: json.dumps(dict(table.uns), sort_keys=True)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's notes on string types of coming pandas versions
        anndata.AnnData(X=np.asarray(table.x, np.float32), obs=obs, var=var, uns=uns).write_h5ad(path)


def _read_h5ad(path: Path) -> FeatureTable:
    import anndata

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = anndata.read_h5ad(path)
    x = data.X.toarray() if hasattr(data.X, "toarray") else np.asarray(data.X)  # type: ignore[union-attr]
    obs = pd.DataFrame(data.obs).copy()
    for column in obs.columns:
        if isinstance(obs[column].dtype, pd.CategoricalDtype):
            obs[column] = obs[column].astype(obs[column].cat.categories.dtype)
    if "id" not in obs:
        obs.insert(0, "id", obs.index.astype(str).to_numpy())
    return FeatureTable(
        np.asarray(x, np.float32), obs.reset_index(drop=True), json.loads(data.uns.get(PROVENANCE, "{}"))
    )


def _write_parquet(table: FeatureTable, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {PREFIX + str(c): pa.array(table.obs[c].tolist()) for c in table.obs}
    features = np.asarray(table.x, np.float32)
    columns |= {name: pa.array(features[:, i]) for i, name in enumerate(_feature_names(features.shape[1]))}
    note = {PROVENANCE: json.dumps(dict(table.uns), sort_keys=True)}
    pq.write_table(pa.table(columns).replace_schema_metadata(note), path)


def _read_parquet(path: Path) -> FeatureTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    meta = [n for n in table.column_names if n.startswith(PREFIX)]
    features = [f.name for f in table.schema if f.name not in meta and pa.types.is_floating(f.type)]
    if not features:
        raise ValueError("no feature columns (floating-point numbers whose names do not begin with 'Metadata_').")
    rest = [n for n in table.column_names if n not in features]
    obs = table.select(rest).to_pandas().rename(columns=lambda n: n.removeprefix(PREFIX))
    x = np.stack([table.column(n).to_numpy() for n in features], axis=1).astype(np.float32)
    uns = json.loads((table.schema.metadata or {}).get(PROVENANCE.encode(), b"{}"))
    return FeatureTable(x, obs, uns)


def _feature_names(width: int) -> list[str]:
    return [f"{FEATURE}{i:04d}" for i in range(width)]
