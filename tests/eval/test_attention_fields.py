"""Attention over whole images: cut, passes, batches, the file, and enlarging."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from protloc_jax import channels as ch
from protloc_jax.eval.attention_fields import field_attention, read
from protloc_jax.eval.attention_maps import enlarged, levels, overlay
from protloc_jax.model.config import VitConfig
from protloc_jax.model.encoder import Encoder
from protloc_jax.model.flops import parameter_shapes
from protloc_jax.views.normalisation import Normalisation
from protloc_jax.views.prepare import PrepareConfig

CHANNELS = ch.parse("dna,gfp:protein")
SMALL = {"size": "custom", "dim": 8, "depth": 2, "heads": 2, "patch": 4, "image_size": 8, "channels": 2}
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 14, 23, 2), np.uint8)
IDS = ["a", "b", "c"]


def encoder(prepare=PrepareConfig(Normalisation("self")), **more):  # noqa: B008
    config = VitConfig(**{**SMALL, **more})
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: 0.5 * rng.normal(size=a.shape).astype(np.float32), parameter_shapes(config))
    return Encoder(config, CHANNELS, params, prepare, provenance={"weights": "here"})


@pytest.fixture(scope="module")
def one():
    return encoder()


@pytest.fixture(scope="module")
def found(one):
    return field_attention(one, IMAGES, IDS, rollout=True, batch=2)


def test_whole_images_are_cut_at_bottom_and_right_before_anything_else(one, found):
    assert found.maps.shape == (3, 1, 2, 3, 5) and found.rollout.shape == (3, 1, 3, 5)
    assert found.box == (0, 12, 0, 20) and found.patch == 4 and found.passes == ("dna+gfp",)
    cut = IMAGES[:, :12, :20]
    np.testing.assert_allclose(found.maps, one.attention(cut), atol=1e-6)
    np.testing.assert_allclose(found.rollout, one.rollout(cut), atol=1e-6)
    # Per-image normalisation over the pixels that are cut off would be another map.
    assert np.abs(found.maps - one.attention(IMAGES)).max() > 1e-4


def test_every_pass_of_a_plan_is_named_by_what_it_reads(one):
    planned = one.with_plan(ch.replicate(2, CHANNELS), CHANNELS)
    told = []
    found = field_attention(planned, IMAGES, IDS, batch=2, progress=lambda *now: told.append(now))
    assert found.passes == ("dna", "gfp") and found.maps.shape == (3, 2, 2, 3, 5) and found.rollout is None
    assert told == [(2, 3), (3, 3)]
    grey = np.repeat(IMAGES[:, :12, :20, 1:], 2, axis=3)
    np.testing.assert_allclose(found.maps[:, 1], one.attention(grey)[:, 0], atol=1e-6)
    twice = one.with_plan(ch.ChannelPlan((("dna", "gfp"), ("dna", "gfp"), ("gfp", "gfp")), "twice"), CHANNELS)
    assert field_attention(twice, IMAGES[:1], ["a"]).passes == ("dna+gfp (pass 1)", "dna+gfp (pass 2)", "gfp")


def test_tokens_of_every_channel_give_a_map_each():
    tokens = encoder(stem="channels", channel_names=("dna", "gfp"), registers=1)
    found = field_attention(tokens, IMAGES, IDS, rollout=True)
    assert found.passes == ("dna", "gfp") and found.maps.shape == (3, 2, 2, 3, 5)
    apart = tokens.attention(IMAGES[:, :12, :20], by_channel=True)
    for number in (0, 1):
        np.testing.assert_allclose(found.maps[:, number], apart[:, 0, :, number], atol=1e-6)
    assert found.rollout.shape == (3, 2, 3, 5)


def test_a_centre_crop_is_where_the_maps_say(one):
    cropped = dataclasses.replace(one, prepare=PrepareConfig(Normalisation("none"), crop=8))
    found = field_attention(cropped, IMAGES, IDS)
    assert found.box == (3, 11, 8, 16) and found.maps.shape[-2:] == (2, 2)


def test_the_file_gives_back_what_was_written(found, tmp_path):
    path = found.save(tmp_path / "attention.npz")
    back = read(path)
    np.testing.assert_array_equal(back.maps, found.maps)
    np.testing.assert_array_equal(back.rollout, found.rollout)
    assert dataclasses.replace(back, maps=found.maps, rollout=found.rollout) == dataclasses.replace(found)
    with np.load(path, allow_pickle=False) as file:
        assert file["maps"].dtype == np.float32 and list(file["cut"]) == [0, 12, 0, 20]
    np.savez(tmp_path / "other.npz", maps=np.zeros(3))
    with pytest.raises(ValueError, match=r"no attention maps of this project; ids, passes, patch"):
        read(tmp_path / "other.npz")


def test_what_cannot_be_looked_at_is_refused(one):
    with pytest.raises(ValueError, match="3 images and 2 ids"):
        field_attention(one, IMAGES, ["a", "b"])
    with pytest.raises(ValueError, match="smaller than one patch of 4"):
        field_attention(one, IMAGES[:, :3], IDS)
    with pytest.raises(ValueError, match="no class token"):
        field_attention(encoder(class_token=False, position_prefix="none"), IMAGES, IDS)


def test_enlarging_repeats_patches_or_smooths_between_them():
    small = np.array([[0.0, 1.0, 4.0], [2.0, 3.0, 8.0]])
    np.testing.assert_array_equal(enlarged(small, (8, 12)), np.kron(small, np.ones((4, 4))))
    np.testing.assert_array_equal(enlarged(small, (2, 7)), small[:, [0, 0, 0, 1, 1, 2, 2]])
    smooth = enlarged(small, (4, 6), "bilinear")
    # Halfway between patch centres 0 and 1 a quarter or three quarters of the way, in each direction.
    assert smooth[0, 0] == 0 and smooth[0, 1] == pytest.approx(0.25) and smooth[1, 0] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="Did you mean 'nearest'"):
        enlarged(small, (8, 12), "neares")
    with pytest.raises(ValueError, match="cannot be enlarged"):
        enlarged(small, (1, 12))
    assert levels(small).max() == 1 and (levels(np.ones((2, 2))) == 0).all()
    assert overlay(np.zeros((8, 12)), small, enlarge="nearest").shape == (8, 12, 3)
