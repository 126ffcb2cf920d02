"""Which record is example number i: a pure function of (seed, i), the same for any hosts, workers and restarts.

The examples are one endless stream. Example i is (epoch, offset) = divmod(i, n); within an epoch every record comes
once, in an order of its own. Balanced sampling keeps the address and draws the record instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, overload

import numpy as np

from protloc_jax.data.keyed import choose, keyed_hash, permute

# What a draw is for; never reorder or reuse, the numbers are part of every recorded run.
_ORDER, _CLASS, _MEMBER, _PARTNER, _SUBSTITUTE, _OTHER_PARTNER = 1, 2, 3, 4, 5, 6
Numbers = int | np.ndarray


class Sampler:
    """Maps example numbers (0 ... 2**62) to records; holds tables of the data set but no position.

    n         examples an epoch
    seed      of the order
    rows      [n] record numbers of the examples (a split); default 0 ... n-1
    balance   classes to draw from uniformly, then a member uniformly: [n] integer codes (-1 = in no class), or
              [n, L] multi-hot, where a member of several classes can be drawn for each of them. None = every record
              once an epoch
    groups    [n] integer codes (-1 = in no group) within which `partner` draws

    All methods take an int and give ints, or an int64 array [K] and give arrays [K].
    Raises ValueError for tables of another length, and for a balance without any member.
    """

    def __init__(
        self,
        n: int,
        seed: int,
        *,
        rows: np.ndarray | None = None,
        balance: np.ndarray | None = None,
        groups: np.ndarray | None = None,
    ):
        if n < 1:
            raise ValueError("a sampler needs at least one example.")
        for name, table in (("rows", rows), ("balance", balance), ("groups", groups)):
            if table is not None and len(table) != n:
                raise ValueError(f"{name} has {len(table)} rows for {n} examples.")
        self.n, self.seed = n, seed
        self.rows = np.arange(n) if rows is None else np.asarray(rows, np.int64)
        self._classes = None if balance is None else _Members(balance)
        self._groups = None if groups is None else _Members(groups)
        if self._classes is not None and not len(self._classes.sizes):
            raise ValueError("balanced sampling, but no example belongs to any class.")

    @property
    def has_partners(self) -> bool:
        return self._groups is not None

    @property
    def undrawn(self) -> int:
        """Examples in no class, which balanced sampling never draws."""
        return 0 if self._classes is None else self.n - len(np.unique(self._classes.members))

    @property
    def alone(self) -> int:
        """Examples without another one in their group: they are their own partner."""
        if self._groups is None:
            return 0
        sizes = self._groups.sizes
        return self.n - int(sizes[sizes > 1].sum())

    @overload
    def example(self, number: int) -> tuple[int, int]: ...
    @overload
    def example(self, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...
    def example(self, number: Numbers):
        """(epoch, offset within the epoch): the address of every random draw made for the example."""
        if isinstance(number, int):
            return divmod(number, self.n)
        return number // self.n, number % self.n

    @overload
    def index(self, number: int) -> int: ...
    @overload
    def index(self, number: np.ndarray) -> np.ndarray: ...
    def index(self, number: Numbers):
        """Record number of the example."""
        return _like(number, self.rows[self._local(_array(number))])

    @overload
    def partner(self, number: int) -> int: ...
    @overload
    def partner(self, number: np.ndarray) -> np.ndarray: ...
    def partner(self, number: Numbers):
        """Record number of another example of the same group, drawn uniformly; the example itself where it is alone."""
        if self._groups is None:
            raise ValueError("this sampler was made without groups, so there are no partners.")
        numbers = _array(number)
        local = self._local(numbers)
        return _like(number, self.rows[self._groups.other(local, self._draw(_PARTNER, numbers))])

    def substitutes(self, number: int) -> Iterator[int]:
        """Records to take for example `number` where its own cannot be read, in an order drawn for the example.

        First those of the class that was drawn for it (balanced sampling) or of its record's partner group, then all
        that can be drawn at all. A record may come twice, and the example's own is among them.
        """
        numbers, everyone = _array(number), np.arange(self.n)
        near = everyone[:0]
        if self._classes is not None:
            near = self._classes.of(int(choose(self._draw(_CLASS, numbers), len(self._classes.sizes))[0]))
            everyone = np.unique(self._classes.members)
        elif self._groups is not None:
            near = self._groups.mates(int(self._local(numbers)[0]))
        return self._shuffled((near, everyone), _SUBSTITUTE, numbers)

    def partners(self, number: int, record: int) -> Iterator[int]:
        """Partners for `record` in example `number`: the one drawn, the others of its group, at last itself.

        For the example's own record the first is `partner(number)`.
        """
        if self._groups is None:
            raise ValueError("this sampler was made without groups, so there are no partners.")
        numbers, local = _array(number), int(np.flatnonzero(self.rows == record)[0])
        drawn = self._groups.other(np.asarray([local]), self._draw(_PARTNER, numbers))
        mates = self._groups.mates(local)
        yield int(self.rows[drawn[0]])
        yield from self._shuffled((mates[mates != local],), _OTHER_PARTNER, numbers)
        yield record

    def _shuffled(self, pools: tuple[np.ndarray, ...], purpose: Literal[5, 6], numbers: np.ndarray) -> Iterator[int]:
        key = self._draw(purpose, numbers)
        for pool in pools:
            for place in range(len(pool)):
                yield int(self.rows[pool[permute(np.asarray([place]), len(pool), key)[0]]])

    def _local(self, numbers: np.ndarray) -> np.ndarray:
        """Example within the split [K], before `rows` is applied."""
        if self._classes is None:
            epoch, offset = self.example(numbers)
            return permute(offset, self.n, keyed_hash(self.seed, _ORDER, epoch))
        drawn = choose(self._draw(_CLASS, numbers), len(self._classes.sizes))
        return self._classes.member(drawn, self._draw(_MEMBER, numbers))

    def _draw(self, purpose: Literal[2, 3, 4, 5, 6], numbers: np.ndarray) -> np.ndarray:
        epoch, offset = self.example(numbers)
        return keyed_hash(self.seed, purpose, epoch, offset)


class _Members:
    """Members of each class, class after class; empty classes are left out."""

    def __init__(self, table: np.ndarray):
        table = np.asarray(table)
        if table.ndim == 2:
            classes, members = np.nonzero(table.T)
        else:
            members = np.flatnonzero(table >= 0)
            members = members[np.argsort(table[members], kind="stable")]
            classes = table[members]
        _, starts, sizes = np.unique(classes, return_index=True, return_counts=True)
        self.members = members.astype(np.int64)
        self.starts, self.sizes = starts.astype(np.int64), sizes.astype(np.int64)
        if table.ndim == 1:
            self.group = np.full(len(table), -1, np.int64)
            self.place = np.zeros(len(table), np.int64)
            group = np.repeat(np.arange(len(sizes)), sizes)
            self.group[members] = group
            self.place[members] = np.arange(len(members)) - self.starts[group]

    def member(self, drawn: np.ndarray, draw: np.ndarray) -> np.ndarray:
        return self.members[self.starts[drawn] + choose(draw, self.sizes[drawn])]

    def of(self, drawn: int) -> np.ndarray:
        """All members of a class."""
        return self.members[self.starts[drawn] : self.starts[drawn] + self.sizes[drawn]]

    def mates(self, local: int) -> np.ndarray:
        """All members of an example's group, itself included; none where it is in no group."""
        return self.of(int(self.group[local])) if self.group[local] >= 0 else self.members[:0]

    def other(self, local: np.ndarray, draw: np.ndarray) -> np.ndarray:
        """Another member of the group of each example, or itself."""
        group, place = self.group[local], self.place[local]
        size = np.where(group >= 0, self.sizes[group], 1)
        step = choose(draw, np.maximum(size - 1, 1))
        step += step >= place
        found = self.members[self.starts[group] + np.minimum(step, size - 1)]
        return np.where(size > 1, found, local)


def _array(number: Numbers) -> np.ndarray:
    return np.asarray([number] if isinstance(number, int) else number, np.int64)


def _like(number: Numbers, found: np.ndarray) -> Numbers:
    return int(found[0]) if isinstance(number, int) else found
