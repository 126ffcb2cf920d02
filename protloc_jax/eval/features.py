"""Feature tables: one row an image, with its metadata and where the numbers come from.

Written as AnnData (`.h5ad`: X, obs, uns) or Parquet (`Metadata_*` columns first, then `emb_0000`, ...). Every
evaluation reads this table, so features of another tool can be scored here and ours elsewhere: `.h5ad` opens in
scanpy as it is, `.parquet` in pycytominer and copairs, which want the list of `feature_columns`.
"""

from __future__ import annotations

import json
import os
import warnings
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from protloc_jax.config import nearest
from protloc_jax.data.h5ad_guard import check_h5ad, check_not_pickled
from protloc_jax.data.manifest import capped
from protloc_jax.eval.feature_columns import (
    FEATURE,
    PREFIX,
    feature_columns,
    features_among,
    is_cellprofiler,
    metadata_of_foreign,
)

__all__ = ["FEATURE", "FORMATS", "PREFIX", "FeatureTable", "feature_columns", "known_format", "read"]

FORMATS = (".h5ad", ".parquet")
TEXT_FORMATS = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
PROVENANCE = "provenance"
# In Parquet also a column, only for simulated images: other tools drop the provenance and keep the columns, and what is
# synthetic must go on saying so.
SOURCE, SOURCE_COLUMN = "data_source", "protloc_source"
LABEL_SEPARATOR = ";"


@dataclass(frozen=True)
class FeatureTable:
    """Features and metadata of images.

    x    [N, D] float32
    obs  one row an image: `id`, `split`, `labels` (names joined by ';') and any group columns
    uns  provenance: what made the features (weights digest, channel plan, layer, pooling, data digest, label names)
    names  what another tool calls its features, [D]; empty for ours, which are numbered
    """

    x: np.ndarray
    obs: pd.DataFrame
    uns: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or len(self.x) != len(self.obs):
            raise ValueError(f"features {self.x.shape} do not go with {len(self.obs)} rows of metadata.")
        if self.names and len(self.names) != self.x.shape[1]:
            raise ValueError(f"{len(self.names)} feature names do not go with {self.x.shape[1]} features.")
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
    """Read a table written here, or another tool's: AnnData, or Parquet, CSV or TSV as pycytominer writes them.

    Of a table without our provenance `feature_columns` says which columns are features, and `metadata_of_foreign` what
    its plates, wells and rows are called; CellProfiler's features are marked to be standardised before distances.
    Nothing is unpickled. Raises FileNotFoundError or ValueError naming the file.
    """
    path = Path(path)
    if not path.name.endswith((*FORMATS, *TEXT_FORMATS)):
        raise ValueError(f"{path}: a feature table ends in {', '.join(FORMATS)} or {', '.join(TEXT_FORMATS)}.")
    if not path.is_file():
        raise FileNotFoundError(f"feature table {path} does not exist.")
    try:
        if path.suffix == ".h5ad":
            check_h5ad(path)
            return _read_h5ad(path)
        check_not_pickled(path)
        return _read_parquet(path) if path.suffix == ".parquet" else _read_text(path)
    except (OSError, EOFError, zlib.error, KeyError, TypeError, ValueError) as error:
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
    var = pd.DataFrame(index=pd.Index(table.names or _feature_names(table.x.shape[1])))
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
    obs = _plain(pd.DataFrame(data.obs))
    if not {"id", f"{PREFIX}id"} & set(obs.columns):
        obs.insert(0, "id", data.obs.index.astype(str).to_numpy())
    if PROVENANCE in data.uns:
        return FeatureTable(np.asarray(x, np.float32), obs, json.loads(data.uns[PROVENANCE]), _own(data.var_names))
    names = list(map(str, data.var_names))
    # pycytominer counts metadata that are numbers among the features.
    meta = [i for i, name in enumerate(names) if name.startswith(PREFIX)]
    obs = obs.assign(**{names[i]: x[:, i] for i in meta})
    return _foreign(np.delete(x, meta, axis=1), [name for name in names if not name.startswith(PREFIX)], obs)


def _write_parquet(table: FeatureTable, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {PREFIX + str(c): pa.array(table.obs[c].tolist(), from_pandas=True) for c in table.obs}
    if table.uns.get(SOURCE):
        columns[PREFIX + SOURCE_COLUMN] = pa.array([str(table.uns[SOURCE])] * len(table.obs))
    features = np.asarray(table.x, np.float32)
    columns |= {
        name: pa.array(features[:, i]) for i, name in enumerate(table.names or _feature_names(features.shape[1]))
    }
    note = {PROVENANCE: json.dumps(dict(table.uns), sort_keys=True)}
    pq.write_table(pa.table(columns).replace_schema_metadata(note), path)


def _read_parquet(path: Path) -> FeatureTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    types = {f.name: f.type for f in table.schema}
    numbers = [n for n, t in types.items() if pa.types.is_integer(t) or pa.types.is_floating(t)]
    note = (table.schema.metadata or {}).get(PROVENANCE.encode())
    kinds = {n: np.dtype(types[n].to_pandas_dtype() if n in numbers else object) for n in types}
    named = note is not None and not any(n.startswith(FEATURE) for n in types)
    # Another tool's features that were written here under their names: what is none has a prefix.
    features = [n for n in numbers if not n.startswith(PREFIX)] if named else features_among(kinds)
    x = np.stack([table.column(n).to_numpy() for n in features], axis=1)
    rest = [n for n in table.column_names if n not in set(features) and n != "__index_level_0__"]
    obs = table.select(rest).replace_schema_metadata().to_pandas()
    if note is None:
        return _foreign(x, features, _plain(obs))
    obs = obs.rename(columns=lambda n: n.removeprefix(PREFIX)).drop(columns=SOURCE_COLUMN, errors="ignore")
    return FeatureTable(x.astype(np.float32), obs, json.loads(note), _own(features))


def _read_text(path: Path) -> FeatureTable:
    """CSV or TSV; metadata stay text, so that plate 0012 keeps its zeros and a gene called NA its name."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"  # the name does not tell: pycytominer writes plain text to .csv.gz too
    how: dict[str, Any] = {"sep": "\t" if ".tsv" in path.suffixes else ",", "compression": "gzip" if packed else None}
    how["float_precision"] = "round_trip"
    with warnings.catch_warnings():
        # pandas 3.1 reads numbers exactly without the word, and warns of it.
        warnings.filterwarnings("ignore", "The 'float_precision' argument is deprecated")
        names = list(pd.read_csv(path, nrows=0, **how).columns)
        meta = [n for n in names if n.startswith(PREFIX)]
        blank = {n: ["", "NA", "NaN", "nan"] for n in names if n not in meta}
        frame = pd.read_csv(path, dtype=dict.fromkeys(meta, str), keep_default_na=False, na_values=blank, **how)
    features = feature_columns(frame)
    return _foreign(frame[features].to_numpy(np.float64), features, _plain(frame.drop(columns=features)))


def _foreign(x: np.ndarray, names: list[str], obs: pd.DataFrame) -> FeatureTable:
    """A table of another tool; ValueError names the features with missing values."""
    x = np.asarray(x, np.float64)
    bad = [name for name, column in zip(names, x.T, strict=True) if not np.isfinite(column).all()]
    if bad:
        raise ValueError(
            f"{len(bad)} of {len(names)} features have missing or infinite values: {capped(bad, 5)}. Leave them out, "
            "for example with pycytominer.feature_select(table, operation='drop_na_columns', na_cutoff=0)."
        )
    uns: dict[str, Any] = {"scale": "standardise"} if is_cellprofiler(names) else {}
    obs = metadata_of_foreign(obs)
    if SOURCE_COLUMN in obs:
        uns[SOURCE] = "; ".join(sorted(set(obs.pop(SOURCE_COLUMN).dropna().astype(str))))
    return FeatureTable(x.astype(np.float32), obs, uns, _own(names))


def _plain(obs: pd.DataFrame) -> pd.DataFrame:
    """Categories as their values, rows numbered from 0."""
    obs = obs.reset_index(drop=True)
    for column in obs.columns:
        if isinstance(obs[column].dtype, pd.CategoricalDtype):
            obs[column] = obs[column].astype(obs[column].cat.categories.dtype)
    return obs


def _own(names: Iterable[Any]) -> tuple[str, ...]:
    """Names of another tool's features; none where they are our numbers, in order, or not one of a kind."""
    found = tuple(map(str, names))
    return () if list(found) == _feature_names(len(found)) or len(set(found)) < len(found) else found


def _feature_names(width: int) -> list[str]:
    return [f"{FEATURE}{i:04d}" for i in range(width)]
