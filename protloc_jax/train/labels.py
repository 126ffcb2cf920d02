"""What a run that looks at labels, groups or a graph must know about them before the first step."""

from __future__ import annotations

import dataclasses

import numpy as np

from protloc_jax.config import ConfigError, nearest
from protloc_jax.data.manifest import Manifest, capped
from protloc_jax.train.dino_adversary_config import DinoAdversaryConfig
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.graph_nodes import with_graph
from protloc_jax.train.group_labels import other_classes, with_group_label
from protloc_jax.train.nuisance import with_nuisance
from protloc_jax.train.supervised_config import SupervisedConfig
from protloc_jax.train.wsl_config import WslConfig


def with_labels(experiment: Experiment, manifest: Manifest) -> tuple[Experiment, tuple[str, ...]]:
    """The experiment with what it must know of the records before the first step, and what to tell about them.

    A classifier gets its classes (of a group column by `with_group_label`), an adversary its nuisance
    (`with_nuisance`), a graph term its nodes (`with_graph`); without any of them it is unchanged. Raises ConfigError,
    all reasons at once, where the records have no labels or other classes than asked for, where a row has several
    labels and the loss takes one, and for training images without a label that are neither left to `data.balance`
    (which never draws them) nor asked to be ignored.
    """
    method, notes = experiment.method, ()
    if isinstance(method, DinoAdversaryConfig):
        experiment, notes = with_nuisance(experiment, method, manifest)
    elif isinstance(method, WslConfig):
        experiment, notes = with_group_label(experiment, method, manifest)
    elif isinstance(method, SupervisedConfig):
        experiment, notes = _with_classes(experiment, method, manifest)
    experiment, more = with_graph(experiment, manifest)
    return experiment, notes + more


def targets(method: SupervisedConfig, manifest: Manifest) -> np.ndarray:
    """Multi-hot bool [N, C] of all rows by a method's labels or column, as `with_labels` has filled it in."""
    if method.label == "labels":
        return manifest.multi_hot() > 0
    codes = manifest.group_ids(method.label)[0]
    classes = np.where(codes >= 0, np.asarray(method.class_of)[codes], -1)
    return classes[:, None] == np.arange(len(method.classes))


def _with_classes(
    experiment: Experiment, method: SupervisedConfig, manifest: Manifest
) -> tuple[Experiment, tuple[str, ...]]:
    if method.label != "labels":
        method = _with_column(method, manifest)
    names = method.classes if method.label != "labels" else tuple(manifest.label_names)
    if not names:
        raise ConfigError(f"method.name=supervised: {experiment.data.records or 'the records'} have no labels.")
    split = manifest.table["split"]
    rows = np.flatnonzero(split != "" if experiment.data.split == "all" else split == experiment.data.split)
    hot = targets(method, manifest)[rows]
    problems = other_classes(method.classes, names)
    if method.loss == "cross_entropy" and (hot.sum(1) > 1).any():
        problems.append(
            f"method.loss=cross_entropy takes one label an image, and {(hot.sum(1) > 1).sum()} of {len(rows)} have "
            "more: use bce or focal."
        )
    without = int((~hot.any(1)).sum())
    if without and method.unlabelled == "refuse" and experiment.data.balance != method.label:
        problems.append(
            f"{without} of {len(rows)} training images have no label: method.unlabelled=ignore gives them weight 0, "
            f"data.balance={method.label} never draws them."
        )
    if problems:
        raise ConfigError("\n  ".join(problems))
    notes = [f"{without} of {len(rows)} training images have no label; they are not learnt from."] if without else []
    absent = [names[i] for i in np.flatnonzero(~hot.any(0))]
    if absent:
        notes.append(f"{len(absent)} of {len(names)} classes have no training image: {capped(absent)}.")
    return dataclasses.replace(experiment, method=dataclasses.replace(method, classes=names)), tuple(notes)


def _with_column(method: SupervisedConfig, manifest: Manifest) -> SupervisedConfig:
    """The method with the classes of its column: the values of the rows that stand in any part of the split."""
    columns = list(manifest.group_columns)
    if method.label not in columns:
        have = ", ".join(["labels", *columns])
        raise ConfigError(
            f"method.label={method.label}: no such column.{nearest(method.label, columns)} There: {have}."
        )
    codes, names = manifest.group_ids(method.label)
    used = np.unique(codes[(manifest.table["split"].to_numpy() != "") & (codes >= 0)])
    found = tuple(names[i] for i in used)
    problems = other_classes(method.classes, found, f"values of '{method.label}' in the split")
    if problems or not found:
        raise ConfigError("\n  ".join(problems or [f"method.label={method.label}: no row has a value."]))
    class_of = np.full(len(names), -1)
    class_of[used] = np.arange(len(used))
    return dataclasses.replace(
        method, classes=found, place=columns.index(method.label), class_of=tuple(map(int, class_of))
    )
