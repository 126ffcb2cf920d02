"""The part of an image that holds a share of the attention, against hand-computed cases and DINO's formula."""

from __future__ import annotations

import numpy as np
import pytest

from protloc_jax.eval.attention_mask import kept_by_mass

# Sum 20: ranked 8, 5, 4, 2, 1 and a zero.
MAP = np.array([[4.0, 1.0, 8.0], [2.0, 0.0, 5.0]])


@pytest.mark.parametrize(
    ("share", "kept"),
    [
        (0.1, [[0, 0, 1], [0, 0, 0]]),
        (0.4, [[0, 0, 1], [0, 0, 0]]),  # exactly what the largest holds
        (0.41, [[0, 0, 1], [0, 0, 1]]),
        (0.65, [[0, 0, 1], [0, 0, 1]]),
        (0.6501, [[1, 0, 1], [0, 0, 1]]),
        (0.9, [[1, 0, 1], [1, 0, 1]]),
        (1.0, [[1, 1, 1], [1, 0, 1]]),  # a patch without attention is never kept
    ],
)
def test_by_hand(share, kept):
    np.testing.assert_array_equal(kept_by_mass(MAP, share), np.array(kept, bool))
    np.testing.assert_array_equal(kept_by_mass(np.stack([MAP * 3, MAP / 7]), share), np.array([kept, kept], bool))


def test_of_equal_patches_the_earlier_in_reading_order_is_kept():
    np.testing.assert_array_equal(kept_by_mass(np.full((2, 2), 0.25), 0.5), [[True, True], [False, False]])
    ties = np.array([[1.0, 2.0], [2.0, 1.0]])
    np.testing.assert_array_equal(kept_by_mass(ties, 0.6), [[False, True], [True, False]])
    np.testing.assert_array_equal(kept_by_mass(ties, 0.8), [[True, True], [True, False]])


def test_without_ties_it_is_dinos_formula():
    rng = np.random.default_rng(0)
    for share in (0.2, 0.5, 0.6, 0.95):
        attention = rng.random((4, 5)) ** 3
        order = np.argsort(attention.ravel())
        running = np.cumsum(attention.ravel()[order]) / attention.sum()
        want = np.zeros(20, bool)
        want[order[running > 1 - share]] = True
        np.testing.assert_array_equal(kept_by_mass(attention, share), want.reshape(4, 5))


@pytest.mark.parametrize("share", [50, 1.01, 0.0, -0.5, float("nan")])
def test_a_share_that_is_no_fraction_is_refused(share):
    with pytest.raises(ValueError, match=r"must be a fraction.* published default of 50 .* all of them"):
        kept_by_mass(MAP, share)


def test_what_is_no_attention_is_refused():
    with pytest.raises(ValueError, match="1 maps hold no attention"):
        kept_by_mass(np.stack([MAP, 0 * MAP]))
    for bad in (-1.0, np.nan):
        with pytest.raises(ValueError, match="negative"):
            kept_by_mass(np.where(MAP == 8, bad, MAP))
