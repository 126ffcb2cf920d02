"""When a checkpoint is due beside every so many steps: by the clock, and once more where one was left out.

`run.checkpoint_minutes` is a promise about lost work: at any time the newest checkpoint on the storage holds a state
that is not older, whatever a step costs. So a save begins early enough to be complete in time: before the end of the
interval by as long as the last one took; the first, whose time is not known yet, after half of it. An evaluation is not
interrupted. Where a save takes longer than half of the interval they follow each other without a pause, which is all
that such a storage allows.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from protloc_jax.devices import batch_sharding, replicated
from protloc_jax.train.checkpoint import Checkpointer

# Part of the interval that is kept free for the steps under way when a save falls due.
SPARE = 0.05
# After a save that failed the clock asks again in this part of the interval; a full disk may be emptied until then.
AGAIN = 0.25


class SaveTimes:
    """Says before each step whether to save. Every process calls `due` once a step.

    minutes: the age that the newest checkpoint never gets to (0 = no clock); mesh: over whose processes is agreed.

    Between processes the first one's clock counts, and a save that was left out is made up for when the writing has
    ended on all of them. Both travel in one small all-reduce a step that is read one call later, so that nobody waits
    for the device (as in `devices.Preemption`).
    """

    def __init__(
        self,
        checkpoints: Checkpointer,
        *,
        minutes: float,
        mesh: Mesh | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checkpoints, self._seconds, self._now = checkpoints, 60 * minutes, now
        self._begun = now()
        self._mesh = mesh if jax.process_count() > 1 else None
        self._vote: jax.Array | None = None
        self._total: Callable[[jax.Array], jax.Array] | None = None

    def due(self, by_steps: bool) -> bool:
        """Whether to save now. `by_steps`: whether the number of steps says so, the same on every process."""
        left_out = self._checkpoints.refused
        late, busy = self._agreed(asked=left_out or self._seconds > 0)
        save = not busy if left_out else by_steps or late
        if save:
            self._vote = None  # cast before this save, it would ask for it again
        return save

    def late(self) -> bool:
        """Whether this process's clock asks for a save."""
        if not self._seconds:
            return False
        progress = self._checkpoints.progress
        wait = self._seconds / 2
        if progress.seconds:
            wait = max(wait, (1 - SPARE) * self._seconds - progress.seconds)
        since = max(self._begun, progress.taken, progress.failed + AGAIN * self._seconds - wait)
        return self._now() - since >= wait

    def _agreed(self, *, asked: bool) -> tuple[bool, bool]:
        """(late, busy) as all processes know them; `asked` is the same on all."""
        mine = (jax.process_index() == 0 and self.late(), self._checkpoints.busy)
        if self._mesh is None:
            return mine
        last, self._vote = self._vote, self._cast(self._mesh, mine) if asked else None
        if last is None:
            return False, True
        late, busy = np.asarray(last)
        return bool(late), bool(busy)

    def _cast(self, mesh: Mesh, mine: tuple[bool, bool]) -> jax.Array:
        if self._total is None:
            self._total = jax.jit(lambda votes: votes.sum(0), out_shardings=replicated(mesh))
        votes = np.tile(np.asarray(mine, np.int32), (len(mesh.local_devices), 1))
        return self._total(jax.make_array_from_process_local_data(batch_sharding(mesh), votes))
