"""Mixes of two classes in known shares as sets of made images: each cell among the other class, and on its own crop.

A mix draws its cells and their backgrounds from one group of proteins (SetConfig.groups), mixes taking the groups in
turn: a classifier of baseline images of the other groups has then seen no protein of the mix. Under `self_paste` a mix
has the same cells, cut and pasted where they were. Ours; see `mixes`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from protloc_jax.data.manifest import listed
from protloc_jax.eval.background.conditions import Ready
from protloc_jax.eval.background.donors import draw
from protloc_jax.eval.background.mixes import Mix, mix, sets_of
from protloc_jax.eval.background.sets import Part, Planned, plan_sets
from protloc_jax.eval.background.spec import CONDITIONS, BackgroundError, SetConfig

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5)
MIXED = ("crossed", "self_paste")


@dataclass(frozen=True)
class MixPlan:
    """How many mixes of how many cells, and the shares of their first class, taken in turn."""

    number: int
    cells: int = 100
    shares: tuple[float, ...] = SHARES

    def __post_init__(self) -> None:
        problems = [f"{self.number} mixes: at least 2 for an interval."] if self.number < 2 else []
        wrong = [share for share in self.shares if not 0 < share < 1]
        if wrong or not self.shares:
            problems.append(f"shares {', '.join(map(str, wrong)) or 'none'}: between 0 and 1.")
        elif round(self.cells * min(min(s, 1 - s) for s in self.shares), 9) < 1:
            problems.append(f"{self.cells} cells a mix: the smallest share gets no whole cell.")
        if problems:
            raise BackgroundError(listed(problems))

    def about(self) -> dict[str, Any]:
        """The plan as plain values."""
        return {**asdict(self), "shares": list(self.shares), "conditions": list(MIXED)}


def draw_mixes(classes: Sequence[str], plan: MixPlan, *, seed: int) -> list[Mix]:
    """The mixes: two classes each. Ordered pairs come in a drawn order, each once before any comes again.

    Shares advance by one more in every round of pairs, so that a pair does not keep its share.
    """
    pairs = [(a, b) for a in classes for b in classes if a != b]
    if not pairs:
        raise BackgroundError(f"mixes need two classes; there is {', '.join(classes) or 'none'}.")
    order = np.random.default_rng([seed, 2311]).permutation(len(pairs))
    found = []
    for i in range(plan.number):
        first, second = pairs[order[i % len(pairs)]]
        share = plan.shares[(i + i // len(pairs)) % len(plan.shares)]
        found.append(mix(f"mix{i:04d}", {first: share, second: 1 - share}, plan.cells))
    return found


def plan_mixes(ready: Ready, classes: Sequence[str], config: SetConfig, plan: MixPlan) -> Planned:
    """Baseline sets of every class to train on, and the sets of all mixes under `crossed` and `self_paste`.

    Raises BackgroundError for settings under which both conditions would not show the same cells, or a mix would
    consist of one protein a class, and for what a set lacks.
    """
    problems = []
    if config.centres != "shared":
        problems.append(f"centres={config.centres}: mixes need the same cells in both conditions; centres=shared.")
    if config.proteins != "per_image":
        problems.append(f"proteins={config.proteins}: a mix is of many proteins; proteins=per_image.")
    if problems:
        raise BackgroundError(listed(problems))
    parts = list(plan_sets(ready, classes, config, conditions=("baseline",)).parts)
    first: Counter[str] = Counter()
    for i, one in enumerate(draw_mixes(classes, plan, seed=config.seed)):
        for condition in MIXED:
            for image_set, numbers in sets_of(one, condition, first=first):
                # Image i draws from group i modulo the groups.
                own = numbers * config.groups + i % config.groups
                drawn = draw(image_set, config, ready.crop_pool, ready.patch_pool, numbers=own)
                parts.append(
                    Part(CONDITIONS[condition], image_set.centre, image_set.background, drawn, own, mix=one.name)
                )
        first.update(dict(one.counts))
    return Planned(parts, ("baseline", *MIXED), {})
