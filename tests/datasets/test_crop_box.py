"""Boxes cut by hand-made arrays, and resized ones against a float64 resampler written from the definition."""

from __future__ import annotations

import numpy as np
import pytest

from protloc_jax.datasets.crop_box import Box, cut_mask, cut_pixels, fixed_box, inside, scaled_box

# Pixel (r, c) of the field holds 10 r + c, the second channel 100 more.
FIELD = np.add.outer(10 * np.arange(5), np.arange(6))[..., None].astype(np.uint8) + np.array([0, 100], np.uint8)
LABELS = np.array(
    [
        [0, 0, 0, 0, 0, 3],
        [0, 7, 7, 0, 0, 3],
        [0, 7, 7, 7, 0, 0],
        [0, 0, 7, 9, 9, 0],
        [-1, 0, 0, 9, 9, 0],
    ],
    np.int32,
)


def cut(box, out, cell=7, padding="reflect", **options):
    return cut_pixels(FIELD, LABELS, cell, box, out, padding=padding, **options)


def test_a_box_inside_the_field_is_a_slice():
    box = fixed_box(2.0, 2.0, 3)
    assert box == (1, 1, 3)
    np.testing.assert_array_equal(cut(box, 3), FIELD[1:4, 1:4])
    np.testing.assert_array_equal(cut_mask(LABELS, 7, box, 3, "reflect"), [[1, 1, 0], [1, 1, 1], [0, 1, 2]])
    np.testing.assert_array_equal(inside(LABELS, box), LABELS[1:4, 1:4])


@pytest.mark.parametrize(
    ("centre", "side", "corner"),
    [((2.0, 2.0), 4, (0, 0)), ((2.49, 2.5), 3, (1, 2)), ((0.5, 1.5), 2, (0, 1)), ((2.0, 3.0), 1, (2, 3))],
)
def test_the_pixel_nearest_to_the_centre_stands_at_half_the_side(centre, side, corner):
    assert fixed_box(*centre, side)[:2] == corner


def test_reflection_and_zeros_beyond_the_border():
    box = fixed_box(1.0, 1.0, 5)  # top left at (-1, -1)
    rows, columns = [1, 0, 1, 2, 3], [1, 0, 1, 2, 3]
    mirrored = FIELD[np.ix_(rows, columns)]
    np.testing.assert_array_equal(cut(box, 5), mirrored)
    zeros = mirrored.copy()
    zeros[0], zeros[:, 0] = 0, 0
    np.testing.assert_array_equal(cut(box, 5, padding="zero"), zeros)
    # The cell's own image in the mirror is not the cell.
    expected = [[2, 0, 2, 2, 0], [0, 0, 0, 0, 0], [2, 0, 1, 1, 0], [2, 0, 1, 1, 1], [0, 0, 0, 1, 2]]
    np.testing.assert_array_equal(cut_mask(LABELS, 7, box, 5, "reflect"), expected)
    bare = np.array(expected)
    bare[0], bare[:, 0] = 0, 0
    np.testing.assert_array_equal(cut_mask(LABELS, 7, box, 5, "zero"), bare)
    assert box.crosses((5, 6))
    assert not fixed_box(2, 2, 5).crosses((5, 6))


def test_a_box_far_larger_than_the_field_folds_back_and_forth():
    big = cut(Box(-11, -13, 32), 32)[..., 0]
    expected = np.pad(FIELD[..., 0], ((11, 16), (13, 13)), mode="reflect")
    np.testing.assert_array_equal(big, expected)
    one = np.full((1, 1, 1), 5, np.uint8)
    assert (cut_pixels(one, np.ones((1, 1), int), 1, Box(-2, -2, 5), 5, padding="reflect") == 5).all()


def test_masking_keeps_the_cell_or_takes_the_others_out():
    box = fixed_box(3.0, 2.0, 3)  # rows 2-4, columns 1-3
    own = LABELS[2:5, 1:4] == 7
    others = (LABELS[2:5, 1:4] != 7) & (LABELS[2:5, 1:4] != 0)
    np.testing.assert_array_equal(cut(box, 3, masked="cell"), np.where(own[..., None], FIELD[2:5, 1:4], 0))
    filled = cut(box, 3, masked="others", fill=np.array([77, 88], np.uint8))
    np.testing.assert_array_equal(filled, np.where(others[..., None], np.array([77, 88], np.uint8), FIELD[2:5, 1:4]))
    # A fragment (-1) is another cell; what lies beyond the border is never the cell.
    corner = fixed_box(4.0, 0.0, 3)
    np.testing.assert_array_equal(cut_mask(LABELS, 7, corner, 3, "reflect"), [[0, 0, 0], [0, 2, 0], [0, 0, 0]])
    assert not cut(corner, 3, masked="cell").any()


def triangle(plane: np.ndarray, start: float, side: float, out: int, axis: int) -> np.ndarray:
    """Resample one axis in float64 with a triangle filter, whose half width is the step between output pixels (or one
    input pixel, if that is more)."""
    plane = np.moveaxis(plane.astype(np.float64), axis, 0)
    step = side / out
    reach = max(step, 1.0)
    rows = []
    for i in range(out):
        middle = start + (i + 0.5) * step
        weights = np.array([max(0.0, 1 - abs(j + 0.5 - middle) / reach) for j in range(len(plane))])
        rows.append(np.tensordot(weights / weights.sum(), plane, 1))
    return np.moveaxis(np.stack(rows), 0, axis)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(("side", "out"), [(41.3, 16), (23.0, 23), (17.4, 32), (30.0, 20), (9.7, 8)])
def test_scaled_boxes_against_a_float64_resampler(dtype, side, out):
    rng = np.random.default_rng([3, out])
    field = rng.integers(0, np.iinfo(dtype).max + 1, (70, 80, 2)).astype(dtype)
    labels = np.zeros((70, 80), np.int32)
    labels[20:50, 25:50] = 4
    labels[30:60, 50:60] = 6
    box = scaled_box(34.7, 39.2, side)
    assert box.top + box.side / 2 == pytest.approx(35.2)
    found = cut_pixels(field, labels, 4, box, out, padding="reflect")
    expected = triangle(triangle(field, box.top, side, out, 0), box.left, side, out, 1)
    assert found.dtype == field.dtype
    # Half for rounding, and a millionth of the range for the corners of the box, which Pillow holds as float32.
    assert np.abs(found - expected).max() <= 0.5 + 1e-6 * np.iinfo(dtype).max
    mask = cut_mask(labels, 4, box, out, "reflect")
    middle = (np.arange(out) + 0.5) * side / out
    rows, columns = (box.top + middle).astype(int), (box.left + middle).astype(int)
    np.testing.assert_array_equal(mask, np.array([0, 0, 0, 0, 1, 0, 2])[labels[np.ix_(rows, columns)]])


def test_scaled_boxes_at_the_border_resample_the_padded_field():
    rng = np.random.default_rng(9)
    field = rng.integers(0, 65536, (30, 34, 1)).astype(np.uint16)
    labels = np.ones((30, 34), np.int32)
    box = Box(-6.4, 20.3, 27.9)
    pad = 20
    for padding, mode in (("reflect", "reflect"), ("zero", "constant")):
        whole = np.pad(field[..., 0], pad, mode=mode)
        expected = triangle(triangle(whole, box.top + pad, box.side, 16, 0), box.left + pad, box.side, 16, 1)
        found = cut_pixels(field, labels, 1, box, 16, padding=padding)[..., 0]
        assert np.abs(found - expected).max() <= 0.5 + 1e-6 * 65535


def test_no_masked_out_light_seeps_into_a_resized_crop():
    field = np.full((40, 40, 1), 60000, np.uint16)
    labels = np.zeros((40, 40), np.int32)
    labels[10:30, 10:20], labels[10:30, 20:30] = 1, 2
    field[labels == 1] = 1000
    crop = cut_pixels(field, labels, 1, scaled_box(19.5, 14.5, 30), 8, padding="reflect", masked="cell")
    assert 900 < crop.max() <= 1000


def test_a_fixed_box_of_other_size_than_the_crop_is_resized():
    whole = cut(Box(0, 0, 4), 2)
    np.testing.assert_array_equal(whole, np.rint(triangle(triangle(FIELD, 0, 4, 2, 0), 0, 4, 2, 1)).astype(np.uint8))
