"""Whole views: every recipe against a NumPy pipeline, and what an example's views may and may not depend on."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import views_pipeline_oracle as pipeline

from protloc_jax.channels import ChannelSet, parse
from protloc_jax.config import ConfigError
from protloc_jax.views import RECIPES, ViewsConfig, make_views
from protloc_jax.views.config import resolve
from protloc_jax.views.draws import FIRST_LOCAL, draw

HPA = parse("microtubules,protein,nucleus,er")
RGB = parse("red:other,green:other,blue:other")
# compiles twice as fast; the programs as trained with are compiled in the tests of batches
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
TINY = {"global_size": 12, "local_size": 8, "n_local": 3}


def pixels(batch: int = 2, height: int = 40, width: int = 40, channels: int = 4, seed: int = 0) -> np.ndarray:
    smooth = np.random.default_rng(seed).random((batch, height // 4 + 1, width // 4 + 1, channels))
    fine = smooth.repeat(4, axis=1).repeat(4, axis=2)[:, :height, :width]
    return (fine * 255).astype(np.uint8)


def keys_of(batch: int, seed: int = 0) -> jax.Array:
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(batch))


CASES = {
    "dino, colour": (ViewsConfig("dino", **TINY), RGB),
    "dino, other channels": (ViewsConfig("dino", mean=(0.4,) * 4, std=(0.2,) * 4, **TINY), HPA),
    "dino4cells": (ViewsConfig("dino4cells", **TINY), HPA),
    "dino4cells_fov": (ViewsConfig("dino4cells_fov", **TINY), HPA),
    "ours": (ViewsConfig("ours", **TINY), HPA),
    "ours, much more often": (
        ViewsConfig(
            "ours", drop_channel=0.9, rescale_protein=0.9, warp=0.7, brightness=0.3, contrast=0.4, blur=0.6, **TINY
        ),
        HPA,
    ),
    # Without the last normalisation, which undoes most of it.
    "rxrx, unnormalised": (ViewsConfig("rxrx", normalise="none", offset_level=(0.01, 0.1), **TINY), HPA),
    "resized first": (ViewsConfig("dino4cells", resize=24, warp=0.0, **TINY), HPA),
}


@pytest.mark.parametrize("case", CASES)
def test_views_equal_the_numpy_pipeline(case):
    config, channels = CASES[case]
    images, keys = pixels(batch=3, channels=len(channels)), keys_of(3)
    with jax.enable_x64(True):
        got = quick(make_views(config, channels, dtype=jnp.float64))(images, keys)
    assert got.global_.dtype == got.local.dtype == jnp.float64
    if case == "dino4cells":  # float64 is not float32 in disguise
        assert np.abs(np.asarray(got.global_).mean(axis=(2, 3))).max() < 1e-13
    recipe = resolve(config)
    constants = {"dino, colour": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}.get(case, pipeline.DINO4CELLS_HPA)
    constants = (config.mean, config.std) if config.mean else constants
    numbers = [0, 1, *(FIRST_LOCAL + i for i in range(3))]
    for example in range(3):
        table = np.asarray(draw(keys[example], jnp.asarray(numbers)).table)
        for i, number in enumerate(numbers):
            is_local = number >= FIRST_LOCAL
            want = pipeline.view(
                images[example] / 255,
                table[i],
                size=8 if is_local else 12,
                scale=(0.05, 0.4) if is_local else (0.4, 1.0),
                how=recipe.local if is_local else recipe.other if number else recipe.first,
                recipe=recipe,
                rgb=channels is RGB,
                constants=constants,
                normalised=config.normalise,
            )
            view = got.local[example, i - 2] if is_local else got.global_[example, i]
            np.testing.assert_allclose(view, want, atol=2e-5, err_msg=f"{case}: example {example}, view {number}")


@pytest.fixture(scope="module")
def views():
    return jax.jit(make_views(ViewsConfig("ours", noise=0.05, blur=0.5, **TINY), HPA))


def test_an_example_does_not_depend_on_its_batch(views):
    images, keys = pixels(batch=6), keys_of(6)
    whole = views(images, keys)
    order = np.array([3, 0, 5, 1, 4, 2])
    shuffled = views(images[order], keys[order])
    alone = [views(images[i : i + 1], keys[i : i + 1]) for i in range(6)]
    for name in ("global_", "local"):
        want = np.asarray(getattr(whole, name))
        np.testing.assert_array_equal(getattr(shuffled, name), want[order])
        single = np.concatenate([getattr(v, name) for v in alone])
        np.testing.assert_allclose(single, want, atol=5e-5)


def test_views_of_an_image_all_differ_and_follow_the_key(views):
    images = pixels(batch=1)
    first, again, other = (views(images, keys_of(1, seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.global_, again.global_)
    assert np.abs(first.global_ - other.global_).max() > 0.1
    for stack in (first.global_[0], first.local[0]):
        for i in range(len(stack)):
            for j in range(i):
                assert np.abs(stack[i] - stack[j]).max() > 0.1


def test_compiles_once(views):
    for seed in range(3):
        views(pixels(batch=6, seed=seed), keys_of(6, seed))
    before = views._cache_size()
    views(pixels(batch=6, seed=9), keys_of(6, 9))
    assert views._cache_size() == before


def test_more_global_views_leave_the_local_ones_alone():
    images, keys = pixels(batch=1), keys_of(1)
    two = quick(make_views(ViewsConfig(**TINY), HPA))(images, keys)
    three = quick(make_views(ViewsConfig(n_global=3, **TINY), HPA))(images, keys)
    np.testing.assert_allclose(three.local, two.local, atol=1e-6)
    np.testing.assert_allclose(three.global_[:, :2], two.global_, atol=1e-6)
    assert three.global_.shape == (1, 3, 12, 12, 4)


def test_boxes_are_the_drawn_ones_whatever_the_batch():
    ramp = np.stack(np.mgrid[:300, :200], axis=-1).astype(np.float32) / 1000
    bare = ViewsConfig("dino", flip_horizontal=0, jitter=0, blur=0, solarise=0, normalise="none", **TINY)
    config = dataclasses.replace(bare, interpolation="bilinear")
    run = jax.jit(make_views(config, parse("er,protein")))
    keys = keys_of(8)
    whole = _boxes(run(np.stack([ramp] * 8), keys))
    alone = np.concatenate([_boxes(run(ramp[None], keys[i : i + 1])) for i in range(8)])
    np.testing.assert_array_equal(whole, alone)
    assert len(np.unique(whole[..., 0])) > 10


def _boxes(views) -> np.ndarray:
    """Boxes (top, left, height, width) of views of a ramp, read off the interior of each view; [B, V, 4]."""
    found = []
    for stack in (np.asarray(views.global_, np.float64), np.asarray(views.local, np.float64)):
        size = stack.shape[2]
        down, across = 1000 * stack[:, :, :, 4, 0], 1000 * stack[:, :, 4, :, 1]
        both = []
        for line in (down, across):
            step = (line[..., -3] - line[..., 2]) / (size - 5)
            both.append((line[..., 2] + 0.5 - 2.5 * step, step * size))
        (top, height), (left, width) = both
        exact = np.stack([top, left, height, width], axis=-1)
        assert np.abs(exact - exact.round()).max() < 0.05
        found.append(exact.round().astype(int))
    return np.concatenate(found, axis=1)


def test_partner_feeds_the_local_views_only():
    config = ViewsConfig("dino4cells_fov", local_from="partner", **TINY)
    run, keys = quick(make_views(config, HPA)), keys_of(2)
    images, partner = pixels(seed=1), pixels(seed=2, height=24, width=32)
    got = run(images, keys, partner)
    plain = quick(make_views(dataclasses.replace(config, local_from="image"), HPA))
    np.testing.assert_allclose(got.global_, plain(images, keys).global_, atol=1e-5)
    np.testing.assert_allclose(got.local, plain(partner, keys).local, atol=1e-5)
    with pytest.raises(ValueError, match="needs partner images"):
        run(images, keys)
    with pytest.raises(ValueError, match="needs partner images"):
        run(images, keys, partner[:1])


# Few operations, so that it compiles quickly and is the same to the bit; the first global view is a program of its own.
BARE = ViewsConfig(
    "dino4cells_fov", warp=0.0, rescale_protein=0.0, brightness=0.0, contrast=0.0, normalise="none", **TINY
)


@pytest.mark.parametrize(("n_global", "n_local"), [(2, 4), (4, 0)])
def test_image_and_partner_give_half_of_the_views_each(n_global, n_local):
    config = dataclasses.replace(BARE, local_from="both", n_global=n_global, n_local=n_local)
    keys, images, partner = keys_of(2), pixels(seed=1), pixels(seed=2)
    got = quick(make_views(config, HPA))(images, keys, partner)
    plain = quick(make_views(dataclasses.replace(config, local_from="image"), HPA))
    own, other = plain(images, keys), plain(partner, keys)
    assert got.global_.shape == own.global_.shape and got.local.shape == own.local.shape
    for both, first, second in zip(got[:2], own[:2], other[:2], strict=True):
        half = both.shape[1] // 2
        np.testing.assert_array_equal(both[:, :half], first[:, :half])
        np.testing.assert_array_equal(both[:, half:], second[:, half:])
        assert not half or np.abs(first[:, half:] - second[:, half:]).max() > 0.05


def test_auto_takes_the_partner_where_there_is_one():
    keys, images, partner = keys_of(2), pixels(seed=1), pixels(seed=2)
    for source, given in (("partner", partner), ("image", None)):
        got, want = (
            quick(make_views(dataclasses.replace(BARE, local_from=name), HPA))(images, keys, given)
            for name in ("auto", source)
        )
        jax.tree.map(np.testing.assert_array_equal, got, want)


def test_both_needs_even_numbers_of_crops():
    with pytest.raises(ConfigError, match=r"local_from=both: .* n_global=1, n_local=3"):
        ViewsConfig(local_from="both", n_global=1, n_local=3)


@pytest.mark.parametrize("channels", [1, 2, 5, 6])
def test_any_number_of_channels(channels):
    names = ["protein", "nucleus", "er", "membrane", "actin", "golgi"][:channels]
    got = quick(make_views(ViewsConfig(**TINY), parse(names)))(pixels(1, channels=channels), keys_of(1))
    assert got.global_.shape == (1, 2, 12, 12, channels)
    assert got.local.shape == (1, 3, 8, 8, channels)
    assert np.isfinite(got.global_).all()
    assert np.isfinite(got.local).all()
    assert np.abs(got.global_[..., 0]).max() > 0


@pytest.mark.parametrize("recipe", RECIPES)
def test_constant_images_stay_finite_and_depths_agree(recipe):
    run = quick(make_views(ViewsConfig(recipe, **{**TINY, "n_local": 1}), HPA))
    for value in (0, 77, 255):
        got = run(np.full((1, 40, 40, 4), value, np.uint8), keys_of(1))
        assert np.isfinite(got.global_).all()
        assert np.isfinite(got.local).all()
    images = pixels(1)
    eight, sixteen = run(images, keys_of(1)), run(images.astype(np.uint16) * 257, keys_of(1))
    np.testing.assert_allclose(sixteen.global_, eight.global_, atol=2e-5)


def test_no_local_views_and_one_global():
    config = ViewsConfig(global_size=12, local_size=8, n_local=0, n_global=1)
    got = quick(make_views(config, HPA))(pixels(), keys_of(2))
    assert got.global_.shape == (2, 1, 12, 12, 4)
    assert got.local.shape == (2, 0, 8, 8, 4)


def test_rows_by_matrix_give_the_same_views():
    images, keys = pixels(), keys_of(2)
    for recipe in ("dino", "ours"):
        gather, matrix = (
            quick(make_views(ViewsConfig(recipe, rows=rows, **TINY), HPA))(images, keys)
            for rows in ("gather", "matrix")
        )
        np.testing.assert_allclose(gather.global_, matrix.global_, atol=5e-5)
        np.testing.assert_allclose(gather.local, matrix.local, atol=5e-5)


def test_refusals_name_what_is_wrong():
    run = make_views(ViewsConfig(**TINY), HPA)
    with pytest.raises(ValueError, match=r"\[B, H, W, 4\] \(microtubules, protein, nucleus, er\)"):
        run(pixels(channels=3), keys_of(2))
    with pytest.raises(ValueError, match="expected typed keys of shape"):
        run(pixels(), jnp.zeros((2, 2), jnp.uint32))
    with pytest.raises(ConfigError, match="needs mean and std, 4 numbers each"):
        make_views(ViewsConfig(normalise="dataset"), HPA)
    with pytest.raises(ConfigError, match="enough for 32 channels, not 70"):
        make_views(ViewsConfig(**TINY), ChannelSet([(f"c{i}", "other") for i in range(70)]))
    with pytest.raises(ConfigError) as error:
        make_views(ViewsConfig(colour="rgb", rescale_protein=0.1, drop_channel=0.1), parse("nucleus,er"))
    for part in ("nucleus:nucleus,er:er", "'rgb' needs 3", "0 channels are protein", "a channel whose role is protein"):
        assert part in str(error.value)
    with pytest.raises(ConfigError, match=r"grey=0\.2: only for red-green-blue"):
        make_views(ViewsConfig(grey=0.2), HPA)
