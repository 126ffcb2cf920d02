"""The compositor on images small enough to work out by hand, and against plain loops."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from protloc_jax.views import background
from protloc_jax.views.background import standardise

# Compiled as they are used; one operation after the other costs the tests seconds.
cell_share = jax.jit(background.cell_share, static_argnames="most")
distance = jax.jit(background.distance, static_argnums=1)
free_pixels, paste, pasted_mask = map(jax.jit, (background.free_pixels, background.paste, background.pasted_mask))
replaced = jax.jit(background.replaced)

MASK = np.array([[0, 0, 2, 2], [0, 1, 1, 2], [0, 1, 0, 0], [0, 0, 0, 0]], np.uint8)


def test_standardise_leaves_a_constant_channel_centred() -> None:
    image = np.array([[[1.0, 5.0], [4.0, 5.0]]], np.float32)
    out = standardise(jnp.asarray(image), jnp.array([2.0, 5.0]), jnp.array([2.0, 0.0]))
    np.testing.assert_array_equal(out, [[[-0.5, 0.0], [1.0, 0.0]]])


def test_hard_paste_takes_negative_and_zero_pixels_of_the_cell() -> None:
    image = np.arange(16, dtype=np.float32).reshape(4, 4, 1) - 9  # the cell's pixels are -4, -3 and 0
    donor = np.full((4, 4, 1), 100, np.float32)
    got = paste(jnp.asarray(image), jnp.asarray(donor), cell_share(jnp.asarray(MASK)))
    want = [[100, 100, 100, 100], [100, -4, -3, 100], [100, 0, 100, 100], [100, 100, 100, 100]]
    np.testing.assert_array_equal(got[..., 0], want)


def test_hard_paste_does_not_spread_what_is_no_number() -> None:
    image, donor = np.full((4, 4, 1), np.nan, np.float32), np.ones((4, 4, 1), np.float32)
    image[MASK == 1] = 7
    got = paste(jnp.asarray(image), jnp.asarray(donor), cell_share(jnp.asarray(MASK)))
    np.testing.assert_array_equal(got[..., 0], np.where(MASK == 1, 7, 1))


def test_dilation_by_one_pixel_spares_other_cells() -> None:
    share = cell_share(jnp.asarray(MASK), reach=1, most=1)
    want = [[0, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 1, 0, 0]]  # above (1, 2) and beside it lie pixels of others
    np.testing.assert_array_equal(share, want)


def test_feather_falls_linearly_with_distance() -> None:
    mask = np.zeros((1, 7), np.uint8)
    mask[0, 0] = 1
    share = cell_share(jnp.asarray(mask), reach=1, feather=4, most=5)
    np.testing.assert_allclose(share[0], [1, 1, 0.75, 0.5, 0.25, 0, 0], atol=1e-6)
    mixed = paste(jnp.full((1, 7, 1), 8.0), jnp.zeros((1, 7, 1)), share)
    np.testing.assert_allclose(mixed[0, :, 0], [8, 8, 6, 4, 2, 0, 0], atol=1e-5)


def test_distance_equals_brute_force_within_its_bound() -> None:
    cell = np.random.default_rng(0).random((13, 11)) < 0.04
    cell[4, 5] = True
    at = np.argwhere(cell)
    grid = np.stack(np.meshgrid(np.arange(13), np.arange(11), indexing="ij"), -1)
    want = np.sqrt(((grid[:, :, None] - at) ** 2).sum(-1)).min(-1)
    got = np.asarray(distance(jnp.asarray(cell), 3))
    inside = want <= 3
    np.testing.assert_allclose(got[inside], want[inside], rtol=1e-6)
    assert (got[~inside] > 3).all() and (~inside).any()


def test_replaced_by_a_filler_at_the_same_coordinates_or_by_a_value() -> None:
    image, filler = jnp.ones((4, 4, 2)), jnp.arange(32.0).reshape(4, 4, 2)
    emptied = np.asarray(replaced(image, jnp.asarray(MASK == 1), filler))
    np.testing.assert_array_equal(emptied[MASK == 1], [[10, 11], [12, 13], [18, 19]])
    np.testing.assert_array_equal(emptied[MASK != 1], 1)
    np.testing.assert_array_equal(replaced(image, jnp.asarray(MASK != 1), 0.0)[..., 1], MASK == 1)


def test_free_pixels_are_drawn_evenly_from_the_free_ones_with_their_channels() -> None:
    image = np.stack([np.arange(16), 100 + np.arange(16)], -1).reshape(4, 4, 2).astype(np.float32)
    keys = jax.vmap(jax.random.key)(np.arange(400))
    each = jax.jit(jax.vmap(background.free_pixels, in_axes=(None, None, 0)))
    drawn = np.asarray(each(jnp.asarray(image), jnp.asarray(MASK), keys))
    np.testing.assert_array_equal(drawn[..., 1] - drawn[..., 0], 100)
    numbers, times = np.unique(drawn[..., 0].astype(int), return_counts=True)
    np.testing.assert_array_equal(numbers, np.flatnonzero(MASK.ravel() == 0))
    assert np.abs(times / (6400 / 10) - 1).max() < 0.15  # 640 expected of each of 10; four standard deviations


def test_free_pixels_leave_a_crop_without_any_as_it_is() -> None:
    image = jnp.arange(4.0).reshape(2, 2, 1)
    np.testing.assert_array_equal(free_pixels(image, jnp.full((2, 2), 2), jax.random.key(0)), image)


def test_pasted_mask_makes_the_donors_centre_cell_one_of_the_others() -> None:
    donor = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 2, 2], [0, 0, 0, 0]], np.uint8)
    want = [[2, 2, 0, 0], [2, 1, 1, 0], [0, 1, 2, 2], [0, 0, 0, 0]]
    np.testing.assert_array_equal(pasted_mask(jnp.asarray(MASK), jnp.asarray(donor)), want)
