"""The encoder with tokens of every channel: what it reads of images of other channels, and how it says so."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from channel_model import CONFIG, weights

from protloc_jax.channel_plans import plan_of
from protloc_jax.channels import ChannelPlan, parse
from protloc_jax.model.encoder import Encoder
from protloc_jax.model.vit import Vit
from protloc_jax.views.normalisation import Normalisation
from protloc_jax.views.prepare import PrepareConfig

# The vocabulary is nucleus, gfp, er, actin, other; no image of this run showed actin or anything else.
TRAINED = parse("gfp,dapi,er")
MEAN, STD = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 6), np.uint8)
CONSTANTS = PrepareConfig(Normalisation("dataset", MEAN, STD))
ENCODER = Encoder(CONFIG, TRAINED, weights(), PrepareConfig(Normalisation("none")), provenance={"weights": "here"})


@jax.jit
def by_hand(x, rows):
    return Vit(CONFIG).apply({"params": weights()}, x, channel_ids=rows, attention=True)


def read(images, rows, mean=0.0, std=1.0):
    return by_hand((images.astype(np.float32) / 255 - np.float32(mean)) / np.float32(std), jnp.asarray(rows))


def agree(got, want):
    np.testing.assert_allclose(got.cls, want.cls, atol=1e-5)
    np.testing.assert_allclose(got.patches, want.patches, atol=1e-5)


def test_images_of_two_and_six_channels_are_read_by_their_rows():
    two = ENCODER.for_channels(parse("nucleus,protein"))
    agree(two.encode(IMAGES[..., :2]), read(IMAGES[..., :2], (0, 1)))
    assert two.dim == CONFIG.shape.dim
    assert two.provenance["channel_plan"] == "natural, tokens of every channel: nucleus=nucleus, gfp=protein"
    six = two.for_channels(parse("nucleus,er,phalloidin,rna,mitochondria,golgi"))
    agree(six.encode(IMAGES), read(IMAGES, (0, 2, 3, 4, 4, 4)))
    assert six.provenance == {
        "weights": "here",
        "channel_plan": "natural, tokens of every channel: nucleus=nucleus, er=er, actin=phalloidin, other=rna, "
        "other=mitochondria, other=golgi; rows that this run did not train: actin, other",
        "channel_tokens": "nucleus,er,phalloidin,rna,mitochondria,golgi",
    }


def test_without_a_word_for_others_such_channels_are_left_out_and_told():
    strict = dataclasses.replace(CONFIG, channel_names=("nucleus", "gfp", "er"))
    params = {**weights(), "channels": weights()["channels"][:3]}
    encoder = Encoder(strict, TRAINED, params).for_channels(parse("brightfield,dapi"))
    assert encoder.channels.names == ("dapi",)
    assert encoder.provenance["channel_plan"].endswith("nucleus=dapi; not used: brightfield")
    with pytest.raises(ValueError, match=r"no channel of the images \(actin:actin\) is in the model's vocabulary"):
        encoder.for_channels(parse("actin"))
    with pytest.raises(ValueError, match="has no row for 'actin'"):
        Encoder(strict, parse("actin"), params)


def test_empty_slots_of_a_plan_give_no_tokens():
    source = parse("nucleus,protein,actin")
    images = IMAGES[..., :3]
    natural = ENCODER.with_plan(plan_of("natural", ENCODER.slots, source), source)
    agree(natural.encode(images), read(images, (0, 1, 3)))
    assert natural.provenance["channel_plan"].endswith(
        "empty slots without tokens; rows that this run did not train: actin"
    )
    each = ENCODER.with_plan(plan_of("per-channel", ENCODER.slots, source), source)
    out = each.encode(images)
    assert each.dim == out.cls.shape[-1] == 3 * CONFIG.shape.dim
    for got, channel, row in zip(np.split(np.asarray(out.cls), 3, -1), range(3), (0, 1, 3), strict=True):
        np.testing.assert_allclose(got, read(images[..., [channel]], (row,)).cls, atol=1e-5)
    # One and the same channel as two things at once is unusual, and what was asked for.
    twice = ENCODER.with_plan(plan_of("slots:gfp=protein,er=protein", ENCODER.slots, source), source)
    agree(twice.encode(images), read(images[..., [1, 1]], (1, 2)))
    with pytest.raises(ValueError, match=r"vocabulary of 5 channels .* the plan fills 3 slots"):
        ENCODER.with_plan(ChannelPlan((("nucleus", "protein", None),), "three slots"), source)


def test_constants_of_a_data_set_go_with_the_rows_they_were_made_for():
    encoder = dataclasses.replace(ENCODER, prepare=CONSTANTS)
    turned = encoder.for_channels(parse("er,nucleus"))
    agree(turned.encode(IMAGES[..., :2]), read(IMAGES[..., :2], (2, 0), (0.3, 0.2), (2.0, 1.0)))
    with pytest.raises(ValueError, match=r"no normalisation constants for actin, rna: .*views\.normalise=self"):
        encoder.for_channels(parse("er,actin,rna"))


def test_attention_is_summed_over_the_channels_of_a_place():
    images = IMAGES[..., :3]
    want = np.asarray(read(images, (1, 0, 2)).attention)[:, :, 0, 2:].reshape(2, 2, 3, 3, 3)
    np.testing.assert_allclose(ENCODER.attention(images, by_channel=True)[:, 0], want, atol=1e-5)
    np.testing.assert_allclose(ENCODER.attention(images)[:, 0], want.sum(2), atol=1e-5)
    uneven = ChannelPlan(((None, "gfp", None, None, None), ("dapi", "gfp", None, None, None)), "uneven")
    planned = ENCODER.with_plan(uneven, TRAINED)
    with pytest.raises(ValueError, match="different numbers of channels"):
        planned.attention(images, by_channel=True)
