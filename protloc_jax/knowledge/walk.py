"""Random walks with restart on a large sparse graph, from a few of its nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array, diags_array

# Starts at a time: a walk over 21,000 genes then holds some ten megabytes.
_BATCH = 64


def transitions(links: csr_array) -> csr_array:
    """Rows of chances [N, N] float64 to step along the links of each node; a node without links stays where it is."""
    steps: Any = csr_array(links, dtype=np.float64)
    degree = np.asarray(steps.sum(axis=1)).ravel()
    alone = degree == 0
    scaled = diags_array(1 / np.where(alone, 1, degree)) @ steps
    return csr_array(scaled + diags_array(alone.astype(np.float64)))


def walk(
    links: csr_array,
    starts: Sequence[int] | np.ndarray,
    *,
    restart: float = 0.5,
    iterations: int = 20,
    ends: Sequence[int] | np.ndarray | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Where walkers are that return to their start with chance `restart` before each step.

    links   [N, N] sparse, weights >= 0 (an undirected binary graph: symmetric ones)
    starts  [S] nodes; ends [E] the nodes asked for (default: all)
    returns [S, E] float64: after `iterations` of p <- (1 - restart) p T + restart e, from p = e. Rows over all nodes
            sum to 1; the rest to the fixed point is at most (1 - restart)^iterations.
    """
    if not 0 < restart <= 1 or iterations < 1:
        raise ValueError(f"restart {restart} must be in (0, 1] and iterations {iterations} at least 1.")
    starts = np.asarray(starts, np.int64)
    backwards: Any = csr_array(transitions(links).T)
    number = backwards.shape[0]
    kept = np.arange(number) if ends is None else np.asarray(ends, np.int64)
    out = np.empty((len(starts), len(kept)))
    for at in range(0, len(starts), _BATCH):
        own = starts[at : at + _BATCH]
        now: Any = np.zeros((number, len(own)))
        now[own, np.arange(len(own))] = 1
        for _ in range(iterations):
            now = (1 - restart) * (backwards @ now)
            now[own, np.arange(len(own))] += restart
        out[at : at + _BATCH] = now[kept].T
        if progress:
            progress(min(at + _BATCH, len(starts)), len(starts))
    return out


def symmetric(chances: np.ndarray) -> np.ndarray:
    """Chances [S, S] between the same nodes as weights: averaged with the transpose, no diagonal, largest = 1."""
    weights = (chances + chances.T) / 2
    np.fill_diagonal(weights, 0)
    largest = weights.max(initial=0)
    return weights / largest if largest > 0 else weights
