"""The rows of one background condition: features of crops, with the class, cell, protein and donor behind each."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from protloc_jax.data.grouping import is_missing
from protloc_jax.data.manifest import capped, listed

_ABSENT = np.zeros(0, object)


@dataclass(frozen=True)
class ConditionRows:
    """Features of one condition's crops with what is known of each; all arrays hold one entry a row.

    features    [N, D] finite floats
    label       [N] class of the centre cell
    cell        [N] id of the crop that the centre cell comes from
    protein     [N] protein of the centre cell
    background  [N] class of the background's donor; '' where nothing was pasted (default: everywhere)
    donor       [N] id of the crop that gave the background, from the same ids as `cell`; '' where there is none
    group       [N] group of proteins that cell and donor were drawn from; '' (default) where there are none

    Raises ValueError listing every column and row that does not fit.
    """

    features: np.ndarray
    label: np.ndarray
    cell: np.ndarray
    protein: np.ndarray
    background: np.ndarray = field(default_factory=lambda: _ABSENT)
    donor: np.ndarray = field(default_factory=lambda: _ABSENT)
    group: np.ndarray = field(default_factory=lambda: _ABSENT)

    def __post_init__(self) -> None:
        features = np.asarray(self.features)
        if features.ndim != 2 or not np.issubdtype(features.dtype, np.floating):
            raise ValueError(f"features must be floats [N, D], got {features.dtype} {list(features.shape)}.")
        object.__setattr__(self, "features", features)
        problems, n = [], len(features)
        wrong = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if wrong.size:
            problems.append(f"features that are not finite in rows {capped([str(r) for r in wrong])}.")
        for column in fields(self)[1:]:
            values = np.asarray(getattr(self, column.name), object)
            optional = column.name in ("background", "donor", "group")
            if optional and not values.size:
                values = np.full(n, "", object)
            object.__setattr__(self, column.name, values)
            if values.shape != (n,):
                problems.append(f"'{column.name}' must be [{n}], got {list(values.shape)}.")
            elif not optional:
                absent = [str(r) for r, value in enumerate(values) if is_missing(value)]
                if absent:
                    problems.append(f"no {column.name} in rows {capped(absent)}.")
        if problems:
            raise ValueError(listed(problems))

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: Any) -> ConditionRows:
        """The rows asked for (numbers or a mask), in that order."""
        return ConditionRows(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that occur, sorted."""
        return tuple(sorted(set(self.label)))
