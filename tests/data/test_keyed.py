"""The keyed hash and permutation against plain Python integers, and their statistics."""

from __future__ import annotations

from math import factorial

import numpy as np
import pytest
from scipy.stats import chisquare

from protloc_jax.data.keyed import choose, keyed_hash, mix, permute

MASK = 2**64 - 1
LEAST_P = 1e-4


def mix_int(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def hash_int(seed: int, *words: int) -> int:
    state = seed & MASK
    for word in (0, *words):
        state = mix_int(((state ^ word) + 0x9E3779B97F4A7C15) & MASK)
    return state


def permute_int(position: int, n: int, key: int) -> int:
    """The documented construction, one number at a time, by another route: the smallest even base b with b*b >= n."""
    high = 2
    while high * high < n:
        high += 1
    high += high % 2
    low = -(-n // high)
    low += low % 2
    while True:
        left, right = divmod(position, low)
        for number in range(24):
            if number % 2 == 0:
                left = (left + mix_int(mix_int((key + number) & MASK) ^ ((right + 0x9E3779B97F4A7C15) & MASK))) % high
            else:
                right = (right + mix_int(mix_int((key + number) & MASK) ^ ((left + 0x9E3779B97F4A7C15) & MASK))) % low
        position = left * low + right
        if position < n:
            return position


def test_hash_equals_plain_integers() -> None:
    words = np.array([0, 1, 2, 2**31, 2**62], np.int64)
    found = keyed_hash(12345, 3, words, words[::-1])
    expected = [hash_int(12345, 3, int(a), int(b)) for a, b in zip(words, words[::-1], strict=True)]
    assert [int(v) for v in found] == expected
    assert int(keyed_hash(2**63 - 1)[0]) == hash_int(2**63 - 1)
    # SplitMix64 with seed 0 gives this first number (reference implementation by S. Vigna).
    assert int(mix(np.array([0x9E3779B97F4A7C15], np.uint64))[0]) == 0xE220A8397B1DCDAF


@pytest.mark.parametrize("n", [2, 3, 7, 48, 49, 50, 1000])
def test_permutation_equals_plain_integers(n: int) -> None:
    places = np.arange(min(n, 60))
    keys = keyed_hash(3, 1, places // 10)
    expected = [permute_int(int(p), n, int(k)) for p, k in zip(places, keys, strict=True)]
    assert permute(places, n, keys).tolist() == expected


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 9, 10, 63, 64, 65, 1000, 1024, 65_537])
def test_permutation_is_a_bijection(n: int) -> None:
    for seed in range(3):
        found = permute(np.arange(n), n, np.repeat(keyed_hash(seed, 5), n))
        np.testing.assert_array_equal(np.sort(found), np.arange(n))


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_all_orders_come_equally_often(n: int) -> None:
    keys = keyed_hash(0, np.arange(60_000))
    found = np.stack([permute(np.full(len(keys), i), n, keys) for i in range(n)], axis=1)
    _, counts = np.unique(found @ n ** np.arange(n), return_counts=True)
    assert len(counts) == factorial(n)
    assert chisquare(counts).pvalue > LEAST_P


def test_positions_pairs_and_epochs_are_uniform() -> None:
    n, keys = 41, keyed_hash(1, np.arange(80_000))
    first = permute(np.full(len(keys), 0), n, keys)
    second = permute(np.full(len(keys), 1), n, keys)
    assert chisquare(np.bincount(first, minlength=n)).pvalue > LEAST_P
    pairs = np.bincount(first * n + second, minlength=n * n).reshape(n, n)
    assert not np.diagonal(pairs).any()
    assert chisquare(pairs[~np.eye(n, dtype=bool)]).pvalue > LEAST_P
    # The same position in the next epoch is independent of this one.
    follow = np.bincount(first[:-1] * n + first[1:], minlength=n * n)
    assert chisquare(follow).pvalue > LEAST_P


def test_choose_is_uniform_and_in_range() -> None:
    draw = keyed_hash(4, np.arange(70_000))
    assert chisquare(np.bincount(choose(draw, 7), minlength=7)).pvalue > LEAST_P
    counts = np.arange(1, 70_001)
    assert (choose(draw, counts) < counts).all()


def test_every_input_bit_flips_about_half_of_the_output() -> None:
    base = keyed_hash(0, np.arange(2000), 7)
    for flipped in (keyed_hash(1, np.arange(2000), 7), keyed_hash(0, np.arange(2000), 7 ^ (1 << 40))):
        share = np.unpackbits((base ^ flipped).view(np.uint8)).mean()
        assert share == pytest.approx(0.5, abs=0.01)
