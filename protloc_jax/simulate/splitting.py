"""The one rule by which classes are shared out over train, val and test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def stratified_split(rng: np.random.Generator, classes: Sequence[str]) -> list[str]:
    """Give each item train, val or test (about 60/10/30), stratified by its class.

    A class with three or more items has at least one in train and one in test; with two, one in each; a lone item
    trains.
    """
    by_class: dict[str, list[int]] = {}
    for index in map(int, rng.permutation(len(classes))):
        by_class.setdefault(classes[index], []).append(index)
    split = ["train"] * len(classes)
    owed_test, owed_val = 0.0, 0.0
    for name in sorted(by_class):
        members = by_class[name]
        owed_test += 0.3 * len(members)
        owed_val += 0.1 * len(members)
        tests = 0 if len(members) < 2 else int(np.clip(round(owed_test), 1, len(members) - 1))
        vals = 0 if len(members) < 3 else int(np.clip(round(owed_val), 0, len(members) - 1 - tests))
        owed_test -= tests
        owed_val -= vals
        for position, index in enumerate(members[: tests + vals]):
            split[index] = "test" if position < tests else "val"
    return split
