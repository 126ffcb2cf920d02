"""Telling an accelerator that ran out of memory from every other error of a step."""

from __future__ import annotations

import re
from typing import Any

import jax

# What XLA and its allocators say when a program is compiled, when it is loaded and while it runs. Disks say
# RESOURCE_EXHAUSTED too, but through Orbax and TensorStore, whose errors are of other types.
_WORDS = re.compile(r"RESOURCE_EXHAUSTED|[Oo]ut of (device |GPU |HBM )?memory|exceeded (hbm|HBM) capacity", re.ASCII)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a device's memory does not hold the program."""
    return isinstance(error, jax.errors.JaxRuntimeError) and bool(_WORDS.search(str(error)))


def first_line(error: BaseException) -> str:
    """The runtime's own first line, at most 300 characters."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip()[:300] if lines else type(error).__name__


def room(device: Any) -> int:
    """Bytes that a program may take of a jax device, 0 where its runtime does not say."""
    stats = device.memory_stats() or {}
    return int(stats.get("bytes_limit", 0))
