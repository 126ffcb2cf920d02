"""What a fitted step is: its arrays, the groups they belong to, and how many controls each group had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from protloc_jax.data.manifest import capped

On = Literal["controls", "all"]
EVERYTHING = ""  # the one group of a step that knows no groups


@dataclass(frozen=True)
class Fitted:
    """A step after fitting.

    arrays  float64, by name; the first axis of those named in the step's `per_group` counts the groups
    groups  values of the step's column in sorted order, or ("",) where it has none
    counts  rows that each group was fitted on
    notes   what was special about the data: constant features, a rank, an ill-conditioned fit
    """

    arrays: Mapping[str, np.ndarray]
    groups: tuple[str, ...]
    counts: tuple[int, ...]
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        # One layout in memory, before and after a file: products of the same numbers are then the same bits.
        arrays = {name: np.ascontiguousarray(self.arrays[name], np.float64) for name in sorted(self.arrays)}
        object.__setattr__(self, "arrays", arrays)

    def places(self, groups: np.ndarray) -> np.ndarray:
        """The number [N] of each row's group; rows of other groups are refused before (`unknown`)."""
        return np.searchsorted(np.asarray(self.groups), groups)

    def unknown(self, groups: np.ndarray) -> list[str]:
        """The groups that were not fitted on."""
        return sorted(set(groups.tolist()) - set(self.groups))


class Step(Protocol):
    """One step of a correction: a value that says how to fit, and how to apply what was fitted.

    by         column of the groups that are treated each by itself; empty: none
    on         whether the step is fitted on controls or on all rows
    per_group  names of the arrays that belong to groups, and that controls of a new group can give
    renames    whether its outputs are other features than its inputs
    """

    @property
    def by(self) -> str: ...
    @property
    def on(self) -> On: ...
    @property
    def per_group(self) -> tuple[str, ...]: ...
    @property
    def renames(self) -> bool: ...

    def fit(self, x: np.ndarray, groups: np.ndarray) -> Fitted:
        """Fit on rows x [n, D] of groups [n] text. Raises ValueError for what cannot be fitted, naming all groups."""
        ...

    def fit_groups(self, fitted: Fitted, x: np.ndarray, groups: np.ndarray) -> Fitted:
        """The arrays `per_group` of other groups, fitted on their rows alone; the rest stays as fitted."""
        ...

    def apply(self, fitted: Fitted, x: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Correct rows x [N, D] of groups [N] that are all known."""
        ...


class OnControls:
    """What a step is that has no choice of rows: it is fitted on controls."""

    on: On = "controls"


def by_group(groups: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """(name, its rows) of each group, sorted by name."""
    names, numbers = np.unique(groups, return_inverse=True)
    return [(str(name), np.flatnonzero(numbers == i)) for i, name in enumerate(names)]


def check_counts(found: Sequence[tuple[str, np.ndarray]], *, least: int, why: str) -> None:
    """ValueError naming every group of fewer than `least` rows."""
    few = [f"{name or 'all rows'} ({len(rows)})" for name, rows in found if len(rows) < least]
    if few:
        raise ValueError(f"{why} needs {least} rows to fit on; fewer have {capped(few, 20)}.")


def merged(step: Step, fitted: Fitted, more: Fitted) -> Fitted:
    """`fitted` with the groups of `more`, which are none of its own."""
    order = np.argsort(np.asarray((*fitted.groups, *more.groups)), kind="stable")
    arrays: dict[str, Any] = dict(fitted.arrays)
    for name in step.per_group:
        arrays[name] = np.concatenate([fitted.arrays[name], more.arrays[name]])[order]
    groups, counts = (*fitted.groups, *more.groups), (*fitted.counts, *more.counts)
    return Fitted(arrays, tuple(groups[i] for i in order), tuple(counts[i] for i in order), fitted.notes + more.notes)
