"""The plain question, asked of any set of feature tables: which of them tells the labels apart, on held-out groups?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from protloc_jax.config import nearest
from protloc_jax.data.manifest import capped
from protloc_jax.data.split_file import SplitFile, basis_columns
from protloc_jax.data.splits import Split, k_fold, k_fold_splits, leave_one_group_out
from protloc_jax.eval.equal_width import at_equal_width, pairs_of_equal_width
from protloc_jax.eval.evaluate import EvaluateConfig, System, evaluate_table
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.outcome import Task

# Columns that name what must not lie on both sides of a split, the strongest first; the first one present is used.
UNITS = ("protein", "antibody", "compound", "gene", "field", "well", "id")
# Images that share one of these are near copies: they never vote for one another.
NEIGHBOURS = ("well", "field")
PROTEIN = "protein"
EQUAL_WIDTH = ("pairs", "random", "pca")
SYNTHETIC = "simulated"


def score(
    tables: Mapping[str, FeatureTable],
    *,
    unit: str = "",
    label: str = "labels",
    split: Literal["given", "k-fold"] = "given",
    folds: int = 5,
    leave_out: str = "",
    exclude: Sequence[str] | None = None,
    split_file: SplitFile | None = None,
    split_name: str = "",
    config: EvaluateConfig | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    choices: Mapping[str, Sequence[str]] | None = None,
    equal_width: Literal["", "pairs", "random", "pca"] = "",
    seed: int = 0,
) -> dict[str, Any]:
    """Score feature tables that describe the same images; returns the plain dict of `evaluate_table`.

    unit       column of the groups over which splits are made and intervals drawn ("" = the first of protein,
               antibody, compound, gene, field, well that the tables have)
    label      column of class names (';' between several), `labels` unless another is asked for
    split      "given": the tables' own train, val and test; "k-fold": grouped by `unit`, stratified over labels
    leave_out  column (protein) each value of which is left out in turn, instead of a split
    exclude    columns whose equal values may not vote for one another in k-NN; None: well and field, and protein where
               the label is the protein's (equal in all its images, and shared by proteins)
    split_file splits made before, instead of all these; split_name: which of them (needed where test rows overlap)
    choices    {name: tables}: one more row each, its table chosen on the validation groups of every split
    equal_width  "pairs": compare only tables of one width; "random", "pca": bring all to the narrowest (`equal_width`)
    Rows without a label are left out and counted. Raises ValueError naming tables, columns or ids that do not fit.
    """
    asked = question(
        tables,
        unit=unit,
        label=label,
        split=split,
        folds=folds,
        leave_out=leave_out,
        split_file=split_file,
        split_name=split_name,
        # Validation rows inside each left-out split have always been drawn by the config's seed.
        seed=(config or EvaluateConfig()).seed if leave_out else seed,
        exclude=exclude,
    )
    systems = asked.systems
    if equal_width and equal_width not in EQUAL_WIDTH:
        raise ValueError(
            f"equal_width='{equal_width}': not one of {', '.join(EQUAL_WIDTH)}.{nearest(equal_width, EQUAL_WIDTH)}"
        )
    if equal_width == "pca" and leave_out:
        raise ValueError("equal_width='pca' needs one split: with groups left out in turn, use 'random'.")
    if equal_width == "pairs" and pairs is None:
        pairs = pairs_of_equal_width(systems)
    if equal_width == "random":
        systems = at_equal_width(systems, kind="random", seed=seed)
    if equal_width == "pca":
        systems = at_equal_width(systems, kind="pca", splits=asked.splits)
    results = evaluate_table(systems, asked.task, asked.splits, config, pairs=pairs, choices=choices)
    return {**results, **asked.facts}


class Question(NamedTuple):
    """What is put to every evaluator: tables in one row order, the task, its splits, and facts for the results."""

    systems: dict[str, System]
    task: Task
    splits: list[Split]
    facts: dict[str, Any]


def question(
    tables: Mapping[str, FeatureTable],
    *,
    unit: str = "",
    label: str = "labels",
    split: Literal["given", "k-fold"] = "given",
    folds: int = 5,
    leave_out: str = "",
    split_file: SplitFile | None = None,
    split_name: str = "",
    seed: int = 0,
    exclude: Sequence[str] | None = None,
) -> Question:
    """The labelled rows of feature tables with their groups and splits; arguments as in `score`."""
    if not tables:
        raise ValueError("no feature tables to score.")
    aligned = _aligned(tables)
    first = next(iter(aligned.values()))
    hot, names = _labels(first, label)
    rows = np.flatnonzero(hot.any(axis=1))
    obs, hot = first.obs.iloc[rows].reset_index(drop=True), hot[rows]
    kind: Literal["single", "multi"] = "multi" if (hot.sum(axis=1) > 1).any() else "single"
    unit = unit or next(name for name in UNITS if name in obs)
    ids = _column(obs, unit)
    task = Task(
        labels=hot,
        label_names=names,
        kind=kind,
        unit=ids,
        unit_name=unit,
        split={"kind": split, "column": "split"} if split == "given" else {"kind": f"{folds}-fold", "grouped by": unit},
        exclude=_excluded(obs, hot, exclude),
    )
    if split_file is not None:
        task = dataclasses.replace(task, split=_described(split_file, split_name))
        splits = _stored(split_file, split_name, first, obs)
    elif leave_out:
        inner = next((obs[name].astype(str).to_numpy() for name in NEIGHBOURS if name in obs), None)
        splits = leave_one_group_out(hot, _column(obs, leave_out), inner_groups=inner, seed=seed)
        task = dataclasses.replace(task, split={**task.split, "left out in turn": leave_out, "seed": seed})
    else:
        splits = _given(obs) if split == "given" else k_fold_splits(k_fold(hot, ids, folds=folds, seed=seed))
    facts = {
        "provenance": {name: dict(table.uns) for name, table in aligned.items()},
        "unlabelled_rows_left_out": len(first.obs) - len(rows),
        "synthetic": synthetic_source(aligned),
    }
    return Question({name: _system(table, rows) for name, table in aligned.items()}, task, splits, facts)


def synthetic_source(tables: Mapping[str, FeatureTable]) -> str:
    """What was simulated, in words; empty when no table says that its images were."""
    sources = {str(t.uns.get("data_source", "")) for t in tables.values()}
    return "; ".join(sorted(s for s in sources if s.startswith(SYNTHETIC)))


def _aligned(tables: Mapping[str, FeatureTable]) -> dict[str, FeatureTable]:
    """Every table in the row order of the first; ValueError where their ids differ."""
    reference: pd.Index | None = None
    result, problems = {}, []
    for name, table in tables.items():
        ids = pd.Index(table.obs["id"].astype(str))
        if ids.has_duplicates:
            problems.append(f"table '{name}' repeats ids: {', '.join(ids[ids.duplicated()].unique()[:5])}.")
            continue
        if reference is None:
            reference = ids
        missing, extra = reference.difference(ids), ids.difference(reference)
        if len(missing) or len(extra):
            shown = ", ".join([*missing[:5], *extra[:5]])
            problems.append(f"table '{name}' lacks {len(missing)} ids of the first and has {len(extra)} more: {shown}.")
            continue
        order = ids.get_indexer(reference)
        result[name] = FeatureTable(table.x[order], table.obs.iloc[order].reset_index(drop=True), table.uns)
    if problems:
        raise ValueError("the feature tables do not describe the same images: " + " ".join(problems))
    return result


def _labels(table: FeatureTable, column: str) -> tuple[np.ndarray, tuple[str, ...]]:
    if column == "labels":
        return table.label_matrix()
    _column(table.obs, column)
    renamed = table.obs.assign(labels=table.obs[column].fillna("").astype(str))
    return FeatureTable(table.x, renamed, {}).label_matrix()


def _excluded(obs: pd.DataFrame, hot: np.ndarray, names: Sequence[str] | None) -> dict[str, np.ndarray]:
    """The groups within which images do not vote for one another; an image without a value is in no group."""
    if names is None:
        names = [name for name in NEIGHBOURS if name in obs]
        names += [PROTEIN] if PROTEIN in obs and _is_of_proteins(obs[PROTEIN].fillna("").to_numpy(), hot) else []
    missing = [f"'{name}'{nearest(name, list(obs))}" for name in names if name not in obs]
    if missing:
        raise ValueError(f"the tables have no column {', '.join(missing)} Columns: {', '.join(obs)}.")
    return {name: obs[name].fillna("").astype(str).to_numpy() for name in names}


def _is_of_proteins(column: np.ndarray, hot: np.ndarray) -> bool:
    """Whether all images of a protein have the same labels, and some label is that of several proteins."""
    known = column != ""
    if not known.any():
        return False
    number = np.unique(column[known].astype(str), return_inverse=True)[1]
    share = np.zeros((number.max() + 1, hot.shape[1]))
    np.add.at(share, number, hot[known])
    share /= np.bincount(number)[:, None]
    return bool(np.isin(share, (0, 1)).all() and (share.sum(axis=0) > 1).any())


def _column(obs: pd.DataFrame, name: str) -> np.ndarray:
    if name not in obs:
        raise ValueError(f"the tables have no column '{name}'.{nearest(name, list(obs))} Columns: {', '.join(obs)}.")
    return obs[name].astype(str).to_numpy()


def _system(table: FeatureTable, rows: np.ndarray) -> System:
    about = {key: table.uns.get(key, "") for key in ("layer", "pooling", "channel_plan")}
    return System(table.x[rows], about, table.uns.get("scale", "none"))


def _stored(file: SplitFile, name: str, table: FeatureTable, obs: pd.DataFrame) -> list[Split]:
    """Splits of a file as rows of `obs`, the labelled part of the table."""
    columns = table.obs
    if "labels" in columns:
        columns = columns.assign(labels=[tuple(filter(None, str(t).split(";"))) for t in columns["labels"].fillna("")])
    file.check(list(columns["id"].astype(str)), basis_columns(columns, tuple(file.columns)), unused=False)
    if not file.pooled(name):
        raise ValueError(
            f"images are tested by several splits of this file, so they are scored one by one: name one of "
            f"{capped(file.names, 40)} (or a pattern of folds, such as '* seed=0')."
        )
    return file.splits(list(obs["id"].astype(str)), name)


def _described(file: SplitFile, name: str) -> dict[str, str]:
    found = {"kind": file.config.kind, "grouped by": ", ".join(file.config.by) or "image"}
    found |= {"name": name} if name else {}
    return {**found, "seeds": ", ".join(map(str, file.config.seeds)), "split file": file.digest[:16]}


def _given(obs: pd.DataFrame) -> list[Split]:
    part = _column(obs, "split")
    rows = {name: np.flatnonzero(part == name) for name in ("train", "val", "test")}
    if not len(rows["test"]) or not len(rows["train"]):
        held = ", ".join(f"{name} {len(r)}" for name, r in rows.items())
        raise ValueError(
            f"the tables' own split needs train and test rows; they hold {held}. Use a k-fold split instead."
        )
    return [Split(rows["train"], rows["val"], rows["test"], "given")]
