"""What was asked and what was answered: images of known perturbations, and the place of the true one among all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from protloc_jax.config import nearest
from protloc_jax.data.manifest import capped


@dataclass(frozen=True)
class Answers:
    """How each query was answered, and who the queries are.

    ids     [Q] of the images
    true    [Q] number of the true class
    best    [Q] number of the answer
    rank    [Q] place of the true class, 1 the best
    classes C names
    group   [Q] what is resampled together (wells), never split
    kind    [Q] treatment or control, '' where nothing is known of it
    notes   what a reader must know of the queries
    """

    ids: tuple[str, ...]
    true: np.ndarray
    best: np.ndarray
    rank: np.ndarray
    classes: tuple[str, ...]
    group: np.ndarray
    kind: np.ndarray
    notes: tuple[str, ...] = ()

    def of_kind(self, kind: str) -> Answers | None:
        """The queries of one kind, None where there are none; all classes can still be answered."""
        rows = np.flatnonzero(self.kind == kind)
        if not len(rows):
            return None
        ids = tuple(self.ids[i] for i in rows)
        each = (self.true[rows], self.best[rows], self.rank[rows])
        return Answers(ids, *each, self.classes, self.group[rows], self.kind[rows], self.notes)

    def write(self, path: str | Path) -> Path:
        """Write the queries as CSV: id, group, kind, true, best and rank."""
        names = np.array(self.classes, object)
        table = {
            "id": self.ids,
            "group": self.group,
            "kind": self.kind,
            "true": names[self.true],
            "best": names[self.best],
        }
        pd.DataFrame({**table, "rank": self.rank}).to_csv(path, index=False)
        return Path(path)


def judged(scores: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(answer [Q], place of the true class [Q]) by scores [Q, C]; a class that ties with the true one stands before it.

    So that scores that are all alike are the worst answer and not the best.
    """
    scores = np.asarray(scores)
    own = scores[np.arange(len(true)), true]
    rank = (scores >= own[:, None]).sum(1)
    top = scores == scores.max(1, keepdims=True)
    wrong = top & (np.arange(scores.shape[1]) != np.asarray(true)[:, None])
    return np.where(wrong.any(1), wrong.argmax(1), true), rank


def answers_of(
    obs: pd.DataFrame, scores: np.ndarray, classes: Sequence[str], *, column: str = "perturbation", group: str = "well",
    kind: str = "well_type",
) -> Answers:  # fmt: skip
    """Answers by scores [N, C] of the classes about rows with metadata `obs`, whose column says what is true.

    group, kind  columns with the well, and with what kind of well it is (where there is such a column)

    Rows without a value in the column, or of a class that is not among `classes`, cannot be answered: they are left
    out and counted in the notes. Raises ValueError for a missing column, scores that are not finite, and where nothing
    is left.
    """
    problems = [
        f"no column '{name}'.{nearest(name, list(map(str, obs.columns)))}"
        for name in (column, group)
        if name not in obs
    ]
    if problems:
        raise ValueError(f"{' '.join(problems)} Columns: {', '.join(map(str, obs.columns))}.")
    true, own = _texts(obs[column]), _texts(obs[group])
    at = {name: i for i, name in enumerate(classes)}
    number = np.array([at.get(name, -1) for name in true])
    kept = np.flatnonzero(number >= 0)
    notes = []
    bare = sum(name == "" for name in true)
    if bare:
        notes.append(f"{bare} images have no '{column}' and are not asked about.")
    foreign = sorted({name for name in true if name and name not in at})
    if foreign:
        images = sum(name in set(foreign) for name in true)
        notes.append(f"{images} images are of {len(foreign)} classes that were never learned: {capped(foreign)}.")
    if not len(kept):
        raise ValueError(f"no image is of a class that can be answered. {' '.join(notes)}")
    lone = sorted({true[i] for i in kept if own[i] == ""})
    if lone:
        raise ValueError(f"images of {len(lone)} classes have no '{group}', by which they are grouped: {capped(lone)}.")
    ids = tuple(str(obs["id"].iloc[i]) for i in kept)
    asked = np.asarray(scores)[kept]
    if asked.shape[1:] != (len(classes),) or len(scores) != len(obs):
        raise ValueError(f"scores {np.shape(scores)} do not go with {len(obs)} rows and {len(classes)} classes.")
    bad = np.flatnonzero(~np.isfinite(asked).all(1))
    if len(bad):
        raise ValueError(f"{len(bad)} images have scores that are not finite: {capped([ids[i] for i in bad])}.")
    best, rank = judged(asked, number[kept])
    kinds = np.array(_texts(obs[kind]) if kind in obs else [""] * len(obs))
    return Answers(ids, number[kept], best, rank, tuple(classes), np.array(own)[kept], kinds[kept], tuple(notes))


def read_answers(path: str | Path, classes: Sequence[str], *, notes: tuple[str, ...] = ()) -> Answers:
    """Answers that `write` has written; raises ValueError for classes that are not among those given."""
    table = pd.read_csv(
        path, dtype={"id": str, "group": str, "kind": str, "true": str, "best": str}, keep_default_na=False
    )
    at = {name: i for i, name in enumerate(classes)}
    foreign = sorted({name for key in ("true", "best") for name in table[key] if name not in at})
    if foreign:
        raise ValueError(f"{path}: {len(foreign)} classes are not among the {len(at)}: {capped(foreign)}.")
    true, best = (np.array([at[name] for name in table[key]]) for key in ("true", "best"))
    group, kind = (table[key].to_numpy() for key in ("group", "kind"))
    return Answers(tuple(table["id"]), true, best, table["rank"].to_numpy(), tuple(classes), group, kind, notes)


def related_classes(classes: Sequence[str], groups: Mapping[str, str]) -> np.ndarray:
    """Group number [C] of each class (its pathway), -1 where `groups` names none."""
    names = sorted({groups[name] for name in classes if groups.get(name)})
    at = {name: i for i, name in enumerate(names)}
    return np.array([at.get(groups.get(name, ""), -1) for name in classes])


def _texts(column: Any) -> list[str]:
    return ["" if value is None or value != value else str(value) for value in column]
