"""Honest times of steps: nothing counts before the warm-up is over, and no step is over before the device is."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

# Fewer timed steps than this are a try and no measurement.
ENOUGH = 50


class Laps(NamedTuple):
    """Seconds of each timed step, and how much of each went by before its batch was there."""

    seconds: list[float]
    waits: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def p95(self) -> float:
        return nearest_rank(self.seconds, 0.95)

    @property
    def wait_share(self) -> float:
        """Waiting for batches as a share of the whole time."""
        return sum(self.waits) / sum(self.seconds)

    @property
    def short(self) -> bool:
        """Whether there are too few steps to rely on."""
        return len(self.seconds) < ENOUGH


def nearest_rank(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least `share` of them do not exceed (nearest-rank percentile).

    Raises ValueError without values or for a share outside (0, 1].
    """
    if not values or not 0 < share <= 1:
        raise ValueError(f"nearest_rank of {len(values)} values at {share}.")
    return sorted(values)[max(1, math.ceil(round(share * len(values), 9))) - 1]


def time_laps(
    take: Callable[[], Any],
    work: Callable[[Any], Any],
    *,
    warmup: int,
    steps: int,
    now: Callable[[], float] = time.perf_counter,
) -> Laps:
    """Take a batch and work on it `warmup + steps` times; the times of the last `steps`.

    Each lap ends when everything that `work` returned is computed. Raises ValueError for less than one timed step.
    """
    if steps < 1 or warmup < 0:
        raise ValueError(f"steps={steps} must be at least 1, warmup={warmup} at least 0.")
    laps = Laps([], [])
    for number in range(warmup + steps):
        start = now()
        batch = take()
        taken = now()
        jax.block_until_ready(work(batch))
        if number >= warmup:
            laps.seconds.append(now() - start)
            laps.waits.append(taken - start)
    return laps
