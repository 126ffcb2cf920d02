"""Images that a run jumps over because they brought a spike of the loss, so that it does so again whenever it is run.

A run that went back for a spike takes other batches than one that did not. What it jumped over is listed in the run
directory, and in every later checkpoint: a run that goes on, or begins anew with that list, takes the same batches.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from protloc_jax.data.durable import write_whole
from protloc_jax.train.spike_watch import Spike

JUMPS_FILE = "jumps.json"


class Jump(NamedTuple):
    """After `step` steps, at example `first`, the run goes on with example `to`, because of step `spike`'s loss."""

    step: int
    first: int
    to: int
    spike: int
    loss: float
    limit: float


class Jumps:
    """The jumps of a run, at most one from each step."""

    def __init__(self, jumps: Iterable[Jump] = ()) -> None:
        self._by_step: dict[int, Jump] = {}
        for jump in jumps:
            self._keep(jump)

    @classmethod
    def read(cls, run: Path, of_checkpoint: Iterable[Mapping[str, Any]] = ()) -> Jumps:
        """Those of a run directory and of a checkpoint's record. Raises ValueError naming a file that is no list."""
        file, listed = run / JUMPS_FILE, []
        if file.is_file():
            try:
                listed = [Jump(**one) for one in json.loads(file.read_text())["jumps"]]
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{file}: not a list of jumps ({type(error).__name__}: {error}).") from None
        return cls([*(Jump(**one) for one in of_checkpoint), *listed])

    def __len__(self) -> int:
        return len(self._by_step)

    def target(self, step: int, position: int) -> int:
        """The example to go on with after `step` steps, at example `position`."""
        jump = self._by_step.get(step)
        return jump.to if jump is not None and jump.first == position else position

    def add(self, spike: Spike, *, step: int, first: int, batch: int) -> bool:
        """Jump from the checkpoint of `step`, at example `first`, past the batch of a spike.

        False, and nothing is added, where the run has gone back there before and came no further than the time before.
        """
        before = self._by_step.get(step)
        if before is not None and before.first == first and spike.step <= before.spike:
            return False
        self._keep(Jump(step, first, spike.position + batch, spike.step, spike.loss, spike.limit))
        return True

    def listed(self) -> list[dict[str, Any]]:
        """JSON-able, in the order of the steps."""
        return [jump._asdict() for _, jump in sorted(self._by_step.items())]

    def write(self, run: Path) -> None:
        """Write the list to a run directory, whole or not at all."""
        write_whole(run / JUMPS_FILE, (json.dumps({"jumps": self.listed()}, indent=1) + "\n").encode())

    def _keep(self, jump: Jump) -> None:
        before = self._by_step.get(jump.step)
        if before is None or jump.to >= before.to:
            self._by_step[jump.step] = jump
