"""The order of the examples: complete, uniform, balanced where asked, the same however it is cut up, and frozen."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare

from protloc_jax.data.sampler import Sampler

LEAST_P = 1e-4


def test_every_example_once_an_epoch_in_a_new_order() -> None:
    sampler = Sampler(37, seed=3)
    found = sampler.index(np.arange(37 * 6)).reshape(6, 37)
    for epoch in found:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(37))
    assert len({tuple(epoch) for epoch in found}) == 6
    assert Sampler(37, seed=4).index(np.arange(37)).tolist() != found[0].tolist()


def test_the_address_is_epoch_and_offset() -> None:
    sampler = Sampler(37, seed=3)
    assert sampler.example(0) == (0, 0)
    assert sampler.example(37 * 5 + 11) == (5, 11)
    epoch, offset = sampler.example(np.array([36, 37, 2**62]))
    assert epoch.tolist() == [0, 1, 2**62 // 37]
    assert offset.tolist() == [36, 0, 2**62 % 37]


@pytest.mark.parametrize("balance", [False, True])
def test_arrays_numbers_and_any_slicing_agree(balance: bool) -> None:
    """Pure in the example number: one at a time, in one go, or in the slices of 1, 2, 4 or 8 hosts."""
    codes = np.arange(50) % 4
    sampler = Sampler(50, 9, balance=codes if balance else None, groups=codes)
    numbers = np.arange(2**40 + 13, 2**40 + 13 + 160)
    index, partner = sampler.index(numbers), sampler.partner(numbers)
    assert [sampler.index(int(i)) for i in numbers] == index.tolist()
    assert [sampler.partner(int(i)) for i in numbers] == partner.tolist()
    assert isinstance(sampler.index(3), int)
    for hosts in (1, 2, 4, 8):
        pieces = [sampler.index(piece) for piece in np.split(numbers, hosts)]
        np.testing.assert_array_equal(np.concatenate(pieces), index)


def test_rows_of_a_split_are_mapped() -> None:
    rows = np.array([3, 8, 20, 21])
    sampler = Sampler(4, 0, rows=rows, groups=np.array([0, 0, 1, 1]))
    assert sorted(sampler.index(np.arange(4)).tolist()) == rows.tolist()
    other = dict(zip((3, 8, 20, 21), (8, 3, 21, 20), strict=True))
    for number in range(40):
        assert sampler.partner(number) == other[sampler.index(number)]


def test_partners_are_of_the_same_group_never_the_same_and_uniform() -> None:
    groups = np.array([0] * 5 + [1] * 3 + [2] + [-1, -1])
    sampler = Sampler(11, 1, groups=groups)
    numbers = np.arange(11 * 4000)
    index, partner = sampler.index(numbers), sampler.partner(numbers)
    paired = np.isin(groups[index], (0, 1))
    np.testing.assert_array_equal(groups[index], groups[partner])
    assert (index[paired] != partner[paired]).all()
    np.testing.assert_array_equal(index[~paired], partner[~paired])
    assert sampler.alone == 3
    for own in range(5):
        counts = np.bincount(partner[index == own], minlength=5)[[i for i in range(5) if i != own]]
        assert chisquare(counts).pvalue > LEAST_P


def test_partner_draws_do_not_follow_the_order() -> None:
    """The partner's place must not be a function of the example's place: all pairs come, in each epoch others."""
    sampler = Sampler(6, 2, groups=np.zeros(6, int))
    numbers = np.arange(6 * 3000)
    pairs = sampler.index(numbers) * 6 + sampler.partner(numbers)
    counts = np.bincount(pairs, minlength=36).reshape(6, 6)[~np.eye(6, dtype=bool)]
    assert chisquare(counts).pvalue > LEAST_P


def test_balanced_draws_classes_then_members_uniformly() -> None:
    codes = np.array([4] * 40 + [7] * 4 + [2] * 2 + [-1] * 3)
    sampler = Sampler(49, 5, balance=codes)
    index = sampler.index(np.arange(60_000))
    assert sampler.undrawn == 3
    assert (codes[index] >= 0).all()
    assert chisquare([(codes[index] == c).sum() for c in (2, 4, 7)]).pvalue > LEAST_P
    assert chisquare(np.bincount(index[codes[index] == 4], minlength=40)[:40]).pvalue > LEAST_P


def test_balanced_with_several_labels_draws_a_member_for_each_of_its_classes() -> None:
    hot = np.zeros((10, 4))
    hot[:6, 0] = hot[5:9, 1] = hot[5, 3] = 1  # row 5 has three classes, row 9 none, class 2 no member
    sampler = Sampler(10, 5, balance=hot)
    counts = np.bincount(sampler.index(np.arange(72_000)), minlength=10) / 72_000
    expected = np.array([1 / 18] * 5 + [1 / 18 + 1 / 12 + 1 / 3] + [1 / 12] * 3 + [0])
    np.testing.assert_allclose(counts, expected, atol=0.005)
    assert sampler.undrawn == 1


def test_frozen_values() -> None:
    """These numbers are part of every recorded run; a change here breaks resuming and comparing."""
    codes = np.arange(1000) % 7
    sampler = Sampler(1000, 42, groups=codes)
    numbers = np.array([0, 1, 2, 999, 1000, 123_456_789, 2**62])
    assert sampler.index(numbers).tolist() == INDEX
    assert sampler.partner(numbers).tolist() == PARTNER
    assert Sampler(1000, 42, balance=codes).index(numbers).tolist() == BALANCED


def test_bad_tables_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one example"):
        Sampler(0, 0)
    with pytest.raises(ValueError, match="groups has 3 rows for 4 examples"):
        Sampler(4, 0, groups=np.zeros(3, int))
    with pytest.raises(ValueError, match="no example belongs to any class"):
        Sampler(4, 0, balance=np.full(4, -1))
    with pytest.raises(ValueError, match="without groups"):
        Sampler(4, 0).partner(0)


INDEX = [257, 114, 230, 810, 550, 731, 262]
PARTNER = [369, 345, 860, 873, 431, 661, 192]
BALANCED = [339, 240, 469, 998, 359, 884, 506]
