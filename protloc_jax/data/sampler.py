"""Which record is example number i: a pure function of (seed, i), the same for any hosts, workers and restarts.

The examples are one endless stream. Example i is (epoch, offset) = divmod(i, n); within an epoch every record comes
once, in an order of its own. Balanced sampling keeps the address and draws the record instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, overload

import numpy as np

from protloc_jax.data.keyed import choose, keyed_hash, permute
from protloc_jax.data.pairing import Fallback, Members, Pairing, Pool

# What a draw is for; never reorder or reuse, the numbers are part of every recorded run.
_ORDER, _CLASS, _MEMBER, _PARTNER, _SUBSTITUTE, _OTHER_PARTNER, _SHARED = 1, 2, 3, 4, 5, 6, 7
_DONOR, _OTHER_DONOR = 8, 9
Numbers = int | np.ndarray


class Sampler:
    """Maps example numbers (0 ... 2**62) to records; holds tables of the data set but no position.

    n         examples an epoch
    seed      of the order
    rows      [n] record numbers of the examples (a split); default 0 ... n-1
    balance   classes to draw from uniformly, then a member uniformly: [n] integer codes (-1 = in no class), or
              [n, L] multi-hot, where a member of several classes can be drawn for each of them. None = every record
              once an epoch
    groups    weak labels within which `partner` draws, as `balance`: codes or multi-hot. An example of several classes
              shares one of them with its partner: the class drawn for it where `balance` is the same table, else one
              drawn from its own
    pool, apart, fallback   which partners are permissible, and what stands in for none; see `Pairing`

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
        pool: Pool = "others",
        apart: np.ndarray | None = None,
        fallback: Fallback = "label",
    ):
        if n < 1:
            raise ValueError("a sampler needs at least one example.")
        for name, table in (("rows", rows), ("balance", balance), ("groups", groups), ("apart", apart)):
            if table is not None and len(table) != n:
                raise ValueError(f"{name} has {len(table)} rows for {n} examples.")
        self.n, self.seed = n, seed
        self.rows = np.arange(n) if rows is None else np.asarray(rows, np.int64)
        self._classes = None if balance is None else Members(balance)
        self.pairing = None if groups is None else Pairing(groups, pool=pool, apart=apart, fallback=fallback)
        # Then the classes have the same numbers in both.
        self._one_table = balance is not None and groups is not None and np.array_equal(balance, groups)
        if self._classes is not None and not len(self._classes.sizes):
            raise ValueError("balanced sampling, but no example belongs to any class.")

    @property
    def has_partners(self) -> bool:
        return self.pairing is not None

    @property
    def undrawn(self) -> int:
        """Examples in no class, which balanced sampling never draws."""
        return 0 if self._classes is None else self.n - len(np.unique(self._classes.members))

    @property
    def alone(self) -> int:
        """Examples that are their own partner whatever is drawn."""
        return 0 if self.pairing is None else self.pairing.alone

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
        """Record number of the example's partner, drawn uniformly from the permissible ones; see `Pairing`."""
        numbers = _array(number)
        local = self._local(numbers)
        return _like(
            number, self.rows[self._paired.partner(local, self._shared(numbers, local), self._draw(_PARTNER, numbers))]
        )

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
        elif self.pairing is not None:
            shared = int(self._shared(numbers, self._local(numbers))[0])
            near = self.pairing.of_class.of(shared) if shared >= 0 else near
        return self._shuffled((near, everyone), _SUBSTITUTE, numbers)

    def partners(self, number: int, record: int) -> Iterator[int]:
        """Partners for `record` in example `number`: the one drawn, the other permissible ones, those of the fallback,
        at last itself.

        For the example's own record the first is `partner(number)`.
        """
        numbers, local = _array(number), np.flatnonzero(self.rows == record)[:1]
        shared, pairing = self._shared(numbers, local), self._paired
        drawn = int(pairing.partner(local, shared, self._draw(_PARTNER, numbers))[0])
        pools = pairing.candidates(int(local[0]), int(shared[0]))
        yield int(self.rows[drawn])
        yield from self._shuffled(pools, _OTHER_PARTNER, numbers)
        yield record

    @overload
    def donor(self, number: int) -> int: ...
    @overload
    def donor(self, number: np.ndarray) -> np.ndarray: ...
    def donor(self, number: Numbers):
        """Record number of the example's donor: any record of the split but its own, uniformly.

        Of a single record there is no other: it is its own donor.
        """
        numbers = _array(number)
        local = self._local(numbers)
        other = choose(self._draw(_DONOR, numbers), np.full(len(numbers), max(self.n - 1, 1)))
        return _like(number, self.rows[(other + (other >= local)) % self.n])

    def donors(self, number: int) -> Iterator[int]:
        """Donors of an example: the one drawn, then every record of the split, in an order drawn for the example."""
        yield self.donor(number)
        yield from self._shuffled((np.arange(self.n),), _OTHER_DONOR, _array(number))

    @property
    def _paired(self) -> Pairing:
        if self.pairing is None:
            raise ValueError("this sampler was made without groups, so there are no partners.")
        return self.pairing

    def _shared(self, numbers: np.ndarray, local: np.ndarray) -> np.ndarray:
        """The class [K] that examples share with their partners, -1 = none, where their images are `local`.

        The class that was drawn for the example, if that is how it came and `local` is in it; else one of its own.
        """
        own = self._paired.shared(local, self._draw(_SHARED, numbers))
        if not self._one_table or self._classes is None:
            return own
        drawn = choose(self._draw(_CLASS, numbers), len(self._classes.sizes))
        return np.where(self._paired.has(local, drawn), drawn, own)

    def _shuffled(self, pools: tuple[np.ndarray, ...], purpose: Literal[5, 6, 9], numbers: np.ndarray) -> Iterator[int]:
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

    def _draw(self, purpose: Literal[2, 3, 4, 5, 6, 7, 8, 9], numbers: np.ndarray) -> np.ndarray:
        epoch, offset = self.example(numbers)
        return keyed_hash(self.seed, purpose, epoch, offset)


def _array(number: Numbers) -> np.ndarray:
    return np.asarray([number] if isinstance(number, int) else number, np.int64)


def _like(number: Numbers, found: np.ndarray) -> Numbers:
    return int(found[0]) if isinstance(number, int) else found
