"""What a run that looks at labels or groups must know about them before the first step."""

from __future__ import annotations

import dataclasses

import numpy as np

from protloc_jax.config import ConfigError
from protloc_jax.data.manifest import Manifest
from protloc_jax.train.dino_adversary_config import DinoAdversaryConfig
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.group_labels import other_classes, with_group_label
from protloc_jax.train.nuisance import with_nuisance
from protloc_jax.train.supervised_config import SupervisedConfig
from protloc_jax.train.wsl_config import WslConfig


def with_labels(experiment: Experiment, manifest: Manifest) -> tuple[Experiment, tuple[str, ...]]:
    """The experiment with its head's classes as the records have them, and what to tell about the training labels.

    Unchanged for a method that learns without labels; an adversary gets its nuisance (`with_nuisance`), a classifier
    of a group column its classes (`with_group_label`). Raises ConfigError, all reasons at once, where the records have
    no labels or other classes than asked for, where a row has several labels and the loss takes one, and for training
    images without a label that are neither left to `data.balance` (which never draws them) nor asked to be ignored.
    """
    method = experiment.method
    if isinstance(method, DinoAdversaryConfig):
        return with_nuisance(experiment, method, manifest)
    if isinstance(method, WslConfig):
        return with_group_label(experiment, method, manifest)
    if not isinstance(method, SupervisedConfig):
        return experiment, ()
    names = tuple(manifest.label_names)
    if not names:
        raise ConfigError(f"method.name=supervised: {experiment.data.records or 'the records'} have no labels.")
    split = manifest.table["split"]
    rows = np.flatnonzero(split != "" if experiment.data.split == "all" else split == experiment.data.split)
    hot = manifest.multi_hot()[rows] > 0
    problems = other_classes(method.classes, names)
    if method.loss == "cross_entropy" and (hot.sum(1) > 1).any():
        problems.append(
            f"method.loss=cross_entropy takes one label an image, and {(hot.sum(1) > 1).sum()} of {len(rows)} have "
            "more: use bce or focal."
        )
    without = int((~hot.any(1)).sum())
    if without and method.unlabelled == "refuse" and experiment.data.balance != "labels":
        problems.append(
            f"{without} of {len(rows)} training images have no label: method.unlabelled=ignore gives them weight 0, "
            "data.balance=labels never draws them."
        )
    if problems:
        raise ConfigError("\n  ".join(problems))
    notes = [f"{without} of {len(rows)} training images have no label; they are not learnt from."] if without else []
    absent = [names[i] for i in np.flatnonzero(~hot.any(0))]
    if absent:
        notes.append(f"{len(absent)} of {len(names)} classes have no training image: {', '.join(absent)}.")
    return dataclasses.replace(experiment, method=dataclasses.replace(method, classes=names)), tuple(notes)
