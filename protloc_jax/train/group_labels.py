"""What a run that learns to name a group column must know about it before the first step."""

from __future__ import annotations

import dataclasses

import numpy as np

from protloc_jax.config import ConfigError, nearest
from protloc_jax.data.manifest import Manifest, capped
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.wsl_config import WslConfig


def with_group_label(
    experiment: Experiment, method: WslConfig, manifest: Manifest
) -> tuple[Experiment, tuple[str, ...]]:
    """The experiment with the label's classes and its place in a batch, and what to tell about the training images.

    Classes are the sorted values of all of the records, whichever split they stand in. Raises ConfigError, all reasons
    at once, for a column that the records lack, for other classes than asked for, for fewer than two classes among the
    training images, and for training images without a value that are neither left to `data.balance` (which never draws
    them) nor asked to be ignored.
    """
    columns = list(manifest.group_columns)
    if method.label not in columns:
        raise ConfigError(
            f"method.label={method.label}: no column '{method.label}'.{nearest(method.label, columns)} "
            f"Columns: {', '.join(columns) or '(none)'}."
        )
    codes, names = manifest.group_ids(method.label)
    split = manifest.table["split"].to_numpy()
    rows = np.flatnonzero(split != "" if experiment.data.split == "all" else split == experiment.data.split)
    labelled = codes[rows] >= 0
    present, without = np.unique(codes[rows][labelled]), int((~labelled).sum())
    problems = other_classes(method.classes, names, "values of the records") if names else []
    if len(present) < 2:
        problems.append(
            f"method.label={method.label}: the {len(rows)} training images have {len(present)} values of it, and a "
            "classifier needs two."
        )
    if without and method.unlabelled == "refuse" and experiment.data.balance_column != method.label:
        problems.append(
            f"{without} of {len(rows)} training images have no value of '{method.label}': method.unlabelled=ignore "
            f"gives them weight 0, data.balance={method.label} never draws them."
        )
    if problems:
        raise ConfigError("\n  ".join(problems))
    notes = [f"{len(rows)} training images of {len(present)} values of '{method.label}'."]
    if without:
        notes.append(f"{without} of them have no value; they are not learnt from.")
    absent = [name for i, name in enumerate(names) if i not in set(present.tolist())]
    if absent:
        notes.append(f"{len(absent)} of {len(names)} values have no training image: {capped(absent)}.")
    filled = dataclasses.replace(method, classes=names, place=columns.index(method.label))
    return dataclasses.replace(experiment, method=filled), tuple(notes)


def other_classes(asked: tuple[str, ...], have: tuple[str, ...], what: str = "classes of the records") -> list[str]:
    """Why the classes that a config asks for are not those that there are; empty where they are, or none are asked."""
    if not asked or asked == have:
        return []
    if sorted(asked) == sorted(have):
        return [f"method.classes has the {what} in another order; theirs is {','.join(have)}."]
    unknown = [name for name in asked if name not in have]
    problems = [f"method.classes: '{name}' is not among the {what}.{nearest(name, have)}" for name in unknown]
    missing = [name for name in have if name not in asked]
    return problems + ([f"method.classes lacks {', '.join(missing)}."] if missing else [])
