"""From a manifest and a `SplitConfig` to a `SplitFile`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pandas as pd

from protloc_jax.config import ConfigError, nearest
from protloc_jax.data import splits
from protloc_jax.data.grouping import is_missing, joined_groups
from protloc_jax.data.manifest import Manifest, capped, listed
from protloc_jax.data.split_config import SplitConfig
from protloc_jax.data.split_file import SplitFile, basis_columns
from protloc_jax.data.splits import Split
from protloc_jax.data.where import rows_where

_MOST_CELLS = 2 * 10**8


def make_splits(
    manifest: Manifest,
    config: SplitConfig,
    *,
    extra: pd.DataFrame | None = None,
    about: Mapping[str, Any] | None = None,
) -> SplitFile:
    """Split the rows of a manifest as `config` says.

    extra   more columns of the rows, in their order (see `join`), to group, stratify and filter by
    Raises ConfigError naming every unknown column with the nearest one, and everything else that cannot be.
    """
    if config.kind == "de_novo":
        raise ConfigError("kind=de_novo: is made by `protloc data split-de-novo`, which has options of its own.")
    table = manifest.table if extra is None else pd.concat([manifest.table, extra], axis=1)
    _check_columns(table, config)
    try:
        chosen = np.flatnonzero(rows_where(table, config.where)) if config.where else np.arange(len(table))
    except ValueError as error:
        raise ConfigError(f"where: {error}") from error
    if not len(chosen):
        raise ConfigError(f"where={list(config.where)}: no row is left.")
    used = table.iloc[chosen].reset_index(drop=True)
    label, names = _classes(used, config.label)
    if config.label and config.label != "labels" and not names:
        raise ConfigError(f"label={config.label}: the column is empty.")
    by = {column: basis_columns(used, (column,))[column] for column in config.by or ("id",)}
    try:
        groups = joined_groups(by, missing=config.missing)
        made = _KINDS[config.kind](used, label, groups, config)
    except ValueError as error:
        raise ConfigError(f"{config.kind} by {', '.join(config.by) or 'image'}: {error}") from error
    if len(made) * manifest.n > _MOST_CELLS:
        raise ConfigError(f"{len(made)} splits of {manifest.n} rows are too many for one file.")
    parts = np.zeros((len(made), manifest.n), np.int8)
    for row, split in zip(parts, made, strict=True):
        for code, rows in enumerate((split.train, split.val, split.test), start=1):
            row[chosen[rows]] = code
    basis = [config.label] if config.label and config.label in table.columns else []
    basis += [c for c in (*config.by, *config.stratify, config.inner_by) if c and c not in basis and c != "id"]
    found = SplitFile(
        manifest.ids, basis_columns(table, basis), tuple(s.name for s in made), parts, config, dict(about or {})
    )
    if config.rare == "refuse":
        _refuse_rare(found)
    return found


def join(manifest: Manifest, table: pd.DataFrame, *, name: str) -> pd.DataFrame:
    """The columns of another table (with an `id` column) in the manifest's row order.

    Raises ConfigError for repeated ids, rows of the manifest it lacks, and columns that the manifest has already.
    """
    if "id" not in table.columns:
        raise ConfigError(f"{name}: no column 'id'.{nearest('id', [str(c) for c in table.columns])}")
    ids = pd.Index(table["id"].astype(str))
    problems = []
    if ids.has_duplicates:
        problems.append(f"{name}: repeated ids: {capped([str(i) for i in ids[ids.duplicated()].unique()])}.")
    lacking = [i for i in manifest.ids if i not in set(ids)]
    if lacking:
        problems.append(f"{name}: lacks {len(lacking)} ids of the manifest: {capped(lacking)}.")
    columns = [c for c in table.columns if c not in manifest.table.columns]
    if problems:
        raise ConfigError(listed(problems))
    return table[columns].iloc[ids.get_indexer(pd.Index(manifest.ids))].reset_index(drop=True)


def _holdout(table: pd.DataFrame, label: np.ndarray, groups: np.ndarray, config: SplitConfig) -> list[Split]:
    hot = np.concatenate([label, *(_classes(table, c)[0] for c in config.stratify)], axis=1)
    shares = cast(tuple[float, float, float], config.shares)
    return [
        splits.split_of(splits.train_val_test(hot, groups, shares=shares, seed=seed), _named("holdout", seed, config))
        for seed in config.seeds
    ]


def _k_fold(table: pd.DataFrame, label: np.ndarray, groups: np.ndarray, config: SplitConfig) -> list[Split]:
    hot = np.concatenate([label, *(_classes(table, c)[0] for c in config.stratify)], axis=1)
    made = []
    for seed in config.seeds:
        folds = splits.k_fold_splits(splits.k_fold(hot, groups, folds=config.folds, seed=seed))
        made += [split._replace(name=_named(split.name, seed, config)) for split in folds]
    return made


def _leave_one_out(table: pd.DataFrame, label: np.ndarray, groups: np.ndarray, config: SplitConfig) -> list[Split]:
    # A component of several columns is called by the first values of its first row.
    first = np.unique(groups, return_index=True)[1]
    shown = ["/".join(str(table[c][row]) for c in config.by) for row in first]
    twice = {name for name in shown if shown.count(name) > 1}
    shown = [f"{name} ({table['id'][row]})" if name in twice else name for name, row in zip(shown, first, strict=True)]
    inner = basis_columns(table, (config.inner_by,))[config.inner_by] if config.inner_by else None
    made = []
    for seed in config.seeds:
        left_out = splits.leave_one_group_out(
            label,
            groups,
            inner_groups=None if inner is None else np.asarray(inner),
            inner_share=config.inner_share,
            seed=seed,
        )
        made += [
            s._replace(name=_named(f"without {name}", seed, config)) for s, name in zip(left_out, shown, strict=True)
        ]
    return made


def _few_shot(table: pd.DataFrame, label: np.ndarray, groups: np.ndarray, config: SplitConfig) -> list[Split]:
    made = []
    for seed in config.seeds:
        found = splits.few_shot(label, groups, shots=config.shots, of=config.of, val_shots=config.val_shots, seed=seed)
        made += [split._replace(name=_named(f"k={k}", seed, config)) for k, split in found.items()]
    return made


def _fractions(table: pd.DataFrame, label: np.ndarray, groups: np.ndarray, config: SplitConfig) -> list[Split]:
    made = []
    for seed, whole in zip(config.seeds, _holdout(table, label, groups, config), strict=True):
        found = splits.nested_fractions(
            label[whole.train],
            groups[whole.train],
            fractions=config.fractions,
            seed=seed,
            rare="keep" if config.rare == "keep" else "report",
        )
        made += [
            Split(whole.train[rows], whole.val, whole.test, _named(f"fraction={fraction:g}", seed, config))
            for fraction, rows in sorted(found.items())
        ]
    return made


def _chosen(table: pd.DataFrame, label: np.ndarray, groups: np.ndarray, config: SplitConfig) -> list[Split]:
    test = rows_where(table, config.test)
    val = rows_where(table, config.val) if config.val else np.zeros(len(table), bool)
    both = np.flatnonzero(test & val)
    if len(both):
        raise ValueError(f"{len(both)} rows are chosen for both test and val: {capped(list(table['id'][both]))}.")
    split = Split(*map(np.flatnonzero, (~test & ~val, val, test)), name="chosen")
    empty = [
        n
        for n, rows, on in zip(("train", "val", "test"), split, (1, config.val, 1), strict=False)
        if on and not len(rows)
    ]
    if empty:
        raise ValueError(f"no row is left for {', '.join(empty)}.")
    torn = splits.overlaps(split, groups)
    if torn:
        rows = [int(np.flatnonzero(groups == int(g))[0]) for g in torn]
        raise ValueError(
            f"{len(torn)} groups lie in several parts, such as those of {capped(list(table['id'][rows]))}."
        )
    return [split]


_KINDS = {
    "holdout": _holdout,
    "k_fold": _k_fold,
    "leave_one_group_out": _leave_one_out,
    "few_shot": _few_shot,
    "fractions": _fractions,
    "chosen": _chosen,
}


def _named(name: str, seed: int, config: SplitConfig) -> str:
    return f"{name} seed={seed}" if len(config.seeds) > 1 else name


def _classes(table: pd.DataFrame, column: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """A column as multi-hot bool [N, L] with its names; no columns for ''."""
    values = (
        [v if isinstance(v, list | tuple) else () if is_missing(v) else (v,) for v in table[column]] if column else []
    )
    names = tuple(sorted({str(v) for row in values for v in row}))
    at = {name: i for i, name in enumerate(names)}
    hot = np.zeros((len(table), len(names)), bool)
    for row, own in enumerate(values):
        hot[row, [at[str(v)] for v in own]] = True
    return hot, names


def _check_columns(table: pd.DataFrame, config: SplitConfig) -> None:
    asked = [("by", c) for c in config.by] + [("stratify", c) for c in config.stratify]
    asked += [(key, value) for key, value in (("label", config.label), ("inner_by", config.inner_by)) if value]
    have = [str(c) for c in table.columns]
    problems = [
        f"{key}: no column '{column}'.{nearest(column, have)} Columns: {capped(have, 30)}."
        for key, column in asked
        if column not in have
    ]
    if problems:
        raise ConfigError(listed(problems))


def _refuse_rare(found: SplitFile) -> None:
    problems = []
    for row in found.report():
        missing = {part: classes for part, classes in row["classes_missing"].items() if classes}
        problems += [f"'{row['split']}': {part} has no {capped(classes)}." for part, classes in missing.items()]
    if problems:
        raise ConfigError(f"rare=refuse: classes are missing from parts. {listed(problems)}")
