"""Batches on the devices from any example on: the loader is opened anew only where the run does not go straight on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from jax.sharding import Mesh

from protloc_jax.data.batch import Batch
from protloc_jax.devices import host_to_global, prefetch
from protloc_jax.train.waiting import Waiting

# From an example number (images consumed before) to this host's batches from there on.
LoaderFactory = Callable[[int], Iterable[Batch]]


class Feed:
    """The batches of a run by their first example. `size`: examples a global batch.

    give_up: asked while a batch is not there yet; once it says yes there are no more.
    """

    def __init__(
        self, factory: LoaderFactory, mesh: Mesh, size: int, *, give_up: Callable[[], bool] = lambda: False
    ) -> None:
        self._factory, self._mesh, self._size, self._give_up = factory, mesh, size, give_up
        self._next: int | None = None
        self._loader: Waiting[Batch] | None = None
        self._batches: Iterator[Batch] = iter(())

    def at(self, position: int) -> Batch | None:
        """The batch that begins with example `position`; None where the loader has ended."""
        if position != self._next:
            self.close()
            self._loader = Waiting(self._factory(position), self._give_up)
            self._batches = prefetch(self._loader, lambda batch: host_to_global(batch, self._mesh))
        self._next = position + self._size
        return next(self._batches, None)

    def close(self) -> None:
        """Stop the loader; safe to call again."""
        loader, self._loader, self._next = self._loader, None, None
        self._batches = iter(())
        if loader is not None:
            loader.close()
