"""Which checkpoints of a run are kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def kept_steps(steps: Iterable[int], scores: Mapping[int, float], *, keep_last: int, keep_best: int) -> set[int]:
    """The newest `keep_last` steps, and the `keep_best` of the highest score (of equals the newer ones)."""
    ordered = sorted(steps)
    ranked = sorted((s for s in ordered if s in scores), key=lambda s: (scores[s], s), reverse=True)
    return {*ordered[-keep_last:], *ranked[:keep_best]}
