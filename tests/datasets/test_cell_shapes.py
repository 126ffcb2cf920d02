"""Measures of label images against loops over pixels; pieces and nuclei by hand."""

from __future__ import annotations

import numpy as np
import pytest

from protloc_jax.datasets.cell_shapes import FRAGMENT, compact, measure, nuclei_of, tidy


def blobs(seed: int, size=(40, 50), most=9, high=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    labels = np.zeros(size, np.int32)
    for number in rng.permutation(most)[: most - 2] + 1:
        top, left = rng.integers(0, size[0] - 5), rng.integers(0, size[1] - 5)
        labels[top : top + rng.integers(2, 12), left : left + rng.integers(2, 12)] = number + high
    return labels


@pytest.mark.parametrize("high", [0, 2**22, 2**29])
@pytest.mark.parametrize("seed", range(3))
def test_area_centroid_and_bounds_against_loops(seed, high):
    labels = blobs(seed, high=high)
    shapes = measure(labels)
    numbers = sorted({int(v) for v in labels.ravel()} - {0})
    assert shapes.label.tolist() == numbers
    for i, number in enumerate(numbers):
        at = [(r, c) for r in range(40) for c in range(50) if labels[r, c] == number]
        rows, columns = zip(*at, strict=True)
        assert shapes.area[i] == len(at)
        np.testing.assert_allclose(shapes.centre[i], [sum(rows) / len(at), sum(columns) / len(at)], rtol=1e-12)
        assert shapes.bounds[i].tolist() == [min(rows), min(columns), max(rows) + 1, max(columns) + 1]
        assert shapes.borders((40, 50))[i] == min(min(rows), min(columns), 39 - max(rows), 49 - max(columns))
    _, places = compact(labels)
    np.testing.assert_array_equal(np.array([0, *numbers])[places], labels)


def test_an_empty_label_image_and_fragments_have_no_objects():
    for labels in (np.zeros((4, 5), np.int32), np.full((4, 5), FRAGMENT)):
        shapes = measure(labels)
        assert [len(v) for v in shapes] == [0, 0, 0, 0]
        assert shapes.bounds.shape == (0, 4)
        assert tidy(labels, "largest")[1:] == (0, [])


PIECES = np.array(
    [
        [5, 5, 0, 0, 2],
        [5, 0, 0, 2, 0],
        [0, 0, 0, 0, 0],
        [0, 5, 0, 0, 5],
        [0, 0, 0, 0, 5],
    ],
    np.int32,
)


def test_the_rules_for_a_label_in_several_pieces():
    # 2 is one piece: corners connect.
    labels, before, notes = tidy(PIECES, "largest")
    np.testing.assert_array_equal(labels == 5, [[1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0] * 5, [0] * 5, [0] * 5])
    np.testing.assert_array_equal(np.argwhere(labels == FRAGMENT), [[3, 1], [3, 4], [4, 4]])
    assert notes == [(5, "3 pieces; the largest of 3 px is the cell, 3 px are not")]
    labels, before, notes = tidy(PIECES, "split")
    assert labels[0, 0] == 5
    assert labels[3, 4] == labels[4, 4] == 6
    assert labels[3, 1] == 7
    assert "6 to 7 are new" in notes[0][1]
    labels, before, notes = tidy(PIECES, "drop")
    assert set(np.unique(labels)) == {FRAGMENT, 0, 2}
    labels, before, notes = tidy(PIECES, "keep")
    np.testing.assert_array_equal(labels, PIECES)
    assert (before, notes) == (2, [])
    assert PIECES[3, 1] == 5  # the argument is never changed


def test_of_equal_pieces_the_first_in_reading_order_stays():
    labels, _, _ = tidy(np.array([[0, 0, 4], [0, 0, 0], [4, 0, 0]], np.int32), "largest")
    assert labels[0, 2] == 4
    assert labels[2, 0] == FRAGMENT


def test_nuclei_go_to_the_cell_that_covers_them_whatever_their_numbers():
    cells = np.zeros((6, 12), np.int32)
    cells[:, :4], cells[:, 4:8], cells[0:2, 10:] = 30, 20, 10
    nuclei = np.zeros((6, 12), np.int32)
    nuclei[1:3, 1:3] = 5  # in 30
    nuclei[4:6, 2:5] = 6  # two thirds in 30, one in 20
    nuclei[0, 6] = 1  # in 20
    nuclei[3:6, 9:12] = 7  # in no cell
    nuclei[1:4, 11] = 8  # a third in 10: not enough
    found = nuclei_of(cells, measure(cells), nuclei)
    assert measure(cells).label.tolist() == [10, 20, 30]
    assert found.number.tolist() == [0, 1, 2]
    assert found.area.tolist() == [0, 1, 10]
    np.testing.assert_allclose(found.centre[2], [(1.5 * 4 + 4.5 * 6) / 10, (1.5 * 4 + 3 * 6) / 10])
    np.testing.assert_allclose(found.centre[1], [0, 6])
    assert np.isnan(found.centre[0]).all()
    none = nuclei_of(cells, measure(cells), np.zeros_like(nuclei))
    assert none.number.tolist() == [0, 0, 0]


def test_a_nucleus_torn_between_cells_belongs_to_none():
    cells = np.array([[1, 1, 1, 1, 2, 2, 2, 3, 3]], np.int32)
    assert nuclei_of(cells, measure(cells), np.ones_like(cells)).number.tolist() == [0, 0, 0]
    half = np.array([[1, 1, 1, 1, 1, 0, 0, 0, 0]], np.int32)
    assert nuclei_of(cells, measure(cells), half).number.tolist() == [1, 0, 0]
