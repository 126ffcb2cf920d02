"""Hierarchical channel sampling: the law of the draws, and what they depend on."""

from __future__ import annotations

import itertools
import math

import jax
import numpy as np
import pytest
from scipy.stats import chisquare

from protloc_jax.model import channel_sampling

KEYS = jax.random.split(jax.random.key(11), 20_000)
sample_channels = jax.jit(channel_sampling.sample_channels, static_argnames=("channels", "keep"))


def counted(draws) -> dict[tuple[bool, ...], int]:
    kinds, times = np.unique(np.asarray(draws), axis=0, return_counts=True)
    return {tuple(map(bool, kind)): int(n) for kind, n in zip(kinds, times, strict=True)}


def law(channels: int, keep: int | None) -> dict[tuple[bool, ...], float]:
    """Probability of every subset: 1/C for its size, then the same for all of that size."""
    found = {}
    for kind in itertools.product((False, True), repeat=channels):
        size = sum(kind)
        if size == 0 or (keep is not None and not kind[keep]):
            continue
        alike = math.comb(channels, size) if keep is None else math.comb(channels - 1, size - 1)
        found[kind] = 1 / channels / alike
    return found


@pytest.mark.parametrize(("channels", "keep"), [(1, None), (4, None), (4, 2)])
def test_sizes_are_uniform_and_so_are_the_subsets_of_a_size(channels, keep):
    found, want = counted(sample_channels(KEYS, channels, keep=keep)), law(channels, keep)
    assert sum(want.values()) == pytest.approx(1)
    assert set(found) == set(want), "every subset, the empty one never"
    if len(want) > 1:
        expected = [len(KEYS) * p for p in want.values()]
        assert chisquare([found[kind] for kind in want], expected).pvalue > 0.01


def test_a_draw_depends_on_its_key_alone():
    whole = np.asarray(sample_channels(KEYS, 4))
    assert whole.dtype == bool
    np.testing.assert_array_equal(sample_channels(KEYS[:12].reshape(3, 4), 4).reshape(12, 4), whole[:12])
    np.testing.assert_array_equal(sample_channels(KEYS[7], 4), whole[7])
