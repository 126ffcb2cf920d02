"""Randomness by address: a keyed 64-bit hash and a keyed permutation, both pure and vectorised.

The hash chains the finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
The permutation is a Feistel network over two digits of nearly equal base, whose rounds add modulo the base
(Black and Rogaway: Ciphers with arbitrary finite domains, 2002); the few values outside [0, n) walk on until inside.
Unlike a shuffled array it holds no memory and gives any single position at once; unlike NumPy's generators its values
cannot change with a library version.
"""

from __future__ import annotations

from math import isqrt

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1, _MIX2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31 = np.uint64(27), np.uint64(30), np.uint64(31)
_ROUNDS = 24  # from here on all n! orders of n <= 8 come equally often (chi-square over 400,000 keys)


def mix(x: np.ndarray) -> np.ndarray:
    """A bijection of uint64 in which every input bit changes every output bit with probability about one half."""
    x = (x ^ (x >> _S30)) * _MIX1
    x = (x ^ (x >> _S27)) * _MIX2
    return x ^ (x >> _S31)


def keyed_hash(seed: int, *words: int | np.ndarray) -> np.ndarray:
    """uint64 hash of a seed and words (integers or integer arrays that broadcast); at least one-dimensional."""
    state = _words(seed)
    for word in (0, *words):
        state = mix((state ^ _words(word)) + _GOLDEN)
    return state


def permute(position: np.ndarray, n: int, key: np.ndarray) -> np.ndarray:
    """Where `position` [K] (each in [0, n)) lands in the permutation of [0, n) chosen by `key` [K] uint64.

    For a fixed key this is a bijection of [0, n). Any n up to 2**62.
    """
    if n == 1:
        return np.zeros(len(position), np.int64)
    # Even bases: rotations of an odd base are even permutations, which would reach only half of all orders.
    high = _even(isqrt(n - 1) + 1)
    bases = (np.uint64(high), np.uint64(_even(-(-n // high))))
    out = np.asarray(position, np.uint64).copy()
    inside = np.zeros(len(out), bool)
    while not inside.all():
        walking = ~inside
        out[walking] = _feistel(out[walking], bases, key[walking])
        inside = out < n
    return out.astype(np.int64)


def choose(draw: np.ndarray, count: int | np.ndarray) -> np.ndarray:
    """A number in [0, count) from a 64-bit draw; the bias is below count / 2**64."""
    return (draw % _words(count)).astype(np.int64)


def _feistel(x: np.ndarray, bases: tuple[np.uint64, np.uint64], key: np.ndarray) -> np.ndarray:
    digits = [x // bases[1], x % bases[1]]
    for number in range(_ROUNDS):
        this, other = number % 2, 1 - number % 2
        draw = mix(mix(key + np.uint64(number)) ^ (digits[other] + _GOLDEN))
        digits[this] = (digits[this] + draw % bases[this]) % bases[this]
    return digits[0] * bases[1] + digits[1]


def _even(count: int) -> int:
    return count + count % 2


def _words(value: int | np.ndarray) -> np.ndarray:
    if isinstance(value, int):
        value = np.array([value % 2**64], np.uint64)
    return np.atleast_1d(value).astype(np.uint64)
