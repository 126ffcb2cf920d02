"""Exit statuses of a training run."""

from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    """Exit status of a training run (numbers of BSD's sysexits where one fits)."""

    DONE = 0
    LOST = 69  # another process of the run was lost: start the same command again
    BAD_STEPS = 70  # too many non-finite steps in a row, or a loss spike that comes back; see bad_steps/
    WORKER_DIED = 71  # a data worker was killed, or memory ran out
    STORAGE = 74  # checkpoints cannot be written
    PREEMPTED = 75  # stopped by SIGTERM or SIGINT and saved: start the same command again
    DEVICE_MEMORY = 78  # the accelerator's memory does not hold the run
    STUCK = 79  # a step took far too long; the stacks of all threads are in stuck/
