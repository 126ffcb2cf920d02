"""Partners by weak label against plain enumeration: every permissible one comes, as often as it should, no other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from protloc_jax.data.pairing import Pairing
from protloc_jax.data.sampler import Sampler

# One class over three wells, one within one well, one of a single image, and images without label or well.
LABEL = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, -1, 0, 1])
WELL = np.array([5, 5, 5, 2, 2, 7, 3, 3, 3, 4, 5, -1, -1], np.int32)  # as manifests count
HOT = np.zeros((9, 4))
HOT[[0, 1, 2, 3], 0] = HOT[[3, 4, 5], 1] = HOT[[3, 6], 3] = 1  # row 3 has three classes, 7 and 8 none, class 2 no row
HOT_WELL = np.array([0, 0, 1, 1, 1, 1, 1, 2, 2])
ROUNDS = 1500


def permissible(row, mates, *, pool, well):
    """The rows of one of its classes that a row may get, by the rules as they are written; maybe none."""
    if well is None:
        return [m for m in mates if pool == "all" or m != row]
    return [m for m in mates if well[row] >= 0 and well[m] >= 0 and well[m] != well[row]]


def fallen_back(row, mates, *, pool, fallback):
    """What a row gets that may get none."""
    return (permissible(row, mates, pool=pool, well=None) if fallback == "label" else []) or [row]


def chances(table, row, *, pool, well, fallback):
    """Probability of every partner of a row: its classes are equally likely, and the partners in each."""
    hot = table if table.ndim == 2 else (table[:, None] == np.arange(3)[None])
    classes = np.flatnonzero(hot[row])
    found = np.zeros(len(table))
    for c in classes:
        mates = np.flatnonzero(hot[:, c]).tolist()
        may = permissible(row, mates, pool=pool, well=well) or fallen_back(row, mates, pool=pool, fallback=fallback)
        found[may] += 1 / len(may) / len(classes)
    return found if len(classes) else np.eye(len(table))[row]


def bounded(counts, expected):
    """Never where the chance is 0; elsewhere within five standard deviations, and at least once."""
    total = counts.sum()
    assert (counts[expected == 0] == 0).all()
    assert (counts[expected > 0] > 0).all()
    assert (np.abs(counts - total * expected) <= 5 * np.sqrt(total * expected * (1 - expected)) + 1e-9).all()


@pytest.mark.parametrize("kind", ["column", "labels"])
@pytest.mark.parametrize("rules", [*itertools.product(("others", "all"), (False, True), ("label", "self"))])
def test_partners_are_the_enumerated_ones(kind, rules):
    pool, constrained, fallback = rules
    table, well = {"column": (LABEL, WELL), "labels": (HOT, HOT_WELL)}[kind]
    apart = well if constrained else None
    n = len(table)
    sampler = Sampler(n, 11, groups=table, pool=pool, apart=apart, fallback=fallback)
    numbers = np.arange(n * ROUNDS)
    index, partner = sampler.index(numbers), sampler.partner(numbers)
    alone = 0
    for row in range(n):
        expected = chances(table, row, pool=pool, well=apart, fallback=fallback)
        bounded(np.bincount(partner[index == row], minlength=n), expected)
        alone += expected[row] == 1
    assert sampler.alone == alone


@pytest.mark.parametrize("pool", ["others", "all"])
@pytest.mark.parametrize("constrained", [False, True])
def test_stand_ins_are_permissible_in_the_right_order(pool, constrained):
    """Whatever image stands in: first its own draw, then all other permissible ones, the fallback's, at last itself."""
    apart = WELL if constrained else None
    for fallback in ("label", "self"):
        sampler = Sampler(len(LABEL), 3, groups=LABEL, pool=pool, apart=apart, fallback=fallback)
        for number, row in itertools.product(range(4), range(len(LABEL))):
            found = list(sampler.partners(number, row))
            mates = np.flatnonzero(LABEL[row] == LABEL).tolist() if LABEL[row] >= 0 else []
            may = permissible(row, mates, pool=pool, well=apart)
            instead = fallen_back(row, mates, pool=pool, fallback=fallback)
            rest = set(instead) - {*may, row} if fallback == "label" else set()
            assert found[0] in (may or instead)
            assert sorted(found[1 : 1 + len(may)]) == may
            assert set(found[1 + len(may) : -1]) - {row} == rest
            assert found[-1] == row
            if sampler.index(number) == row:
                assert found[0] == sampler.partner(number)


def test_balanced_labels_share_the_class_that_was_drawn():
    """Row 3 comes for each of its classes; its partner is then of that class, so the pairs tell the class apart."""
    sampler = Sampler(9, 5, balance=HOT, groups=HOT)
    numbers = np.arange(60_000)
    index, partner = sampler.index(numbers), sampler.partner(numbers)
    joint = np.bincount(index * 9 + partner, minlength=81).reshape(9, 9)
    expected = np.zeros((9, 9))
    for c in (0, 1, 3):
        mates = np.flatnonzero(HOT[:, c])
        for a, b in itertools.permutations(mates, 2):
            expected[a, b] += 1 / 3 / len(mates) / (len(mates) - 1)
    bounded(joint.reshape(-1), expected.reshape(-1))
    # Balanced by something else, an image's classes are equally likely again.
    other = Sampler(9, 5, balance=np.arange(9) % 2, groups=HOT)
    index, partner = other.index(numbers), other.partner(numbers)
    bounded(np.bincount(partner[index == 3], minlength=9), chances(HOT, 3, pool="others", well=None, fallback="self"))


def test_rows_seeds_and_slices_do_not_matter():
    rows = np.arange(13) * 7 + 2
    settings = {"groups": LABEL, "apart": WELL, "balance": LABEL, "pool": "all"}
    plain, mapped = Sampler(13, 4, **settings), Sampler(13, 4, rows=rows, **settings)
    numbers = np.arange(2**40, 2**40 + 120)
    np.testing.assert_array_equal(mapped.partner(numbers), rows[plain.partner(numbers)])
    assert [plain.partner(int(i)) for i in numbers] == plain.partner(numbers).tolist()
    assert Sampler(13, 5, **settings).partner(numbers).tolist() != plain.partner(numbers).tolist()


def test_what_lacks_a_partner_is_told():
    pairing = Pairing(LABEL, apart=WELL)
    rows, classes = pairing.lacking
    assert sorted(zip(rows.tolist(), classes.tolist(), strict=True)) == [
        (6, 1), (7, 1), (8, 1), (9, 2), (11, 0), (12, 1),
    ]  # fmt: skip
    assert pairing.unlabelled == 1
    assert Pairing(LABEL).lacking[0].tolist() == [9]
    assert not len(Pairing(LABEL, pool="all").lacking[0])
    with pytest.raises(ValueError, match="no image has a weak label"):
        Pairing(np.full(3, -1))


def test_frozen_draws():
    """These numbers are part of every recorded run; a change here breaks resuming and comparing."""
    codes, well = np.arange(1000) % 7, np.arange(1000) % 12
    hot = np.stack([codes == 0, codes < 3, codes > 1], axis=1)
    numbers = np.array([0, 1, 2, 999, 1000, 123_456_789, 2**62])
    found = [
        Sampler(1000, 42, groups=codes, pool="all").partner(numbers).tolist(),
        Sampler(1000, 42, groups=codes, apart=well).partner(numbers).tolist(),
        Sampler(1000, 42, groups=hot).partner(numbers).tolist(),
    ]
    assert found == FROZEN


def test_a_million_rows_are_quick():
    """No Python over rows: the tables in seconds, and a batch in a fraction of a millisecond an example."""
    import time

    n = 1_000_000
    label, plate = np.arange(n) * 7919 % 5003, np.arange(n) // 240
    start = time.perf_counter()
    sampler = Sampler(n, 0, groups=label, apart=plate, balance=label)
    built = time.perf_counter() - start
    numbers = np.arange(4096)
    start = time.perf_counter()
    partner = sampler.partner(numbers)
    drawn = time.perf_counter() - start
    index = sampler.index(numbers)
    assert (label[partner] == label[index]).all() and (plate[partner] != plate[index]).all()
    assert built < 30 and drawn < 1, "a Python loop over rows takes minutes"


FROZEN = [
    [845, 212, 685, 852, 11, 241, 423],
    [117, 303, 538, 194, 998, 934, 822],
    [675, 454, 902, 143, 788, 929, 612],
]
