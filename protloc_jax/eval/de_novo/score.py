"""Every score of recognising perturbations in a new cell line, ready for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from protloc_jax.config import nearest
from protloc_jax.eval.de_novo.answers import Answers, related_classes
from protloc_jax.eval.de_novo.top_k import KS, confusion_within, top_k


def scored(answers: Answers, groups: Mapping[str, str] | None = None, *, seed: int = 0) -> dict[str, Any]:
    """Top-1 and top-5 with intervals over the groups of queries and chance, treatments and controls apart as well.

    groups  pathway of each perturbation: also the confusion within pathways
    """
    classes = len(answers.classes)
    asked = np.unique(answers.true)
    found: dict[str, Any] = {
        "images": len(answers.ids),
        "groups": len(set(answers.group.tolist())),
        "classes": classes,
        "classes_asked": len(asked),
        "notes": list(answers.notes),
    }
    for k in KS:
        found[f"top{k}"] = top_k(answers, k, seed=seed).as_dict() | {"chance": min(k, classes) / classes}
    kinds = sorted(set(answers.kind.tolist()) - {""})
    if len(kinds) > 1:  # controls apart
        found["by_kind"] = {kind: _of_kind(answers, kind, seed) for kind in kinds}
    if groups is not None:
        related = related_classes(answers.classes, groups)
        without = [name for name, number in zip(answers.classes, related, strict=True) if number < 0]
        found["within_groups"] = confusion_within(answers, related, seed=seed) | {"classes_without_group": len(without)}
    return found


def _of_kind(answers: Answers, kind: str, seed: int) -> dict[str, Any]:
    own = answers.of_kind(kind)
    assert own is not None
    return {"images": len(own.ids), **{f"top{k}": top_k(own, k, seed=seed).as_dict() for k in KS}}


def read_groups(path: str | Path, *, column: str = "perturbation", group_column: str = "group") -> dict[str, str]:
    """Group (pathway) of each perturbation from a CSV with these two columns.

    Raises ValueError for missing columns, and for perturbations that stand in several groups.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    columns = list(map(str, table.columns))
    absent = [f"no column '{name}'.{nearest(name, columns)}" for name in (column, group_column) if name not in columns]
    if absent:
        raise ValueError(f"{path}: {' '.join(absent)} Columns: {', '.join(columns)}.")
    found: dict[str, str] = {}
    twice = []
    for name, group in zip(table[column], table[group_column], strict=True):
        if name in found and found[name] != group:
            twice.append(f"'{name}' ({found[name]}, {group})")
        found[name] = group
    if twice:
        raise ValueError(f"{path}: {len(twice)} perturbations stand in several groups: {', '.join(twice[:10])}.")
    return {name: group for name, group in found.items() if group}
