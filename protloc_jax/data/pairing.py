"""Which images may be each other's partners: those of one weak label, apart in another column where that is asked for.

The members of a class lie side by side, sorted by the column in which partners must differ. What an image may not get
is then one block of its class, itself or all that share its value, and a draw steps over the block.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from protloc_jax.data.keyed import choose

Pool = Literal["others", "all"]
Fallback = Literal["label", "self", "refuse"]
_UNKNOWN = np.iinfo(np.int64).max


class Members:
    """Members of each class, class after class; empty classes are left out.

    table   [N] integer codes (-1 = in no class), or [N, L] multi-hot
    within  [N] keys by which the members of a class are sorted; default: by row

    `classes` [K] are the codes (columns) of the classes, `members` [M] the rows, `starts` and `sizes` [K] where each
    class lies among them.
    """

    def __init__(self, table: np.ndarray, *, within: np.ndarray | None = None):
        table = np.asarray(table)
        if table.ndim == 2:
            rows, classes = np.nonzero(table)
        else:
            rows = np.flatnonzero(table >= 0)
            classes = table[rows]
        keys = (rows, classes) if within is None else (rows, within[rows], classes)
        order = np.lexsort(keys)
        self.n = len(table)
        self.members = rows[order].astype(np.int64)
        self.classes, starts, sizes = np.unique(classes[order], return_index=True, return_counts=True)
        self.starts, self.sizes = starts.astype(np.int64), sizes.astype(np.int64)

    def member(self, drawn: np.ndarray, draw: np.ndarray) -> np.ndarray:
        """A member of each class drawn."""
        return self.members[self.starts[drawn] + choose(draw, self.sizes[drawn])]

    def of(self, drawn: int) -> np.ndarray:
        """All members of a class."""
        return self.members[self.starts[drawn] : self.starts[drawn] + self.sizes[drawn]]


class Pairing:
    """The partners that every image may get, and the one that a draw gives.

    table     [N] integer codes of the weak label (-1 = none), or [N, L] multi-hot: an image of several classes shares
              one of them with its partner, drawn anew for each example
    pool      others: never the image itself; all: uniform over the class, itself included
    apart     [N] integer codes of a column in which partners must differ; -1 = unknown, which differs from nothing:
              such an image has no permissible partner and is none. Rules the image itself out, whatever the pool
    fallback  for an image without a permissible partner: label = any of its class by `pool`, else itself; self = itself

    An image in no class is its own partner. Rows are numbers of the table; see `Sampler` for records and examples.
    """

    def __init__(
        self, table: np.ndarray, *, pool: Pool = "others", apart: np.ndarray | None = None, fallback: Fallback = "label"
    ):
        self.pool, self.fallback = pool, fallback
        # Unknown values last, so that the known ones are one stretch.
        within = None if apart is None else np.where(apart < 0, _UNKNOWN, np.asarray(apart, np.int64))
        self.of_class = of_class = Members(table, within=within)
        members, sizes = of_class.members, of_class.sizes
        if not len(members):
            raise ValueError("no image has a weak label.")
        # Memberships, class after class: the class, and the place in it.
        self._class = np.repeat(np.arange(len(sizes)), sizes)
        self._place = np.arange(len(members)) - of_class.starts[self._class]
        # What a draw from `_free` permissible partners steps over: `_skip` members after the first `_before`.
        self._before, self._skip = self._place, np.full(len(members), int(pool == "others"))
        self._free = sizes[self._class] - self._skip
        if within is not None:
            value = within[members]
            begins = np.append(True, (np.diff(self._class) != 0) | (np.diff(value) != 0))
            first, block = np.flatnonzero(begins), np.cumsum(begins) - 1
            known = value < _UNKNOWN
            differing = np.bincount(self._class[known], minlength=len(sizes))[self._class]
            self._before = np.where(known, self._place[first][block], 0)
            self._skip = np.where(known, np.diff(np.append(first, len(members)))[block], differing)
            self._free = differing - self._skip
        # The memberships of each row, its classes ascending.
        self._by_row = np.argsort(members, kind="stable")
        self._count = np.bincount(members, minlength=of_class.n)
        self._first = np.cumsum(self._count) - self._count
        self._keys = members[self._by_row] * len(sizes) + self._class[self._by_row]

    @property
    def unlabelled(self) -> int:
        """Rows in no class."""
        return int((self._count == 0).sum())

    @property
    def lacking(self) -> tuple[np.ndarray, np.ndarray]:
        """(row, class) of every membership without a permissible partner."""
        lacks = self._free == 0
        return self.of_class.members[lacks], self._class[lacks]

    @property
    def alone(self) -> int:
        """Rows that are their own partner whatever is drawn, those in no class included."""
        size = self.of_class.sizes[self._class]
        own = np.where(self._free == 0, (size == 1) | (self.fallback != "label"), (size == 1) & (self._skip == 0))
        return self.of_class.n - len(np.unique(self.of_class.members[~own]))

    def shared(self, local: np.ndarray, draw: np.ndarray) -> np.ndarray:
        """The class [K] that each row shares with its partner, drawn uniformly from its own; -1 where it has none."""
        count = self._count[local]
        at = np.minimum(self._first[local] + choose(draw, np.maximum(count, 1)), len(self._by_row) - 1)
        return np.where(count > 0, self._class[self._by_row[at]], -1)

    def has(self, local: np.ndarray, shared: np.ndarray) -> np.ndarray:
        """Whether each row is in its class `shared`."""
        entry = self._membership(local, shared)
        return (shared >= 0) & (self.of_class.members[entry] == local) & (self._class[entry] == shared)

    def partner(self, local: np.ndarray, shared: np.ndarray, draw: np.ndarray) -> np.ndarray:
        """The partner [K] of each row in its class `shared` (-1 = none: itself)."""
        entry, starts = self._membership(local, shared), self.of_class.starts[shared]
        free, labelled = self._free[entry], shared >= 0

        def drawn(count: np.ndarray, before: np.ndarray, skip: np.ndarray | int) -> np.ndarray:
            step = choose(draw, np.maximum(count, 1))
            step += np.where(step >= before, skip, 0)
            return self.of_class.members[starts + np.where(count > 0, step, 0)]

        found = np.where(labelled & (free > 0), drawn(free, self._before[entry], self._skip[entry]), local)
        if self.fallback != "label":
            return found
        skip = int(self.pool == "others")
        mates = self.of_class.sizes[shared] - skip
        return np.where(labelled & (free == 0) & (mates > 0), drawn(mates, self._place[entry], skip), found)

    def candidates(self, local: int, shared: int) -> tuple[np.ndarray, np.ndarray]:
        """(permissible partners, what the fallback permits besides) of a row in its class `shared` (-1 = none)."""
        if shared < 0:
            return np.arange(0), np.arange(0)
        entry = int(self._membership(np.asarray([local]), np.asarray([shared]))[0])
        mates, before, skip = self.of_class.of(shared), self._before[entry], self._skip[entry]
        permitted = np.concatenate([mates[:before], mates[before + skip : self._free[entry] + skip]])
        rest = mates[~np.isin(mates, permitted)] if self.fallback == "label" else mates[:0]
        return permitted, rest if self.pool == "all" else rest[rest != local]

    def _membership(self, local: np.ndarray, shared: np.ndarray) -> np.ndarray:
        """Where (row, class) stands among the memberships; anywhere for a row that is not in the class."""
        at = np.searchsorted(self._keys, local * len(self.of_class.sizes) + shared)
        return self._by_row[np.minimum(at, len(self._by_row) - 1)]
