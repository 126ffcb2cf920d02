"""Recipes as published, overrides by field, and the draws behind channel dropping, rescaling and flips."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protloc_jax.channels import parse
from protloc_jax.config import ConfigError, from_json, to_json, with_overrides
from protloc_jax.views import RECIPES, Normalisation, Strengths, ViewsConfig, published
from protloc_jax.views.channel_jitter import rotate
from protloc_jax.views.config import normalisation_of, resolve
from protloc_jax.views.draws import NUMBERS, Draws, Purpose, draw
from protloc_jax.views.multicrop import channel_gains, droppable_channels, flips

HPA = parse("microtubules,protein,nucleus,er")
PAINTING = parse("dna,rna,er,agp,mito")
EVERYONE = ("first", "other", "local")


def strengths(recipe: str, name: str) -> list[float]:
    return [getattr(getattr(RECIPES[recipe], kind), name) for kind in EVERYONE]


def test_dino_as_published():
    recipe = RECIPES["dino"]
    assert strengths("dino", "blur") == [1.0, 0.1, 0.5]
    assert strengths("dino", "solarise") == [0.0, 0.2, 0.0]
    for name, value in {
        "flip_horizontal": 0.5,
        "flip_vertical": 0.0,
        "jitter": 0.8,
        "jitter_brightness": 0.4,
        "jitter_contrast": 0.4,
        "jitter_saturation": 0.2,
        "jitter_hue": 0.1,
        "grey": 0.2,
        "blur_sigma": (0.1, 2.0),
    }.items():
        assert strengths("dino", name) == [value] * 3, name
    assert (recipe.interpolation, recipe.antialias, recipe.normalise) == ("bicubic", True, "dataset")
    config = ViewsConfig("dino")
    assert (config.n_global, config.global_size, config.global_scale) == (2, 224, (0.4, 1.0))
    assert (config.n_local, config.local_size, config.local_scale) == (8, 96, (0.05, 0.4))


def test_dino4cells_as_run():
    for recipe, rescale in (("dino4cells", 0.0), ("dino4cells_fov", 0.2)):
        assert strengths(recipe, "warp") == [1.0, 0.0, 0.0]
        assert strengths(recipe, "drop_channel") == [0.0, 0.2, 0.2]
        assert strengths(recipe, "rescale_protein") == [rescale] * 3
        for name in ("flip_horizontal", "flip_vertical", "brightness", "contrast"):
            assert strengths(recipe, name) == [0.5] * 3, name
        for name in ("jitter", "grey", "blur", "solarise", "turn"):
            assert strengths(recipe, name) == [0.0] * 3, name
        assert (RECIPES[recipe].interpolation, RECIPES[recipe].antialias) == ("bilinear", False)
    assert RECIPES["dino4cells"].normalise == "self"
    assert RECIPES["dino4cells_fov"].normalise == "dataset"
    painting = RECIPES["dino4cells_cell_painting"]
    assert painting.first == painting.other == painting.local
    assert painting.first == Strengths(drop_channel=0.2, rescale_protein=0.2, brightness=0.8, contrast=0.8)
    assert painting.resize == 224
    config = published("dino4cells_cell_painting")
    assert (config.global_size, config.local_size) == (128, 64)


def test_rxrx_as_released():
    """Blur of the two views: both 0.5 for SimCLR and MoCo v3, 1 and 0.1 for BYOL; nothing else differs."""
    assert strengths("rxrx", "blur")[:2] == [0.5, 0.5]
    assert strengths("rxrx_byol", "blur")[:2] == [1.0, 0.1]
    for recipe in ("rxrx", "rxrx_byol"):
        for name, value in {
            "flip_horizontal": 0.5,
            "flip_vertical": 0.0,
            "turn": 0.0,
            "rotate": 90.0,
            "channel_gain": 0.5,
            "channel_offset": 0.3,
            "channel_contrast": 0.5,
            "blur_sigma": (0.1, 2.0),
            "offset_level": (0.01 / 255, 0.1 / 255),
            "drop_channel": 0.0,
            "jitter": 0.0,
        }.items():
            assert strengths(recipe, name) == [value] * 3, name
        assert (RECIPES[recipe].antialias, RECIPES[recipe].normalise) == (True, "self")


def test_a_quarter_turn_by_angle_is_numpys():
    x = np.random.default_rng(0).random((5, 2, 5)).astype(np.float32)
    for quarters in (-1, 0, 1, 2):
        got = rotate(jnp.asarray(x), jnp.asarray(90.0 * quarters))
        np.testing.assert_array_equal(got, np.swapaxes(np.rot90(np.swapaxes(x, 1, 2), quarters), 1, 2))
    half = rotate(jnp.ones((5, 1, 5)), jnp.asarray(45.0))
    assert half[2, 0, 2] == 1 and half[0, 0, 0] == half[4, 0, 4] == 0


def test_bad_turns_and_offsets_are_refused():
    with pytest.raises(ConfigError) as caught:
        ViewsConfig(rotate=181.0, channel_gain=1.5, offset_level=(0.3, 0.1))
    for word in ("rotate=181.0: must lie in [0, 180.0]", "channel_gain=1.5", "offset_level=(0.3, 0.1)"):
        assert word in str(caught.value)


def test_what_each_recipe_may_drop():
    assert droppable_channels(RECIPES["dino4cells"], HPA) == (0, 2, 3)
    assert droppable_channels(RECIPES["dino4cells_cell_painting"], PAINTING) == (0, 2, 3)
    assert droppable_channels(RECIPES["dino4cells"], parse("nucleus,er,protein")) == ()  # fewer than four channels
    assert droppable_channels(RECIPES["ours"], parse("protein,nucleus")) == (1,)
    assert droppable_channels(RECIPES["ours"], parse("protein")) == ()
    assert droppable_channels(RECIPES["ours"], parse("nucleus,er")) == ()  # which one is the protein is not known


def test_overrides_replace_a_strength_in_every_kind_of_view():
    config = with_overrides(
        ViewsConfig("dino4cells"),
        ["blur=0.25", "blur_sigma=0.1,1.0", "warp=0", "antialias=on", "interpolation=bicubic", "recipe=dino"],
    )
    recipe = resolve(config)
    assert [getattr(recipe, kind).blur for kind in EVERYONE] == [0.25] * 3
    assert recipe.local.blur_sigma == (0.1, 1.0)
    assert recipe.first.warp == 0
    assert recipe.local.jitter == 0.8
    assert (recipe.interpolation, recipe.antialias) == ("bicubic", True)
    assert resolve(with_overrides(config, ["antialias=off"])).antialias is False
    assert resolve(with_overrides(config, ["blur=none"])).first.blur == 1.0
    assert from_json(ViewsConfig, to_json(config)) == config


def test_every_strength_is_a_config_field_and_nothing_is_set_behind_the_recipe():
    assert {f.name for f in dataclasses.fields(Strengths)} <= {f.name for f in dataclasses.fields(ViewsConfig)}
    for name in RECIPES:
        assert resolve(ViewsConfig(name)) == RECIPES[name]


def test_bad_configs_are_refused_with_every_fault():
    with pytest.raises(ConfigError) as error:
        ViewsConfig(global_size=0, local_scale=(0.4, 0.05), blur=1.5, jitter_hue=0.7, noise=-1.0, mean=(0.1,))
    for part in ("global_size=0", "local_scale=(0.4, 0.05)", "blur=1.5", "jitter_hue=0.7", "noise=-1.0", "mean has 1"):
        assert part in str(error.value)
    with pytest.raises(ConfigError, match="Did you mean 'dino4cells'"):
        ViewsConfig("dino4cell")  # type: ignore[arg-type]


def test_normalisation_of_a_recipe():
    rgb = normalisation_of(ViewsConfig("dino"), parse("a,b,c"))
    assert rgb == Normalisation("dataset", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert normalisation_of(ViewsConfig("dino"), HPA).kind == "self"
    assert normalisation_of(ViewsConfig("dino"), parse("nucleus,er,protein")).kind == "self"
    assert normalisation_of(ViewsConfig("dino", colour="rgb"), parse("nucleus,er,protein")) == rgb
    turned = normalisation_of(ViewsConfig("dino4cells_fov"), parse("nucleus,protein,er,microtubules"))
    assert turned.mean == (0.1231717, 0.11360057, 0.14919987, 0.1450534)
    assert turned.std == (0.18840286, 0.14004277, 0.17790672, 0.18122554)
    assert normalisation_of(ViewsConfig("dino4cells_fov"), parse("nucleus,actin")).kind == "self"
    own = ViewsConfig("dino", mean=(0.1, 0.2), std=(0.3, 0.4))
    assert normalisation_of(own, parse("nucleus,protein")).mean == (0.1, 0.2)
    with pytest.raises(ConfigError, match="2 means and the images 4 channels"):
        normalisation_of(own, HPA)


@pytest.fixture(scope="module")
def many() -> Draws:
    keys = jax.random.split(jax.random.key(3), 3000)
    return jax.vmap(lambda key: draw(key, jnp.arange(2)))(keys)


def test_draws_are_uniform_and_unrelated(many):
    table = np.asarray(many.table, np.float64)
    assert table.shape == (3000, 2, len(Purpose), NUMBERS)
    assert table.min() >= 0
    assert table.max() < 1
    np.testing.assert_allclose(table.mean(axis=0), 0.5, atol=0.03)
    columns = table[..., :3].reshape(3000, -1)
    related = np.corrcoef(columns, rowvar=False) - np.eye(columns.shape[1])
    assert np.abs(related).max() < 0.1
    shifted = draw(jax.random.key(3), jnp.asarray([1, 1000]))
    alone = draw(jax.random.key(3), jnp.asarray([1000]))
    np.testing.assert_array_equal(shifted.table[1], alone.table[0])


def test_normal_draws(many):
    normal = np.asarray(jax.vmap(lambda d: d.normal(Purpose.GAIN, 4))(jax.tree.map(lambda a: a[:, 0], many)))
    np.testing.assert_allclose(np.quantile(normal, [0.159, 0.5, 0.841]), [-1, 0, 1], atol=0.05)
    zero = Draws(jnp.zeros((len(Purpose), NUMBERS)), many.pixels[0, 0])
    assert np.isfinite(zero.normal(Purpose.GAIN, 2)).all()


def gains(draws: Draws, how: Strengths, channels, recipe="dino4cells", top=None) -> np.ndarray:
    top = jnp.ones(len(channels)) if top is None else top
    role = channels.with_role(RECIPES[recipe].rescaled)
    run = jax.vmap(
        lambda d: channel_gains(
            top, d, how, droppable=droppable_channels(RECIPES[recipe], channels), rescaled=role[0] if role else None
        )
    )
    return np.asarray(run(jax.tree.map(lambda a: a[:, 0], draws)))


def test_channels_are_dropped_one_at_a_time_and_never_the_protein(many):
    got = gains(many, Strengths(drop_channel=0.2), HPA)
    assert set(np.unique(got)) == {0.0, 1.0}
    assert (got[:, HPA.protein] == 1).all()
    dropped = (got == 0).sum(axis=1)
    assert dropped.max() == 1
    np.testing.assert_allclose(dropped.mean(), 0.2, atol=0.03)
    np.testing.assert_allclose((got == 0).mean(axis=0)[[0, 2, 3]], 0.2 / 3, atol=0.02)
    always = gains(many, Strengths(drop_channel=1.0), parse("protein,nucleus"), recipe="ours")
    assert (always == [1, 0]).all()


def test_protein_rescaling_is_relative_to_the_brightest_channel(many):
    top = jnp.asarray([0.8, 0.25, 0.1, 0.2])
    got = gains(many, Strengths(rescale_protein=0.3), HPA, top=top)
    assert (got[:, [0, 2, 3]] == 1).all()
    factor = got[:, 1]
    np.testing.assert_allclose((factor != 1).mean(), 0.3, atol=0.03)
    np.testing.assert_allclose(np.quantile(factor[factor != 1] * 0.8, [0, 0.5, 1]), [0, 1, 2], atol=0.1)
    # a dropped channel no longer counts as the brightest
    both = gains(many, Strengths(drop_channel=1.0, rescale_protein=1.0), HPA, top=top)
    u = np.asarray(many.table)[:, 0, Purpose.RESCALE, 1]
    highest = np.where(both[:, 0] == 0, 0.25, 0.8)
    np.testing.assert_allclose(both[:, 1], 2 * u / highest, rtol=1e-5)
    assert np.isfinite(gains(many, Strengths(rescale_protein=1.0), HPA, top=jnp.zeros(4))).all()
    assert channel_gains(top, many, Strengths(), droppable=(0,), rescaled=1) is None


def test_flips_and_turns_compose_as_numpy():
    x = np.arange(25).reshape(5, 5)
    how = Strengths(flip_horizontal=0.5, flip_vertical=0.5, turn=0.5)
    seen = set()
    for across, up, turned, quarter in itertools.product([0.1, 0.9], [0.1, 0.9], [0.1, 0.9], [0.1, 0.3, 0.6, 0.9]):
        want = x[:, ::-1] if across < 0.5 else x
        want = want[::-1] if up < 0.5 else want
        want = np.rot90(want, int(quarter * 4)) if turned < 0.5 else want
        rows, columns, transposed = (bool(v) for v in flips(jnp.asarray([across, up, turned, quarter]), how))
        got = x[::-1] if rows else x
        got = got[:, ::-1] if columns else got
        got = got.T if transposed else got
        np.testing.assert_array_equal(got, want)
        seen.add(got.tobytes())
    assert len(seen) == 8
