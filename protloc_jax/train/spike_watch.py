"""Spikes of the loss as the host sees them: counted, told, and where the run shall go back for one, remembered."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from protloc_jax.train.experiment import OptimConfig
from protloc_jax.train.spikes import FLOOR


class Spike(NamedTuple):
    """A loss above its limit: the step (from 1), the first of its examples, both numbers."""

    step: int
    position: int
    loss: float
    limit: float

    @property
    def words(self) -> str:
        """The two numbers, for messages."""
        return f"the loss {self.loss:.4g} is a spike (above {self.limit:.4g})"


class SpikeWatch:
    """Looks at the metrics of every step, in order.

    Where steps are undone for their loss ("skip", "rollback") the step has decided, equally on all processes, and says
    so in its metrics; for "flag" the same rule is applied here, in float64, to the losses that come by.

    count  spikes of the run so far, earlier parts of it included
    found  the spike for which the run has to go back ("rollback" only), until `settled`
    """

    def __init__(self, optim: OptimConfig, *, before: Iterable[Mapping[str, Any]] = ()) -> None:
        """`before`: records of the metrics file of a run that goes on."""
        self.mode, self.factor, self.size = optim.on_spike, optim.spike_factor, optim.spike_window
        self.count = 0
        self.found: Spike | None = None
        self._good: deque[float] = deque(maxlen=self.size)
        for record in before:
            if record.get("spike"):
                self.count += 1
            elif record.get("finite", 1):
                self._add(float(record["loss"]))

    @property
    def undoes(self) -> bool:
        """Whether a step with a spike changes nothing."""
        return self.mode != "flag"

    @property
    def goes_back(self) -> bool:
        """Whether the run returns to a checkpoint for a spike."""
        return self.mode == "rollback"

    def judge(self, step: int, position: int, metrics: Mapping[str, float]) -> Spike | None:
        """The spike that a step's metrics show, if any."""
        loss = float(metrics["loss"])
        if self.undoes:
            spike, limit = bool(metrics.get("spike", 0)), float(metrics.get("spike_limit", math.inf))
        else:
            limit = self._limit()
            spike = math.isfinite(loss) and loss > limit
            if not spike and metrics.get("finite", 1):
                self._add(loss)
        if not spike:
            return None
        self.count += 1
        found = Spike(step, position, loss, limit)
        if self.goes_back:
            self.found = found
        return found

    def settled(self) -> None:
        """The spike that was found has been dealt with."""
        self.found = None

    def _add(self, loss: float) -> None:
        if math.isfinite(loss):
            self._good.append(loss)

    def _limit(self) -> float:
        if len(self._good) < self.size:
            return math.inf
        losses = np.asarray(self._good, np.float64)
        mean = float(losses.mean())
        return mean + self.factor * max(float(losses.std()), FLOOR * abs(mean))
