"""Plates by hand: well names, robust z, edge effects with a permutation p, trends, Z' by its definition."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from protloc_jax.datasets import plates


def test_well_names():
    assert plates.well_positions(["A01", "h12", "P24", "AF48", "B-3", "c_7"]).tolist() == [
        [0, 0], [7, 11], [15, 23], [31, 47], [1, 2], [2, 6],
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"3 names are no wells .*'A00', 'AG01', 'well7'"):
        plates.well_positions(["A01", "A00", "AG01", "well7"])


@pytest.mark.parametrize(
    ("name", "wells", "shape"),
    [("B03", 0, (8, 12)), ("H12", 0, (8, 12)), ("A13", 0, (16, 24)), ("Q01", 0, (32, 48)), ("B03", 24, (4, 6))],
)
def test_plate_formats(name, wells, shape):
    assert plates.plate_shape(plates.well_positions([name]), wells=wells) == shape


def test_wells_outside_of_the_plate_are_refused():
    with pytest.raises(ValueError, match="row 5 or column 1 lie outside of a plate of 24 wells"):
        plates.plate_shape(plates.well_positions(["E01"]), wells=24)


def test_grid_averages_doubles_and_leaves_gaps():
    grid = plates.plate_grid(np.array([[0, 0], [0, 0], [1, 2]]), np.array([1.0, 3.0, 5.0]), (2, 3))
    np.testing.assert_array_equal(grid, [[2, np.nan, np.nan], [np.nan, np.nan, 5]])


def test_robust_z_by_hand():
    # Median 3, absolute deviations 2 1 0 1 97: MAD 1.
    np.testing.assert_allclose(plates.robust_z(np.array([1, 2, 3, 4, 100.0])), np.array([-2, -1, 0, 1, 97]) / 1.4826)
    # MAD 0: the mean absolute deviation, 2, times 1.2533.
    np.testing.assert_allclose(plates.robust_z(np.array([5, 5, 5, 5, 15.0])), [0, 0, 0, 0, 10 / (1.2533 * 2)])
    assert plates.robust_z(np.full(4, 7.0)).tolist() == [0] * 4
    assert plates.robust_z(np.array([])).tolist() == []


def test_small_plates_are_compared_with_all():
    x = np.array([1, 2, 3, 4, 100.0, 11, 12, 13, 14, 15])
    group = np.array([*"aaaaa", *"bbbbb"])
    both = plates.robust_z_within(x, group, least=5)
    np.testing.assert_allclose(both[:5], plates.robust_z(x[:5]))
    np.testing.assert_allclose(plates.robust_z_within(x, group, least=6), plates.robust_z(x))


def test_edge_effect_by_hand_and_by_every_permutation():
    # A 3 x 4 plate: ten edge wells, two interior wells are too few; 4 x 6 has 16 and 8.
    positions = np.array(list(itertools.product(range(4), range(6))))
    inner = ((positions > 0) & (positions < [3, 5])).all(axis=1)
    values = np.where(inner, np.arange(24) % 5, 10.0)
    found = plates.edge_effect(values, positions, np.zeros(24, str), (4, 6), permutations=3000)
    inside = values[inner]
    spread = 1.4826 * np.median(np.abs(inside - np.median(inside)))
    assert found.effect == pytest.approx((10 - np.median(inside)) / spread)
    assert (found.edge, found.interior) == (16, 8)
    assert found.p_value <= 4 / 3001
    # Oracle for p: every way to call three of seven wells interior.
    row = np.array([[0, c] for c in range(4)] + [[1, c] for c in (1, 2)] + [[2, 1]])
    small = np.array([9.0, 7, 8, 6, 1, 2, 0])
    own = ((row > 0) & (row < [3, 5])).all(axis=1)

    def effect(interior):
        inside = small[list(interior)]
        rest = np.delete(small, list(interior))
        mad = 1.4826 * np.median(np.abs(inside - np.median(inside)))
        return (np.median(rest) - np.median(inside)) / mad

    null = [effect(c) for c in itertools.combinations(range(7), 3)]
    observed = effect(np.flatnonzero(own))
    exact = np.mean([abs(e) >= abs(observed) - 1e-12 for e in null])
    got = plates.edge_effect(small, row, np.zeros(7, str), (4, 6), permutations=4000)
    assert got.effect == pytest.approx(observed)
    assert got.p_value == pytest.approx(exact, abs=0.025)


def test_edge_p_values_are_uniform_without_an_effect():
    positions = np.array(list(itertools.product(range(8), range(12))))
    both = np.concatenate([positions, positions])
    plate = np.repeat(["a", "b"], 96)
    p = [
        plates.edge_effect(np.random.default_rng(s).normal(size=192), both, plate, (8, 12), permutations=199).p_value
        for s in range(60)
    ]
    assert 0.3 < np.mean(p) < 0.7 and np.mean(np.asarray(p) < 0.1) < 0.25


def test_trends_and_plates_without_an_edge_or_a_spread():
    positions = np.array(list(itertools.product(range(2, 6), range(2, 9))))
    values = positions[:, 0] + 0.1 * positions[:, 1]
    found = plates.edge_effect(values, positions, np.zeros(28, str), (8, 12), permutations=50)
    assert np.isnan(found.effect) and np.isnan(found.p_value) and found.edge == 0
    assert found.row_trend == pytest.approx(spearmanr(positions[:, 0], values).statistic)
    assert found.column_trend == pytest.approx(spearmanr(positions[:, 1], values).statistic)
    whole = np.array(list(itertools.product(range(8), range(12))))
    flat = plates.edge_effect(np.ones(96), whole, np.zeros(96, str), (8, 12), permutations=50)
    assert (flat.effect, flat.p_value, flat.row_trend, flat.column_trend) == (0, 1, 0, 0)


def test_z_prime_by_hand():
    positive, negative = np.array([10.0, 12, 14]), np.array([1.0, 2, 3])
    # Means 12 and 2, sample SDs 2 and 1: 1 - 3 * 3 / 10.
    assert plates.z_prime(positive, negative) == pytest.approx(0.1)
    # Medians 12 and 2, MADs 2 and 1.
    assert plates.z_prime(positive, negative, robust=True) == pytest.approx(1 - 3 * 1.4826 * 3 / 10)
    assert plates.z_prime(negative, positive) == plates.z_prime(positive, negative)
    assert np.isnan(plates.z_prime(positive, positive[:1])) and np.isnan(plates.z_prime(positive, positive))


def test_wells_are_means_of_their_images():
    images = pd.DataFrame(
        {"plate": ["p", "p", "p", "q"], "well": ["B02", "A01", "B02", "A01"], "qc_x": [1.0, 5.0, 3.0, 7.0]}
    )
    table = plates.wells_of(images, plate="plate", well="well", measures=["qc_x"])
    assert table.to_dict("list") == {
        "plate": ["p", "p", "q"], "well": ["A01", "B02", "A01"], "row": [0, 1, 0], "column": [0, 1, 0],
        "images": [1, 2, 1], "qc_x": [5.0, 2.0, 7.0],
    }  # fmt: skip
