"""Views whose surroundings are changed: by hand on small crops, and against the plain views of hand-made crops."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protloc_jax.channels import parse
from protloc_jax.config import ConfigError
from protloc_jax.views.background_config import BackgroundViews
from protloc_jax.views.config import ViewsConfig
from protloc_jax.views.draws import FIRST_LOCAL, Draws, Purpose, draw
from protloc_jax.views.multicrop import make_views
from protloc_jax.views.resample import Box
from protloc_jax.views.surroundings import moved

CHANNELS = parse("protein,other")
SIDE = 12
# Random crops, flips and turns, and little else to compile.
TINY = {"global_size": 8, "local_size": 4, "n_local": 2, "drop_channel": 0.0, "gamma": 0.0, "shift": 0.0}
# The crop is the whole image and nothing is augmented: a view is its source.
BARE = ViewsConfig(
    "ours", drop_channel=0.0, flip_horizontal=0.0, flip_vertical=0.0, turn=0.0, gamma=0.0, gain=0.0, shift=0.0,
    normalise="none", global_size=SIDE, local_size=SIDE, global_scale=(1, 1), local_scale=(1, 1), ratio=(1, 1),
    n_local=30,
)  # fmt: skip


@pytest.fixture(name="example", scope="module")
def _example():
    """(image, donor, mask) of one example: a cell of 4 x 4 pixels, another cell in a corner."""
    rng = np.random.default_rng(0)
    image, donor = (rng.integers(20, 230, (1, SIDE, SIDE, 2)).astype(np.uint8) for _ in range(2))
    mask = np.zeros((1, SIDE, SIDE), np.uint8)
    mask[0, 4:8, 3:7], mask[0, :3, 9:] = 1, 2
    return image, donor, mask


def views(config, example, seed=5):
    image, donor, mask = example
    run = jax.jit(make_views(config, CHANNELS))
    key = jax.vmap(jax.random.key)(jnp.asarray([seed]))
    return jax.tree.map(lambda x: np.asarray(x[0]), run(image, key, donor=donor, mask=mask))


def bare(**settings):
    return dataclasses.replace(BARE, background=BackgroundViews(**settings))


def test_every_view_is_one_of_the_five_sources_as_often_as_asked(example):
    image, donor, mask = example[0][0] / 255.0, example[1][0] / 255.0, example[2][0]
    cell = (mask == 1)[..., None]
    got = views(bare(swap=0.3, turned=0.2, masked=0.2, alone=0.1, reach=0, feather=0), example)
    matched = (donor - donor.mean((0, 1))) / donor.std((0, 1)) * image.std((0, 1)) + image.mean((0, 1))
    sources = {
        "swap": np.where(cell, image, np.clip(matched, 0, 1)),
        "turned": np.where(cell, image, image[::-1, ::-1]),
        "masked": np.where(cell, image, 0),
        "whole": image,
    }
    found = dict.fromkeys([*sources, "alone"], 0)
    free = {tuple(pixel) for pixel in example[0][0][mask == 0]}
    for view in [*got.global_, *got.local]:
        names = [name for name, source in sources.items() if np.allclose(view, source, atol=2e-6)]
        if not names:  # others are filled with free pixels of the same crop, the rest stays
            np.testing.assert_allclose(view[mask != 2], image[mask != 2], atol=1e-6)
            assert {tuple(pixel) for pixel in np.rint(view[mask == 2] * 255).astype(np.uint8)} <= free
        found[(names or ["alone"])[0]] += 1
    share = np.array([found[name] for name in ("swap", "turned", "masked", "alone", "whole")]) / 32
    np.testing.assert_allclose(share, [0.3, 0.2, 0.2, 0.1, 0.2], atol=0.25)  # 3 standard deviations of 32 draws
    assert found["alone"] and found["whole"]
    np.testing.assert_allclose(got.teacher, np.stack([image] * 2), atol=1e-6)


@pytest.fixture(name="plain", scope="module")
def _plain():
    """Views [2, 8, 8, C] and [2, 4, 4, C] of crops [H, W, C] uint8 whose surroundings are left alone."""
    run, key = jax.jit(make_views(ViewsConfig(**TINY), CHANNELS)), jax.vmap(jax.random.key)(jnp.asarray([5]))
    return lambda crop: jax.tree.map(lambda x: np.asarray(x[0]), run(crop[None], key))


@pytest.mark.parametrize("teacher", ["whole", "masked"])
def test_the_teacher_sees_the_same_crops_and_augmentations_on_its_own_surroundings(example, plain, teacher):
    image, _, mask = example
    got = views(ViewsConfig(**TINY, background=BackgroundViews(swap=1.0, teacher=teacher)), example)
    shown = np.where((mask == 1)[..., None], image, 0) if teacher == "masked" else image
    np.testing.assert_allclose(got.teacher, plain(shown[0].astype(np.uint8)).global_, atol=1e-4)
    assert not np.allclose(got.global_, got.teacher, atol=0.05)


def test_the_teacher_may_see_the_cell_alone(example):
    image, mask = example[0][0] / 255.0, example[2][0]
    got = views(bare(masked=1.0, teacher="alone"), example)
    for view in got.teacher:
        np.testing.assert_allclose(view[mask != 2], image[mask != 2], atol=1e-6)
        assert not np.allclose(view[mask == 2], image[mask == 2], atol=0.05)


def test_without_changes_views_are_those_of_plain_crops(example, plain):
    image = example[0]
    want = plain(image[0])
    # A share of cell that every place has leaves boxes where they are; the path through masks is taken all the same.
    got = views(
        ViewsConfig(**TINY, background=BackgroundViews(cell_share=1e-9)), (image, None, np.ones_like(example[2]))
    )
    assert got.teacher is None
    np.testing.assert_allclose(got.global_, want.global_, atol=1e-5)
    np.testing.assert_allclose(got.local, want.local, atol=1e-5)


def test_views_depend_on_the_example_alone():
    rng = np.random.default_rng(1)
    images, donors = (rng.integers(0, 255, (3, SIDE, SIDE, 2)).astype(np.uint8) for _ in range(2))
    masks = rng.integers(0, 3, (3, SIDE, SIDE)).astype(np.uint8)
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    config = ViewsConfig(**TINY, background=BackgroundViews(swap=0.5, alone=0.3, teacher="alone", cell_share=0.3))
    run = jax.jit(make_views(config, CHANNELS))
    whole = run(images, keys, donor=donors, mask=masks)
    order = np.array([2, 0, 1])
    turned = run(images[order], keys[order], donor=donors[order], mask=masks[order])
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(turned), strict=True):
        np.testing.assert_array_equal(a[order], b)


def test_teacher_student_sees_the_students_views(example):
    got = views(bare(swap=0.5, teacher="student"), example)
    assert got.teacher is None


def test_dilation_and_feather_are_drawn_for_each_view(example):
    image = example[0]
    donor = np.zeros_like(image)
    mask = np.zeros_like(example[2])
    mask[0, 5:7, 5:7] = 1
    got = views(bare(swap=1.0, reach=2, feather=0, match="none"), (np.full_like(image, 255), donor, mask))
    sizes = sorted({int(view[..., 0].sum()) for view in got.local})
    assert sizes == [4, 12, 24]  # 2 x 2 pixels, and the discs of one and of two pixels around them
    soft = views(bare(swap=1.0, reach=0, feather=3, match="none"), (np.full_like(image, 255), donor, mask))
    edges = {round(float(view[4, 5, 0]), 4) for view in soft.local}
    assert len(edges) > 10 and min(edges) >= 0 and 0.5 < max(edges) < 1


def boxes(mask, least, count=40):
    draws = draw(jax.random.key(3), FIRST_LOCAL + jnp.arange(count))

    def one(table, pixels):
        row = Draws(table, pixels)
        own = jnp.floor(row.uniform(Purpose.BOX, 2) * (mask.shape[0] - 4 + 1)).astype(jnp.int32)
        return Box(own[0], own[1], 4, 4), moved(Box(own[0], own[1], 4, 4), mask, row, least)

    return jax.jit(jax.vmap(one))(draws.table, draws.pixels)


def test_local_crops_move_until_they_show_the_cell_and_only_then():
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[2:9, 3:9] = 1
    before, after = boxes(jnp.asarray(mask), 0.5)

    def shown(box, i):
        return (mask[box.top[i] : box.top[i] + 4, box.left[i] : box.left[i] + 4] == 1).mean()

    kept = 0
    for i in range(40):
        assert shown(after, i) >= 0.5
        if shown(before, i) >= 0.5:
            kept += 1
            assert (after.top[i], after.left[i]) == (before.top[i], before.left[i])
    assert 5 < kept < 40


def test_a_share_out_of_reach_takes_the_place_that_shows_most():
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[11, 11] = 1
    before, after = boxes(jnp.asarray(mask), 0.9)
    inside = (np.asarray(after.top) == 8) & (np.asarray(after.left) == 8)
    outside = (np.asarray(before.top) == 8) & (np.asarray(before.left) == 8)
    assert inside.sum() > outside.sum()


def test_views_need_masks_and_donors(example):
    image, _, mask = example
    run = make_views(bare(swap=0.5), CHANNELS)
    keys = jax.vmap(jax.random.key)(jnp.arange(1))
    with pytest.raises(ValueError, match=r"needs masks \(1, 12, 12\), got none \(data\.mask=true\)"):
        run(image, keys)
    with pytest.raises(ValueError, match=r"swap=0\.5 needs donors .*, got none \(data\.donor\)"):
        run(image, keys, mask=mask)


def test_settings_that_cannot_be():
    with pytest.raises(ConfigError, match=r"swap=0\.7 \+ turned=0\.2 \+ masked=0\.2 \+ alone=0: .* together at most 1"):
        BackgroundViews(swap=0.7, turned=0.2, masked=0.2)
    with pytest.raises(ConfigError, match=r"swap=1\.5: a probability.*reach=-1: 0 or more"):
        BackgroundViews(swap=1.5, reach=-1)
    with pytest.raises(ConfigError, match="local_from=both: a partner has no mask"):
        ViewsConfig(local_from="both", background=BackgroundViews(masked=0.5))
    with pytest.raises(ConfigError, match=r"resize=224: background\.\* works on crops at their own size"):
        ViewsConfig("dino4cells_cell_painting", background=BackgroundViews(masked=0.5))
