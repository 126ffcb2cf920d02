"""What an adversary must know about its nuisance and controls before the first step."""

from __future__ import annotations

import dataclasses

import numpy as np

from protloc_jax.config import ConfigError, nearest
from protloc_jax.data.manifest import Manifest, capped
from protloc_jax.train.dino_adversary_config import DinoAdversaryConfig
from protloc_jax.train.experiment import Experiment


def with_nuisance(
    experiment: Experiment, method: DinoAdversaryConfig, manifest: Manifest
) -> tuple[Experiment, tuple[str, ...]]:
    """The experiment with where nuisance and controls stand in a batch, and what to tell about the controls.

    Raises ConfigError, all reasons at once, for columns and values that the records lack, and for training rows whose
    controls show fewer than two values of the nuisance or are never drawn.
    """
    columns = list(manifest.group_columns)
    control_column, _, value = method.controls.partition("=")
    have = ", ".join(columns) or "(none)"
    problems = [
        f"method.{key}={asked}: no column '{column}'.{nearest(column, columns)} Columns: {have}."
        for key, asked, column in (
            ("nuisance", method.nuisance, method.nuisance),
            ("controls", method.controls, control_column),
        )
        if column not in columns
    ]
    if not problems:
        values = manifest.group_ids(control_column)[1]
        if value not in values:
            problems.append(
                f"method.controls={method.controls}: no '{value}' in '{control_column}'.{nearest(value, values)} "
                f"Values: {capped(values)}."
            )
    if problems:
        raise ConfigError("\n  ".join(problems))
    codes, names = manifest.group_ids(method.nuisance)
    controls, values = manifest.group_ids(control_column)
    control = values.index(value)
    split = manifest.table["split"].to_numpy()
    training = split != "" if experiment.data.split == "all" else split == experiment.data.split
    seen = training & (controls == control) & (codes >= 0) & _drawn(experiment, manifest)
    present = np.unique(codes[seen])
    if len(present) < 2:
        raise ConfigError(
            f"method.controls={method.controls}: the training images that are drawn hold {seen.sum()} controls of "
            f"{len(present)} values of '{method.nuisance}', and the adversary needs two. Let data.split hold the "
            "controls, and data.balance draw them."
        )
    places = (columns.index(method.nuisance), columns.index(control_column), control)
    filled = dataclasses.replace(method, nuisance_values=names, places=places)
    notes = [
        f"adversary: {seen.sum()} of {training.sum()} training images are controls ({method.controls}), of "
        f"{len(present)} of {len(names)} values of '{method.nuisance}'."
    ]
    label = experiment.data.weak_label
    if label and label != "labels":
        ids, classes = manifest.group_ids(label)
        own = [classes[c] for c in np.unique(ids[seen & (ids >= 0)])]
        if own:
            notes.append(f"the controls are classes of their own in the weak label '{label}': {capped(own)}.")
    return dataclasses.replace(experiment, method=filled), tuple(notes)


def _drawn(experiment: Experiment, manifest: Manifest) -> np.ndarray:
    """Rows that the order of examples can draw: with balancing, those that have a class."""
    column = experiment.data.balance_column
    return manifest.group_ids(column)[0] >= 0 if column else np.ones(manifest.n, bool)
