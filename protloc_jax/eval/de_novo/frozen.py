"""Recognition without any training: each query against the few images of every perturbation that are given."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from protloc_jax.data.manifest import capped
from protloc_jax.eval.de_novo.answers import Answers, answers_of
from protloc_jax.eval.features import FeatureTable

Rule = Literal["prototype", "nearest"]


def frozen_answers(
    table: FeatureTable,
    support: np.ndarray,
    queries: np.ndarray,
    *,
    rule: Rule = "prototype",
    centre: bool = True,
    column: str = "perturbation",
    group: str = "well",
    shared: Literal["refuse", "note"] = "refuse",
) -> Answers:
    """Cosine similarity of query rows to every class of the support rows (row numbers of the table).

    rule    prototype: to the mean of the class's support vectors, each of unit length; nearest: to the nearest of them
    centre  the mean of the support rows is subtracted first (it sees no query): on a new cell line most of a vector is
            the line itself
    shared  queries whose group has a support row too (another site of its well, as the published splits by image have
            them): refused, or scored like the others and counted in the notes
    Support rows without a value in the column are not used. Raises ValueError where support and queries share a row,
    or a group that is not to be shared, or a vector is 0.
    """
    names = np.array(["" if v is None or v != v else str(v) for v in table.obs[column]])
    groups = np.array([str(v) for v in table.obs[group]])
    support = np.asarray(support)[names[np.asarray(support)] != ""]
    if not len(support):
        raise ValueError(f"no support row has a value in '{column}'.")
    if twice := sorted(set(support.tolist()) & set(np.asarray(queries).tolist())):
        ids = [str(table.obs["id"].iloc[row]) for row in twice]
        raise ValueError(f"{len(twice)} images stand in support and queries both: {capped(ids)}.")
    both = sorted(set(groups[support]) & set(groups[np.asarray(queries)]))
    if both and shared == "refuse":
        raise ValueError(f"{len(both)} values of '{group}' stand in support and queries both: {capped(both)}.")
    x = np.asarray(table.x, np.float64)
    if centre:
        x = x - x[support].mean(0)
    given, asked = _unit(x[support], table, support), _unit(x[queries], table, np.asarray(queries))
    classes = sorted(set(names[support]))
    if rule == "prototype":
        means = np.stack([given[names[support] == name].mean(0) for name in classes])
        scores = asked @ _unit(means, None, np.arange(len(classes))).T
    else:
        each = asked @ given.T
        scores = np.stack([each[:, names[support] == name].max(1) for name in classes], axis=1)
    obs = table.obs.iloc[np.asarray(queries)].reset_index(drop=True)
    answers = answers_of(obs, scores, classes, column=column, group=group)
    if both:
        seen = int(np.isin(answers.group, both).sum())
        note = f"{seen} of {len(answers.ids)} images share their {group} with a training image."
        answers = dataclasses.replace(answers, notes=(*answers.notes, note))
    return answers


def _unit(x: np.ndarray, table: FeatureTable | None, rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(x, axis=1, keepdims=True)
    none = np.flatnonzero(length[:, 0] == 0)
    if len(none) and table is not None:
        ids = [str(table.obs["id"].iloc[rows[i]]) for i in none]
        raise ValueError(f"{len(none)} images have no direction (a vector of 0, after centring): {capped(ids)}.")
    return x / np.where(length == 0, 1, length)
